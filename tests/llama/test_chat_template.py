"""Chats as tokens: the known formats, the file's own templates, and words that must stay words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llama.vocabularies import scored, vocab_of
from tests.tiny import bpe_vocab, make_tiny, spm_vocab

from selfee.errors import BadFileError, UsageError
from selfee.llama.chat_families import Marks
from selfee.llama.chat_template import ChatTemplate, FileTemplate
from selfee.llama.tokenizer import Tokenizer, load_tokenizer
from selfee.weights.checkpoint import Vocab


@dataclass(frozen=True)
class Turn:
    role: str
    content: str


ASK = [Turn("user", "Hi"), Turn("assistant", "Yes?"), Turn("user", " Why\n")]
WITH_SYSTEM = [Turn("system", "Be kind."), *ASK]

FOR_EACH = "{% for message in messages %}"
HEAD = (
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + "
    "'<|eot_id|>' }}"
)
INST = "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TEMPLATES = {
    "chatml": FOR_EACH + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "qwen2.5": "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + "
    "'<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}{%- endif %}\n"
    "{%- for message in messages %}{%- if message.role != 'system' or not loop.first %}{{- '<|im_start|>' + "
    "message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}",
    "llama3": "{{ bos_token }}" + FOR_EACH + HEAD + "{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}",
    "zephyr": FOR_EACH + "\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\\n' + message['content'] + eos_token }}\n"
    "{% else %}\n{{ '<|assistant|>\\n' + message['content'] + eos_token }}\n{% endif %}\n{% endfor %}\n"
    "{% if add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n",
    "phi3": FOR_EACH + "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}"
    "{{ '<|assistant|>\\n' }}",
    "gemma": "{{ bos_token }}" + NO_SYSTEM + FOR_EACH + "{% set role = 'model' if message['role'] == 'assistant' else "
    "message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = '<<SYS>>\\n' + "
    "messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else "
    "'') + message['content'].strip() + ' [/INST]' }}{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}",
    "mistral": "{{ bos_token }}" + NO_SYSTEM + FOR_EACH + "{% if message['role'] == 'user' %}" + INST + "{% else %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
}  # fmt: skip
WRITTEN = {
    "chatml": "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?"
    "<|im_end|>\n<|im_start|>user\n Why\n<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>"
    "\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nWhy<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "zephyr": "<|system|>\nBe kind.</s>\n<|user|>\nHi</s>\n<|assistant|>\nYes?</s>\n<|user|>\n Why\n</s>\n"
    "<|assistant|>\n",
    "phi3": "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nYes?<|end|>\n<|user|>\n Why\n<|end|>\n"
    "<|assistant|>\n",
    "gemma": "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
    "<start_of_turn>user\nWhy<end_of_turn>\n<start_of_turn>model\n",
    "llama2": "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Why [/INST]",
    "mistral": "[INST] Be kind.\n\nHi [/INST]Yes?</s>[INST]  Why\n [/INST]",
}
WRITTEN["qwen2.5"] = WRITTEN["chatml"]
# No family of ours: the file's template is run.
VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% elif "
    "message['role'] == 'user' %}{{ 'USER: ' + message['content'] + '\\n' }}{% else %}{{ 'ASSISTANT: ' + "
    "message['content'] + eos_token + '\\n' }}{% endif %}{% endfor %}{{ 'ASSISTANT:' }}"
)


def template(source: str, vocab: Vocab | None = None) -> ChatTemplate:
    vocab = replace(vocab or scored(["▁", "a", "H", "i", "▁H", "▁Hi"]), chat_template=source)
    made = ChatTemplate.for_vocab(vocab, load_tokenizer(vocab))
    assert made is not None
    return made


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Vocab:
    path = tmp_path_factory.mktemp("tiny") / "m.gguf"
    make_tiny(path)
    return vocab_of(path)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_known_format_is_written_by_our_own_code_as_the_template_would(name: str) -> None:
    made = template(TEMPLATES[name])
    assert made.family is not None
    assert made.render(WITH_SYSTEM) == WRITTEN[name]
    assert made.render(WITH_SYSTEM, "I think") == WRITTEN[name] + "I think"


_COMPILED: dict[str, tuple[ChatTemplate, FileTemplate]] = {}


@pytest.mark.parametrize("name", sorted(WRITTEN))
@given(
    contents=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), min_size=1, max_size=5
    )
)
def test_our_own_code_equals_the_sandboxed_template(name: str, contents: list[str]) -> None:
    turns = [Turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]
    if name not in _COMPILED:
        _COMPILED[name] = (template(TEMPLATES[name]), FileTemplate(TEMPLATES[name], Marks("<s>", "</s>")))
    ours, theirs = _COMPILED[name]
    assert ours.family is not None
    assert ours.render(turns) == "".join(text for text, _ in theirs.parts(turns)).removeprefix("<s>")


def test_the_default_system_message_is_that_of_the_file() -> None:
    made = template(TEMPLATES["qwen2.5"])
    assert made.render([Turn("user", "Hi")]).startswith("<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user")
    assert "Qwen" not in made.render(WITH_SYSTEM)
    assert template(TEMPLATES["chatml"]).render([Turn("user", "Hi")]).startswith("<|im_start|>user")


def test_another_template_is_run_in_the_sandbox() -> None:
    made = template(VICUNA)
    assert made.family is None
    assert made.render(WITH_SYSTEM, " So") == "Be kind.\n\nUSER: Hi\nASSISTANT: Yes?</s>\nUSER:  Why\n\nASSISTANT: So"


def test_marks_of_a_family_do_not_decide_against_the_template() -> None:
    odd = TEMPLATES["chatml"].replace("<|im_end|>'", "<|im_end|>!'")
    made = template(odd)
    assert made.family is None
    assert "Hi<|im_end|>!\n" in made.render(ASK)


def test_a_file_without_a_template_has_none() -> None:
    vocab = scored(["a"])
    assert ChatTemplate.for_vocab(vocab, load_tokenizer(vocab)) is None


@cache
def _llama(path: Path) -> Tokenizer:
    return load_tokenizer(vocab_of(path))


@pytest.mark.corpus
@pytest.mark.parametrize("name", [*sorted(WRITTEN), "vicuna"])
def test_ids_equal_those_of_the_whole_text(name: str, corpus: Path) -> None:
    path = corpus / "vocab/ggml-vocab-llama-spm.gguf"
    vocab = vocab_of(path)
    source = TEMPLATES.get(name, VICUNA)
    tokenizer = _llama(path)
    made = ChatTemplate.for_vocab(replace(vocab, chat_template=source), tokenizer)
    assert made is not None
    for prefix in ("", " So", "\n"):
        whole = tokenizer.encode(made.render(WITH_SYSTEM, prefix), parse_special=True)
        assert made.encode(WITH_SYSTEM, prefix) == whole


MARKS = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<|im_",
    "end|>",
    "\n",
    " ",
    "the",
    "\ue0000\ue001",
]
WORDS = st.lists(st.sampled_from(MARKS) | st.text(max_size=4), max_size=6).map("".join)


@given(contents=st.lists(WORDS, min_size=1, max_size=4), prefix=WORDS)
@pytest.mark.parametrize("name", ["chatml", "qwen2.5", "vicuna"])
def test_what_people_say_adds_no_control_token(tiny: Vocab, name: str, contents: list[str], prefix: str) -> None:
    source = TEMPLATES.get(name, VICUNA)
    made = _made(source, tiny)
    turns = [Turn(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]
    harmless = [Turn(turn.role, "x") for turn in turns]
    assert _controls(made.encode(turns, prefix)) == _controls(made.encode(harmless, "x"))


_MADE: dict[str, ChatTemplate] = {}


def _made(source: str, vocab: Vocab) -> ChatTemplate:
    if source not in _MADE:
        _MADE[source] = template(source, vocab)
    return _MADE[source]


def _controls(tokens: Sequence[int]) -> list[int]:
    return [token for token in tokens if token < 3]


def test_the_beginning_token_comes_once() -> None:
    for name in sorted(WRITTEN):
        tokens = template(TEMPLATES[name]).encode([Turn("user", "Hi")])
        assert tokens.count(1) == 1, name
        assert tokens[0] == 1


def test_words_that_look_like_stand_ins_are_still_words(tiny: Vocab) -> None:
    made = _made(VICUNA, tiny)
    assert made.render([Turn("user", "\ue0000-1\ue001 {{ 7*7 }}")]) == "USER: \ue0000-1\ue001 {{ 7*7 }}\nASSISTANT:"


def test_blanks_that_a_template_removes_are_removed_and_other_changes_refused() -> None:
    around = "{% for message in messages %}[{{ message['content'] | trim }}]{% endfor %}"
    assert template(around).render([Turn("user", " a b\n"), Turn("user", "\n")]) == "[a b][]"
    changing = "{% for message in messages %}[{{ message['content'] | upper }}]{% endfor %}"
    with pytest.raises(BadFileError, match="changes what people say"):
        template(changing).render([Turn("user", "abc")])
    branching = "{% for message in messages %}[{{ message['content'].split('</think>')[-1] }}]{% endfor %}"
    assert template(branching).render([Turn("user", "abc")]) == "[abc]"
    with pytest.raises(BadFileError, match="changes what people say"):
        template(branching).render([Turn("assistant", "secret</think>abc")])


def test_a_template_that_knows_no_system_puts_its_words_before_the_user_s() -> None:
    for odd in (NO_SYSTEM, ""):
        source = (
            odd + "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['content'] }}]{% endif %}{% endfor %}"
        )
        assert template(source).render(WITH_SYSTEM) == "[Be kind.\n\nHi][Yes?][ Why\n]"


def test_a_chat_that_the_template_does_not_know_is_the_users_mistake() -> None:
    strict = (
        "{% if messages|length > 1 %}{{ raise_exception('one \\x1b[31m only') }}{% endif %}{{ messages[0].content }}"
    )
    with pytest.raises(UsageError, match=r"one \?\[31m only"):
        template(strict).render(ASK)
    with pytest.raises(UsageError, match="role 'tool'"):
        template(TEMPLATES["chatml"]).render([Turn("tool", "x")])
    with pytest.raises(UsageError, match="no messages"):
        template(TEMPLATES["chatml"]).render([])


def test_a_bad_template_is_refused_when_used_and_not_when_the_model_is_opened() -> None:
    made = template("{% if")
    with pytest.raises(BadFileError, match="no template"):
        made.encode(ASK)


def test_a_known_format_is_used_where_its_template_cannot_be_run() -> None:
    made = template(TEMPLATES["chatml"] + "{{ 'a'.center(9) }}")
    assert made.render(WITH_SYSTEM) == WRITTEN["chatml"]


def test_the_tiny_vocabularies_of_the_tests_have_what_chats_need() -> None:
    keys: dict[str, Any] = bpe_vocab()
    assert template(keys["tokenizer.chat_template"]).family is not None
    assert "tokenizer.chat_template" not in spm_vocab()
