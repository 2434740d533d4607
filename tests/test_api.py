"""``load``, ``revise``, ``stream``: the same options as the command line, and the same chains."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from tests.cli.story import CONTENT, CRITICAL, FIRST, ONE_REVISION, QUESTION, SECOND, reply, write_script
from tests.tiny import make_tiny

import selfee
from selfee.api import Options
from selfee.chain.record import to_json
from selfee.chain.samples import SamplesFinished
from selfee.chain.types import ChainEnd, ChainFinished, Check, VerdictSource

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "python.md"


@pytest.fixture
def model(tmp_path: Path) -> Iterator[selfee.RevisingModel]:
    """A model whose replies are written down: one revision, again and again."""
    with selfee.load(write_script(tmp_path / "s.jsonl", ONE_REVISION * 3), mode="turns") as opened:
        yield opened


def test_revise_makes_a_chain_and_stream_tells_how(model: selfee.RevisingModel) -> None:
    chain = model.revise(QUESTION)
    assert (chain.final, chain.num_revisions, chain.end) == (SECOND, 1, ChainEnd.ACCEPTED)
    events = list(model.stream(QUESTION))
    assert isinstance(events[-1], ChainFinished)
    assert events[-1].chain.final == SECOND


def test_options_of_load_hold_unless_a_chain_has_its_own(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(FIRST), *ONE_REVISION])
    with selfee.load(script, mode="turns", min_revisions=2, max_revisions=4, seed=5, temperature=0.2) as model:
        chain = model.revise(QUESTION, revisions=0, seed=6)
        assert (len(chain.steps), chain.seed) == (1, 6)
        assert chain.settings["params"]["temperature"] == 0.2
        chain = model.revise(QUESTION, max_revisions=1)  # what is said in general about numbers holds no more
        assert chain.settings["policy"]["min_revisions"] == 0
        assert chain.seed == 5


def test_a_chain_can_be_gone_on_with_and_criticised(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [*ONE_REVISION, reply("Third."), reply(CONTENT), reply("Fourth.")])
    with selfee.load(script, mode="turns") as model:
        chain = model.revise(QUESTION)
        more = model.revise(chain, feedback="Leave the nights out.")
        assert [step.answer for step in more.steps] == [FIRST, SECOND, "Third."]
        verdict = more.steps[1].verdict
        assert verdict is not None
        assert verdict.source is VerdictSource.USER
        assert more.seed == chain.seed
        assert model.revise(more).final == "Fourth."


def test_an_answer_of_ones_own_is_criticised_and_revised(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(CRITICAL), reply(SECOND), reply(CONTENT), reply("Third.")])
    with selfee.load(script, mode="turns") as model:
        chain = model.revise(QUESTION, answer="It is.", history=[("Hello?", "Yes?")], system="Be brief.")
        assert [step.answer for step in chain.steps] == ["It is.", SECOND]
        assert chain.instruction.history == (selfee.Exchange("Hello?", "Yes?"),)
        chain = model.revise(QUESTION, answer="It is.", feedback="Say why.")
        assert (chain.final, chain.steps[0].feedback) == ("Third.", "Say why. Revision is needed.")


def test_what_was_said_before_can_be_chains(model: selfee.RevisingModel) -> None:
    first = model.revise(QUESTION)
    second = model.revise("And at night?", history=[first])
    assert second.instruction.history == (selfee.Exchange(QUESTION, SECOND),)


def test_a_check_may_be_a_function_and_decide(tmp_path: Path) -> None:
    def has_scatters(instruction: selfee.Instruction, answer: str) -> Check:
        return Check("scatters" in answer)

    script = write_script(tmp_path / "s.jsonl", ONE_REVISION)
    with selfee.load(script, mode="turns") as model:
        chain = model.revise(QUESTION, checker=has_scatters, until_passed=True)
        assert (chain.end, chain.final) == (ChainEnd.PASSED, SECOND)


def test_best_of_answers_anew_and_delivers_what_most_agree_on(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(f"It is {number}.") for number in (7, 8, 8, 7, 7)])
    with selfee.load(script, mode="turns", min_revisions=2, seed=3) as model:
        samples = model.revise(QUESTION, best_of=3, keep="vote", vote_on="number", system="Be brief.")
        assert (len(samples.attempts), samples.final, samples.seed) == (3, "It is 8.", 3)
        assert samples.instruction.system == "Be brief."
        with model.stream(QUESTION, best_of=2, keep="first") as events:
            last = list(events)[-1]
        assert isinstance(last, SamplesFinished)
        assert events.samples.final == last.samples.final == "It is 7."


def test_best_of_nothing_goes_on_until_the_allowance_is_spent(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl", [reply(FIRST), reply(CRITICAL), reply(SECOND), reply(CONTENT)])
    with selfee.load(script, mode="turns") as model:
        samples = model.revise(QUESTION, best_of=0, total_tokens=25)
    assert samples.final == SECOND  # its critic is content
    assert len(samples.attempts) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"best_of": -1}, "is negative"),
        ({"best_of": 0}, "it would never end"),
        ({"best_of": 2, "revisions": 1}, "instead of revising"),
        ({"best_of": 2, "keep": "last"}, "expected one of first, score"),
        ({"best_of": 2, "vote_on": "number"}, "keep='vote'"),
        ({"best_of": 2, "answer": "It is."}, "expected a question alone"),
        ({"best_of": 2, "temperature": 0.0}, "temperature is 0"),
        ({"best_of": 2, "until_passed": True}, "no checker"),
        ({"temprature": 1.0}, "did you mean temperature?"),
        ({"colour": "red"}, "expected one of revisions"),
        ({"revisions": 1, "min_revisions": 1}, "minimum and maximum at once"),
        ({"feedback": "Why?"}, "no answer that it is about"),
        ({"answer": " "}, "the answer is empty"),
        ({"keep": "best"}, "expected one of last"),
        ({"vote_on": "number"}, "keep='vote'"),
        ({"samplers": "top_k"}, "is one string"),
        ({"top_p": 2.0}, "top_p: 2.0 is out of range"),
        ({"stop": "x"}, "expected a sequence"),
        ({"until_passed": True}, "no checker"),
    ],
)
def test_options_that_do_not_fit_are_named(model: selfee.RevisingModel, options: dict[str, object], said: str) -> None:
    with pytest.raises(selfee.SelfeeError, match=re.escape(said)):
        model.revise(QUESTION, **options)  # type: ignore[call-overload]


def test_a_chain_brings_its_own_question(model: selfee.RevisingModel) -> None:
    chain = model.revise(QUESTION)
    for extra in ({"input": "x"}, {"system": "x"}, {"history": [("a", "b")]}, {"answer": "x"}):
        with pytest.raises(selfee.SelfeeError, match="chain"):
            model.revise(chain, **extra)


def test_a_wrong_option_is_said_before_a_model_is_loaded() -> None:
    with pytest.raises(selfee.SelfeeError, match="temperature"):
        selfee.load("nowhere.gguf", temperature=-1.0)
    with pytest.raises(selfee.SelfeeError, match="give it to revise"):
        selfee.load("nowhere.gguf", best_of=3)  # type: ignore[call-arg]


def test_every_flag_of_ask_that_shapes_a_chain_is_an_option() -> None:
    from selfee.cli.app import app

    command = typer.main.get_command(app).commands["ask"]  # type: ignore[attr-defined]
    flags = {parameter.name for parameter in command.params}
    how_it_is_typed = {"question", "file", "show", "as_json", "as_jsonl", "color", "quiet", "session", "api_key_file"}
    of_load_or_revise = {"model", "input_text", "context", "threads", "repack", "cache_type", "drafting", "timeout"}
    of_load_or_revise |= {"template", "best_of"}
    otherwise = {"check_regex", "check_command", "check_judge", "check_timeout"}  # here functions or checkers
    assert flags - set(Options.__annotations__) - how_it_is_typed - of_load_or_revise == otherwise
    assert set(Options.__annotations__) - flags == {"checker", "reference"}


def test_the_command_line_and_python_make_the_same_chain(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "tiny.gguf", n_ctx=2048)
    words = "--min-revisions 1 --max-revisions 1 --seed 7 --max-answer-tokens 20 --max-feedback-tokens 20"
    done = subprocess.run(
        [sys.executable, "-m", "selfee.cli", "ask", "-m", str(path), *words.split(), "--json", "the sky"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    with selfee.load(path, max_answer_tokens=20, max_feedback_tokens=20) as model:
        chain = model.revise("the sky", min_revisions=1, max_revisions=1, seed=7)
    typed, made = json.loads(done.stdout), to_json(chain)
    assert without_times(typed) == without_times(json.loads(json.dumps(made)))


def without_times(value: object) -> object:
    """Without seconds, and without guesses, of which more or fewer are made as time allows."""
    if isinstance(value, dict):
        timed = ("seconds", "drafted", "accepted_tokens")
        return {name: without_times(item) for name, item in value.items() if not any(part in name for part in timed)}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_it_says_what_it_is(tmp_path: Path) -> None:
    script = write_script(tmp_path / "s.jsonl")
    with selfee.load(script, seed=1) as model:
        assert repr(model) == f"selfee.load({script!r}, seed=1)"


def test_import_stays_quick() -> None:
    """Processor time, the best of five: other work on the machine only ever adds to it."""
    code = "import time; start = time.process_time(); import selfee; print(time.process_time() - start)"
    times = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        times.append(float(done.stdout))
    assert min(times) < 0.05


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_guide_run(tmp_path: Path) -> None:
    """All in one go, as somebody who reads the page would type them, with a scripted model in the model's place."""
    script = write_script(tmp_path / "s.jsonl", ONE_REVISION * 20)
    code = "".join(blocks()).replace('"smollm2-135m"', f'{script!r}, mode="turns"')
    assert code.count(script) >= 2
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stderr, time.monotonic() - started)
    assert SECOND in done.stdout
    assert (tmp_path / "chain.html").read_text(encoding="utf-8").startswith('<div class="selfee-chain">')
