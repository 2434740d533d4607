"""The turns of ``selfee main``, token by token: a session that only counts, a sampler that says what it was told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from tests.tiny import make_tiny

from selfee.cli.main2023.console import Console
from selfee.cli.main2023.flags import FLAGS, plain_words
from selfee.cli.main2023.loop import Loop, Turns
from selfee.cli.main2023.prompts import INSTRUCTION, RESPONSE, Encoder, misfit, unescape
from selfee.cli.output import Screen
from selfee.errors import ContextOverflowError
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.open import open_checkpoint

EOS = 2


class Session:
    """Holds tokens and computes nothing."""

    def __init__(self, context_length: int) -> None:
        self.context_length = context_length
        self.held: list[int] = []

    @property
    def length(self) -> int:
        return len(self.held)

    def truncate(self, length: int) -> None:
        assert 0 <= length <= self.length
        del self.held[length:]

    def forward(self, tokens: Sequence[int], logits_for: Literal["last"] = "last") -> npt.NDArray[np.float32]:
        self.held += tokens
        assert self.length <= self.context_length
        return np.zeros((1, 1), np.float32)


class Sampler:
    """Says its tokens in turn, then the end; remembers what it was given to read."""

    def __init__(self, says: Sequence[int]) -> None:
        self.says = list(says)
        self.heard: list[int] = []

    def begin(self, tokens: Sequence[int]) -> None:
        self.heard = list(tokens)

    def read(self, tokens: Sequence[int]) -> None:
        self.heard += tokens

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        token = self.says.pop(0) if self.says else EOS
        self.heard.append(token)
        return token


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = make_tiny(tmp_path_factory.mktemp("tiny") / "tiny.bin", container="ggjt3")
    with open_checkpoint(path) as checkpoint:
        return load_tokenizer(checkpoint.vocab)


class Scene:
    """A loop with what went in and came out."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: str = "the sky",
        says: str | Sequence[int] = "",
        typed: str = "",
        context: int = 512,
        held: int = 0,
        color: bool = False,
        **turns: Any,
    ) -> None:
        self.tokenizer = tokenizer
        encoder = Encoder(tokenizer, turns.get("is_2023", False))
        self.prompt = encoder.prompt(prompt)
        self.session = Session(context)
        self.session.held = self.prompt[:held]
        self.sampler = Sampler(encoder.more(says) if isinstance(says, str) else says)
        self.out, self.err = io.StringIO(), io.StringIO()
        screens = [Screen(stream, False, color, 80) for stream in (self.out, self.err)]
        self.console = Console(io.StringIO(typed), *screens)
        self.saved: list[list[int]] = []
        self.loop = Loop(
            self.session,
            tokenizer,
            self.sampler,
            Turns(**turns),
            self.console,
            self.prompt,
            held=held,
            on_prompt_read=lambda tokens: self.saved.append(list(tokens)),
        )

    def run(self) -> str:
        self.loop.run()
        return self.out.getvalue()

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_bos=False, continues=True)


def test_the_text_goes_to_stdout_and_its_end_is_told_on_stderr(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, says=" is blue")
    assert scene.run() == "the sky is blue"
    assert scene.err.getvalue() == " [end of text]\n"
    assert scene.saved == [scene.prompt]
    assert scene.session.held == scene.prompt + scene.encode(" is blue")
    assert scene.sampler.heard == [*scene.session.held, EOS]


def test_in_2023_the_space_before_the_prompt_was_shown(tokenizer: Tokenizer) -> None:
    assert Scene(tokenizer, says=" is", is_2023=True).run() == " the sky is"


def test_so_many_tokens_and_no_more(tokenizer: Tokenizer) -> None:
    assert Scene(tokenizer, says=" is blue", n_predict=1).run() == "the sky is"
    assert Scene(tokenizer, says=" is blue", n_predict=0).run() == ""


def test_a_prompt_may_come_in_pieces(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, "the sky is blue because light scatters", batch=2, says=" and")
    assert scene.run() == "the sky is blue because light scatters and"


def test_a_prompt_that_leaves_no_room_is_refused(tokenizer: Tokenizer) -> None:
    Scene(tokenizer, "the the", context=8)
    with pytest.raises(ContextOverflowError, match="expected at most 4"):
        Scene(tokenizer, "the the the the", context=8)


