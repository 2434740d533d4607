"""The story of ``selfee card``: a folder of files becomes a page whose figures are true and whose commands work."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from tests.cli.story import Outcome, Shell
from tests.tiny import make_tiny

from selfee.cli.card_files import CardDisplay
from selfee.cli.output import Screen
from selfee.eval.results import Quality, append_result
from selfee.weights.fetch.store import HUB
from selfee.weights.quants import QuantType


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of one model, and one of 2023."""
    folder = tmp_path_factory.mktemp("story") / "models"
    folder.mkdir()
    told = {"general.license": "apache-2.0", "general.base_model.0.repo_url": f"{HUB}/org/tiny"}
    for name, type in (("tiny-f16", QuantType.F16), ("tiny-q8_0", QuantType.Q8_0), ("tiny-q4_0", QuantType.Q4_0)):
        make_tiny(folder / f"{name}.gguf", type=type, n_ctx=4096, metadata=told)
    make_tiny(folder / "tiny.ggmlv3.q5_1.bin", container="ggjt3", type=QuantType.Q5_1)
    return folder


@pytest.fixture
def shell(models: Path, tmp_path: Path) -> Shell:
    shutil.copytree(models, tmp_path / "models")
    # A random model may never end its answer.
    limits = {f"SELFEE_MAX_{part}_TOKENS": "6" for part in ("ANSWER", "FEEDBACK", "REVISION")}
    return Shell(tmp_path, limits | {"SELFEE_SEED": "1"})


