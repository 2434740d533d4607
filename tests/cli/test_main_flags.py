"""The flags of June 2023, one by one: none is missing, defaults are those of then, each does what it did."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.cli.main_flags import ALL, HELP, OURS, PAGE, PROOFS, ROOT, key_of, render
from tests.cli.story import Shell
from tests.llama.vocabularies import token_lines, vectors, vocab_of
from tests.tiny import make_tiny

from selfee.cli.main2023.flags import FLAGS, Flag, MainOptions
from selfee.cli.main2023.opening import MODEL_OF_2023
from selfee.cli.main2023.prompts import INSTRUCTION, Encoder
from selfee.llama.tokenizer import load_tokenizer

MODEL = "tiny.ggmlv3.q5_0.bin"
WITH_DEFAULT = [flag for flag in FLAGS if PROOFS[key_of(flag)].default and flag.takes and not flag.no_effect]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("flags")
    make_tiny(folder / MODEL, container="ggjt3")
    return Shell(folder)


def text(shell: Shell, *words: str, prompt: str = "the sky", stdin: str = "") -> str:
    return shell.run("main", "-m", MODEL, "-s", "1", "-n", "12", "-p", prompt, *words, stdin=stdin).stdout


def test_every_flag_stands_in_the_table_once() -> None:
    keys = [key_of(flag) for flag in ALL]
    assert sorted(keys) == sorted(PROOFS)
    assert len(keys) == len(set(keys))
    assert set(OURS) < set(keys)


def sources() -> dict[str, str]:
    """Every test of the flags: "file::name" -> its text, decorators included."""
    found = {}
    for path in sorted((ROOT / "tests" / "cli").glob("test_main*.py")):
        whole = path.read_text(encoding="utf-8")
        for node in ast.parse(whole).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found[f"{path.name}::{node.name}"] = "\n".join(whole.splitlines()[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("flag", ALL, ids=key_of)
def test_every_proof_exists_and_speaks_of_its_flag(flag: Flag) -> None:
    tests = sources()
    proof = PROOFS[key_of(flag)]
    assert proof.tests
    for name in proof.tests:
        assert name in tests, f"{name} is gone"
        spoken = tests[name]
        is_of_all = "FLAGS" in spoken or "WITH_DEFAULT" in spoken or "ALL" in spoken
        named = [*flag.names, *(flag_name.replace("-", "_") for flag_name in flag.names), flag.field]
        assert is_of_all or any(word in spoken for word in named), f"{name} does not speak of {flag.names}"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python -m tests.cli.main_flags"


@pytest.mark.parametrize("flag", WITH_DEFAULT, ids=key_of)
def test_the_defaults_are_those_of_june_2023(flag: Flag) -> None:
    """``--model`` and ``--threads`` are found at run time, so that their fields are empty."""
    ours = getattr(MainOptions(), flag.field)
    then = PROOFS[key_of(flag)].default
    if flag.field == "model":
        assert (ours, then) == (None, MODEL_OF_2023)
    else:
        assert ours == type(ours)(then)


@pytest.mark.parametrize("flag", [flag for flag in WITH_DEFAULT if flag.field not in ("model", "seed")], ids=key_of)
def test_a_value_that_is_the_default_changes_nothing(shell: Shell, flag: Flag) -> None:
    """With 2023's own default in the flag's 2023 spelling; ``-n`` is bounded by the context here."""
    default = PROOFS[key_of(flag)].default
    fixed = ("main", "-m", MODEL, "-s", "3", "-p", "the sky is blue")
    bounded = () if flag.field == "n_predict" else ("-n", "20")
    plain = shell.run(*fixed, *bounded)
    for name in flag.names:
        spelt = name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name
        given = shell.run(*fixed, *bounded, spelt, default)
        assert given.stdout == plain.stdout, name


def test_the_help_lists_every_flag(shell: Shell) -> None:
    shown = shell.run("main", "--help").stdout
    assert shell.run("main", "-h").stdout == shown
    words = set(shown.replace(",", " ").split())
    missing = [name for flag in ALL for name in flag.names if name not in words]
    assert missing == []
    assert HELP.names == ("-h", "--help")


def test_the_model_of_2023_is_taken_where_it_lies(shell: Shell) -> None:
    path = shell.folder / MODEL_OF_2023
    path.parent.mkdir(parents=True)
    path.write_bytes((shell.folder / MODEL).read_bytes())
    try:
        assert MODEL_OF_2023 == "models/7B/ggml-model.bin"
        without = shell.run("main", "-s", "1", "-n", "12", "-p", "the sky")
        assert without.stdout == text(shell)
        assert f"the model is {MODEL_OF_2023}" in without.stderr
        assert text(shell, "--model", MODEL) == text(shell)
    finally:
        path.unlink()
    done = shell.run("main", "-p", "a", "--compat", "2023", check=1)
    assert MODEL_OF_2023 in done.stderr


def test_escapes_are_read_where_they_are_wished(shell: Shell) -> None:
    prompt = r"the\nsky"
    assert text(shell, prompt=prompt).startswith("the\nsky"), "today's habit"
    assert text(shell, "--no-escape", prompt=prompt).startswith(prompt)
    assert text(shell, "--compat", "2023", prompt=prompt).startswith(f" {prompt}")
    assert text(shell, "--compat", "2023", "-e", prompt=prompt).startswith(" the\nsky")


def test_the_context_is_as_large_as_asked_for(shell: Shell) -> None:
    assert "n_ctx = 64" in shell.run("main", "-m", MODEL, "-c", "64", "-n", "1", "-p", "a").stderr
    assert "n_ctx = 512" in shell.run("main", "-m", MODEL, "-n", "1", "-p", "a").stderr
    shell.run("main", "-m", MODEL, "--ctx_size", "64", "-n", "1", "-p", "sky " * 70, check=1)


def test_threads_and_batches_change_no_text(shell: Shell) -> None:
    long = "the sky is blue because light scatters " * 6
    plain = text(shell, prompt=long)
    for words in ("-t 1", "--threads 10", "-b 1", "--batch_size 7", "-t 2 -b 600"):
        assert text(shell, *words.split(), prompt=long) == plain, words


def test_a_seed_gives_the_same_text_and_none_another_each_time(shell: Shell) -> None:
    words = ("main", "-m", MODEL, "-n", "30", "-p", "the sky", "--temp", "2", "--top-k", "0")
    assert shell.run(*words, "-s", "5").stdout == shell.run(*words, "--seed", "5").stdout
    runs = [shell.run(*words, "-s", "-1"), shell.run(*words)]
    seeds = [int(done.stderr.split("main: seed  = ")[1].split()[0]) for done in runs]
    assert seeds[0] != seeds[1]
    for done, seed in zip(runs, seeds, strict=True):
        assert shell.run(*words, "-s", str(seed)).stdout == done.stdout


def test_a_person_takes_turns(shell: Shell) -> None:
    words = ("-i", "--ignore-eos", "--in-prefix", "Bob: ", "--in-suffix", " Amy:")
    said = text(shell, *words, stdin="the sky\nis blue\n")
    assert said.count("Bob: ") == 3, "shown before each entry, and before the end"
    assert said.count(" Amy:") == 2, "shown after each entry"
    assert "interactive mode on" in shell.run("main", "-m", MODEL, "--interactive", "-n", "2", "-p", "a").stderr


def test_a_person_may_begin(shell: Shell) -> None:
    assert text(shell, "--interactive-first").startswith("the sky")
    assert text(shell, "--interactive-first") == "the sky", "nobody typed, so nothing was written"
    assert len(text(shell, "--interactive-first", stdin="is blue\n")) > len("the sky")


def test_an_entry_may_go_on_over_line_ends(shell: Shell) -> None:
    fixed = ("--interactive-first", "--verbose-prompt")
    joined = text(shell, *fixed, "--multiline-input", stdin="the\nsky\\\n")
    parted = text(shell, *fixed, stdin="the\nsky\n")
    assert joined != parted
    assert joined == text(shell, *fixed, stdin="the\\\nsky\n")


def test_a_reverse_prompt_ends_the_text(shell: Shell) -> None:
    whole = text(shell, "-n", "40", "--ignore-eos")
    mark = whole[len("the sky") + 8 : len("the sky") + 11]
    for name in ("-r", "--reverse-prompt"):
        cut = text(shell, "-n", "40", "--ignore-eos", name, "never", name, mark)
        assert whole.startswith(cut)
        assert mark in cut[len("the sky") :]
        assert len(cut) < len(whole)


@pytest.mark.corpus
def test_a_prompt_of_2023_has_the_tokens_of_2023(corpus: Path) -> None:
    """A space and a beginning of text before each; the vectors are those of the program of the time."""
    tokenizer = load_tokenizer(vocab_of(corpus / "vocab" / "ggml-vocab.bin"))
    texts = [text for text, _ in vectors(corpus / "vocab" / "ggml-vocab-llama-spm.gguf.inp")]
    expected = token_lines(corpus / "golden" / "llama2023_tokens_space_prefixed.txt")
    encoder = Encoder(tokenizer, is_2023=True)
    assert len(texts) > 40
    for text, tokens in zip(texts, expected, strict=False):
        assert encoder.prompt(text) == [tokenizer.bos, *tokens], text


@pytest.mark.corpus
def test_what_is_typed_with_ins_has_the_tokens_of_2023(corpus: Path) -> None:
    """A beginning of text before every instruction, and no space before what is typed."""
    tokenizer = load_tokenizer(vocab_of(corpus / "vocab" / "ggml-vocab.bin"))
    texts = [text for text, _ in vectors(corpus / "vocab" / "ggml-vocab-llama-spm.gguf.inp")]
    raw = token_lines(corpus / "golden" / "llama2023_tokens_raw.txt")
    encoder = Encoder(tokenizer, is_2023=True)
    for text, tokens in zip(texts, raw, strict=False):
        whole, own = encoder.instruction(text, is_announced=False)
        assert own == len(tokens)
        assert whole[0] == tokenizer.bos
        start = whole.index(tokenizer.bos, 0) + len(encoder.more(INSTRUCTION)) + 1
        assert whole[start : start + own] == tokens, text
