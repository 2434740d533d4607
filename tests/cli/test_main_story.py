"""``selfee main``: the published command lines run, flags do what they say, and a person at a terminal has the word."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from tests.cli.person import at_terminal
from tests.cli.story import Shell
from tests.llama.llama2c import convert, convert_to_ggml
from tests.tiny import make_tiny

from selfee.cli.main2023.flags import FLAGS
from selfee.llama.generate import generate
from selfee.llama.model import Model
from selfee.llama.sampling import Sampler, SamplerConfig
from selfee.llama.tokenizer import load_tokenizer
from selfee.weights.open import open_checkpoint

SEED = "selfee-13b.ggmlv3.q5_0.bin"
PROMPT = "### Instruction: Write a story about llamas\\n### Response:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GGML file of the seed's name, and a GGUF file with a chat template."""
    path = tmp_path_factory.mktemp("main")
    make_tiny(path / SEED, container="ggjt3")
    make_tiny(path / "model.gguf", n_ctx=4096)
    return path


@pytest.fixture
def shell(folder: Path) -> Shell:
    return Shell(folder)


def test_the_published_command_line_runs_as_printed(shell: Shell) -> None:
    words = f"-t 10 -ngl 32 -m {SEED} --color -c 2048 --temp 0.7 --repeat_penalty 1.1 -n -1 -s 1 -p".split()
    done = shell.run("main", *words, PROMPT, "-n", "30")
    assert done.stdout.startswith("### Instruction: Write a story about llamas\n### Response:")
    assert len(done.stdout) > len(PROMPT) + 20
    assert "\x1b" not in done.stdout, "no colour into a pipe"
    for told, times in (("-ngl: no effect", 1), ("'### Answer:'", 1), ("--no-escape", 1), ("temp = 0.700000", 1)):
        assert done.stderr.count(told) == times, told


def test_the_published_chat_line_chats(shell: Shell) -> None:
    words = f"-t 10 -ngl 32 -m {SEED} --color -c 2048 --temp 0.7 --repeat_penalty 1.1 -n 9 -i -ins".split()
    done = shell.run("main", *words, stdin="Hello\nWhat is it?\n")
    assert done.stdout.count("\n> ") == 3
    assert "== Running in interactive mode. ==" in done.stderr
    assert "Reverse prompt: '### Instruction:\\n\\n'" in done.stderr


def test_compat_2023_has_colour_into_pipes_and_no_escapes(shell: Shell) -> None:
    done = shell.run("main", "-m", SEED, "--color", "-n", "3", "-s", "1", "--compat", "2023", "-p", PROMPT)
    assert done.stdout.startswith(f"\x1b[33m {PROMPT}\x1b[0m")
    assert "--no-escape" not in done.stderr


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ("--temp 0", {"temperature": 0.0}),
        (
            "--top-k 5 --top-p 0.8 --tfs 0.9 --typical 0.9",
            {"top_k": 5, "top_p": 0.8, "tail_free_z": 0.9, "typical_p": 0.9},
        ),
        ("--mirostat 2 --mirostat-lr 0.2 --mirostat-ent 4", {"mirostat": 2, "mirostat_eta": 0.2, "mirostat_tau": 4.0}),
        (
            "--repeat-last-n -1 --presence-penalty 0.3 --frequency-penalty 0.2 --no-penalize-nl",
            {"repeat_last_n": 512, "presence_penalty": 0.3, "frequency_penalty": 0.2, "penalize_newline": False},
        ),
        ("-l 300+9 -l 301-2.5", {"logit_bias": {300: 9.0, 301: -2.5}}),
        ("--ignore-eos", {"logit_bias": {2: float("-inf")}}),
    ],
)
def test_tokens_are_those_of_our_own_sampler_at_the_same_settings(
    shell: Shell, words: str, config: dict[str, object]
) -> None:
    done = shell.run("main", "-m", SEED, "-s", "7", "-n", "40", "-p", "the sky", *words.split())
    settings = {"temperature": 0.8, "repeat_penalty": 1.1, "seed": 7} | config
    with open_checkpoint(shell.folder / SEED) as checkpoint, Model.load(checkpoint, context_length=512) as model:
        tokenizer = load_tokenizer(checkpoint.vocab)
        sampler = Sampler(SamplerConfig(**settings), tokenizer.encode("\n", add_bos=False, continues=True)[-1])  # type: ignore[arg-type]
        prompt = tokenizer.encode("the sky")
        tokens = list(prompt)
        for step in generate(model.new_session(), prompt, sampler, max_tokens=40):
            if step.id == tokenizer.eos:
                break
            tokens.append(step.id)
    assert done.stdout == tokenizer.decode(tokens, skip_special=True)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.refused], ids=lambda flag: flag.names[-1])
