"""Tasks whose form a program can check: so many items, in this order, with these words. Made here, with seeds."""

from __future__ import annotations

import random
from dataclasses import dataclass

Draw = random.Random

KINDS: dict[str, tuple[str, ...]] = {
    "fruits": (
        "apple",
        "banana",
        "cherry",
        "grape",
        "lemon",
        "mango",
        "orange",
        "peach",
        "pear",
        "plum",
        "kiwi",
        "fig",
    ),
    "animals": ("cat", "dog", "horse", "cow", "lion", "tiger", "wolf", "bear", "fox", "rabbit", "sheep", "goat"),
    "colours": (
        "red",
        "blue",
        "green",
        "yellow",
        "purple",
        "orange",
        "pink",
        "brown",
        "black",
        "white",
        "grey",
        "teal",
    ),
    "countries": (
        "France",
        "Japan",
        "Brazil",
        "Kenya",
        "Canada",
        "India",
        "Norway",
        "Egypt",
        "Peru",
        "Spain",
        "Ghana",
        "Chile",
    ),
    "vegetables": (
        "carrot",
        "onion",
        "potato",
        "spinach",
        "pea",
        "bean",
        "cabbage",
        "leek",
        "radish",
        "beetroot",
        "pepper",
        "tomato",
    ),
    "tools": (
        "hammer",
        "saw",
        "drill",
        "pliers",
        "wrench",
        "chisel",
        "screwdriver",
        "file",
        "axe",
        "clamp",
        "level",
        "rake",
    ),
    "instruments": (
        "piano",
        "violin",
        "flute",
        "drum",
        "guitar",
        "trumpet",
        "harp",
        "cello",
        "oboe",
        "clarinet",
        "banjo",
        "organ",
    ),
    "sports": (
        "football",
        "tennis",
        "swimming",
        "rowing",
        "hockey",
        "cricket",
        "golf",
        "boxing",
        "judo",
        "skiing",
        "cycling",
        "running",
    ),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
SENTENCES = (
    "The {0} stood near the {1} all morning.",
    "She saw a {0} and a {1} on her way home.",
    "Nobody knew why the {0} was behind the {1}.",
    "In the evening they put the {0} beside the {1}.",
)


@dataclass(frozen=True)
class Exchange:
    """A task, a right answer, a wrong one, and what is to be said about each."""

    question: str
    right: str
    praise: str
    wrong: str
    blame: str


def draw_task(draw: Draw) -> Exchange:
    """A task of one of the kinds."""
    return draw.choice((_list, _order, _sentence, _pick))(draw)


def _numbered(items: list[str]) -> str:
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))


def _list(draw: Draw) -> Exchange:
    kind = draw.choice(sorted(KINDS))
    count = draw.randint(3, 7)
    items = draw.sample(KINDS[kind], count + 1)
    form = draw.choice(("List {} {} as a numbered list.", "Name {} {}, one a line, numbered.", "Give me {} {}."))
    less = draw.random() < 0.6
    wrong = items[: count - 1] if less else items
    counted = f"Counted: {', '.join(wrong)}: {len(wrong)}. {count} were asked for"
    fault = "one is missing" if less else "there is one too many"
    return Exchange(
        form.format(NUMBERS[count], kind),
        _numbered(items[:count]),
        f"Counted: {', '.join(items[:count])}: {count}. {count} were asked for. Revision is not needed.",
        _numbered(wrong),
        f"{counted}, so {fault}. Revision is needed.",
    )


def _order(draw: Draw) -> Exchange:
    kind = draw.choice(sorted(KINDS))
    words = draw.sample(KINDS[kind], draw.randint(3, 5))
    by_letter = sorted(words, key=str.lower)
    wrong = list(by_letter)
    place = draw.randrange(len(words) - 1)
    wrong[place], wrong[place + 1] = wrong[place + 1], wrong[place]
    first, second = by_letter[place], by_letter[place + 1]
    letters, wrong_letters = (", ".join(word[0].lower() for word in some) for some in (by_letter, wrong))
    return Exchange(
        f"Sort these words alphabetically: {', '.join(words)}.",
        ", ".join(by_letter),
        f"First letters: {letters}. They are in order. Revision is not needed.",
        ", ".join(wrong),
        f"First letters: {wrong_letters}. {first} comes before {second}. Revision is needed.",
    )


def _sentence(draw: Draw) -> Exchange:
    one, other = (draw.choice(KINDS[kind]) for kind in draw.sample(("animals", "fruits", "tools", "instruments"), 2))
    third = draw.choice([word for word in KINDS["vegetables"] if word != other])
    form = draw.choice(SENTENCES)
    return Exchange(
        f'Write one sentence with the words "{one}" and "{other}".',
        form.format(one, other),
        f'It is one sentence with "{one}" and with "{other}". Revision is not needed.',
        form.format(one, third),
        f'The sentence has "{one}", and the word "{other}" is missing. Revision is needed.',
    )


def _pick(draw: Draw) -> Exchange:
    numbers = draw.sample(range(10, 999), 4)
    largest = draw.random() < 0.5
    right = max(numbers) if largest else min(numbers)
    wrong = draw.choice([number for number in numbers if number != right])
    word = "largest" if largest else "smallest"
    sign = "more" if largest else "less"
    return Exchange(
        f"Which is the {word} of these numbers: {', '.join(map(str, numbers))}?",
        str(right),
        f"No other of {', '.join(map(str, numbers))} is {sign} than {right}. Revision is not needed.",
        str(wrong),
        f"{right} is {sign} than {wrong}. Revision is needed.",
    )
