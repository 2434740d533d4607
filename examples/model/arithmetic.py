"""Arithmetic word problems of our own, answers with the usual slips, and feedback that works every step out anew.

An answer states each step at once; feedback takes the same step apart into hundreds, tens and ones before it compares.
So a critic has more to go by than the answer had, and a revision has something to copy from.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

Draw = random.Random

NAMES = (
    "Ada",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Leo",
    "Mina",
    "Noah",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tara",
    "Yuki",
)
THINGS = (
    "apples",
    "pens",
    "books",
    "stamps",
    "marbles",
    "shells",
    "cards",
    "tickets",
    "cookies",
    "eggs",
    "bricks",
    "flowers",
    "coins",
    "bottles",
)
BOXES = ("boxes", "bags", "baskets", "crates", "shelves", "packs", "trays", "rows")

ASK_STEPS = "Solve it step by step. End with the final answer, a number, on a line of its own."
"""The words with which ``selfee revisions`` asks for a number."""


@dataclass(frozen=True)
class Step:
    """One sum: what it is about, and ``left sign right``."""

    about: str
    left: int
    sign: str  # + - ×
    right: int

    @property
    def value(self) -> int:
        """What it comes to."""
        return _VALUES[self.sign](self.left, self.right)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


@dataclass(frozen=True)
class Problem:
    """A question and the steps that answer it; the last step's value is the answer."""

    question: str
    steps: tuple[Step, ...]

    @property
    def result(self) -> int:
        """The right number."""
        return self.steps[-1].value


_VALUES: dict[str, Callable[[int, int], int]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "×": lambda left, right: left * right,
}


def draw_problem(draw: Draw) -> Problem:
    """A problem of one or two steps."""
    return draw.choice((_bare, _gain, _loss, _packs, _packs_and_more, _packs_less, _gain_and_loss, _prices))(draw)


def _bare(draw: Draw) -> Problem:
    sign = draw.choice("+-×")
    left, right = (draw.randint(2, 9), draw.randint(3, 19)) if sign == "×" else _two(draw)
    step = Step("", left, sign, right)
    return Problem(draw.choice(("What is {}?", "Calculate {}.", "How much is {}?")).format(step), (step,))


def _two(draw: Draw) -> tuple[int, int]:
    """A larger and a smaller number below a hundred."""
    right = draw.randint(5, 45)
    return right + draw.randint(4, 50), right


def _gain(draw: Draw) -> Problem:
    name, thing, (left, right) = draw.choice(NAMES), draw.choice(THINGS), _two(draw)
    tale = draw.choice(("gets {} more", "buys {} more", "finds another {}", "is given {} more"))
    question = f"{name} has {left} {thing} and {tale.format(right)}. How many {thing} does {name} have now?"
    return Problem(question, (Step(f"All {thing} together", left, "+", right),))


def _loss(draw: Draw) -> Problem:
    name, thing, (left, right) = draw.choice(NAMES), draw.choice(THINGS), _two(draw)
    tale = draw.choice(("gives {} away", "sells {} of them", "loses {} of them", "uses {} of them"))
    question = f"{name} has {left} {thing} and {tale.format(right)}. How many {thing} are left?"
    return Problem(question, (Step(f"The {thing} that are left", left, "-", right),))


def _packs(draw: Draw) -> Problem:
    box, thing, count, each = draw.choice(BOXES), draw.choice(THINGS), draw.randint(2, 9), draw.randint(3, 19)
    question = f"There are {count} {box} with {each} {thing} in each. How many {thing} are there in all?"
    return Problem(question, (Step(f"{thing.capitalize()} in {count} {box}", count, "×", each),))


def _packs_and_more(draw: Draw) -> Problem:
    name, box, thing = draw.choice(NAMES), draw.choice(BOXES), draw.choice(THINGS)
    count, each, more = draw.randint(2, 6), draw.randint(3, 12), draw.randint(5, 40)
    question = (
        f"{name} has {more} {thing} and buys {count} {box} with {each} {thing} each. How many {thing} does {name} have "
        "then?"
    )
    bought = Step(f"{thing.capitalize()} in {count} {box}", count, "×", each)
    return Problem(question, (bought, Step("With those from before", more, "+", bought.value)))


def _packs_less(draw: Draw) -> Problem:
    name, box, thing = draw.choice(NAMES), draw.choice(BOXES), draw.choice(THINGS)
    count, each = draw.randint(2, 6), draw.randint(4, 12)
    gone = draw.randint(2, count * each - 2)
    question = (
        f"{name} has {count} {box} with {each} {thing} each and gives {gone} {thing} away. How many {thing} are left?"
    )
    all_ = Step(f"{thing.capitalize()} in {count} {box}", count, "×", each)
    return Problem(question, (all_, Step(f"The {thing} that are left", all_.value, "-", gone)))


def _gain_and_loss(draw: Draw) -> Problem:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    first, second = draw.randint(8, 50), draw.randint(5, 40)
    gone = draw.randint(3, first + second - 3)
    question = (
        f"On Monday {name} collects {first} {thing}, on Tuesday {second} more, and on Wednesday {gone} of them are "
        f"sold. How many {thing} does {name} still have?"
    )
    all_ = Step("Monday and Tuesday together", first, "+", second)
    return Problem(question, (all_, Step("Without those sold", all_.value, "-", gone)))


def _prices(draw: Draw) -> Problem:
    name, count, price = draw.choice(NAMES), draw.randint(2, 6), draw.randint(3, 15)
    purse = count * price + draw.randint(2, 40)
    question = (
        f"{name} has {purse} dollars and buys {count} tickets for {price} dollars each. How many dollars does {name} "
        "have left?"
    )
    paid = Step(f"Price of {count} tickets", count, "×", price)
    return Problem(question, (paid, Step("What is left", purse, "-", paid.value)))