def test_what_cannot_be_says_what_to_do_instead(shell: Shell, flag: object) -> None:
    name = flag.names[-1]  # type: ignore[attr-defined]
    words = [name, "1"] if flag.takes else [name]  # type: ignore[attr-defined]
    assert f"{name}: not done here; " in shell.run("main", *words, check=2).stderr


def test_what_has_no_effect_is_told_and_goes_on(shell: Shell) -> None:
    words = [word for flag in FLAGS if flag.no_effect for word in (flag.names[0], *(["1"] if flag.takes else []))]
    done = shell.run("main", "-m", SEED, "-n", "2", "-p", "the", *words)
    assert done.stderr.count(": no effect; ") == sum(bool(flag.no_effect) for flag in FLAGS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "nothing to continue"),
        ("-p a -f b", "-p and -f"),
        ("-p a -n -3", "-n: -3"),
        ("-p a --compat 1999", "now or 2023"),
        ("-p a -l x", "is no bias"),
        ("-p a -l 99999999+1", "expected a token from 0"),
        ("-p a --top-p 2", "top_p"),
        ("-f nowhere.txt", "cannot be read"),
        ("-p a -m nowhere.bin", "nowhere.bin"),
        ("-p a -m script:x", "does not run here"),
        ("-p a --prompt-cache-all", "no cache is named"),
        ("-p a --colour", "no such option"),
    ],
)
def test_words_that_do_not_fit_are_one_line_and_code_2(shell: Shell, words: str, said: str) -> None:
    model = [] if "-m " in words else ["-m", SEED]
    done = shell.run("main", *model, *words.split(), check=2)
    assert said in done.stderr.splitlines()[-1]


def test_a_prompt_too_long_is_code_1_and_so_is_everything_with_compat(shell: Shell) -> None:
    assert "expected at most 12" in shell.run("main", "-m", SEED, "-c", "16", "-p", "sky " * 30, check=1).stderr
    shell.run("main", "-m", "nowhere.bin", "-p", "a", "--compat", "2023", check=1)


def test_the_prompt_cache_gives_the_same_text_and_reads_less(shell: Shell) -> None:
    words = ("-m", SEED, "-s", "1", "-n", "10", "-p", "the sky is blue because light scatters")
    plain = shell.run("main", *words)
    cached = (*words, "--prompt-cache", "a.cache", "--prompt-cache-all")
    runs = [shell.run("main", *cached), shell.run("main", *cached)]
    assert [done.stdout for done in runs] == [plain.stdout] * 2
    assert "will create" in runs[0].stderr
    assert "matches 8 / 8 tokens" in runs[1].stderr
    assert "read 1 tokens" in runs[1].stderr
    before = (shell.folder / "a.cache").read_bytes()
    goes_on = shell.run("main", "-m", SEED, "-n", "3", "--prompt-cache", "a.cache", "--prompt-cache-ro")
    assert goes_on.stdout.startswith(plain.stdout[:50])  # the last token drawn was not read
    assert (shell.folder / "a.cache").read_bytes() == before
    assert "no selfeeKV" in shell.run("main", *words, "--prompt-cache", SEED, check=2).stderr


def test_a_file_loses_one_line_break_and_keeps_its_backslashes(shell: Shell) -> None:
    (shell.folder / "prompt.txt").write_text("the\\nsky\n\n", encoding="utf-8")
    words = ("main", "-m", SEED, "-n", "1", "-s", "1", "-f", "prompt.txt")
    assert shell.run(*words).stdout.startswith("the\\nsky\n")
    assert shell.run(*words, "-e").stdout.startswith("the\nsky\n")


