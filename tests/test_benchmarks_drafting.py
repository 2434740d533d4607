"""The benchmarks of drafting, on tiny models and small texts: what they say must follow from what they were given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import drafting_pictures, guessers
from benchmarks.chains import TokenChain, read_chains
from benchmarks.drafting import Calibration, Ours, Plain, Tally, replay
from tests.tiny import make_tiny

from selfee.chain.format import header, render_prompt
from selfee.chain.types import Instruction, Section
from selfee.llama.drafting import DraftMemory
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.open import open_checkpoint

ROOT = Path(__file__).resolve().parents[1]
ANSWER = "the sky is blue because air scatters short waves more than long ones and our eyes see what is left"
FEEDBACK = "Too short. Revision is needed."
SECTIONS = [
    ("", ANSWER),
    (header(Section.FEEDBACK, 1), FEEDBACK),
    (header(Section.REVISION, 1), f"Well: {ANSWER}"),
]
WHOLE = render_prompt(Instruction("why?")) + "".join(opening + text for opening, text in SECTIONS)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """A folder with one released chain."""
    row = json.dumps({"whole_generation": WHOLE})
    (tmp_path / "selfee_13b_enforce_1_revisions.jsonl").write_text(row + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(params=["spm", "bpe"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "tiny.gguf", n_ctx=4096, vocab=request.param)


def tokenizer_of(path: Path) -> Tokenizer:
    with open_checkpoint(path) as checkpoint:
        return load_tokenizer(checkpoint.vocab)


def chain_of(answers: Path, tokenizer: Tokenizer) -> TokenChain:
    (chain,) = read_chains(next(answers.glob("*.jsonl")), tokenizer)
    return chain


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, f"benchmarks/{program}", *map(str, arguments), "--no-record"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_chain_has_the_tokens_of_its_whole_text_in_their_sections(answers: Path, model: Path) -> None:
    tokenizer = tokenizer_of(model)
    chain = chain_of(answers, tokenizer)
    assert [*chain.prompt, *chain.text] == tokenizer.encode(WHOLE)
    assert [part.section for part in chain.parts] == [Section.ANSWER, Section.FEEDBACK, Section.REVISION]
    decoder = tokenizer.stream_decoder()
    bodies = [("".join(map(decoder.feed, part.text)) + decoder.finish()) for part in chain.parts]
    assert bodies == [text for _, text in SECTIONS]
    assert [original == chain.parts[0].text for original in chain.originals.values()] == [False, False, True]


def test_a_replay_writes_every_token_once_and_a_copied_revision_takes_few_passes(answers: Path, model: Path) -> None:
    chain = chain_of(answers, tokenizer_of(model))
    plain, ours, calibration = Tally(), Tally(), Calibration()
    lookup = Plain()
    lookup.wrote(chain.prompt)
    replay(chain, lookup, 32, plain)
    replay(chain, Ours(chain.prompt, DraftMemory(), 0.05), 32, ours, calibration)
    for tally in (plain, ours):
        assert tally.tokens == {part.section: len(part.tokens) for part in chain.parts}
        assert 0 < tally.passes.total() <= chain.count
    assert ours.line()["revision"] > 3
    assert calibration.count[0] >= calibration.count[1] > 0
    assert all(calibration.right[place] <= calibration.count[place] for place in calibration.count)


def test_drafting_prints_a_line_for_each_drafter(answers: Path, model: Path) -> None:
    lines = run("drafting.py", "--replay", answers, "--vocab", model, "--quick").splitlines()
    assert len(lines) == 1 + 1 + 12
    assert lines[1].split()[0] == "look-up"


@pytest.mark.parametrize("is_forced", [False, True])
def test_revising_writes_the_same_text_with_drafting_and_without(answers: Path, model: Path, is_forced: bool) -> None:
    forced = ["--forced", next(answers.glob("*.jsonl"))] if is_forced else []
    told = run("revising.py", "--model", model, "--quick", "--alone", "--threads", 1, *forced)
    assert "the same text on and off" in told
    assert [line.split()[1] for line in told.splitlines()[1:]] == ["on", "off"]


def test_forcing_tokens_that_a_model_lacks_says_so(answers: Path, tmp_path: Path) -> None:
    small = make_tiny(tmp_path / "small.gguf", n_ctx=4096, n_vocab=40)
    large = make_tiny(tmp_path / "large.gguf")
    command = [sys.executable, "benchmarks/revising.py", "--model", small, "--vocab", large, "--here", "on"]
    command += ["--forced", next(answers.glob("*.jsonl"))]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "has 40 tokens; the chains have token" in done.stderr


def test_concurrency_tells_rate_shares_memory_and_what_cancelling_takes(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", n_ctx=2048)
    lines = run("concurrency.py", "--model", model, "--quick", "--threads", 1, "--parallel", 3).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert all(words in line for words in ("tokens/s", "of an even share", "is gone after", "predicted"))


def test_the_part_that_is_ours_ends_at_the_first_difference() -> None:
    assert guessers.shared("abcd", "abxd") == 0.5
    assert guessers.shared("abcd", "abcdef") == 1
    assert guessers.shared("", "x") == 1


def test_a_programs_time_is_that_of_its_tokens() -> None:
    assert guessers.read_seconds("decoded   25 tokens in    5.000 seconds, speed", "p") == pytest.approx(0.2)
    log = "common_perf_print:        eval time =    1000.00 ms /    10 runs   ( 100.00 ms per token"
    assert guessers.read_seconds(log, "p") == pytest.approx(0.1)
    with pytest.raises(SystemExit, match="p: told no time"):
        guessers.read_seconds("prompt eval time = 3 ms / 2 tokens", "p")


def test_pictures_are_drawn_from_what_was_recorded(tmp_path: Path) -> None:
    kinds = {"said": 0.5, "right": 0.4, "guesses": 1000.0}
    told = {f"selfee_13b_enforce_3_revisions place {k} {kind}": value for k in (1, 2) for kind, value in kinds.items()}
    few = {f"selfee_13b_enforce_3_revisions place 3 {kind}": 1.0 for kind in kinds}
    axes, lines = drafting_pictures.acceptance(told | few)
    assert [(line.name, line.points) for line in lines] == [
        ("enforce 3: right", [(1, 40.0), (2, 40.0)]),
        ("enforce 3: predicted", [(1, 50.0), (2, 50.0)]),
    ]
    assert drafting_pictures.picture(axes, lines).count("<circle") == 4
    passes = {f"1.1b-q4_0 2t n={n} selfee all logits ms": 10.0 + n for n in (1, 2, 4, 8)}
    axes, lines = drafting_pictures.cost(passes | {"1.1b-q4_0 1t n=1 selfee all logits ms": 1.0}, 2)
    assert [size for size, _ in lines[0].points] == [1, 2, 4, 8]
    assert lines[0].points[-1][1] == pytest.approx(18 / 11)
    with pytest.raises(SystemExit, match=r"expected 1, 2, 4, 8, 16 and 32"):
        drafting_pictures.cost(passes, 1)
    with pytest.raises(SystemExit, match=r"holds no run of drafting\.py"):
        drafting_pictures.recorded(tmp_path / "none.jsonl", "drafting")
