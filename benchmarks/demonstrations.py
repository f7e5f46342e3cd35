"""Retrieve demonstrations per text: generated ones, or training texts with their gold spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.demonstrations.retrieval import DemonstrationPool, Texts, retrieve_paper
from backend.domain.labels import Answer, Demonstration, Example, PromptContext, Span
from backend.domain.questions import Question
from backend.services import Services


@dataclass(frozen=True, slots=True)
class FewShotPrompts:
    """Demonstrations of every prompt, the order of requests, and figures for the report.

    `share` is the largest share of prompts that one demonstration is in.
    """

    prompt_context: PromptContext
    order: tuple[int, ...]
    share: float
    notes: dict[str, object]


def retrieve_gold_spans(
    services: Services,
    question: Question,
    labeled: Sequence[tuple[Example, tuple[Span, ...]]],
    examples: Sequence[Example],
    *,
    n_shots: int,
) -> FewShotPrompts:
    """Return the most similar training texts with their spans, the nearest one last."""
    texts = [_joined(question, example.texts) for example, _ in labeled]
    pool = DemonstrationPool(
        services.encoder.embed(texts),
        np.zeros(len(texts), dtype=np.intp),
        [example.id for example, _ in labeled],
        texts,
    )
    asked = [_joined(question, example.texts) for example in examples]
    to_label = Texts(services.encoder.embed(asked), [each.id for each in examples], asked)
    retrieval = retrieve_paper(to_label, pool, n_shots)
    demonstrations = [
        Demonstration(example.texts, Answer(spans=spans), "human", example.id)
        for example, spans in labeled
    ]
    counts = Counter(at for rows in retrieval.shots for at in rows)
    shots = {
        example.id: tuple(demonstrations[at] for at in reversed(rows))
        for example, rows in zip(examples, retrieval.shots, strict=True)
    }
    return FewShotPrompts(
        prompt_context=PromptContext(shots={question.name: shots}),
        order=tuple(retrieval.order.tolist()),
        share=max(counts.values(), default=0) / max(1, len(retrieval.shots)),
        notes={
            "n_demonstrations": len(demonstrations),
            "n_shots": max(map(len, retrieval.shots), default=0),
        },
    )


def _joined(question: Question, texts: object) -> str:
    fields = [field.name for field in question.fields]
    return "\n".join(str(texts[name]) for name in fields if name in texts)  # type: ignore[index,operator]
