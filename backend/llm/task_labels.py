"""Questions whose labels come with each task: choices among them, and rankings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.domain.decisions import join_values
from backend.domain.labels import Abstention, AbstentionReason, Example, WeakLabel
from backend.domain.questions import LabelDefinition, Question, TextField
from backend.llm.classification import ask_multilabel, ask_shortlist
from backend.llm.prompt_batch import LLMCall
from backend.llm.prompts.templates import one_line

Ask = Callable[[LLMCall, Question, Sequence[Example]], list[WeakLabel]]
"""Answers one question about examples."""

_ITEM = "item"
_MIN_CHOSEN = 0.5
_TOO_FEW = Abstention(AbstentionReason.NO_TEXT, "the task brings fewer than two choices")
_NO_ITEMS = Abstention(AbstentionReason.NO_TEXT, "the task has no list of items with ids")
_UNREAD = Abstention(AbstentionReason.UNREADABLE, "not every item got an answer")


def ask_task_choice(
    call: LLMCall, question: Question, examples: Sequence[Example]
) -> list[WeakLabel]:
    """Return one weak label per example: the values chosen among those that its task brings.

    All prompts go in one request, as over shortlists: the label space is the union of the tasks'
    choices, and each text is asked about its own alone. Cost: as for other choices.
    """
    several = question.kind.takes_several
    own = [_distinct(example.options.get(question.name, ())) for example in examples]
    labels = tuple(dict.fromkeys(label for some in own for label in some))
    index = {label: at for at, label in enumerate(labels)}
    asked = [at for at, some in enumerate(own) if len(some) > (0 if several else 1)]
    union = replace(question, labels=labels, options=())
    chosen = {id(examples[at]): tuple(index[label] for label in own[at]) for at in asked}

    def shortlist(_: Question, some: Sequence[Example], __: int) -> list[tuple[int, ...]]:
        return [chosen[id(example)] for example in some]

    texts = [examples[at] for at in asked]
    if several:
        positions = [chosen[id(example)] for example in texts]
        found = ask_multilabel(call, union, texts, positions) if texts else []
    else:
        found = ask_shortlist(call, union, texts, shortlist) if texts else []
    answers = dict(zip(asked, found, strict=True))
    return [
        _choice(answers[at], own[at], labels, several=several)
        if at in answers
        else _abstention(call, question, example, _TOO_FEW)
        for at, example in enumerate(examples)
    ]


def ask_ranking(
    call: LLMCall, question: Question, examples: Sequence[Example], ask: Ask
) -> list[WeakLabel]:
    """Return one weak label per example: its items in order, as ids by bucket.

    Each item is asked about by itself, beside the task's other texts: for a grade, by whose
    expectation they are sorted, or for its bucket. Cost: one request of one token per item.
    """
    inner = question.inner
    if inner is None:
        raise ValueError(f"the ranking {question.name!r} says nothing of its items")
    others = tuple(one for one in question.fields if one != question.field)
    per_item = replace(
        inner, fields=(TextField(_ITEM, ""), *others), headers=question.headers, tag=question.tag
    )
    cells = [
        (at, item) for at, one in enumerate(examples) for item in one.options.get(question.name, ())
    ]
    items = [_item(examples[at], item, number) for number, (at, item) in enumerate(cells)]
    found = ask(call, per_item, items) if items else []
    by_example: dict[int, list[tuple[LabelDefinition, WeakLabel]]] = {}
    for (at, item), label in zip(cells, found, strict=True):
        by_example.setdefault(at, []).append((item, label))
    return [
        _ranking(question, per_item, example, by_example[at])
        if at in by_example
        else _abstention(call, question, example, _NO_ITEMS)
        for at, example in enumerate(examples)
    ]


def _distinct(labels: Sequence[LabelDefinition]) -> tuple[LabelDefinition, ...]:
    """Return the labels that differ in what a prompt shows of them."""
    found: dict[str, LabelDefinition] = {}
    for label in labels:
        found.setdefault(one_line(label.name).casefold(), label)
    return tuple(label for name, label in found.items() if name)


def _choice(
    label: WeakLabel,
    own: Sequence[LabelDefinition],
    labels: Sequence[LabelDefinition],
    *,
    several: bool,
) -> WeakLabel:
    if not label.probabilities:
        return label
    by_label = dict(zip(labels, label.probabilities, strict=True))
    probabilities = {one: by_label[one] for one in own}
    if several:
        chosen = [one for one, p in probabilities.items() if p >= _MIN_CHOSEN]
        confidence = min(max(p, 1 - p) for p in probabilities.values())
    else:
        total = sum(probabilities.values()) or 1.0
        chosen = [max(probabilities, key=lambda one: probabilities[one])]
        confidence = probabilities[chosen[0]] / total
    text = join_values([one.value for one in chosen])
    return replace(label, probabilities=(), text=text, confidence=confidence)


def _item(example: Example, item: LabelDefinition, number: int) -> Example:
    return replace(example, id=-1 - number, texts={**example.texts, _ITEM: item.name})


def _ranking(
    question: Question,
    per_item: Question,
    example: Example,
    answers: Sequence[tuple[LabelDefinition, WeakLabel]],
) -> WeakLabel:
    """Return one weak label for the answers about all items; an abstention if one is missing."""
    labels = [label for _, label in answers]
    why = next((label.abstention for label in labels if label.abstention), None)
    if why is None and not all(label.probabilities for label in labels):
        why = _UNREAD
    if why is not None:
        return WeakLabel(example.id, question.name, labels[0].annotator, abstention=why)
    posteriors = np.array([label.probabilities for label in labels])
    ids = [item.value for item, _ in answers]
    if per_item.kind.is_ordinal:
        ranked, confidence = _by_grade(question.name, ids, posteriors)
    else:
        ranked, confidence = _by_bucket(per_item, ids, posteriors)
    return WeakLabel(
        example.id,
        question.name,
        labels[0].annotator,
        prompt_version=labels[0].prompt_version,
        text=json.dumps(ranked, ensure_ascii=False),
        confidence=confidence,
        is_truncated=any(label.is_truncated for label in labels),
        n_tokens_in=sum(label.n_tokens_in for label in labels),
        n_tokens_out=sum(label.n_tokens_out for label in labels),
    )


def _by_grade(
    name: str, ids: Sequence[str], posteriors: NDArray[np.float64]
) -> tuple[Mapping[str, list[str]], float]:
    """Return the ids by expected grade, and the mean probability that neighbors stand right."""
    expected = posteriors @ np.arange(1, posteriors.shape[1] + 1)
    order = np.argsort(-expected, kind="stable")
    rows = posteriors[order]
    below = np.cumsum(rows, axis=1) - rows / 2
    right = [float(row @ under) for row, under in zip(rows[:-1], below[1:], strict=True)]
    return {name: [ids[at] for at in order]}, float(np.mean(right)) if right else 1.0


def _by_bucket(
    per_item: Question, ids: Sequence[str], posteriors: NDArray[np.float64]
) -> tuple[Mapping[str, list[str]], float]:
    """Return the ids by likeliest bucket, surest first, and the least sure one's probability."""
    best = posteriors.argmax(axis=1)
    ranked = {
        label.value: [
            ids[at] for at in np.argsort(-posteriors[:, k], kind="stable") if best[at] == k
        ]
        for k, label in enumerate(per_item.labels)
    }
    return ranked, float(posteriors.max(axis=1).min())


def _abstention(call: LLMCall, question: Question, example: Example, why: Abstention) -> WeakLabel:
    reason = example.why_not_asked(question) or why
    annotator = f"llm:{call.info.name}"
    return WeakLabel(example.id, question.name, annotator, abstention=reason)
