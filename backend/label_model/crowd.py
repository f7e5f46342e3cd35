"""Estimate one human label per example from several people's answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from backend.domain.labels import Answer, HumanLabel, Span
from backend.domain.questions import Question

_PRIOR_RIGHT, _PRIOR_WRONG = 19.0, 1.0
_PRIOR_ACCURACY = _PRIOR_RIGHT / (_PRIOR_RIGHT + _PRIOR_WRONG)
_MAX_ACCURACY = 1 - 1e-6
_MAX_STEPS = 100
_TOLERANCE = 1e-8
_TIE = 1e-9

_Option = tuple[int, int, str]  # a span; a label of a multiple choice is one without extent
_NO_SPAN: _Option = (0, 0, "")
# a task's known class, if any, and each person's class
_Classes = tuple[int | None, Sequence[tuple[Hashable, int]]]


@dataclass(frozen=True, slots=True)
class HumanAnswer:
    """One annotation's answer to the question at hand."""

    label: HumanLabel
    answer: Answer

    @property
    def person(self) -> Hashable:
        """Return who answered; an annotation without an annotator is by somebody else each time."""
        if self.label.annotator_id is None:
            return ("annotation", self.label.annotation_id)
        return self.label.annotator_id


@dataclass(frozen=True, slots=True)
class ConsensusLabel:
    """The human label of one example, from everybody's answers.

    `probability`: that `answer` is right; of its least sure part where it has several (labels of a
    multiple choice, spans). `probabilities` has one element per label of the question, in order,
    and is empty for spans and texts. `n_annotators` counts everybody who answered.
    """

    example_id: int
    answer: Answer
    probability: float
    probabilities: tuple[float, ...]
    n_annotators: int
    is_ground_truth: bool


@dataclass(frozen=True, slots=True)
class PersonAgreement:
    """How a person's answers compare with those of others to the same examples.

    `n_shared` of the `n_answers` examples have another person's answer too; `agreement`: the share
    of these others who answered the same. `accuracy` is estimated from all answers.
    """

    person: int
    n_answers: int
    n_shared: int
    agreement: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Consensus:
    """One human label per example that has an answer, and each person's estimated accuracy."""

    labels: Mapping[int, ConsensusLabel]
    accuracies: Mapping[Hashable, float] = field(default_factory=dict)
    people: tuple[PersonAgreement, ...] = ()


def is_evidence(label: HumanLabel) -> bool:
    """Return whether a person answered: not skipped, not an untouched copy of a prediction."""
    return not label.was_cancelled and not label.is_copied


def estimate_consensus(question: Question, answers: Sequence[HumanAnswer]) -> Consensus:
    """Return one label per example from everybody's answers.

    Ground truth wins, the newest one if there are several. Skipped tasks, copies of predictions and
    labels outside the label space do not count; a person's newest answer replaces older ones.
    No model is used, so the result can judge models. Elsewhere people are weighted by their
    accuracy (one-coin Dawid-Skene). Each label of a multiple choice and each exact span that
    anybody marked is a binary task of its own; with equal accuracies that is the majority. Of free
    texts the newest is taken. Ties go to the newest answer. Cost: 100 passes over the answers.
    """
    tasks = _task_answers(question, answers)
    if question.kind.is_free_text or not question.labels:
        texts = {}
        for task in tasks:
            text = task.newest.text
            share = sum(a.answer.text == text for a in task.answers) / len(task.answers)
            probability = 1.0 if task.truth else _PRIOR_ACCURACY * share
            texts[task.example_id] = task.consensus(Answer(text=text), probability)
        return Consensus(texts, people=_agreements(tasks, {}))
    of_kind = _single_label_consensus if question.kind.is_exclusive else _binary_consensus
    found = of_kind(question, tasks)
    return replace(found, people=_agreements(tasks, found.accuracies))


def _agreements(
    tasks: Sequence[TaskAnswers], accuracies: Mapping[Hashable, float]
) -> tuple[PersonAgreement, ...]:
    """Return each known person's agreement with others, those with most answers first."""
    shares: dict[int, list[float]] = {}
    n_answers: Counter[int] = Counter()
    for task in tasks:
        said = [(each.person, _content(each.answer)) for each in task.answers]
        for person, answer in said:
            if not isinstance(person, int):
                continue
            n_answers[person] += 1
            others = [other == answer for who, other in said if who != person]
            if others:
                shares.setdefault(person, []).append(sum(others) / len(others))
    return tuple(
        PersonAgreement(
            person,
            n,
            len(shares.get(person, ())),
            float(np.mean(shares[person])) if person in shares else None,
            accuracies.get(person),
        )
        for person, n in n_answers.most_common()
    )


