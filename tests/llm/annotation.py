"""Questions, shots and weak labels for the tests of the LLM annotator."""

from __future__ import annotations

from backend.domain.labels import Answer, Demonstration, Example, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.llm.annotator import LLMAnnotator

TEXT = TextField("text", "text")


def labels(*names: str) -> tuple[LabelDefinition, ...]:
    return tuple(LabelDefinition(value=name, name=name) for name in names)


def question(kind: QuestionKind, *names: str, **rest) -> Question:
    return Question("mood", rest.pop("fields", (TEXT,)), kind, labels(*names), **rest)


def shot(text: str, *values: str, answer: str | None = None) -> Demonstration:
    return Demonstration({"text": text}, Answer(labels=values, text=answer), "human")


def annotate(model, asked: Question, *texts, prompt_context=None, **settings) -> list[WeakLabel]:
    examples = [
        Example(number, text if isinstance(text, dict) else {"text": text})
        for number, text in enumerate(texts)
    ]
    annotator = LLMAnnotator(model, **settings)
    return annotator.annotate(TaskSchema((asked,)), "", examples, prompt_context=prompt_context)
