"""``selfee chat`` in a real terminal, on the real embedded model: every command, every kind of interruption.

Driven through tmux, because only a terminal shows what a line editor, a resize or a paste make of the screen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from tests.cli import tmux
from tests.cli.story import QUESTION, Shell
from tests.cli.test_real_model import models as models

from selfee.cli.chatting.commands import COMMANDS
from selfee.cli.chatting.conversation import Conversation

pytestmark = [
    pytest.mark.minutes,
    pytest.mark.network,
    pytest.mark.timeout(900),  # a real model, twenty times, on a machine that others may use too
    pytest.mark.skipif(tmux.missing() is not None, reason=str(tmux.missing())),
]

BRIEF = ("--max-answer-tokens", "300", "--max-feedback-tokens", "60", "--max-revision-tokens", "300")


class Chat:
    """A chat in a terminal. ``typed`` collects the commands that were used."""

    def __init__(self, window: tmux.Terminal, shell: Shell) -> None:
        self.window = window
        self.shell = shell
        self.typed: set[str] = set()

    def start(self, *words: str) -> None:
        self.window.enter(" ".join([*self.shell.command("chat", *words), "; echo left with $?"]))
        self.window.wait_until_ready()

    def say(self, entry: str, expected: str) -> str:
        """Enter something, wait until it is done, and see that it says what it should; returns what it said."""
        if entry.startswith("/"):
            self.typed.add(entry[1:].split()[0])
        before = self.window.text()
        self.window.enter(entry)
        self.window.wait_for(expected, times=len(re.findall(expected, before)) + 1)
        return self.window.wait_until_ready()[len(before) :]

    @property
    def conversations(self) -> list[Conversation]:
        return [Conversation.load(path) for path in sorted((self.shell.folder / "chats").glob("*.json"))]


@pytest.fixture
def chat(models: Path, tmp_path: Path) -> Iterator[Chat]:
    shell = Shell(tmp_path, {"SELFEE_MODELS": str(models), "SELFEE_CHATS": str(tmp_path / "chats")})
    environ = {name: value for name, value in shell.environ.items() if name not in ("COLUMNS", "LINES")}
    with tmux.terminal(tmp_path, environ) as window:
        yield Chat(window, shell)


def test_every_command_is_used_on_the_real_model(chat: Chat, tmp_path: Path) -> None:
    chat.start(*BRIEF, "--min-revisions", "1", "--max-revisions", "1")
    said = chat.say(QUESTION, r"tokens/s")
    assert re.search(r"^answer  ", said, re.MULTILINE)
    assert re.search(r"^feedback 1  ", said, re.MULTILINE)
    assert re.search(r"^revision 1  ", said, re.MULTILINE)
    chat.say("/help", r"show this list[\s\S]*?written with two")
    chat.say("/more", r"revision 2[\s\S]*?tokens/s")
    chat.say("/feedback Say it in one sentence.", r"revision 3[\s\S]*?tokens/s")
    chat.say("/diff 0 1", r"answer 0 → 1: ")
    chat.say("/chain", r"revision 3[\s\S]*?tokens/s")
    chat.say("/raw", r"### Revision 1:")
    chat.say("/accept 0", r"final answer")
    chat.say("/stats", r"last chain: \d+ revisions")
    chat.say("/rev off", r"one answer only")
    chat.say("/regen", r"tokens/s")
    chat.say("/fold", r"only final answers")
    chat.say("What is a llama?", r"llama")
    chat.say("/system Answer in French.", r"system: Answer in French\.")
    chat.say("/template", r"template: .*ChatML")
    chat.say("/template alpaca", r"template: Alpaca")
    chat.say("/template own", r"template: .*ChatML")
    chat.say("/model smollm2-135m", r"model: smollm2-135m")
    chat.say(f"/save {tmp_path / 'kept.json'}", r"saved: ")
    chat.say("/clear", r"a new conversation")
    chat.say(f"/load {tmp_path / 'kept.json'}", r"2 questions")
    chat.say("/nonsense", r"no such command")
    chat.typed.discard("nonsense")
    chat.window.enter("/quit")
    chat.typed.add("quit")
    chat.window.wait_for(r"left with 0")
    assert chat.typed == set(COMMANDS)
    assert json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))["system"] == "Answer in French."


@pytest.mark.parametrize("section", ["answer", "feedback 1", "revision 1"])
def test_ctrl_c_in_each_section_keeps_what_was_finished(chat: Chat, section: str) -> None:
    chat.start("--min-revisions", "3", "--max-revisions", "3")
    chat.window.enter(QUESTION)
    chat.window.wait_for(rf"(?m)^{section}\s+\w+ \w+")
    chat.window.press("C-c")
    said = chat.window.wait_until_ready()
    kind = section.split()[0]
    assert re.search(rf"cancelled.*{kind}|cut off", said)
    assert "^C" not in said
    (chain,) = chat.conversations[0].chains
    assert (chain.delivered is None) == (section == "answer")
    assert chain.cut is not None
    assert chain.cut.value == "cancelled"
    chat.window.press("C-c")
    chat.window.wait_for("once more")
    chat.window.press("C-c")
    chat.window.wait_for("left with 0")


def test_a_resize_in_the_middle_and_at_the_prompt_leaves_a_screen_in_order(chat: Chat) -> None:
    chat.start(*BRIEF, "-r", "1")
    chat.window.enter(QUESTION)
    chat.window.wait_for(r"(?m)^answer\s+\w+ \w+")
    chat.window.resize(60, 20)
    chat.window.wait_until_ready()
    chat.window.clear()
    chat.window.press("Enter")
    chat.say("And what colour is the sea?", r"tokens/s")
    for line in chat.window.text().splitlines():  # in one piece also where the terminal had to break it
        assert cell_len(line.rstrip()) <= 60, line
    chat.window.type("half an entr")
    chat.window.resize(40, 12)
    chat.window.type("y")
    screen = chat.window.wait_for(r"half an entry")
    assert screen.count("half an entr") == 1, "redrawn in place, not once more"
    chat.window.press("C-c")
    chat.window.wait_for("once more")


def test_ten_thousand_characters_are_pasted_as_one_question(chat: Chat) -> None:
    chat.start("-r", "0", "--max-answer-tokens", "20")
    lines = [f"Line {number}: the sky is blue, because air scatters blue light most." for number in range(160)]
    lines[3] = "空は青い。 השמיים כחולים. é 👍"
    pasted = "\n".join(lines)
    assert len(pasted) >= 10_000
    chat.window.paste(pasted)
    chat.window.wait_for("Line 159")
    chat.window.press("Enter")
    chat.window.wait_for("tokens/s", 250)
    chat.window.wait_until_ready()
    (chain,) = chat.conversations[0].chains
    assert chain.instruction.text == pasted


def test_wide_and_right_to_left_letters_are_typed_edited_and_kept(chat: Chat) -> None:
    chat.start("-r", "0", "--max-answer-tokens", "20")
    chat.window.type("空はなぜ青い？ למה? é👍x")
    chat.window.press("BSpace", "Left", "BSpace", "End")
    chat.window.wait_for("空はなぜ青い")
    chat.window.press("Enter")
    chat.window.wait_for("tokens/s")
    chat.window.wait_until_ready()
    (chain,) = chat.conversations[0].chains
    assert chain.instruction.text == "空はなぜ青い？ למה? 👍"
    chat.window.press("Up")
    chat.window.wait_for(r"› 空はなぜ青い？ למה\? 👍\s*$")


def test_a_conversation_is_gone_on_with_and_its_cache_with_it(chat: Chat) -> None:
    chat.start(*BRIEF, "-r", "0")
    chat.say("My name is Ada. What is the capital of France?", r"tokens/s")
    chat.window.press("C-d")
    chat.window.wait_for("left with 0")
    chat.start(*BRIEF, "-r", "0", "--continue")
    chat.say("And of Spain?", r"tokens/s")
    (conversation,) = chat.conversations
    first, second = conversation.chains
    cost = second.steps[0].answer_cost
    assert cost is not None
    assert first.steps[0].answer_cost is not None
    assert cost.cached_tokens >= first.steps[0].answer_cost.prompt_tokens