@pytest.mark.parametrize("is_2023", [False, True])
@pytest.mark.parametrize("keep", [0, 3])
def test_a_full_context_keeps_its_beginning_and_reads_half_of_the_rest_again(
    tokenizer: Tokenizer, keep: int, is_2023: bool
) -> None:
    said = [300 + index for index in range(40)]
    scene = Scene(tokenizer, "the sky is", says=said, context=16, keep=keep, is_2023=is_2023, n_predict=40)
    scene.loop.run()
    # By hand, as a ring of what was evaluated: the last token sampled is never evaluated.
    text = scene.prompt + said
    held = list(scene.prompt)
    for count in range(len(scene.prompt) + 1, len(text)):
        pending = [text[count - 1]]
        if len(held) + 1 > 16:
            half = (len(held) - keep) // 2
            pending = text[count - 1 - half : count]
            held = held[: max(1, keep)]
        held += pending
    assert scene.session.held == held
    assert scene.loop.was_swapped


def test_a_full_context_may_be_the_end(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, says=[300] * 99, context=16, n_predict=-2)
    scene.run()
    assert scene.session.length == 16
    assert not scene.loop.was_swapped


@pytest.mark.parametrize("batch", [5, 512])
def test_an_entry_longer_than_the_context_is_cut_and_that_is_said(tokenizer: Tokenizer, batch: int) -> None:
    turns: dict[str, Any] = {"interactive": True, "begins": True, "keep": -1, "batch": batch, "n_predict": 3}
    said = Scene(tokenizer, typed="the " * 60 + "\n", context=16, **turns).run()
    assert ("input too long" in said) == (batch > 16)


def test_tokens_that_the_session_holds_are_not_read_again(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, "the sky is", says=" blue", held=3)
    assert scene.run() == "the sky is blue"
    assert scene.session.held == scene.prompt + scene.encode(" blue")
    assert scene.loop.counts.read == len(scene.prompt) - 3


def test_instructions_are_wrapped_and_the_end_gives_the_word_back(tokenizer: Tokenizer) -> None:
    says = [*tokenizer.encode(" blue", add_bos=False, continues=True), EOS]
    scene = Scene(tokenizer, "", says=says, typed="the sky?\nand now?\n", interactive=True, instruct=True)
    assert scene.run() == "\n>  blue\n> \n> "
    first, second = (scene.encode(f"{INSTRUCTION}{text}\n{RESPONSE}") for text in ("the sky?", "and now?"))
    assert scene.session.held == [1, *first, *says, *second, EOS]


def test_in_2023_every_instruction_began_a_text(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, "", typed="the sky?\n", interactive=True, instruct=True, is_2023=True)
    scene.run()
    wrapped = [scene.encode(text) for text in (INSTRUCTION, "the sky?\n", RESPONSE)]
    assert scene.session.held == [*scene.prompt, 1, *wrapped[0], *wrapped[1], *wrapped[2], EOS]


def test_an_announcement_that_the_model_wrote_is_not_written_twice(tokenizer: Tokenizer) -> None:
    says = tokenizer.encode("### Instruction:\n\n", add_bos=False, continues=True)
    scene = Scene(tokenizer, "", says=says, typed="the\nsky\n", interactive=True, instruct=True)
    scene.run()
    first, second = scene.encode(f"{INSTRUCTION}the\n{RESPONSE}"), scene.encode(f"sky\n{RESPONSE}")
    assert scene.session.held == [1, *first, *says, *second, EOS]


def test_outside_of_instructions_the_end_is_a_line_break_and_the_first_reverse_prompt(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, "You: Hi. It:", says=" blue", typed="sky\n", interactive=True, reverse_prompts=["You:"])
    assert scene.run() == "You: Hi. It: blue\nYou:\nYou:"
    assert scene.loop.counts.written == len(scene.encode(" blue")) + 2


def test_a_reverse_prompt_ends_a_text_that_nobody_takes_part_in(tokenizer: Tokenizer) -> None:
    assert Scene(tokenizer, says=" is. STOP it", reverse_prompts=["STOP"]).run() == "the sky is. STOP"


def test_a_reverse_prompt_is_found_inside_a_token_with_more_behind(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, says=" because", typed="no\n", interactive=True, reverse_prompts=["bec"], n_predict=1)
    scene.run()
    assert scene.sampler.heard[: len(scene.prompt) + 1] == [*scene.prompt, *scene.encode(" because")]
    in_2023 = Scene(
        tokenizer, says=" because sky", interactive=True, reverse_prompts=["bec"], is_2023=True, n_predict=2
    )
    in_2023.run()
    assert in_2023.loop.counts.written > 1, "then it was not found with somebody there"


