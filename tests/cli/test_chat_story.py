"""``selfee chat``: every command, what is kept, and a person at a terminal who changes their mind."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from tests.cli.person import at_terminal
from tests.cli.story import CONTENT, CRITICAL, FIRST, ONE_REVISION, QUESTION, SECOND, Shell, reply, write_script
from tests.tiny import make_tiny

from selfee.cli.chatting.commands import COMMANDS, parse
from selfee.cli.chatting.conversation import Conversation, Shelf
from selfee.errors import BadFileError, UsageError

THIRD = "The sky scatters blue light most, day and night."


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell whose model is a script with one revision, twice."""
    script = write_script(tmp_path / "script.jsonl", [*ONE_REVISION, *ONE_REVISION])
    return Shell(tmp_path, {"SELFEE_MODEL": script, "SELFEE_CHATS": str(tmp_path / "chats")})


def chat(shell: Shell, *lines: str, words: tuple[str, ...] = ("--mode", "turns"), check: int | None = 0) -> str:
    done = shell.run("chat", *words, stdin="".join(line + "\n" for line in lines), check=check)
    assert check != 0 or done.stderr == ""
    return done.stdout


def test_a_question_is_answered_and_its_chain_is_kept(shell: Shell) -> None:
    said = chat(shell, QUESTION)
    assert "revision 1" in said
    assert "accepted after 1 revision" in said
    (path,) = (shell.folder / "chats").glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    (chain,) = Conversation.load(path).chains
    assert (chain.instruction.text, chain.final) == (QUESTION, SECOND)


def test_the_second_question_follows_the_first(shell: Shell) -> None:
    chat(shell, QUESTION, "And at night?")
    (path,) = (shell.folder / "chats").glob("*.json")
    first, second = Conversation.load(path).chains
    assert [(turn.question, turn.answer) for turn in second.instruction.history] == [(QUESTION, first.final)]


def test_every_command_does_what_its_help_says(tmp_path: Path) -> None:
    replies = [*ONE_REVISION, reply(THIRD), reply(CONTENT), reply(THIRD), reply(CONTENT), *ONE_REVISION]
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats")})
    script = write_script(tmp_path / "s.jsonl", replies)
    said = chat(
        shell,
        QUESTION,
        "/rev 2",
        "/rev auto",
        "/rev off",
        "/rev auto",
        "/more",
        "/feedback Leave the nights out.",
        "/diff 0 1",
        "/accept 0",
        "/chain",
        "/raw",
        "/fold",
        "/regen",
        "/stats",
        "/system Be brief.",
        "/model",
        f"/save {tmp_path / 'saved.json'}",
        "/clear",
        f"/load {tmp_path / 'saved.json'}",
        "/help",
        "/quit",
        "never read",
        words=("--mode", "turns", "-m", script),
    )
    for part in (
        "revisions: at least 2, at most 3",
        "revisions: off, one answer only",
        "revision 2",  # more
        "revision 3",  # feedback
        "[-reflects",
        "answer 0 → 1: ",
        "### Feedback 3:\nLeave the nights out. Revision is needed.",
        "only final answers",
        "system: Be brief.",
        f"model: {script}",
        "a new conversation",
        "saved.json: 1 question",
        "tokens/s",
    ):
        assert part in said, part
    for command in COMMANDS.values():
        assert f"/{command.name}" in said
    assert said.count(FIRST.split(",")[0].split(" ocean")[0]) >= 2, "accepted, and shown again"


def test_what_cannot_be_done_is_said_and_the_chat_goes_on(shell: Shell) -> None:
    said = chat(shell, "/more", "/diff", "/accept", "/nope", "/rev x", "/feedback", "/load nowhere.json", QUESTION)
    for part in ("no answer yet", "/nope: no such command", "'x' is no number", "expected TEXT", "cannot be read"):
        assert part in said
    assert "accepted after 1 revision" in said


def test_commands_may_be_shortened_and_slashes_doubled() -> None:
    assert parse("//etc is a folder") is None
    assert parse("what is /etc?") is None
    call = parse("/dif 0 1")
    assert call is not None
    assert (call.name, call.argument) == ("diff", "0 1")
    with pytest.raises(UsageError, match=r"did you mean /"):
        parse("/r")
    with pytest.raises(UsageError, match="takes nothing"):
        parse("/clear all")


def test_lines_that_end_with_a_backslash_are_one_question(shell: Shell) -> None:
    chat(shell, "One,\\", "two?")
    (path,) = (shell.folder / "chats").glob("*.json")
    assert Conversation.load(path).chains[0].instruction.text == "One,\ntwo?"


def test_continue_goes_on_with_the_latest_and_its_model(shell: Shell) -> None:
    chat(shell, QUESTION)
    said = chat(shell, "/stats", "And at night?", words=("--mode", "turns", "--continue"))
    assert "last chain: 1 revision" in said
    (path,) = (shell.folder / "chats").glob("*.json")
    assert len(Conversation.load(path).chains) == 2
    empty = Shell(shell.folder, shell.variables | {"SELFEE_CHATS": str(shell.folder / "none")})
    assert "no conversation" in empty.run("chat", "--continue", check=2).stderr


def test_nothing_is_kept_where_that_is_wished(shell: Shell) -> None:
    chat(shell, QUESTION, words=("--mode", "turns", "--no-keep"))
    assert not list(shell.folder.glob("chats/*.json"))


