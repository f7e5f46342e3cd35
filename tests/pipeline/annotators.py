"""Annotators and an encoder without a model, for pipelines in tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    AnnotatorKind,
    Example,
    PromptContext,
    Span,
    WeakLabel,
)
from backend.domain.questions import Question, TaskSchema
from backend.errors import BackendError


@dataclass
class FakeAnnotator:
    """Says what `answer` says; `failure` is raised while it is set.

    It has no answer about `unreadable` texts and to the questions that it is `silent_about`, and
    finds those in `hides` to be shown for texts with this word alone. Where it `is_misled`, it says
    the first label of every text that it is asked about with demonstrations.
    """

    failure: BackendError | None = None
    contradicts: bool = False
    is_misled: bool = False
    llm: str = "fake"
    unreadable: set[int] = field(default_factory=set)
    silent_about: set[str] = field(default_factory=set)
    hides: dict[str, str] = field(default_factory=dict)
    shots: list[Mapping[str, Mapping[int, Any]]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    injection_flags: dict[int, str] = field(default_factory=dict)

    def templates(self, question: Question) -> tuple[str, ...]:
        if self.failure is not None:
            raise self.failure
        return ("plain-hints",)

    def name(self, *, deadline_s: float | None = None) -> str:
        if self.failure is not None:
            raise self.failure
        return self.llm

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        if self.failure is not None:
            raise self.failure
        self.asked += [example.id for example in examples]
        self.shots += [prompt_context.shots] if prompt_context and prompt_context.shots else []
        labels = [self._label(q, example) for example in examples for q in schema.questions]
        if self.is_misled and prompt_context and prompt_context.shots:
            labels = [replace(label, probabilities=(0.9, 0.1)) for label in labels]
        return labels

    def _label(self, question: Question, example: Example) -> WeakLabel:
        start = (example.id, question.name, self.llm, "v1")
        if example.missing:
            return WeakLabel(*start, abstention=next(iter(example.missing.values())))
        if example.id in self.unreadable or question.name in self.silent_about:
            return WeakLabel(*start, abstention=Abstention(AbstentionReason.UNREADABLE))
        if question.name in self.hides and self.hides[question.name] not in str(example.texts):
            return WeakLabel(*start, abstention=Abstention(AbstentionReason.NOT_SHOWN))
        flag = self.injection_flags.get(example.id)
        said = answer(question, example)
        if self.contradicts:
            said["probabilities"] = said["probabilities"][::-1]
        return WeakLabel(*start, injection_flag=flag, **said)


def answer(question: Question, example: Example) -> dict[str, Any]:
    """Return what everybody here would say: names are spans, and a label holds where it is named.

    "good" stands for the first label of an exclusive question.
    """
    text, labels = next(iter(example.texts.values())), question.labels
    if question.kind.has_spans:
        found = re.finditer(r"\b[A-Z]\w*", text)
        return {"spans": tuple(Span(*each.span(), labels[0].value, 0.9) for each in found)}
    if question.kind.is_multilabel:
        return {"probabilities": tuple(0.9 if one.value in text else 0.1 for one in labels)}
    if not labels:
        return {"text": "7"}
    rest = (0.0,) * (len(labels) - 2)
    return {"probabilities": (0.9, 0.1, *rest) if "good" in text else (0.2, 0.8, *rest)}


class FakeSimilarity:
    """Silent until told otherwise; then it votes as `FakeAnnotator` does."""

    name = "similarity:fake"

    def __init__(self) -> None:
        self.is_silent = True
        self.contradicts = False

    def can_answer(self, question: Question) -> bool:
        return not self.is_silent

    def learn(
        self, question: Question, examples: Sequence[Example], human: Mapping[int, int]
    ) -> dict[str, Any]:
        return {} if self.is_silent else {"n": len(examples)}

    def recall(self, learned: Mapping[str, Mapping[str, Any]]) -> FakeSimilarity:
        return self

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        if self.is_silent:
            return []
        kind = AnnotatorKind.SIMILARITY
        return [
            replace(vote, annotator=self.name, annotator_kind=kind)
            for vote in FakeAnnotator(contradicts=self.contradicts).annotate(
                schema, instruction, examples
            )
            if vote.probabilities
        ]


@cache
def _letters(text: str) -> list[int]:
    return [1 + text.count(chr(97 + i)) for i in range(26)]


class FakeEncoder:
    """Unit vectors that depend on a text's letters alone."""

    name = "fake"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = np.array([_letters(text) for text in texts])
        counts = counts.reshape(len(texts), 26).astype(np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)