def test_tokens_words_and_memory_can_be_shown(shell: Shell) -> None:
    done = shell.run("main", "-m", SEED, "-n", "1", "-p", "the", "--verbose-prompt")
    assert "number of tokens in prompt = 2" in done.stderr
    assert "-> ' the'" in done.stderr
    assert "MiB" in shell.run("main", "-m", SEED, "--mtest").stderr
    first = shell.run("main", "-m", SEED, "-n", "1", "-s", "3", "--random-prompt").stdout
    assert first == shell.run("main", "-m", SEED, "-n", "1", "-s", "3", "--random-prompt").stdout


def test_a_chat_model_of_today_is_told_to_have_a_template(shell: Shell) -> None:
    done = shell.run("main", "-m", "model.gguf", "-n", "4", "-ins", stdin="the sky\n")
    assert done.stderr.count("chat template of its own") == 1


@pytest.mark.corpus
def test_a_trained_model_writes_what_it_wrote_with_another_program(corpus: Path, tmp_path: Path) -> None:
    source = corpus / "tinyllama"
    convert_to_ggml(source / "aidreams260K.bin", source / "tok512.bin", tmp_path / "dreams.bin")
    expected = (source / "greedy_128_run.c.txt").read_text(encoding="utf-8").rstrip("\n")
    words = ("main", "-m", "dreams.bin", "--temp", "0", "--repeat-penalty", "1", "-n", "130", "-p", '"Echoes')
    shell = Shell(tmp_path)
    assert shell.run(*words).stdout.startswith(expected)
    assert shell.run(*words, "--compat", "2023").stdout.startswith(" " + expected)


@pytest.mark.corpus
@pytest.mark.parametrize("way", [("dreams.gguf", "dreams.bin"), ("dreams.gguf", "dreams", "dreams.bin")])
def test_what_convert_makes_of_a_trained_model_writes_the_same(
    corpus: Path, tmp_path: Path, way: tuple[str, ...]
) -> None:
    """GGUF, or a Hugging Face folder, becomes a GGML v3 file; its heads share keys, which shows by their sizes."""
    source = corpus / "tinyllama"
    convert(source / "aidreams260K.bin", tmp_path / "dreams.gguf", source / "tok512.bin")
    shell = Shell(tmp_path)
    for one, other in itertools.pairwise(way):
        shell.run("convert", one, other)
    assert json.loads(shell.run("inspect", "dreams.bin", "--json").stdout)["container"] == "ggjt v3"
    expected = (source / "greedy_128_run.c.txt").read_text(encoding="utf-8").rstrip("\n")
    words = ("main", "-m", "dreams.bin", "--temp", "0", "--repeat-penalty", "1", "-n", "130", "-p", '"Echoes')
    assert shell.run(*words).stdout.startswith(expected)
    assert shell.run(*words, "--compat", "2023").stdout.startswith(" " + expected)


def test_ctrl_c_gives_the_word_to_the_person_and_twice_leaves(shell: Shell) -> None:
    words = ("main", "-m", SEED, "-i", "-ins", "--color", "--ignore-eos", "-s", "1", "-c", "128")
    prompt = r"\r\n> \x1b\[1m\x1b\[32m"
    with at_terminal(shell, *words, plain=False) as person:
        person.wait_for_pattern(prompt)
        person.type("Why is the sky blue?\r")
        person.wait_for_pattern(r"blue\?\r\n\x1b\[0m[\s\S]{200}")
        person.type("\x03")
        person.wait_for_pattern(prompt)  # the terminal may show its ^C before or after it
        assert person.child.poll() is None
        person.type("And now?\r")
        person.wait_for_pattern(r"now\?\r\n\x1b\[0m[\s\S]{200}")
        person.type("\x03")
        person.wait_for_pattern(prompt)
        person.type("\x03")
        person.wait_for_pattern(r"main: read \d+")
        assert person.child.wait(20) == 130
