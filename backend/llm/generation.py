"""Demonstrations without any label: written by the LLM itself, or its surest answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.demonstrations.pool import PoolEvidence, class_members, select_pool
from backend.domain.labels import Answer, Demonstration, Example, WeakLabel
from backend.domain.ports import Annotator, LanguageModel
from backend.domain.questions import LabelDefinition, Question, TaskSchema
from backend.llm.prompts.text import clean_instruction, one_line
from backend.llm.synthetic_texts import TextWriter, WritingStyle, Written

_MAX_ROUNDS = 3
_SURPLUS = 2.0
"""How many texts are asked for per text still missing: a good part is thrown away."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to write demonstrations for, and how many of each label.

    `examples` are unlabelled texts of the project: a few of them show each prompt the style.
    """

    schema: TaskSchema
    question: Question
    instruction: str
    examples: Sequence[Example]
    n_per_class: int = 40
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class GenerationCounts:
    """What became of the texts that were asked for; the parts add up to `n_asked`."""

    n_asked: int = 0
    n_unreadable: int = 0
    n_duplicates: int = 0
    n_rejected: int = 0
    n_surplus: int = 0
    n_kept: int = 0


@dataclass(frozen=True, slots=True)
class Generated:
    """The demonstrations, label by label, and what was thrown away."""

    demonstrations: tuple[Demonstration, ...]
    counts: GenerationCounts


def can_generate(question: Question) -> bool:
    """Return whether texts can be written to order for a question: its labels are whole texts'."""
    return bool(question.labels) and question.kind.has_posterior


def generate_demonstrations(
    model: LanguageModel,
    annotator: Annotator,
    request: GenerationRequest,
    *,
    rng: np.random.Generator,
) -> Generated:
    """Let the LLM write labelled texts in the project's style, and keep those it agrees with.

    Each prompt shows a few unlabelled texts and asks for one text of one label, as many per label.
    A text is dropped when it is no whole text, is nearly one that is there already or a piece of
    a pool text, or when the annotator does not give it back the label it was written for. FreeAL
    (arXiv 2311.15614), section 3.2, round 1.

    Deviations: one label per prompt, where the paper asks for 100 pairs at once, which a small
    model cannot keep balanced; the annotator's posterior is divided by its mean over the texts of
    all labels before it is read, since those are balanced by construction and a small model leans
    to one answer; up to three tries at what is missing, so that a label may end with fewer.

    Cost: up to six prompts of about 60 tokens out per demonstration, and one annotation each.
    Raises LanguageModelUnavailable, and ValueError for a question without whole-text labels.
    """
    if not can_generate(request.question):
        raise ValueError(f"no texts can be written for a question of kind {request.question.kind}")
    writer = TextWriter(model, _style(request), rng)
    harvest = _Harvest(request)
    for _ in range(_MAX_ROUNDS if writer.can_write else 0):
        wanted = harvest.wanted()
        if not wanted:
            break
        written = writer.write(wanted)
        fresh = writer.without_copies(written)
        right = _labelled_back(annotator, request, fresh)
        harvest.take(right)
        harvest.count(len(wanted), len(written), len(fresh), len(right))
    return Generated(harvest.demonstrations(), harvest.counts)


def confident_demonstrations(
    question: Question,
    examples: Sequence[Example],
    weak_labels: Sequence[WeakLabel],
    embeddings: NDArray[np.float32],
    *,
    n_per_class: int,
) -> tuple[Demonstration, ...]:
    """Return the pool texts that the annotator is surest of, different ones, label by label.

    `weak_labels` answer the question about `examples` in their order, calibrated if they can be:
    a skewed annotator has no text at all for the labels that it never gives. `embeddings`: unit
    vectors, shape (n, d). A fifth of each label's texts with the highest probability is looked at,
    and their medoids are taken (`select_pool`).
    """
    n_labels = len(question.labels)
    probabilities = np.full((len(examples), n_labels), np.nan)
    for at, weak in enumerate(weak_labels):
        if len(weak.probabilities) == n_labels:
            probabilities[at] = weak.probabilities
    is_read = np.isfinite(probabilities).all(axis=1)
    best = np.where(is_read[:, None], probabilities, -1.0).argmax(axis=1)
    losses = -np.log(np.clip(probabilities[np.arange(len(examples)), best], 1e-12, 1.0))
    evidence = PoolEvidence(class_members(best, is_read, n_labels), losses, embeddings)
    names = [text_field.name for text_field in question.fields]
    return tuple(
        Demonstration(
            {name: examples[at].texts[name] for name in names if name in examples[at].texts},
            Answer(labels=(label.value,)),
            "weak",
            examples[at].id,
        )
        for label, rows in zip(question.labels, select_pool(evidence, n_per_class), strict=True)
        for at in rows.tolist()
    )


