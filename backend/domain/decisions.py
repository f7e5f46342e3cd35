"""What a weak label decides: the labels that it selects, and where a question is shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question

_MIN_PROBABILITY = 0.5  # from here on a label of a multiple choice is selected
_MANY = "\n"

Chosen = Mapping[str, Collection[LabelDefinition]]
"""The selected labels by question; a question without an answer is absent."""


def decide(question: Question, weak_label: WeakLabel) -> tuple[list[LabelDefinition], float] | None:
    """Return the labels that a posterior selects, and the confidence in the least sure decision.

    That is the likeliest label of an exclusive question, the first of equals, with its probability;
    else every label of at least one half, where leaving a label out is a decision of
    confidence 1 - p. None without one probability per label.
    """
    probabilities = weak_label.probabilities
    if not question.labels or len(probabilities) != len(question.labels):
        return None
    if question.kind.is_exclusive:
        best = max(probabilities)
        return [question.labels[probabilities.index(best)]], float(best)
    pairs = zip(question.labels, probabilities, strict=True)
    selected = [label for label, probability in pairs if probability >= _MIN_PROBABILITY]
    return selected, float(min(max(p, 1 - p) for p in probabilities))


def answer_value(question: Question, label: WeakLabel) -> object:
    """Return what a label says, in a form in which equal answers are equal; None for nothing."""
    decision = decide(question, label)
    if decision is not None:
        return frozenset(one.value for one in decision[0])
    if label.spans is not None:
        return frozenset((span.start, span.end, span.label) for span in label.spans)
    return label.text


def given_value(answer: Answer) -> object:
    """Return what a person said, in the form of `answer_value`."""
    if answer.text is not None:
        return answer.text
    if answer.spans:
        return frozenset((span.start, span.end, span.label) for span in answer.spans)
    return frozenset(answer.labels)


def answer_confidence(question: Question, label: WeakLabel) -> float:
    """Return how sure a label is of its whole answer, in [0, 1]; 0.0 where that is not known."""
    decision = decide(question, label)
    if decision is not None:
        return decision[1]
    if label.confidence is None and label.spans is not None:
        return min((span.probability for span in label.spans), default=1.0)
    return label.confidence or 0.0


def selected_labels(question: Question, weak_label: WeakLabel) -> list[LabelDefinition] | None:
    """Return the labels that a weak label selects; None where it has no answer with labels."""
    if question.kind.is_from_task and not question.kind.is_ranked and weak_label.text is not None:
        return [LabelDefinition(value, value) for value in split_values(weak_label.text)]
    decision = decide(question, weak_label)
    return None if decision is None else decision[0]


def parents_first(questions: Sequence[Question]) -> list[Question]:
    """Return the questions with each after those on whose answers it depends."""
    left, ordered = list(questions), []
    while left:
        waiting = {question.name for question in left}
        ready = [q for q in left if waiting.isdisjoint(depends_on(q, left))] or left
        ordered += ready
        left = [question for question in left if question not in ready]
    return ordered


def depends_on(question: Question, others: Sequence[Question]) -> set[str]:
    """Return the questions by whose answers one is shown, or whose regions it is about.

    A condition that names no question is about the answers to all that are always shown.
    """
    names = {condition.question for condition in question.conditions} | {question.region_of}
    if any(not condition.question for condition in question.conditions):
        names |= {other.name for other in others if not other.conditions}
    return names - {question.name}


def join_values(values: Collection[str]) -> str:
    """Return the chosen values of labels that a task brings as one text."""
    return _MANY.join(" ".join(value.split()) for value in values)


def split_values(text: str) -> list[str]:
    """Return the chosen values in a text made by `join_values`."""
    return [value for value in text.split(_MANY) if value]


def is_shown(question: Question, chosen: Chosen) -> bool:
    """Return whether a question is shown beside these answers to others.

    A condition on a question that is hidden itself, or has no answer, does not hold.
    """
    for condition in question.conditions:
        names = [condition.question] if condition.question else list(chosen)
        found = [label for name in names for label in chosen.get(name, ())]
        wanted = set(condition.values)
        holds = any(not wanted or not wanted.isdisjoint(_names_of(label)) for label in found)
        if holds != condition.is_selected:
            return False
    return True


def _names_of(label: LabelDefinition) -> set[str]:
    """Return what a condition can call a label: its value, its name, its last step in a tree."""
    return {label.value, label.name, *label.path[-1:]}