def _content(answer: Answer) -> tuple[set[_Option], str | None]:
    return _chosen(answer), answer.text


@dataclass(frozen=True, slots=True)
class TaskAnswers:
    """Valid answers to one example, one per person, oldest first, and the ground truth."""

    example_id: int
    answers: tuple[HumanAnswer, ...]
    truth: HumanAnswer | None

    @property
    def others(self) -> tuple[HumanAnswer, ...]:
        """Return the answers that are not the ground truth itself."""
        return tuple(answer for answer in self.answers if answer is not self.truth)

    @property
    def newest(self) -> Answer:
        """Return the ground truth, else the newest answer."""
        return (self.truth or self.answers[-1]).answer

    def consensus(
        self, answer: Answer, probability: float, probabilities: tuple[float, ...] = ()
    ) -> ConsensusLabel:
        """Return this answer as the example's label."""
        n_annotators, is_ground_truth = len(self.answers), self.truth is not None
        return ConsensusLabel(
            self.example_id, answer, probability, probabilities, n_annotators, is_ground_truth
        )


def _task_answers(question: Question, answers: Iterable[HumanAnswer]) -> list[TaskAnswers]:
    by_example: dict[int, dict[Hashable, HumanAnswer]] = {}
    truths: dict[int, HumanAnswer] = {}
    for answer in sorted(answers, key=lambda a: (a.label.updated_at, a.label.annotation_id)):
        if not is_evidence(answer.label) or not _is_valid(question, answer.answer):
            continue
        by_person = by_example.setdefault(answer.label.task_id, {})
        by_person.pop(answer.person, None)  # so that the newest comes last
        by_person[answer.person] = answer
        if answer.label.is_ground_truth:
            truths[answer.label.task_id] = answer
    return [
        TaskAnswers(example_id, tuple(by_person.values()), truths.get(example_id))
        for example_id, by_person in sorted(by_example.items())
    ]


def _is_valid(question: Question, answer: Answer) -> bool:
    if question.kind.is_free_text or not question.labels:
        return answer.text is not None
    known = {label.value for label in question.labels}
    if question.kind.is_exclusive:
        return len(answer.labels) == 1 and answer.labels[0] in known
    return known.issuperset(answer.labels) and known.issuperset(s.label for s in answer.spans)


def _single_label_consensus(question: Question, tasks: Sequence[TaskAnswers]) -> Consensus:
    index = {label.value: k for k, label in enumerate(question.labels)}

    def class_of(answer: HumanAnswer) -> int:
        return index[answer.answer.labels[0]]

    classes: list[_Classes] = []
    for task in tasks:
        truth = None if task.truth is None else class_of(task.truth)
        classes.append((truth, [(answer.person, class_of(answer)) for answer in task.others]))
    posteriors, accuracies = _fit_dawid_skene(max(len(index), 2), classes)
    labels = {}
    for task, row in zip(tasks, posteriors[:, : len(index)], strict=True):
        row = row / row.sum()
        best = np.flatnonzero(row > row.max() - _TIE)
        newest_first = (class_of(answer) for answer in reversed(task.answers))
        winner = next((k for k in newest_first if k in best), int(best[0]))
        answer = Answer(labels=(question.labels[winner].value,))
        labels[task.example_id] = task.consensus(answer, float(row[winner]), tuple(row.tolist()))
    return Consensus(labels, accuracies)


