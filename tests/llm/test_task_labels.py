"""Choices that come with each task, and rankings of its items."""

from __future__ import annotations

import json

import pytest

from backend.domain.labels import AbstentionReason, Example
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.llm.annotator import LLMAnnotator
from tests.fakes import FakeLanguageModel

TEXT = TextField("question", "question")
OWN = Question("answer", (TEXT,), QuestionKind.TASK_CHOICE)
SEVERAL = Question("answer", (TEXT,), QuestionKind.TASK_CHOICES)


def options(*names: str) -> tuple[LabelDefinition, ...]:
    return tuple(LabelDefinition(name.lower(), name) for name in names)


def ask(question: Question, *examples: Example, answer) -> list:
    model = FakeLanguageModel(answer)
    return LLMAnnotator(model).annotate(TaskSchema((question,)), "", examples)


def by_capital(prompt: str) -> dict[str, float]:
    return {"lyon": 0.1, "paris": 0.8, "rome": 0.7, "oslo": 0.2}


def test_each_text_is_asked_about_its_own_choices_alone():
    first = Example(1, {"question": "France?"}, options={"answer": options("Lyon", "Paris")})
    second = Example(2, {"question": "Italy?"}, options={"answer": options("Rome", "Oslo")})
    answers = ask(OWN, first, second, answer=by_capital)
    assert [label.text for label in answers] == ["paris", "rome"]
    assert answers[0].confidence == pytest.approx(0.8 / 0.9)
    assert answers[1].confidence == pytest.approx(0.7 / 0.9)


def test_a_text_without_choices_is_not_asked():
    alone = Example(1, {"question": "x"}, options={"answer": options("Lyon")})
    none = Example(2, {"question": "x"})
    for label in ask(OWN, alone, none, answer=by_capital):
        assert label.abstention is not None
        assert label.abstention.reason is AbstentionReason.NO_TEXT


def test_choices_that_read_alike_are_one():
    twice = (LabelDefinition("a", "Paris"), LabelDefinition("b", " PARIS "), *options("Lyon"))
    (label,) = ask(OWN, Example(1, {"question": "x"}, options={"answer": twice}), answer=by_capital)
    assert label.text == "a"


def test_any_number_of_a_tasks_own_choices_may_hold():
    def yes_or_no(prompt: str) -> dict[str, float]:
        asked = prompt.rsplit("Answer ", 1)[1].split(":")[0].lower()
        return {"yes": 0.8, "no": 0.1} if asked in ("paris", "lyon") else {"yes": 0.1, "no": 0.8}

    example = Example(1, {"question": "x"}, options={"answer": options("Lyon", "Rome", "Paris")})
    (label,) = ask(SEVERAL, example, answer=yes_or_no)
    assert label.text == "lyon\nparis"
    assert label.confidence == pytest.approx(0.8 / 0.9)


GRADES = tuple(LabelDefinition(str(n), str(n)) for n in range(1, 6))
RANKING = Question(
    "rank",
    (TextField("items", "items"), TEXT),
    QuestionKind.RANKING,
    inner=Question("rank", (), QuestionKind.RATING, GRADES, (1.0, 5.0)),
)


def items(*names: str) -> Example:
    texts = {"items": "\n".join(names), "question": "x"}
    return Example(1, texts, options={"rank": options(*names)})


def test_items_are_sorted_by_their_expected_grade():
    grades = {"Bad": "1", "Fine": "4", "Good": "5"}

    def grade(prompt: str) -> dict[str, float]:
        name = next(name for name in grades if f'Item: "{name}"' in prompt)
        return {grades[name]: 0.9, "3": 0.05}

    (label,) = ask(RANKING, items("Fine", "Bad", "Good"), answer=grade)
    assert json.loads(label.text) == {"rank": ["good", "fine", "bad"]}
    assert label.confidence > 0.9


def test_items_go_to_their_likeliest_buckets():
    buckets = (LabelDefinition("top", "relevant"), LabelDefinition("_", "none of these"))
    inner = Question("rank", (), QuestionKind.SINGLE_CHOICE, buckets)
    question = Question("rank", RANKING.fields, QuestionKind.RANKING, inner=inner)

    def bucket(prompt: str) -> dict[str, float]:
        is_good = 'Item: "Good"' in prompt
        return {"relevant": 0.8 if is_good else 0.2, "none of these": 0.2 if is_good else 0.8}

    (label,) = ask(question, items("Good", "Bad"), answer=bucket)
    assert json.loads(label.text) == {"top": ["good"], "_": ["bad"]}


def test_a_task_without_items_is_not_ranked():
    (label,) = ask(RANKING, Example(1, {"items": "a", "question": "x"}), answer=by_capital)
    assert label.abstention is not None