def ask(problem: Problem, draw: Draw) -> str:
    """The question as it is put: about half the time with the words of ``selfee revisions``."""
    return f"{problem.question}\n\n{ASK_STEPS}" if draw.random() < 0.6 else problem.question


def write_answer(steps: tuple[Step, ...], values: tuple[int, ...]) -> str:
    """An answer that states each step with the value it came to, and the last value on a line of its own."""
    lines = [
        f"{step.about}: {step} = {value}." if step.about else f"{step} = {value}"
        for step, value in zip(steps, values, strict=True)
    ]
    return "\n".join([*lines, str(values[-1])])


def work_out(step: Step) -> str:
    """A step taken apart: ``347 + 286: 300 + 200 = 500, 40 + 80 = 120, 7 + 6 = 13, together 633.``"""
    return f"{step}: {_WORKINGS[step.sign](step.left, step.right)}."


def _places(number: int) -> list[int]:
    digits = str(number)
    return [int(digit) * 10 ** (len(digits) - place - 1) for place, digit in enumerate(digits) if digit != "0"]


def _work_sum(left: int, right: int) -> str:
    said, sums = [], []
    for unit in (1000, 100, 10, 1):
        one, other = left // unit % 10 * unit, right // unit % 10 * unit
        if one or other:
            said.append(f"{one} + {other} = {one + other}")
            sums.append(one + other)
    parts = ", ".join(said)
    total = 0
    for place, part in enumerate(sums):
        if place:
            parts += f", {total} + {part} = {total + part}"
        total += part
    return parts


def _work_difference(left: int, right: int) -> str:
    said = []
    for part in _places(right):
        said.append(f"{left} - {part} = {left - part}")
        left -= part
    return ", ".join(said)


def _work_product(left: int, right: int) -> str:
    parts = [left * part for part in _places(right)]
    said = [f"{left} × {part} = {left * part}" for part in _places(right)]
    total = parts[0]
    for part in parts[1:]:
        said.append(f"{total} + {part} = {total + part}")
        total += part
    return ", ".join(said)


_WORKINGS: dict[str, Callable[[int, int], str]] = {"+": _work_sum, "-": _work_difference, "×": _work_product}


@dataclass(frozen=True)
class Wrong:
    """An answer with a mistake, and what is wrong with it."""

    answer: str
    feedback: str


def slip(step: Step, draw: Draw) -> int:
    """A value that somebody might have come to: a carry forgotten, a digit off, two digits exchanged."""
    right = step.value
    digits = list(str(right))
    found = {right + by for by in (-1, 1, -2, 2, -10, 10, -100, 100) if abs(by) * 2 <= max(2, right)}
    if len(digits) > 1:
        place = draw.randrange(len(digits) - 1)
        digits[place], digits[place + 1] = digits[place + 1], digits[place]
        found.add(int("".join(digits)))
    return draw.choice(sorted(value for value in found if value > 0 and value != right))


def judge(steps: tuple[Step, ...], values: tuple[int, ...]) -> tuple[str, bool]:
    """Feedback on an answer of the right steps: each worked out and compared until one is wrong; whether all hold."""
    said = []
    for step, value in zip(steps, values, strict=True):
        said.append(work_out(step))
        if value != step.value:
            said.append(f"That is {step.value}, and the answer says {value}. Revision is needed.")
            return " ".join(said), False
        said.append(f"The answer says {value}, right.")
    return f"{' '.join(said)} Revision is not needed.", True


def carried(problem: Problem, at: int, value: int) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    """The steps and values of an answer that comes to ``value`` in step ``at`` and goes on from there."""
    steps, values = list(problem.steps), [step.value for step in problem.steps]
    values[at] = value
    for place in range(at + 1, len(steps)):
        old, step = problem.steps[place - 1].value, steps[place]
        left = values[place - 1] if step.left == old else step.left
        right = values[place - 1] if step.right == old else step.right
        steps[place] = Step(step.about, left, step.sign, right)
        values[place] = steps[place].value
    return tuple(steps), tuple(values)


def draw_wrong(problem: Problem, draw: Draw) -> Wrong:
    """An answer with one mistake: a slip, the wrong kind of sum, or the last step missing."""
    kind = draw.choices(("slip", "sign", "missing"), (7, 2, 2 if len(problem.steps) > 1 else 0))[0]
    if kind == "missing":
        kept = problem.steps[:-1]
        missing = problem.steps[-1]
        answer = write_answer(kept, tuple(step.value for step in kept))
        why = f"A step is missing: {missing.about[0].lower()}{missing.about[1:]}. {work_out(missing)}"
        return Wrong(answer, f"{why} The answer stops at {kept[-1].value}. Revision is needed.")
    at = draw.randrange(len(problem.steps))
    step = problem.steps[at]
    if kind == "sign":
        # A difference or product taken for a sum, or a sum for a difference: never below zero.
        sign = "+" if step.sign != "+" else "-"
        other = Step(step.about, max(step.left, step.right), sign, min(step.left, step.right))
        steps, values = carried(problem, at, other.value)
        shown = tuple(other if place == at else one for place, one in enumerate(steps))
        if all(value > 0 for value in values):
            why = f"The question asks for {step}, and the answer works out {other}. {work_out(step)}"
            return Wrong(write_answer(shown, values), f"{why} That is {step.value}. Revision is needed.")
    steps, values = carried(problem, at, slip(step, draw))
    return Wrong(write_answer(steps, values), judge(steps, values)[0])


def right_answer(problem: Problem) -> Wrong:
    """The right answer and the feedback that finds it right."""
    values = tuple(step.value for step in problem.steps)
    return Wrong(write_answer(problem.steps, values), judge(problem.steps, values)[0])