def _binary_consensus(question: Question, tasks: Sequence[TaskAnswers]) -> Consensus:
    """Decide label by label (multiple choice) or span by span whether it is in the answer."""
    every_label = [(0, 0, label.value) for label in question.labels]
    options: list[list[_Option]] = []
    binary: list[_Classes] = []
    for task in tasks:
        chosen = [(answer.person, _chosen(answer.answer)) for answer in task.others]
        truth = None if task.truth is None else _chosen(task.truth.answer)
        marked = sorted((truth or set()).union(*(parts for _, parts in chosen)))
        spans = marked or [_NO_SPAN]  # without any, the one option is that there is none
        options.append(spans if question.kind.has_spans else every_label)
        for option in options[-1]:
            answers = [(person, int(option in parts)) for person, parts in chosen]
            binary.append((None if truth is None else int(option in truth), answers))
    posteriors, accuracies = _fit_dawid_skene(2, binary)
    ends = np.cumsum([len(task_options) for task_options in options])
    parts = zip(tasks, options, np.split(posteriors[:, 1], ends), strict=False)
    labels = {task.example_id: _binary_label(question, task, of, yes) for task, of, yes in parts}
    return Consensus(labels, accuracies)


def _binary_label(
    question: Question, task: TaskAnswers, options: Sequence[_Option], yes: NDArray[np.float64]
) -> ConsensusLabel:
    chosen = _chosen(task.newest)
    newest = np.array([option in chosen for option in options], dtype=bool)
    is_kept = (yes > 0.5 + _TIE) | ((yes > 0.5 - _TIE) & newest)
    kept = [(options[at], float(yes[at])) for at in np.flatnonzero(is_kept)]
    probability = float(np.where(is_kept, yes, 1 - yes).min(initial=1.0))
    if question.kind.has_spans:
        spans = tuple(Span(start, end, label, p) for (start, end, label), p in kept)
        return task.consensus(Answer(spans=spans), probability)
    answer = Answer(labels=tuple(label for (_, _, label), _ in kept))
    return task.consensus(answer, probability, tuple(yes.tolist()))


def _chosen(answer: Answer) -> set[_Option]:
    labels = {(0, 0, label) for label in answer.labels}
    return labels | {(span.start, span.end, span.label) for span in answer.spans}


def _fit_dawid_skene(
    n_classes: int, tasks: Sequence[_Classes]
) -> tuple[NDArray[np.float64], dict[Hashable, float]]:
    """Return class posteriors (tasks, classes) and each person's accuracy: one-coin Dawid-Skene.

    A class's probability follows from the accuracies of the people who chose it, an accuracy from
    the probabilities of the person's answers (Dawid and Skene 1979; one accuracy per person as in
    Zhang et al. 2014, arXiv 1406.3824).

    **Deviations**, for which crowd-kit and cleanlab have no setting: a Beta(19, 1) prior on every
    accuracy, because most people share few examples with others and the published estimate then
    calls them perfect or useless; classes are equally likely beforehand, so that a rare class needs
    no more answers than a common one; no accuracy below chance, because between people who never
    agree the labels could be swapped; ground truth is fixed.
    """
    numbers: dict[Hashable, int] = {}
    rows = [
        (task, numbers.setdefault(person, len(numbers)), answer)
        for task, (_, answers) in enumerate(tasks)
        for person, answer in answers
    ]
    task_rows, people, answers = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    known = {task: truth for task, (truth, _) in enumerate(tasks) if truth is not None}

    def posteriors(accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
        wrong = np.log((1 - accuracies) / (n_classes - 1))
        scores = np.zeros((len(tasks), n_classes))
        np.add.at(scores, (task_rows, answers), (np.log(accuracies) - wrong)[people])
        found: NDArray[np.float64] = softmax(scores, axis=1)
        found[list(known)] = np.eye(n_classes)[list(known.values())]
        return found

    # An answer that is the only thing known about its task says nothing about the person.
    is_informative = np.bincount(task_rows, minlength=len(tasks)) > 1
    is_informative[list(known)] = True
    used = is_informative[task_rows]
    n_compared = np.bincount(people[used], minlength=len(numbers))
    accuracies: NDArray[np.float64] = np.full(len(numbers), _PRIOR_ACCURACY)
    for _ in range(_MAX_STEPS):
        is_right = posteriors(accuracies)[task_rows, answers][used]
        n_right = np.bincount(people[used], weights=is_right, minlength=len(numbers))
        updated = (_PRIOR_RIGHT + n_right) / (_PRIOR_RIGHT + _PRIOR_WRONG + n_compared)
        updated = np.clip(updated, 1 / n_classes, _MAX_ACCURACY)
        change = np.abs(updated - accuracies).max(initial=0.0)
        accuracies = updated
        if change < _TOLERANCE:
            break
    return posteriors(accuracies), dict(zip(numbers, accuracies.tolist(), strict=True))
