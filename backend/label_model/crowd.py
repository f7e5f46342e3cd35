"""From several people's answers to one human label per example, and how good each person is."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from backend.domain.labels import Answer, HumanLabel, Span
from backend.domain.questions import Question

_PRIOR_RIGHT, _PRIOR_WRONG = 19.0, 1.0  # a person whom nobody checked is right 19 times in 20
_MAX_ACCURACY = 1 - 1e-6
_MAX_STEPS = 100
_TOLERANCE = 1e-8

_Mark = tuple[int, int, str]  # a span; a label of a multiple choice is one without extent
_NOTHING: _Mark = (0, 0, "")


@dataclass(frozen=True, slots=True)
class HumanAnswer:
    """What one annotation answers to the question at hand."""

    label: HumanLabel
    answer: Answer


@dataclass(frozen=True, slots=True)
class ConsensusLabel:
    """What people say about one example, all in all.

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
class AnnotatorQuality:
    """How often a person is right, as far as others' answers and ground truth can tell.

    `n_compared` counts the answers (for multiple choice and spans: the single labels) that could
    be compared with anybody's; at 0 the accuracy is what is believed of everyone.
    """

    annotator_id: int
    accuracy: float
    n_compared: int


@dataclass(frozen=True, slots=True)
class Consensus:
    """One human label per example that has an answer, and the people by id."""

    labels: Mapping[int, ConsensusLabel]
    qualities: tuple[AnnotatorQuality, ...] = ()


def is_evidence(label: HumanLabel) -> bool:
    """Whether a person answered: not skipped, not an untouched copy of a prediction."""
    return not label.was_cancelled and not label.is_copied


def estimate_consensus(question: Question, votes: Sequence[HumanAnswer]) -> Consensus:
    """Return one label per example from everybody's answers.

    Ground truth wins, the newest one if there are several. Skipped tasks, copies of predictions and
    labels outside the label space do not count; a person's newest answer replaces older ones.
    No model is asked, so the result can judge models. Elsewhere people are weighted by their
    accuracy, learned with one-coin Dawid-Skene (Dawid and Skene 1979; one accuracy per person as
    in Zhang et al. 2014, arXiv 1406.3824): an answer's probability follows from the accuracies of
    those who gave it, an accuracy from the probabilities of the person's answers. Each label of a
    multiple choice and each exact span that anybody marked is a yes or no of its own; with equal
    accuracies that is the majority. Free text: the newest. Ties go to the newest answer.

    **Deviations**: a Beta(19, 1) belief about every accuracy, because most people share few
    examples with others and the published estimate then calls them perfect or useless; classes are
    equally likely beforehand, so that a rare class needs no more votes than a common one; no
    accuracy below chance, because between people who never agree the labels could be swapped.
    Cost: linear in the number of answers, up to 100 times.
    """
    ballots = _ballots(question, votes)
    if question.kind.is_free_text or not question.labels:
        return Consensus({ballot.example_id: _newest_text(ballot) for ballot in ballots})
    if question.kind.is_exclusive:
        return _exclusive(question, ballots)
    return _yes_or_no(question, ballots)


@dataclass(frozen=True, slots=True)
class _TaskAnswers:
    """What counts for one example: an answer per person, oldest first, and the ground truth."""

    example_id: int
    votes: tuple[HumanAnswer, ...]
    truth: HumanAnswer | None

    @property
    def others(self) -> tuple[HumanAnswer, ...]:
        """Return the answers that the ground truth can be compared with."""
        return tuple(vote for vote in self.votes if vote is not self.truth)

    @property
    def newest(self) -> HumanAnswer:
        return self.truth or self.votes[-1]


def _ballots(question: Question, votes: Iterable[HumanAnswer]) -> list[_TaskAnswers]:
    by_example: dict[int, dict[Hashable, HumanAnswer]] = {}
    truths: dict[int, HumanAnswer] = {}
    for vote in sorted(votes, key=lambda v: (v.label.updated_at, v.label.annotation_id)):
        if not is_evidence(vote.label) or not _is_answer(question, vote.answer):
            continue
        cast = by_example.setdefault(vote.label.task_id, {})
        cast.pop(_person(vote), None)  # so that the newest comes last
        cast[_person(vote)] = vote
        if vote.label.is_ground_truth:
            truths[vote.label.task_id] = vote
    return [
        _TaskAnswers(example_id, tuple(cast.values()), truths.get(example_id))
        for example_id, cast in sorted(by_example.items())
    ]


