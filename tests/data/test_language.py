"""English is told from other languages, also in short texts, and code is nobody's language."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selfee.data.language import find_foreign

FOREIGN = {
    "de": ("Was ist der Unterschied zwischen Python und Java?", "Wie geht es dir?", "Schreibe eine Funktion in Python"),
    "es": ("¿Cuál es la capital de Francia?", "genera un plan de negocio para una panaderia"),
    "fr": ("Écris une fonction python qui trie une liste", "donne moi une liste de 10 idees"),
    "it": ("Scrivi una funzione Python",),
    "pt": ("Qual é a capital do Brasil?",),
    "nl": ("Wat is de hoofdstad van Nederland?",),
    "pl": ("Napisz funkcję w Pythonie",),
    "ru": ("Напиши функцию на Python",),
    "ja": ("Pythonで関数を書いてください",),
    "zh": ("写一个Python函数",),
    "ko": ("파이썬 함수를 작성해줘",),
    "tr": ("Bana bir Python fonksiyonu yaz",),
    "ar": ("ما هي عاصمة مصر؟",),
    "hi": ("भारत की राजधानी क्या है?",),
}
ENGLISH = (
    "hi",
    "Continue",
    "Can you parallelize it?",
    "Converting 85 F to Celsius.",
    "divide each element in list `myList` by integer `myInt`",
    "198 passengers fit into 9 buses. How many passengers fit in 5 buses?",
    "BeautifulSoup search string 'Elsie' inside tag 'a'",
    "SELECT * FROM users WHERE id = 3",
    "python quicksort",
    "Solve 3x + 5 = 20",
    'What does "c\'est la vie" mean?',
    "Translate `Wie geht es dir?` to English",
    "42",
    "```\nfür jede Zeile mache etwas mit allen Wörtern\n```",
    "see https://www.beispiel.de/was-ist-der-unterschied-zwischen-den-beiden",
)


@pytest.mark.parametrize(("language", "text"), [(code, text) for code, texts in FOREIGN.items() for text in texts])
def test_another_language_is_named(language: str, text: str) -> None:
    assert find_foreign(text) == language


@pytest.mark.parametrize("text", ENGLISH)
def test_english_and_what_is_no_language_pass(text: str) -> None:
    assert find_foreign(text) is None


@pytest.mark.corpus
def test_hardly_any_english_question_of_real_data_is_taken_for_foreign(corpus: Path) -> None:
    def texts(name: str, field: str) -> list[str]:
        lines = (corpus / name).read_text(encoding="utf-8").splitlines()
        return [value if isinstance(value := json.loads(line)[field], str) else value[0] for line in lines]

    asked = [
        *texts("public/gsm8k_train.jsonl", "question")[:2000],
        *texts("public/mbpp.jsonl", "text"),
        *texts("public/vicuna_bench_question.jsonl", "turns"),
        *texts("public/self_instruct_seed_tasks.jsonl", "instruction"),
        *(
            text.partition("\n")[2]
            for text in texts("selfee/augmented/feedback_gpt_3.5_turbo_conala.jsonl", "instruction")
        ),
    ]
    taken = [text for text in asked if find_foreign(text) is not None]
    assert len(taken) <= len(asked) / 1000, taken