def test_a_local_model_goes_on_from_its_kept_cache(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "tiny.gguf", n_ctx=2048)
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats"), "SELFEE_MODEL": str(model)})
    words = ("--mode", "guided", "--prompts", "plain", "-r", "0", "--max-answer-tokens", "20", "--seed", "1")
    chat(shell, "One?", words=words)
    (session,) = (tmp_path / "chats").glob("*.session")
    chat(shell, "Two?", words=(*words, "--continue"))
    chains = json.loads(next((tmp_path / "chats").glob("*.json")).read_text())["chains"]
    assert chains[1]["steps"][0]["answer_cost"]["cached_tokens"] > 40
    assert session.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("[]", "no conversation of version 1"),
        ('{"selfee_conversation": 2}', "no conversation of version 1"),
        ('{"selfee_conversation": 1, "chains": 5}', "chains a list"),
        ('{"selfee_conversation": 1, "chains": [{}]}', r"chains\[0\]"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_damaged_conversation_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(BadFileError, match=said):
        Conversation.load(path)


def test_two_chats_of_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "new")
    names = set()
    for _ in range(3):
        path = shelf.new_path()
        path.touch()
        names.add(path)
    assert len(names) == 3


def test_ctrl_c_stops_an_answer_and_twice_at_an_empty_line_leaves(tmp_path: Path) -> None:
    replies = [reply(FIRST), reply(CRITICAL), reply("word " * 400, delay=0.05), reply(SECOND), reply(CONTENT)]
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats")})
    with at_terminal(shell, "chat", "--mode", "turns", "-m", write_script(tmp_path / "s.jsonl", replies)) as person:
        person.wait_for("/help for commands")
        person.wait_for("›")
        person.type(QUESTION + "\r")
        person.wait_for("revision 1")
        person.wait_for("word word")  # by then the script has given this reply away
        person.type("\x03")
        person.wait_for("cancelled")
        person.wait_for("final answer")
        person.wait_for("›")
        person.resize(20, 60)
        person.type("And now?\r")
        person.wait_for("not needed")
        person.wait_for("›")
        person.type("\x03")
        person.wait_for("once more")
        person.type("\x03")
        assert person.child.wait(20) == 0
    (path,) = (tmp_path / "chats").glob("*.json")
    first, second = Conversation.load(path).chains
    assert (first.final, second.final) == (FIRST, SECOND)


def test_a_signal_to_end_ends_and_keeps_what_is_finished(tmp_path: Path) -> None:
    replies = [reply(FIRST), reply(CRITICAL), reply("word " * 400, delay=0.05)]
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats")})
    with at_terminal(shell, "chat", "--mode", "turns", "-m", write_script(tmp_path / "s.jsonl", replies)) as person:
        person.wait_for("›")
        person.type(QUESTION + "\r")
        person.wait_for("revision 1")
        person.child.send_signal(signal.SIGTERM)
        assert person.child.wait(20) == 128 + signal.SIGTERM
    (path,) = (tmp_path / "chats").glob("*.json")
    assert Conversation.load(path).chains[0].final == FIRST


def test_an_answer_anew_that_is_stopped_at_once_loses_nothing(tmp_path: Path) -> None:
    replies = [*ONE_REVISION, reply("word " * 400, delay=0.05), reply(FIRST), reply(CONTENT)]
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats")})
    with at_terminal(shell, "chat", "--mode", "turns", "-m", write_script(tmp_path / "s.jsonl", replies)) as person:
        person.wait_for("›")
        person.type(QUESTION + "\r")
        person.wait_for("accepted after 1 revision")
        person.wait_for("›")
        person.type("/regen\r")
        person.wait_for("word word")
        person.type("\x03")
        person.wait_for("no answer was finished")
        person.wait_for("›")
        person.type("\x04")
        assert person.child.wait(20) == 0
    (path,) = (tmp_path / "chats").glob("*.json")
    (chain,) = Conversation.load(path).chains
    assert chain.final == SECOND


def test_another_model_goes_on_with_the_same_wishes(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats")})
    one = write_script(tmp_path / "one.jsonl", [reply(FIRST)])
    other = write_script(tmp_path / "other.jsonl", [reply(SECOND)])
    said = chat(shell, "/rev off", f"/model {other}", "/rev", QUESTION, words=("--mode", "turns", "-m", one))
    assert said.count("revisions: off") == 2
    assert SECOND.split(",")[0] in said
    assert "feedback" not in said


def test_a_long_paste_with_wide_and_right_to_left_letters_is_one_question(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {"SELFEE_CHATS": str(tmp_path / "chats")})
    pasted = "空はなぜ青い？ למה השמיים כחולים?\n" * 330
    script = write_script(tmp_path / "s.jsonl", [reply(FIRST), reply(CONTENT)])
    with at_terminal(shell, "chat", "--mode", "turns", "-m", script) as person:
        person.wait_for("›")
        person.type("\x1b[200~")
        for start in range(0, len(pasted), 512):
            person.type(pasted[start : start + 512])
            time.sleep(0.01)
        person.type("\x1b[201~")
        person.type("\r")
        person.wait_for("not needed")
        person.wait_for("›")
        person.type("\x04")
        assert person.child.wait(20) == 0
    (path,) = (tmp_path / "chats").glob("*.json")
    assert Conversation.load(path).chains[0].instruction.text == pasted.strip()
