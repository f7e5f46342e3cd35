"""Retrieve demonstrations per text: generated ones, or training texts with their gold spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.demonstrations.pool_selection import pool_size_per_class
from backend.demonstrations.retrieval import DemonstrationPool, Texts, retrieve, retrieve_paper
from backend.domain.labels import Answer, Demonstration, Example, PromptContext, Span
from backend.domain.questions import Question, TaskSchema
from backend.llm.generation import (
    GenerationRequest,
    can_generate,
    confident_demonstrations,
    generate_demonstrations,
)
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


def generate_and_retrieve(
    services: Services,
    schema: TaskSchema,
    instruction: str,
    pool: Sequence[Example],
    examples: Sequence[Example],
    *,
    n_shots: int,
    seed: int,
) -> FewShotPrompts:
    """Generate demonstrations with the LLM and retrieve `n_shots` for each example.

    Labels with too few generated ones are filled up with the pool texts that the LLM labels most
    confidently.

    Raises:
        ValueError: The question takes no demonstrations.
    """
    question = schema.questions[0]
    if not can_generate(question):
        raise ValueError(f"no demonstrations can be made for a question of kind {question.kind}")
    rng = np.random.default_rng(seed)
    n_per_class = pool_size_per_class(len(question.labels), n_shots)
    request = GenerationRequest(schema, question, instruction, pool, n_per_class)
    generated = generate_demonstrations(
        services.language_model, services.annotator, request, rng=rng
    )
    demonstrations = list(generated.demonstrations)
    demonstrations += _confident_ones(services, request, demonstrations)
    vectors = services.encoder.embed([_joined(question, d.texts) for d in demonstrations])
    values = [label.value for label in question.labels]
    demonstration_pool = DemonstrationPool(
        vectors,
        np.array([values.index(d.answer.labels[0]) for d in demonstrations], dtype=np.intp),
        [d.example_id for d in demonstrations],
        [_joined(question, d.texts) for d in demonstrations],
    )
    texts = [_joined(question, example.texts) for example in examples]
    to_label = Texts(services.encoder.embed(texts), [example.id for example in examples], texts)
    retrieval = retrieve(to_label, demonstration_pool, n_shots, rng=rng, seed=seed)
    counts = Counter(at for rows in retrieval.shots for at in rows)
    shots = {
        example.id: tuple(demonstrations[at] for at in rows)
        for example, rows in zip(examples, retrieval.shots, strict=True)
    }
    return FewShotPrompts(
        prompt_context=PromptContext(shots={question.name: shots}),
        order=tuple(retrieval.order.tolist()),
        share=max(counts.values(), default=0) / len(retrieval.shots),
        notes={
            "n_demonstrations": len(demonstrations),
            "n_generated": generated.counts["n_kept"],
            "n_written": generated.counts["n_asked"],
            "n_shots": max(map(len, retrieval.shots), default=0),
            "n_shot_sets": len(set(retrieval.shots)),
        },
    )


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


def _confident_ones(
    services: Services, request: GenerationRequest, generated: Sequence[Demonstration]
) -> list[Demonstration]:
    question = request.question
    n_found = {label.value: 0 for label in question.labels}
    for demonstration in generated:
        n_found[demonstration.answer.labels[0]] += 1
    if min(n_found.values()) >= request.n_per_class:
        return []
    weak = services.annotator.annotate(request.schema, request.instruction, request.examples)
    texts = [_joined(question, example.texts) for example in request.examples]
    confident = confident_demonstrations(
        question,
        request.examples,
        weak,
        services.encoder.embed(texts),
        n_per_class=request.n_per_class,
    )
    kept: list[Demonstration] = []
    for demonstration in confident:
        label = demonstration.answer.labels[0]
        if n_found[label] < request.n_per_class:
            n_found[label] += 1
            kept.append(demonstration)
    return kept


def _joined(question: Question, texts: object) -> str:
    fields = [field.name for field in question.fields]
    return "\n".join(str(texts[name]) for name in fields if name in texts)  # type: ignore[index,operator]