def rows_of(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = page.split(f"## {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert lines
    return [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in lines[0].splitlines()[2:]]


def commands_of(page: str) -> list[str]:
    return [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]


def test_the_page_tells_what_is_in_the_folder(shell: Shell) -> None:
    page = shell.run("card", "models", "--no-measure").stdout
    files = sorted((shell.folder / "models").iterdir(), key=lambda path: path.stat().st_size)
    rows = rows_of(page, "Provided files")
    assert [row[0] for row in rows] == [f"`{path.name}`" for path in files]
    assert [row[1] for row in rows] == ["q4_0", "q5_1", "q8_0", "f16"]
    for path, row in zip(files, rows, strict=True):
        assert row[3].startswith(f"{path.stat().st_size:,} bytes (")
        assert hashlib.sha256(path.read_bytes()).hexdigest() + f"  {path.name}\n" in page
        assert "computed" in row[4]
    assert "all matrices Q5_1" in rows[1][6]


def test_the_head_holds_what_the_files_say(shell: Shell) -> None:
    page = shell.run("card", "models", "--no-measure", "--tag", "test", "--language", "en").stdout
    head = page.split("---\n")[1]
    assert 'base_model: "org/tiny"\nbase_model_relation: quantized\n' in head
    assert 'license: "apache-2.0"\n' in head
    assert 'language:\n- "en"\n' in head
    assert 'tags:\n- "test"\n- "ggml"\n- "gguf"\n' in head
    assert "quantized_by" not in head
    asked = shell.run("card", "models", "--no-measure", "--license", 'o"ther: x', "--quantized-by", "me").stdout
    assert 'license: "o\\"ther: x"\n' in asked
    assert 'quantized_by: "me"\n' in asked


def test_the_same_files_give_the_same_page(shell: Shell) -> None:
    first = shell.run("card", "models", "--no-measure")
    assert shell.run("card", "models", "--no-measure").stdout == first.stdout
    assert "date" not in first.stdout.lower()
    assert "- Date: 2026-11-25\n" in shell.run("card", "models", "--no-measure", "--date", "2026-11-25").stdout


def test_every_selfee_command_of_the_page_works(shell: Shell) -> None:
    (shell.folder / "models" / "prose.txt").write_text("the sky is blue because light scatters " * 150)
    page = shell.run("card", "models", "--no-measure").stdout
    lines = [line for line in commands_of(page) if line.startswith("selfee ")]
    assert {line.split()[1] for line in lines} == {"ask", "inspect", "perplexity"}
    inside = Shell(shell.folder / "models", shell.variables)
    for line in lines:
        done = run_line(inside, line)
        assert done.returncode == 0 or (line.startswith("selfee ask") and done.returncode == 1), (line, done)  # cut off
        assert done.stdout.strip(), (line, done)


def run_line(shell: Shell, line: str) -> Outcome:
    return shell.run(*shlex.split(line)[1:], check=None)


def test_memory_is_measured_for_every_file(shell: Shell) -> None:
    page = shell.run("card", "models", "--context", "300").stdout
    rows = rows_of(page, "Provided files")
    for row in rows:
        number, unit = row[4].split()
        assert unit == "MB"
        assert 20 < float(number) < 200
    assert "evaluated a full context of 300 tokens" in page
    assert "computed" not in page


def test_the_context_is_at_most_what_the_model_was_trained_with(shell: Shell) -> None:
    page = shell.run("card", "models", "--no-measure", "-c", "100000").stdout
    assert "4,096 tokens" in rows_of(page, "Provided files")[0][4]
    assert "llama-cli -m tiny-q4_0.gguf -c 4096 " in page


def test_a_file_that_cannot_be_run_has_no_memory_and_says_why(shell: Shell) -> None:
    make_tiny(shell.folder / "models" / "other.gguf", metadata={"general.architecture": "mamba"})
    done = shell.run("card", "models", "--no-measure")
    row = next(row for row in rows_of(done.stdout, "Provided files") if row[0] == "`other.gguf`")
    assert row[4] == "–"
    assert "cannot be run" in done.stdout
    assert "mamba" in done.stdout


def test_memory_that_cannot_be_measured_is_computed_and_the_page_says_why(tmp_path: Path) -> None:
    make_tiny(tmp_path / "t.gguf", n_ctx=1 << 30)
    done = Shell(tmp_path).run("card", ".", "--context", str(1 << 30))
    assert "(computed)" in rows_of(done.stdout, "Provided files")[0][4]
    assert "- `t.gguf`: its memory was not measured: needs " in done.stdout
    assert "t.gguf: its memory was not measured" in done.stderr


def test_json_holds_all_facts(shell: Shell) -> None:
    value = json.loads(shell.run("card", "models", "--json", "-c", "64").stdout)
    assert value["license"] == "apache-2.0"
    assert value["prompt"]["kind"] == "chat"
    first = value["files"][0]
    assert first["mixture"]["method"] == "q4_0"
    assert first["memory"]["measured"] is True
    assert first["memory"]["total"] > first["memory"]["own"] > 0
    assert {command["program"] for command in value["commands"]} == {"selfee", "llama.cpp", "llama.cpp of 2023"}


def test_the_page_goes_to_a_file_whole(shell: Shell) -> None:
    done = shell.run("card", "models", "--no-measure", "-o", "models/README.md")
    page = (shell.folder / "models" / "README.md").read_text(encoding="utf-8")
    assert "written: 4 files described" in done.stdout
    assert page == shell.run("card", "models", "--no-measure").stdout
    assert done.stderr == ""
    assert not list((shell.folder / "models").glob(".*"))


def test_what_is_no_model_is_listed_and_left_out(shell: Shell) -> None:
    folder = shell.folder / "models"
    (folder / "broken.gguf").write_bytes((folder / "tiny-f16.gguf").read_bytes()[:3000])
    (folder / "weights.bin").write_bytes(b"PK\x03\x04" + bytes(50))
    (folder / "notes\x1b[31m.xyz").write_text("hello")
    (folder / "sub").mkdir()
    make_tiny(folder / "part.gguf", metadata={"split.count": 3})
    make_tiny(folder / "adapter.gguf", metadata={"general.type": "adapter"})
    done = shell.run("card", "models", "--no-measure")
    assert len(rows_of(done.stdout, "Provided files")) == 4
    lines = done.stderr.splitlines()
    assert all(line.startswith("left out: ") for line in lines)
    for words in ("broken.gguf", "weights.bin: is a zip archive", "one of 3 parts", "'adapter'", "\\x1b[31m.xyz"):
        assert any(words in line for line in lines), (words, lines)
    assert "\x1b" not in done.stderr
    assert shell.run("card", "models", "--no-measure", "-q").stderr == ""


@pytest.mark.parametrize("name", ["empty", "missing", "models/tiny-f16.gguf"])
def test_a_folder_without_a_model_is_a_misuse(shell: Shell, name: str) -> None:
    (shell.folder / "empty").mkdir()
    (shell.folder / "empty" / "README.md").write_text("# hello")
    done = shell.run("card", name, check=2)
    assert done.stdout == ""
    assert done.stderr.startswith(f"selfee: {name}: ")
    assert "expected" in done.stderr


def test_quality_comes_from_what_perplexity_wrote(shell: Shell) -> None:
    folder = shell.folder / "models"
    append_result(folder / "results.jsonl", measured(folder / "tiny-q8_0.gguf", ppl=9.5))
    append_result(folder / "results.jsonl", measured(folder / "tiny-q8_0.gguf", ppl=10.5))
    append_result(folder / "results.jsonl", measured(folder / "tiny-q4_0.gguf", ppl=11.25))
    append_result(folder / "results.jsonl", measured(folder / "tiny.ggmlv3.q5_1.bin", ppl=float("inf")))
    page = shell.run("card", "models", "--no-measure").stdout
    rows = {row[0].strip("`"): row[2:] for row in rows_of(page, "Quality")}
    assert rows["tiny-q8_0.gguf"] == ["10.5000 ± 0.1000", "+0.5000 ± 0.0500", "0.01000", "0.20000", "98.00%"]
    assert rows["tiny-q4_0.gguf"][0] == "11.2500 ± 0.1000"
    assert rows["tiny-f16.gguf"][0] == "not measured"
    assert rows["tiny.ggmlv3.q5_1.bin"][0] == "inf ± 0.1000"
    facts = json.loads(shell.run("card", "models", "--no-measure", "--json").stdout, parse_constant=pytest.fail)
    assert [len(file["quality"]) for file in facts["files"]] == [1, 1, 1, 0]
    assert facts["files"][1]["quality"][0]["ppl"] is None
    assert "Measured on prose.txt (SHA-256 aaaaaaaaaaaaaaaa…), 7 chunks of 512 tokens, against tiny-f16.gguf" in page


def test_a_measurement_of_other_bytes_is_not_used(shell: Shell) -> None:
    folder = shell.folder / "models"
    row = measured(folder / "tiny-q8_0.gguf", ppl=10.5)
    make_tiny(folder / "tiny-q8_0.gguf", type=QuantType.Q8_0, seed=5)
    append_result(folder / "results.jsonl", row)
    done = shell.run("card", "models", "--no-measure")
    assert "Not measured." in done.stdout
    assert "another file named tiny-q8_0.gguf" in done.stderr


def test_a_results_file_that_is_asked_for_must_be_there_and_sound(shell: Shell) -> None:
    missing = shell.run("card", "models", "--no-measure", "--results", "no.jsonl", check=2)
    assert "no.jsonl" in missing.stderr
    (shell.folder / "bad.jsonl").write_text('{"schema": 1}\n')
    bad = shell.run("card", "models", "--no-measure", "--results", "bad.jsonl", check=2)
    assert "bad.jsonl:1" in bad.stderr


def measured(path: Path, ppl: float) -> Quality:
    data = path.read_bytes()
    return Quality(
        file=path.name, size=len(data), mtime_ns=0, sha256=hashlib.sha256(data).hexdigest(), bits_per_weight=8.5,
        text="prose.txt", text_sha256="a" * 64, definition="current", n_ctx=512, chunks=7, positions=1778, ppl=ppl,
        ppl_error=0.1, tokens_per_second=100.0, threads=1, instruction_set="avx2", base="tiny-f16.gguf", base_ppl=10.0,
        ppl_difference=ppl - 10, ppl_difference_error=0.05, kld_mean=0.01, kld_percentiles={"99": 0.2}, same_top=0.98,
        selfee="0.1.0", date="2026-11-25T00:00:00Z",
    )  # fmt: skip


def test_figures_with_another_cache_stand_in_a_table_of_their_own(shell: Shell) -> None:
    path = shell.folder / "models" / "tiny-q8_0.gguf"
    for quality in (measured(path, 10.5), replace(measured(path, 10.6), cache_type="q8_0")):
        append_result(shell.folder / "r.jsonl", quality)
    page = shell.run("card", "models", "--no-measure", "--results", "r.jsonl").stdout
    assert page.count("7 chunks of 512 tokens, against") == 1
    assert page.count("7 chunks of 512 tokens, cache q8_0, against") == 1


def test_a_model_trained_on_chains_gets_the_prompt_it_was_trained_on(tmp_path: Path) -> None:
    make_tiny(tmp_path / "selfee.gguf", metadata={"selfee.trained_on_chains": True})
    page = Shell(tmp_path).run("card", ".", "--no-measure").stdout
    assert "\n\n### Instruction:\n{instruction}\n\n### Answer:\n\n```\n" in page
    assert '- "selfee"\n' in page
    assert "-no-cnv -e -p 'Below is" in page
    assert "\\n\\n### Answer:\\n'" in page


def test_the_line_for_main_of_2023_expands_its_line_breaks(shell: Shell) -> None:
    page = shell.run("card", "models", "--no-measure", "--prompt-format", "selfee").stdout
    line = next(line for line in commands_of(page) if line.startswith("./main "))
    assert " -m tiny.ggmlv3.q5_1.bin " in line
    assert " -e -p '" in line
    assert line.endswith("### Answer:\\n'")
    alpaca = shell.run("card", "models", "--no-measure", "--prompt-format", "alpaca").stdout
    assert "### Response:\n```" in alpaca
    assert "### Answer" not in alpaca


def test_a_chat_template_that_is_not_there_is_a_misuse(tmp_path: Path) -> None:
    make_tiny(tmp_path / "old.bin", container="ggjt3")
    done = Shell(tmp_path).run("card", ".", "--no-measure", "--prompt-format", "chat", check=2)
    assert "no file has a chat template" in done.stderr
    assert "do not say how the model wants to be asked" in Shell(tmp_path).run("card", ".", "--no-measure").stdout


HOSTILE = "x|<script>alert(1)</script>`[a](http://evil.example)`\n# big\n---\n```\n![i](http://evil.example/i.png)"


def test_a_stranger_s_words_stay_words(tmp_path: Path) -> None:
    told = {
        "general.name": HOSTILE, "general.license": HOSTILE, "general.description": HOSTILE, "general.tags": [HOSTILE],
        "general.languages": ["no", HOSTILE], f"selfee.{HOSTILE}": HOSTILE, "tokenizer.chat_template": HOSTILE,
        "general.base_model.0.repo_url": HOSTILE, "general.quantized_by": HOSTILE,
    }  # fmt: skip
    make_tiny(tmp_path / "a|b`c`<b>$(touch owned)&.gguf", metadata=told, n_ctx=4096)
    make_tiny(tmp_path / "line\nbreak' ---.gguf", metadata=told, n_ctx=4096)
    page = Shell(tmp_path).run("card", ".", "--no-measure").stdout
    _, head, body = page.split("---\n", 2)
    assert all(re.fullmatch(r'(- |[a-z_]+: )".*"|[a-z_]+:( [a-z-]+)?', line) for line in head.splitlines())
    tokens = MarkdownIt("commonmark", {"linkify": False}).enable("table").parse(body)
    kinds = [token.type for token in tokens] + [child.type for token in tokens for child in token.children or []]
    assert not {"html_block", "html_inline", "image", "link_open", "hr"} & set(kinds)
    titles = [tokens[index + 1].content for index, token in enumerate(tokens) if token.type == "heading_open"]
    assert titles[1:] == [
        "Provided files", "Quality", "Compatibility", "Prompt", "How to run", "Checksums", "Origin, licence, limits",
    ]  # fmt: skip
    assert kinds.count("td_open") == 2 * 7
    inside = Shell(tmp_path, {"SELFEE_SEED": "1", "SELFEE_MAX_ANSWER_TOKENS": "4"})
    line = next(line for line in commands_of(page) if line.startswith("selfee inspect"))
    assert run_bash(inside, line)
    assert not (tmp_path / "owned").exists()


def run_bash(shell: Shell, line: str) -> bool:
    program = " ".join(shell.command())
    words = line.replace("selfee ", f"{program} ", 1)
    done = subprocess.run(["bash", "-c", words], cwd=shell.folder, env=shell.environ, capture_output=True, timeout=60)
    return done.returncode == 0


def test_a_terminal_sees_how_far_a_measurement_is() -> None:
    stream = io.StringIO()
    display = CardDisplay(Screen(stream, is_terminal=True, has_color=False, width=80))
    display.tokens("running x.gguf", 512, 2048)
    display.tokens("running x.gguf", 768, 2048)
    display.end()
    assert stream.getvalue().endswith("\r\x1b[Krunning x.gguf  768 of 2,048 tokens\n")
    silent = io.StringIO()
    CardDisplay(Screen(silent, is_terminal=False, has_color=False, width=80)).tokens("running", 1, 2)
    assert silent.getvalue() == ""