class _Harvest:
    """What has been kept of each label."""

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._kept: dict[str, list[dict[str, str]]] = {
            label.value: [] for label in request.question.labels
        }
        self.counts = GenerationCounts()

    def wanted(self) -> list[LabelDefinition]:
        """Return the label of each text to ask for: twice as many as are missing."""
        return [
            label
            for label in self._request.question.labels
            for _ in range(math.ceil(_SURPLUS * self._n_missing(label)))
        ]

    def take(self, right: Sequence[Written]) -> None:
        """Keep texts while there are too few of their label."""
        for label, texts in right:
            if self._n_missing(label) > 0:
                self._kept[label.value].append(texts)

    def count(self, n_asked: int, n_written: int, n_fresh: int, n_right: int) -> None:
        """Add what became of one round's texts."""
        before, n_kept = self.counts, sum(len(texts) for texts in self._kept.values())
        self.counts = GenerationCounts(
            n_asked=before.n_asked + n_asked,
            n_unreadable=before.n_unreadable + n_asked - n_written,
            n_duplicates=before.n_duplicates + n_written - n_fresh,
            n_rejected=before.n_rejected + n_fresh - n_right,
            n_surplus=before.n_surplus + n_right - (n_kept - before.n_kept),
            n_kept=n_kept,
        )

    def demonstrations(self) -> tuple[Demonstration, ...]:
        """Return what was kept, label by label."""
        return tuple(
            Demonstration(texts, Answer(labels=(value,)), "generated")
            for value, of_label in self._kept.items()
            for texts in of_label
        )

    def _n_missing(self, label: LabelDefinition) -> int:
        return self._request.n_per_class - len(self._kept[label.value])


def _style(request: GenerationRequest) -> WritingStyle:
    told = [clean_instruction(request.instruction)]
    told += [one_line(header) for header in request.schema.headers]
    told = [line for line in told if line]
    return WritingStyle(request.question, tuple(told), request.examples, request.deadline_s)


def _labelled_back(
    annotator: Annotator, request: GenerationRequest, written: Sequence[Written]
) -> list[Written]:
    """Return the texts to which the annotator gives the label that they were written for."""
    if not written:
        return []
    examples = [Example(at, texts) for at, (_, texts) in enumerate(written)]
    schema = replace(request.schema, questions=(request.question,))
    weak_labels = annotator.annotate(
        schema, request.instruction, examples, deadline_s=request.deadline_s
    )
    values = [label.value for label in request.question.labels]
    wanted = np.array([values.index(label.value) for label, _ in written])
    is_read = np.array([len(weak.probabilities) == len(values) for weak in weak_labels])
    uniform = (1.0 / len(values),) * len(values)
    posteriors = np.array([weak.probabilities or uniform for weak in weak_labels])
    if request.question.kind.is_exclusive:
        is_right = _without_leaning(posteriors, wanted).argmax(axis=1) == wanted
    else:
        is_right = posteriors[np.arange(len(wanted)), wanted] >= 0.5
    return [written[at] for at in np.flatnonzero(is_read & is_right)]


def _without_leaning(
    posteriors: NDArray[np.float64], wanted: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return posteriors over the mean posterior of a text of each label, labels counting alike."""
    asked = np.unique(wanted)
    mean = np.mean([posteriors[wanted == label].mean(axis=0) for label in asked], axis=0)
    if len(asked) < posteriors.shape[1]:
        return posteriors
    return np.asarray(posteriors / np.maximum(mean, 1e-12))
