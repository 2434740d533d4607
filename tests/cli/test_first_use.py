"""Every command as somebody meets it who has read nothing: alone, with --help, mistyped, narrow, piped, without stdin.

The commands are found in the app itself, so a new one is tested from its first day.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.cells import cell_len
from tests.cli.story import Outcome, Shell
from tests.tiny import make_tiny

from selfee.cli.app import COMMANDS, app

NARROW = 40
MISSING = "nowhere.gguf"


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something: (its words, it)."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name in children:
        yield from leaves(children[name], (*path, name))


@cache
def commands() -> dict[str, Any]:
    return {" ".join(path): command for path, command in leaves(typer.main.get_command(app))}


def slow_but(quick: AbstractSet[str]) -> list[Any]:
    """Every command, for a process of its own; only these few in the default run, as each takes a second."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.minutes) for name in sorted(commands())]


STAYS = {"serve"}  # until it is stopped, where there is a model
GROUPS = sorted({name.rsplit(" ", 1)[0] for name in commands() if " " in name})
ALL = sorted([*commands(), *GROUPS])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A machine on which nothing is installed and nothing can be fetched, with a home of its own."""
    nobody = "http://127.0.0.1:9"  # where nothing listens
    return Shell(
        tmp_path,
        {
            "HOME": str(tmp_path),
            "XDG_DATA_HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path),
            "HTTPS_PROXY": nobody,
            "HTTP_PROXY": nobody,
            "HF_ENDPOINT": nobody,
        },
    )


def run_alone(shell: Shell, words: list[str], script: str = 'exec "$@" </dev/null') -> Outcome:
    """Run as a process; one that stays, as a server does, is stopped as a person would stop it."""
    child = subprocess.Popen(
        ["sh", "-c", script, "sh", *shell.command(*words)],
        cwd=shell.folder,
        env=shell.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = child.communicate(timeout=45)
        return Outcome(child.returncode, out.decode(), err.decode())
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=45)
        assert child.returncode in (0, 130), (out, err)
        return Outcome(0, out.decode() or "it stayed", err.decode())
    finally:
        child.kill()


def is_one_paragraph(text: str) -> bool:
    """One line that begins with who speaks and ends like a sentence of ours: no traceback, no frame, no colour."""
    lines = text.rstrip("\n").splitlines()
    return len(lines) == 1 and lines[0].startswith("selfee: ") and "\x1b" not in text and not lines[0].endswith(" ")


def test_the_sweep_finds_every_command() -> None:
    assert {name.split()[0] for name in commands()} == set(COMMANDS)


@pytest.mark.parametrize("name", ALL)
def test_help_comes_at_once_says_what_it_does_and_shows_examples(shell: Shell, name: str) -> None:
    done = shell.run(*name.split(), "--help")
    assert done.stderr == ""
    assert done.stdout.startswith(f"Usage: selfee {name}")
    if name in commands():
        assert re.search(rf"^  .*selfee {name}\b", done.stdout, re.MULTILINE), "an example that can be copied"
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ALL)
def test_h_is_help_too(shell: Shell, name: str) -> None:
    assert shell.run(*name.split(), "-h").stdout == shell.run(*name.split(), "--help").stdout


@pytest.mark.parametrize("name", ALL)
def test_help_fits_a_narrow_terminal(tmp_path: Path, name: str) -> None:
    """All but examples, which would not be commands any more if they were broken, and names longer than the line."""
    shell = Shell(tmp_path, {"COLUMNS": str(NARROW)})
    goes_on = False
    for line in shell.run(*name.split(), "--help").stdout.splitlines():
        is_example = goes_on or re.match(r"\s+(\w+=\S+ |\w+ '.*\| )?selfee |\s+(printf|curl|torchrun) ", line)
        goes_on = line.endswith("\\")
        assert is_example or fits(line), line


def fits(line: str) -> bool:
    """Whether a line is no wider than a narrow terminal; a word that is longer than most lines may stick out."""
    return cell_len(line) <= NARROW or max(map(cell_len, line.split())) > NARROW - 20


@pytest.mark.parametrize("name", sorted(set(ALL) - {"completion", "chat", "serve", "models pull"}))
def test_in_a_narrow_terminal_what_it_says_fits(shell: Shell, name: str) -> None:
    """Without arguments; not of what is made for a shell, asks or stays, or shows how far a download is."""
    narrow = Shell(shell.folder, shell.variables | {"COLUMNS": str(NARROW), "NO_COLOR": "1"}, is_terminal=True)
    done = narrow.run(*name.split(), check=None)
    said = (done.stdout + done.stderr).partition("Examples:")[0]
    assert all(map(fits, said.splitlines())), said


def test_tables_fit_a_narrow_terminal(shell: Shell) -> None:
    make_tiny(shell.folder / "model.gguf")
    narrow = Shell(shell.folder, {"COLUMNS": str(NARROW), "NO_COLOR": "1"}, is_terminal=True)
    for words in (("inspect", "model.gguf"), ("inspect", "model.gguf", "--tensors", "--metadata"), ("models", "list")):
        shown = narrow.run(*words).stdout
        assert all(map(fits, shown.splitlines())), shown


@pytest.mark.parametrize("name", ALL)
def test_a_mistyped_flag_is_named_with_the_right_one(shell: Shell, name: str) -> None:
    command: Any = commands().get(name)
    flags = ["--help"] if command is None else [flag for option in command.params for flag in option.opts]
    flag = max((flag for flag in flags if flag.startswith("--")), key=len, default="--help")
    done = shell.run(*name.split(), flag + "x", check=2)
    assert is_one_paragraph(done.stderr), done.stderr
    assert "did you mean" in done.stderr
    assert flag in done.stderr.partition("did you mean")[2]
    assert f"see: selfee {name} --help" in done.stderr


@pytest.mark.parametrize("name", ALL)
def test_a_mistyped_command_is_named_with_the_right_one(shell: Shell, name: str) -> None:
    *before, word = name.split()
    typo = word + "x"
    assert difflib.get_close_matches(typo, [word])
    done = shell.run(*before, typo, check=2)
    assert is_one_paragraph(done.stderr), done.stderr
    assert word in done.stderr
    assert "did you mean" in done.stderr


def check_first_words(done: Outcome) -> None:
    """Either something to read, or what is missing, in one sentence at the end."""
    assert done.returncode in (0, 1, 2)
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    if done.returncode:
        last = done.stderr.rstrip("\n").splitlines()[-1]
        assert last.startswith("selfee: "), done.stderr
        assert len(last) > 30
    else:
        assert done.stdout.strip(), "something to read"


@pytest.mark.parametrize("name", sorted(set(commands()) - STAYS))
def test_without_arguments_it_works_or_says_what_is_missing(shell: Shell, name: str) -> None:
    done = shell.run(*name.split(), check=None)
    check_first_words(done)
    if "missing argument" in done.stderr or "missing option" in done.stderr:
        assert f"for example: selfee {name} " in done.stderr


@pytest.mark.parametrize("name", slow_but(STAYS))
def test_without_arguments_as_a_process_it_does_the_same(shell: Shell, name: str) -> None:
    check_first_words(run_alone(shell, name.split()))


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_file_that_is_not_there_is_named(shell: Shell, name: str) -> None:
    """In every place for words, and, where a command takes a model by flag, there."""
    arguments = [option for option in commands()[name].params if option.param_type_name == "argument"]
    takes_model = any("--model" in option.opts for option in commands()[name].params)
    if not arguments and not takes_model:
        pytest.skip("takes no file")
    words = [MISSING] * max(1, sum(option.required for option in arguments) or 1) if arguments else []
    extra = ["-m", MISSING, *(["-p", "x"] if name == "main" else [])] if takes_model else []
    needed = [option for option in commands()[name].params if option.param_type_name == "option" and option.required]
    extra += [word for option in needed for word in (option.opts[0], "new")]
    done = shell.run(*name.split(), *extra, *words, check=None)
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    said = done.stderr or done.stdout  # what looks at several files tells of each where it tells of the others
    assert "nowhere" in said or "expected" in said, said
    assert "Traceback" not in done.stderr
    assert "unexpected" not in said


@pytest.mark.parametrize("name", slow_but({"ask", "models list"}))
def test_with_stdin_stdout_and_stderr_closed_it_ends_with_a_code(shell: Shell, name: str) -> None:
    """As a process: what is closed cannot be pretended from within."""
    done = run_alone(shell, name.split(), 'exec "$@" <&- >&- 2>&-')
    assert done.returncode in (0, 1, 2)


@pytest.mark.minutes
@pytest.mark.parametrize("name", ALL)
def test_help_into_a_reader_that_leaves_is_no_error_to_look_at(shell: Shell, name: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        shell.command(*name.split(), "--help"),
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=shell.folder,
        env=shell.environ,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_a_command_like_no_other_gets_the_list_of_those_there_are(shell: Shell, group: str) -> None:
    children = [name for name in ALL if name.rpartition(" ")[0] == group]
    done = shell.run(*group.split(), "xyzzy", check=2)
    assert is_one_paragraph(done.stderr), done.stderr
    listed = done.stderr.partition("there are ")[2].partition(";")[0].split(", ")
    assert sorted(listed) == sorted(name.rpartition(" ")[2] for name in children)


@pytest.mark.parametrize(("flag", "expected"), [("--revisions", "a whole number"), ("--temperature", "a number")])
def test_a_word_that_is_no_number_is_refused_in_plain_words(shell: Shell, flag: str, expected: str) -> None:
    done = shell.run("ask", flag, "many", "Why?", check=2)
    assert is_one_paragraph(done.stderr), done.stderr
    assert f"{flag}': expected {expected}; see: selfee ask --help" in done.stderr
    assert "see: selfee ask --help" in shell.run("ask", "Why?", flag, check=2).stderr


def test_no_command_at_all_shows_the_help(shell: Shell) -> None:
    done = shell.run(check=2)
    shown = done.stdout + done.stderr
    for name in COMMANDS:
        assert re.search(rf"^  {name}\b", shown, re.MULTILINE)


@pytest.mark.parametrize("name", ["ask", "models list", "doctor", "inspect"])
def test_pipes_have_no_colour_and_no_color_has_none_on_a_terminal(shell: Shell, name: str) -> None:
    plain = shell.run(*name.split(), check=None)
    assert "\x1b" not in plain.stdout + plain.stderr
    variables = shell.variables | {"NO_COLOR": "1", "TERM": "xterm"}
    quiet = Shell(shell.folder, variables, is_terminal=True).run(*name.split(), check=None)
    assert "\x1b" not in quiet.stdout + quiet.stderr


def test_a_terminal_has_colour(shell: Shell) -> None:
    """So that the absence of colour above says something."""
    colourful = Shell(shell.folder, shell.variables | {"TERM": "xterm"}, is_terminal=True)
    assert "\x1b[" in colourful.run("models", "list").stdout
