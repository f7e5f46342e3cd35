"""The LLM asks where a question is shown: by answers, by regions, by pairs of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from backend.domain.labels import AbstentionReason, Example
from backend.domain.questions import (
    Condition,
    LabelDefinition,
    Question,
    QuestionKind,
    TaskSchema,
    TextField,
    TextFormat,
)
from backend.llm.annotator import LLMAnnotator
from tests.fakes import FakeLanguageModel
from tests.llm.writing_model import WritingModel

TEXT = TextField("text", "text")


def labels(*names: str) -> tuple[LabelDefinition, ...]:
    return tuple(LabelDefinition(name, name) for name in names)


def choice(name: str, *names: str, **rest) -> Question:
    return Question(name, (TEXT,), QuestionKind.SINGLE_CHOICE, labels(*names), **rest)


TONE = choice("tone", "calm", "angry")
WHY = choice("why", "price", "delay", conditions=(Condition("tone", ("angry",)),))


def annotate(model, *questions: Question, texts=("fine", "awful")) -> list:
    examples = [Example(at, {"text": text}) for at, text in enumerate(texts)]
    return LLMAnnotator(model).annotate(TaskSchema(questions), "", examples)


def by_word(prompt: str) -> dict[str, float]:
    is_angry = "awful" in prompt
    return {"angry": 0.8 if is_angry else 0.1, "calm": 0.3, "delay": 0.9, "price": 0.1}


class TestConditions:
    def test_a_question_is_asked_only_where_it_is_shown(self):
        model = FakeLanguageModel(by_word)
        answers = annotate(model, WHY, TONE)
        assert [label.question for label in answers] == ["why", "tone"] * 2
        hidden, _, shown, _ = answers
        assert hidden.abstention is not None
        assert hidden.abstention.reason is AbstentionReason.NOT_SHOWN
        assert shown.probabilities == pytest.approx((0.1, 0.9))
        assert sum("Why" in prompt for prompt in model.prompts) == 1

    def test_by_itself_a_question_is_asked_about_every_text(self):
        assert all(label.probabilities for label in annotate(FakeLanguageModel(by_word), WHY))

    def test_the_absence_of_an_answer_may_show_a_question(self):
        calm = replace(WHY, conditions=(Condition("tone", ("angry",), is_selected=False),))
        answers = annotate(FakeLanguageModel(by_word), TONE, calm)
        assert [bool(label.probabilities) for label in answers[1::2]] == [True, False]


CHAT = TextField("chat", "chat", format=TextFormat.DIALOGUE, has_messages=True)
TALK = "user: Where is it?\nassistant: No idea.\nassistant: Sorry."


class TestMessages:
    def ask(self, **rest):
        inner = Question("tone", (CHAT,), QuestionKind.SINGLE_CHOICE, labels("kind", "rude"))
        question = Question("tone", (CHAT,), QuestionKind.REGION, inner.labels, inner=inner, **rest)
        model = FakeLanguageModel(
            lambda prompt: {
                "rude": 0.9 if "No idea" in prompt.split("Chat:")[0] else 0.1,
                "kind": 0.3,
            }
        )  # noqa: E501
        examples = [Example(1, {"chat": TALK})]
        (label,) = LLMAnnotator(model).annotate(TaskSchema((question,)), "", examples)
        return label, model

    def test_each_message_of_a_role_has_its_own_answer(self):
        label, model = self.ask(only=("assistant",))
        assert [(TALK[span.start : span.end], span.label) for span in label.spans] == [
            ("No idea.", "rude"),
            ("Sorry.", "kind"),
        ]
        assert label.confidence == pytest.approx(0.75)
        assert len(model.prompts) == 2

    def test_without_a_role_all_of_them_have(self):
        assert len(self.ask()[0].spans) == 3

    def test_without_a_message_of_that_role_there_is_no_answer(self):
        label, model = self.ask(only=("system",))
        assert label.abstention.reason is AbstentionReason.NOT_SHOWN
        assert model.prompts == []


NAMES = Question("names", (TEXT,), QuestionKind.SPANS, labels("Person", "Place"))
ROLE = Question(
    "role",
    (TEXT,),
    QuestionKind.REGION,
    labels("host", "guest"),
    region_of="names",
    only=("Person",),
    inner=choice("role", "host", "guest"),
)
BETWEEN = (*labels("lives in"), LabelDefinition("", "none"))
LINKS = Question(
    "relations",
    (TEXT,),
    QuestionKind.RELATION,
    labels("lives in"),
    region_of="names",
    inner=Question("relations", (), QuestionKind.SINGLE_CHOICE, BETWEEN),
)


def writes(prompt: str) -> str:
    if "in JSON" in prompt or "JSON" in prompt:
        return '{"Person": ["Ada", "Bo"], "Place": ["Oslo"]}'
    if "First:" in prompt:
        return "lives in" if 'First: "Ada"' in prompt and 'Second: "Oslo"' in prompt else "none"
    return "guest" if 'Piece: "Bo"' in prompt else "host"


def test_spans_are_found_first_and_then_asked_about():
    model = WritingModel(writes)
    text = "Ada met Bo in Oslo."
    found, role, links = annotate(model, NAMES, ROLE, LINKS, texts=(text,))
    assert [text[span.start : span.end] for span in found.spans] == ["Ada", "Bo", "Oslo"]
    assert [(text[span.start : span.end], span.label) for span in role.spans] == [
        ("Ada", "host"),
        ("Bo", "guest"),
    ]
    assert json.loads(links.text) == [[0, 3, 14, 18, "lives in"]]


def test_without_spans_nothing_is_asked_about_them():
    model = WritingModel(lambda prompt: "{}")
    _, role, links = annotate(model, NAMES, ROLE, LINKS, texts=("nobody",))
    assert role.abstention.reason is AbstentionReason.NOT_SHOWN
    assert links.text == "[]"
    assert len(model.prompts) == 1