def _is_answer(question: Question, answer: Answer) -> bool:
    if question.kind.is_free_text or not question.labels:
        return answer.text is not None
    known = {label.value for label in question.labels}
    if question.kind.is_exclusive:
        return len(answer.labels) == 1 and answer.labels[0] in known
    return known.issuperset(answer.labels) and known.issuperset(s.label for s in answer.spans)


def _person(vote: HumanAnswer) -> Hashable:
    """Return who answered; an annotation without an annotator is by somebody else each time."""
    if vote.label.annotator_id is None:
        return ("annotation", vote.label.annotation_id)
    return vote.label.annotator_id


def _newest_text(ballot: _TaskAnswers) -> ConsensusLabel:
    text = ballot.newest.answer.text
    n_same = sum(vote.answer.text == text for vote in ballot.votes)
    belief = _PRIOR_RIGHT / (_PRIOR_RIGHT + _PRIOR_WRONG)
    share = n_same / len(ballot.votes)
    return ConsensusLabel(
        example_id=ballot.example_id,
        answer=Answer(text=text),
        probability=1.0 if ballot.truth else belief * share,
        probabilities=(),
        n_annotators=len(ballot.votes),
        is_ground_truth=ballot.truth is not None,
    )


def _exclusive(question: Question, ballots: Sequence[_TaskAnswers]) -> Consensus:
    values = [label.value for label in question.labels]
    index = {value: k for k, value in enumerate(values)}
    poll = _DawidSkene(max(len(values), 2))
    for ballot in ballots:
        poll.add_item(None if ballot.truth is None else index[ballot.truth.answer.labels[0]])
        for vote in ballot.others:
            poll.add_answer(_person(vote), index[vote.answer.labels[0]])
    posteriors, accuracies = poll.solve()
    labels = {}
    for ballot, row in zip(ballots, posteriors[:, : len(values)], strict=True):
        row = row / row.sum()
        best = np.flatnonzero(row > row.max() - 1e-9)
        given = [index[vote.answer.labels[0]] for vote in ballot.votes]
        winner = next((k for k in reversed(given) if k in best), int(best[0]))
        labels[ballot.example_id] = ConsensusLabel(
            example_id=ballot.example_id,
            answer=Answer(labels=(values[winner],)),
            probability=float(row[winner]),
            probabilities=tuple(row.tolist()),
            n_annotators=len(ballot.votes),
            is_ground_truth=ballot.truth is not None,
        )
    return Consensus(labels, poll.qualities(accuracies))


def _yes_or_no(question: Question, ballots: Sequence[_TaskAnswers]) -> Consensus:
    """Decide label by label (multiple choice) or span by span, each a yes or a no."""
    is_spans = question.kind.has_spans
    options: list[_Mark] = [(0, 0, label.value) for label in question.labels]
    poll = _DawidSkene(2)
    asked: list[list[_Mark]] = []
    for ballot in ballots:
        marks = {id(vote): _marks(vote.answer) for vote in ballot.votes}
        # Where nobody marked a span, that there is none is the one thing to decide.
        spans = sorted(set[_Mark]().union(*marks.values())) or [_NOTHING]
        items = spans if is_spans else options
        asked.append(items)
        for item in items:
            truth = None if ballot.truth is None else int(item in marks[id(ballot.truth)])
            poll.add_item(truth)
            for vote in ballot.others:
                poll.add_answer(_person(vote), int(item in marks[id(vote)]))
    posteriors, accuracies = poll.solve()
    labels, start = {}, 0
    for ballot, items in zip(ballots, asked, strict=True):
        yes = posteriors[start : start + len(items), 1]
        start += len(items)
        newest = _marks(ballot.newest.answer)
        is_kept = [
            p > 0.5 + 1e-9 or (p > 0.5 - 1e-9 and item in newest)
            for p, item in zip(yes, items, strict=True)
        ]
        kept = [
            (item, float(p)) for item, p, is_in in zip(items, yes, is_kept, strict=True) if is_in
        ]
        labels[ballot.example_id] = ConsensusLabel(
            example_id=ballot.example_id,
            answer=_answer(kept, is_spans=is_spans),
            probability=float(np.where(is_kept, yes, 1 - yes).min(initial=1.0)),
            probabilities=() if is_spans else tuple(yes.tolist()),
            n_annotators=len(ballot.votes),
            is_ground_truth=ballot.truth is not None,
        )
    return Consensus(labels, poll.qualities(accuracies))