def test_a_full_count_gives_the_word_back_and_what_is_typed_does_not_count(tokenizer: Tokenizer) -> None:
    typed = "and\nbut\n"
    scene = Scene(tokenizer, says=" is blue sky light", typed=typed, interactive=True, n_predict=2)
    assert scene.run() == "the sky is blue sky light\n\n"
    assert scene.sampler.says == []


def test_prefix_and_suffix_surround_what_is_typed(tokenizer: Tokenizer) -> None:
    scene = Scene(
        tokenizer, typed="the sky/\n", interactive=True, begins=True, in_prefix=" [", in_suffix="]", n_predict=1
    )
    assert scene.run().startswith("the sky []")
    assert scene.session.held[: len(scene.prompt) + 5][len(scene.prompt) :] == scene.encode(" [the sky]")[:5]


def test_ctrl_c_takes_the_word_and_twice_leaves(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer)
    scene.loop.interrupt()
    with pytest.raises(KeyboardInterrupt):
        scene.loop.interrupt()


def test_colours_are_those_of_2023(tokenizer: Tokenizer) -> None:
    scene = Scene(tokenizer, says=" is", typed="and\n", color=True, interactive=True, n_predict=1)
    assert scene.run().startswith("\x1b[33mthe sky\x1b[0m is\x1b[1m\x1b[32m\x1b[0m")


@pytest.mark.parametrize(
    ("typed", "multiline", "text"),
    [
        ("one\n", False, "one\n"),
        ("one\\\ntwo\n", False, "one\ntwo\n"),
        ("one/\nnot read\n", False, "one"),
        (" /\n", False, ""),
        ("one", False, "one"),
        ("one\\", False, "one\n"),
        ("", False, ""),
        ("one\ntwo\\\nnot read\n", True, "one\ntwo\n"),
        ("one\ntwo/\n", True, "one\ntwo"),
        ("one\ntwo", True, "one\ntwo"),
        ("one\r\n", False, "one\n"),
    ],
)
def test_how_lines_become_an_entry(typed: str, multiline: bool, text: str) -> None:
    screen = Screen(io.StringIO(), False, False, 80)
    console = Console(io.StringIO(typed, newline=""), screen, screen, multiline=multiline)
    assert console.read().text == text


def test_escapes_are_the_six_of_2023() -> None:
    assert unescape(r"a\nb\t\"\'\\n\q\r") == "a\nb\t\"'\\n\\q\r"


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        (["--repeat_penalty", "1.1"], ["--repeat-penalty", "1.1"]),
        (["--repeat_penalty=1.1"], ["--repeat-penalty=1.1"]),
        (["-p", "--a_b"], ["-p", "--a_b"]),
        (["--color", "-c", "9"], ["--color=auto", "-c", "9"]),
        (["--color", "always"], ["--color=always"]),
        (["-p", "--color"], ["-p", "--color"]),
    ],
)
def test_words_of_2023_are_understood(words: list[str], plain: list[str]) -> None:
    assert plain_words(words) == plain


def test_a_prompt_that_does_not_fit_the_model_is_told() -> None:
    facts: dict[str, Any] = {"is_instruct": False, "is_selfee": True, "has_template": False, "model": "m.bin"}
    text = "### Instruction: Write\n### Response:"
    assert "'### Answer:'" in (misfit(text, **facts) or "")
    assert misfit("### Instruction:\nWrite\n\n### Answer:\n", **facts) is None
    assert misfit("", **facts | {"is_instruct": True}) is not None
    assert misfit(text, **facts | {"is_selfee": False}) is None
    assert "chat template" in (misfit(text, **facts | {"is_selfee": False, "has_template": True}) or "")


def test_no_two_flags_share_a_name() -> None:
    names = [name for flag in FLAGS for name in flag.names]
    assert len(names) == len(set(names))


def test_every_flag_of_the_specification_is_in_the_table(corpus: Path) -> None:
    import re

    page = corpus.parent / "spec" / "serving.md"
    if not page.exists():
        pytest.skip("the specification is not beside the shared data folder")
    section = page.read_text(encoding="utf-8").split("### 6.1")[1].split("Behaviour worth matching")[0]
    wanted = {name for quoted in re.findall(r"`(-[^`]*)`", section) for name in quoted.split()}
    assert len(wanted) > 60
    assert wanted - {name for flag in FLAGS for name in flag.names} <= {"-h", "--help"}
