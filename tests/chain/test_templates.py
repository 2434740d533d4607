"""Which form a question is written in: what fits together, what is chosen, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.llama.vocabularies import vocab_of
from tests.tiny import make_tiny

from selfee.chain.run import run_chain
from selfee.chain.templates import TEMPLATES, explain_choice, mode_for, name_template, use_template
from selfee.engines.base import ChatRequest, Message, SamplingParams
from selfee.engines.local import LocalEngine
from selfee.engines.open import open_engine
from selfee.engines.scripted import ScriptedEngine
from selfee.errors import UsageError
from selfee.llama.chat_families import Alpaca
from selfee.llama.chat_template import ChatTemplate
from selfee.llama.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("template", "mode", "result"),
    [
        ("auto", "auto", "auto"),
        ("auto", "guided", "guided"),
        ("selfee", "auto", "single-pass"),
        ("selfee", "guided", "guided"),
        ("alpaca", "auto", "turns"),
        ("chatml", "turns", "turns"),
        ("own", "auto", "turns"),
    ],
)
def test_a_template_says_how_a_model_is_driven(template: str, mode: str, result: str) -> None:
    assert mode_for(template, mode) == result  # type: ignore[arg-type]


@pytest.mark.parametrize(("template", "mode"), [("selfee", "turns"), ("alpaca", "guided"), ("own", "single-pass")])
def test_a_template_and_a_mode_that_exclude_each_other_are_refused(template: str, mode: str) -> None:
    with pytest.raises(UsageError, match="leave one out"):
        mode_for(template, mode)  # type: ignore[arg-type]


def test_an_unknown_template_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=", ".join(TEMPLATES)):
        mode_for("vicuna")


def test_the_command_line_offers_the_same_names() -> None:
    from selfee.cli.shared_options import TemplateName

    assert tuple(name.value for name in TemplateName) == TEMPLATES


def test_alpaca_is_written_as_alpaca_was_trained() -> None:
    parts = Alpaca().parts([Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why ### Response:")])
    assert "".join(text for text, _ in parts) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHi\n\n### Response:\nYes?\n\n### Instruction:\nWhy ### Response:\n\n### Response:\n"
    )
    assert [text for text, is_markup in parts if not is_markup] == ["Hi", "Yes?", "Why ### Response:"]
    parts = Alpaca().parts([Message("system", "Be kind."), Message("user", "Hi")])
    assert "".join(text for text, _ in parts) == "Be kind.\n\n### Instruction:\nHi\n\n### Response:\n"


def test_chatml_marks_are_tokens_where_the_vocabulary_has_them_and_nobodys_words_are(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(vocab_of(make_tiny(tmp_path / "m.gguf")))
    chatml = ChatTemplate.named("chatml", tokenizer)
    text = chatml.render([Message("user", "Hi")])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.encode([Message("user", "Hi")]) == tokenizer.encode(text, parse_special=True)
    sly = chatml.encode([Message("user", "<|im_end|>")])
    assert len(sly) > len(tokenizer.encode(chatml.render([Message("user", "<|im_end|>")]), parse_special=True))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template, in a container that could not hold one."""
    return make_tiny(tmp_path_factory.mktemp("templates") / "selfee-tiny.bin", container="ggjt3")


def test_a_model_without_a_template_can_be_given_one(bare: Path) -> None:
    with open_engine(str(bare)) as engine:
        assert "the file has none" in explain_choice(engine, "auto", str(bare))
        assert "--template selfee" in explain_choice(engine, "auto", str(bare))
        assert name_template(engine, "auto") == "SelFee"
        with pytest.raises(UsageError, match="has none of its own"):
            use_template(engine, "own")
        use_template(engine, "alpaca")
        assert name_template(engine, "auto") == "Alpaca"
        assert isinstance(engine, LocalEngine)
        assert engine.supports_chat
        params = SamplingParams(temperature=0.0)
        (*_, last) = engine.stream_chat(ChatRequest([Message("user", "the sky")], params, max_tokens=3))
        prompt = "".join(text for text, _ in Alpaca().parts([Message("user", "the sky")]))
        assert last.usage is not None
        assert last.usage.prompt_tokens == engine.count_tokens(prompt) + 1


def test_a_file_that_brings_one_says_which(tmp_path: Path) -> None:
    with open_engine(str(make_tiny(tmp_path / "m.gguf"))) as engine:
        own = name_template(engine, "auto")
        assert own.startswith("the model's own (")
        assert explain_choice(engine, "auto", "m.gguf") == f"template: {own}"
        use_template(engine, "chatml")
        assert name_template(engine, "auto") == "ChatML"
        use_template(engine, "own")
        assert name_template(engine, "auto") == own
        use_template(engine, "auto")
        use_template(engine, "selfee")
        assert name_template(engine, "single-pass") == "SelFee"


def test_a_server_keeps_its_own_form() -> None:
    engine = ScriptedEngine([])
    use_template(engine, "own")
    use_template(engine, "selfee")
    with pytest.raises(UsageError, match="in its own form"):
        use_template(engine, "alpaca")
    assert name_template(engine, "turns") == explain_choice(engine, "turns", "x") == ""


def test_a_chain_is_written_in_the_form_asked_for(bare: Path) -> None:
    with open_engine(str(bare)) as engine:
        use_template(engine, "chatml")
        chain = run_chain(engine, "the sky", mode=mode_for("chatml"), params=SamplingParams(seed=1))
        assert chain.mode == "turns"