def _marks(answer: Answer) -> set[_Mark]:
    labels = {(0, 0, label) for label in answer.labels}
    return labels | {(span.start, span.end, span.label) for span in answer.spans}


def _answer(kept: Sequence[tuple[_Mark, float]], *, is_spans: bool) -> Answer:
    if is_spans:
        return Answer(spans=tuple(Span(start, end, label, p) for (start, end, label), p in kept))
    return Answer(labels=tuple(label for (_, _, label), _ in kept))


class _DawidSkene:
    """Items with `n_classes` possible answers each, and who answered what."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self._truths: list[int | None] = []
        self._people: dict[Hashable, int] = {}
        self._answers: list[tuple[int, int, int]] = []

    def add_item(self, truth: int | None) -> None:
        self._truths.append(truth)

    def add_answer(self, person: Hashable, answer: int) -> None:
        number = self._people.setdefault(person, len(self._people))
        self._answers.append((len(self._truths) - 1, number, answer))

    def solve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return posteriors, shape (items, classes), and everybody's accuracy."""
        table = np.array(self._answers, dtype=np.int64).reshape(-1, 3)
        prior = _PRIOR_RIGHT / (_PRIOR_RIGHT + _PRIOR_WRONG)
        accuracies: NDArray[np.float64] = np.full(len(self._people), prior)
        items, people, answers = table[self._is_compared()].T
        n_answers = np.bincount(people, minlength=len(accuracies))
        for _ in range(_MAX_STEPS):
            is_right = self._posteriors(table, accuracies)[items, answers]
            n_right = np.bincount(people, weights=is_right, minlength=len(accuracies))
            better = (_PRIOR_RIGHT + n_right) / (_PRIOR_RIGHT + _PRIOR_WRONG + n_answers)
            better = np.clip(better, 1 / self._n_classes, _MAX_ACCURACY)
            change = np.abs(better - accuracies).max(initial=0.0)
            accuracies = better
            if change < _TOLERANCE:
                break
        return self._posteriors(table, accuracies), accuracies

    def qualities(self, accuracies: NDArray[np.float64]) -> tuple[AnnotatorQuality, ...]:
        table = np.array(self._answers, dtype=np.int64).reshape(-1, 3)
        n_compared = np.bincount(table[self._is_compared(), 1], minlength=len(accuracies))
        known = [
            AnnotatorQuality(person, float(accuracies[number]), int(n_compared[number]))
            for person, number in self._people.items()
            if isinstance(person, int)
        ]
        return tuple(sorted(known, key=lambda quality: quality.annotator_id))

    def _is_compared(self) -> NDArray[np.bool_]:
        """Return which answers are not the only thing known about their item."""
        items = np.array([item for item, _, _ in self._answers], dtype=np.int64)
        is_known = np.array([truth is not None for truth in self._truths], dtype=bool)
        is_shared = np.bincount(items, minlength=len(is_known)) > 1
        compared: NDArray[np.bool_] = (is_known | is_shared)[items]
        return compared

    def _posteriors(
        self, table: NDArray[np.int64], accuracies: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        items, people, answers = table.T
        wrong = np.log((1 - accuracies) / (self._n_classes - 1))
        scores = np.zeros((len(self._truths), self._n_classes))
        np.add.at(scores, (items, answers), (np.log(accuracies) - wrong)[people])
        posteriors: NDArray[np.float64] = softmax(scores, axis=1)
        known = [item for item, truth in enumerate(self._truths) if truth is not None]
        posteriors[known] = np.eye(self._n_classes)[[t for t in self._truths if t is not None]]
        return posteriors
