"""Compare prompt templates on more and more texts by successive halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Abstention, AbstentionReason, Example, WeakLabel
from backend.domain.questions import Question
from backend.label_model.latent_class import Standardizer, is_answered
from backend.label_model.single_label import calibrate_beside

Floats = NDArray[np.float64]
AskTemplate = Callable[[str, Sequence[Example]], tuple[Floats, Floats]]
"""Returns a template's `posterior_rows` and `mass_rows` on the examples."""

_MAX_FIRST_TEXTS = 32
_MIN_FIRST_TEXTS = 4
_HUMAN_WEIGHT = 4.0
"""A reference that is right for three texts in four tells a quarter of what a person's label does:
(2 * 0.75 - 1) ** 2."""
_UNMOVED_WEIGHT = 0.25
"""Of the share of labels that calibration leaves, against the agreement; chosen on training texts
of sst2, trec, ag_news, sms_spam, tweet_emotion and tweet_offensive with a 1.5B model."""
_MASS_WEIGHT = 0.1
_FULL_MASS = 0.1
"""A model that puts less than a tenth of its probability on the labels does not answer; a small
one is then at chance however well its templates agree."""
_MIN_DISAGREEMENT = 0.08
"""Two templates that label nearly all texts alike are no two opinions."""
_MAX_SECOND_DEFICIT = 0.1
"""A second template that scores lower by more would add more errors than it mends."""
_MIN_CORRELATION = 0.6
"""Of the templates' scores, for a model that reads a text alike whatever the prompt. On training
texts of sst2, mr, sms_spam, tweet_hate and tweet_offensive it lies between those of the larger
embedded model and those of the smaller one (`benchmarks forms`). It is of a model and a
question: on amazon_cf_en the larger one lies under it, on trec the smaller one may lie above."""
_MIN_PROBABILITY = 1e-6
_NO_LABEL = Abstention(AbstentionReason.NOT_SAMPLED, "no label")


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """Figures of one template.

    Args:
        n_texts: texts that it was asked about.
        n_read: those that got a posterior.
        agreement: share of the texts with the reference label, people's counting 4 times.
        standard_error: of the agreement.
        unmoved: share of the texts whose label is the same before and after calibration: a prompt
            that prefers a label whatever the text tells less about the text.
        label_mass: the model's mean probability of the labels; None where it is not reported.
        accuracy: share of people's labels that it gave; None without any.
        n_human: number of people's labels.
    """

    template: str
    n_texts: int
    n_read: int
    agreement: float
    standard_error: float
    unmoved: float
    label_mass: float | None
    accuracy: float | None
    n_human: int

    @property
    def consistency(self) -> float:
        """Return the agreement and a part of what calibration leaves."""
        return self.agreement + _UNMOVED_WEIGHT * self.unmoved

    @property
    def score(self) -> float:
        """Return the consistency, less for a low label mass."""
        mass = 1.0 if self.label_mass is None else min(1.0, self.label_mass / _FULL_MASS)
        return self.consistency - _MASS_WEIGHT * (1 - mass)


@dataclass(frozen=True, slots=True)
class SelectionEvidence:
    """What is known about the selection's texts beside the templates' answers.

    Args:
        human: positions of the labels that people gave, by example id.
        others: weak labels of other annotators on the question.
    """

    human: Mapping[int, frozenset[int]] = field(default_factory=dict)
    others: Sequence[WeakLabel] = ()


class SuccessiveHalving:
    """Compares templates on more and more texts, the better half of them going on each time.

    Compared is the share of texts on which a template's calibrated label is the reference, the
    label of a person or else that of all other templates and annotators together, and how little
    calibration has to move its labels. Common errors of the LLM's templates raise the agreement of
    all alike; the other annotators err differently.
    Successive halving: Jamieson & Talwalkar 2016 (arXiv 1502.07943), section 3.
    """

    def __init__(
        self,
        question: Question,
        templates: Sequence[str],
        examples: Sequence[Example],
        evidence: SelectionEvidence,
    ) -> None:
        self.question = question
        self._names = list(templates)
        self._alive = list(templates)
        self.examples = examples
        self._human = _human_rows(question, examples, evidence.human)
        others = _by_annotator(evidence.others)
        self._others = [
            posterior_rows(question, _aligned(labels, examples)) for labels in others.values()
        ]
        self._anchors = [calibrate(rows, []) for rows in self._others]
        self.has_alike_templates = False
        self._n_rows = len(self._human) // max(1, len(examples))
        n_classes = 2 if question.kind.is_multilabel else len(question.labels)
        self._posteriors: dict[str, Floats] = {name: np.empty((0, n_classes)) for name in templates}
        self._calibrated = dict(self._posteriors)
        self._masses: dict[str, Floats] = {name: np.empty(0) for name in templates}
        self._credits: dict[str, list[float]] = {name: [] for name in templates}

    def run(self, ask: AskTemplate, max_unused: int) -> None:
        """Ask again and again until two templates are left, or no texts.

        About `max_unused` prompts go to templates that drop out, one for each label and text of a
        multilabel question.
        """
        rungs = _rungs(len(self._names))
        n_unused = sum((n_alive - 1) * multiple for n_alive, multiple in rungs)
        n_first = max_unused // max(1, self._n_rows) // max(1, n_unused)
        n_first = max(_MIN_FIRST_TEXTS, min(_MAX_FIRST_TEXTS, n_first))
        n_done = 0
        for n_alive, multiple in rungs:
            self._alive = self._ranked()[:n_alive]
            some = self.examples[n_done : n_done + multiple * n_first]
            if not some:
                break
            for name in self._alive:
                posteriors, masses = ask(name, some)
                self._posteriors[name] = np.vstack([self._posteriors[name], posteriors])
                self._masses[name] = np.append(self._masses[name], masses)
            if n_done == 0:
                self.has_alike_templates = are_alike(list(self._posteriors.values()))
            for name in self._alive:
                self._calibrated[name] = calibrate(self._posteriors[name], self._beside(name))
            self._compare(n_done * self._n_rows, (n_done + len(some)) * self._n_rows)
            n_done += len(some)

    def figures(self) -> tuple[TemplateFigures, ...]:
        """Return the figures of all templates, best first."""
        return tuple(self._figures(name) for name in self._ranked())

    def posteriors(self, name: str) -> Floats:
        """Return a template's posteriors (n, K) of the texts that it was asked about."""
        return self._posteriors[name]

    def anchors(self, name: str) -> list[Floats]:
        """Return the other annotators' log-posteriors (n, K) of a template's texts."""
        n = len(self._posteriors[name])
        return [rows[:n] for rows in self._anchors]

    def _beside(self, name: str) -> list[Floats]:
        """Return the posteriors (n, K) beside which a template is calibrated, see `are_alike`."""
        n = len(self._posteriors[name])
        return [rows[:n] for rows in self._others] if self.has_alike_templates else []

    def calibrated(self, name: str) -> Floats:
        """Return a template's log-posteriors (n, K) without its preference for labels."""
        return self._calibrated[name]

    @property
    def human(self) -> NDArray[np.intp]:
        """Return people's classes by row, -1 where there is none."""
        return self._human

    def _compare(self, start: int, end: int) -> None:
        """Credit each template that is left with the new texts on which it has the reference."""
        calibrated = {name: self.calibrated(name)[start:end] for name in self._alive}
        anchors = [rows[start:end] for rows in self._anchors]
        human = self._human[start:end]
        for name, own in calibrated.items():
            peers = [rows for other, rows in calibrated.items() if other != name]
            reference = np.where(human >= 0, human, consensus(peers, anchors))
            self._credits[name] += credit(own, reference).tolist()

    def _ranked(self) -> list[str]:
        """Return the templates, those that were asked longest first, then by their score."""
        figures = [self._figures(name) for name in self._names]
        figures.sort(key=lambda row: (-row.n_texts, -row.score, -row.n_read))
        return [row.template for row in figures]

    def _figures(self, name: str) -> TemplateFigures:
        credits = np.array(self._credits[name])
        answers = self._posteriors[name], self.calibrated(name), self._masses[name]
        return figures_of(name, answers, credits, self._human[: len(credits)])

    def masses(self, name: str) -> Floats:
        """Return a template's label masses (n,) of the texts that it was asked about."""
        return self._masses[name]

    def runner_up(self) -> str:
        """Return the second template where it is nearly as good and labels other texts, else ""."""
        ranked = self._ranked()
        if len(ranked) < 2 or self.question.kind.is_multilabel:
            return ""
        first, second = (self._figures(name) for name in ranked[:2])
        n = min(first.n_texts, second.n_texts)
        rows = [self.calibrated(name)[:n] for name in ranked[:2]]
        both = is_answered(rows[0]) & is_answered(rows[1])
        if not both.any() or first.score - second.score > _MAX_SECOND_DEFICIT:
            return ""
        labels = [np.nan_to_num(each).argmax(axis=1)[both] for each in rows]
        differ = float((labels[0] != labels[1]).mean()) >= _MIN_DISAGREEMENT
        return second.template if differ else ""


def credit(log_posteriors: Floats, reference: NDArray[np.intp]) -> Floats:
    """Return 1 (n,) where the label is the reference, 0 elsewhere, NaN where there is none."""
    is_same = np.nan_to_num(log_posteriors, nan=-np.inf).argmax(axis=1) == reference
    is_same &= is_answered(log_posteriors)
    return np.where(reference >= 0, is_same.astype(float), np.nan)


def figures_of(
    name: str, answers: tuple[Floats, Floats, Floats], credits: Floats, human: NDArray[np.intp]
) -> TemplateFigures:
    """Return a template's figures.

    Args:
        answers: its posteriors (n, K), those calibrated, and its label masses (n,).
        credits: see `credit`, (n,).
        human: people's classes (n,), -1 where there is none.
    """
    posteriors, calibrated, masses = answers
    masses = masses[~np.isnan(masses)]
    is_known = ~np.isnan(credits)
    weights = np.where(human >= 0, _HUMAN_WEIGHT, 1.0)[is_known]
    known = credits[is_known]
    agreement = float(np.average(known, weights=weights)) if len(known) else 0.0
    variance = agreement * (1 - agreement) * float((weights**2).sum())
    by_people = credits[(human >= 0) & is_known]
    return TemplateFigures(
        template=name,
        n_texts=len(credits),
        n_read=int(is_answered(posteriors).sum()),
        agreement=agreement,
        standard_error=math.sqrt(variance) / float(weights.sum()) if len(known) else 1.0,
        unmoved=_unmoved(posteriors, calibrated),
        label_mass=float(masses.mean()) if len(masses) else None,
        accuracy=float(by_people.mean()) if len(by_people) else None,
        n_human=len(by_people),
    )


def _rungs(n_templates: int) -> list[tuple[int, int]]:
    """Return how many templates are compared each time, and on how many times the first texts."""
    rungs = []
    while n_templates > 2:
        rungs.append((n_templates, 1))
        n_templates = math.ceil(n_templates / 2)
    return [*rungs, (n_templates, 2)]


def posterior_rows(question: Question, weak_labels: Sequence[WeakLabel]) -> Floats:
    """Return one question's posteriors, NaN where a weak label has none.

    (n, K) for an exclusive question; of a multilabel one, a row (yes, no) for each text and label.
    """
    n_labels = len(question.labels)
    blank = (math.nan,) * n_labels
    rows = [weak.probabilities or blank for weak in weak_labels]
    matrix = np.array(rows, dtype=np.float64).reshape(len(rows), n_labels)
    if not question.kind.is_multilabel:
        return matrix
    return np.stack([matrix.ravel(), 1 - matrix.ravel()], axis=1)


def mass_rows(question: Question, weak_labels: Sequence[WeakLabel]) -> Floats:
    """Return the label mass by row of `posterior_rows`, NaN where none is reported."""
    masses = [math.nan if weak.label_mass is None else weak.label_mass for weak in weak_labels]
    n_each = len(question.labels) if question.kind.is_multilabel else 1
    return np.repeat(np.array(masses, dtype=np.float64), n_each)


def _human_rows(
    question: Question, examples: Sequence[Example], human: Mapping[int, frozenset[int]]
) -> NDArray[np.intp]:
    """Return people's classes by row of `posterior_rows`, -1 where there is none."""
    rows: list[int] = []
    for example in examples:
        chosen = human.get(example.id)
        if question.kind.is_multilabel:
            holds = [0 if at in (chosen or ()) else 1 for at in range(len(question.labels))]
            rows += holds if chosen is not None else [-1] * len(holds)
        else:
            rows.append(next(iter(chosen)) if chosen else -1)
    return np.array(rows, dtype=np.intp)


def _by_annotator(weak_labels: Sequence[WeakLabel]) -> dict[str, dict[int, WeakLabel]]:
    """Return the weak labels by annotator, then by example id."""
    found: dict[str, dict[int, WeakLabel]] = {}
    for weak in weak_labels:
        found.setdefault(weak.annotator, {})[weak.example_id] = weak
    return found


def _aligned(labels: Mapping[int, WeakLabel], examples: Sequence[Example]) -> list[WeakLabel]:
    """Return one weak label per example, an abstention where there is none."""
    none = next(iter(labels.values()))
    return [
        labels.get(example.id) or replace(none, probabilities=(), abstention=_NO_LABEL)
        for example in examples
    ]


def are_alike(posteriors: Sequence[Floats]) -> bool:
    """Return whether templates' posteriors (n, K) of the same texts are correlated.

    Those of a capable model are, whatever the prompt. What such a model and another annotator
    agree on is the question; what a weak one agrees on with it is rather a few words.
    """
    return mean_correlation(posteriors) >= _MIN_CORRELATION


def mean_correlation(posteriors: Sequence[Floats]) -> float:
    """Return the mean correlation of pairs of templates' standardized scores, in [-1, 1].

    0 where fewer than two templates, fewer than four texts or constant scores tell nothing.
    """
    rows = np.all([is_answered(own) for own in posteriors], axis=0)
    if len(posteriors) < 2 or rows.sum() < _MIN_FIRST_TEXTS:
        return 0.0
    scores = [Standardizer.fit(own[rows]).transform(own[rows]).ravel() for own in posteriors]
    if min(np.ptp(each) for each in scores) == 0:
        return 0.0
    return float(np.corrcoef(scores)[np.triu_indices(len(scores), k=1)].mean())


def calibrate(posteriors: Floats, others: Sequence[Floats]) -> Floats:
    """Return log-posteriors (n, K) without an annotator's own preference; NaN rows stay.

    Args:
        posteriors: of the annotator (n, K).
        others: those of the others on the same rows, see `calibrate_beside`.
    """
    calibrated = calibrate_beside(posteriors, others)
    return np.asarray(np.log(np.maximum(calibrated, _MIN_PROBABILITY)))


def _unmoved(posteriors: Floats, calibrated: Floats) -> float:
    """Return the share of answers (n, K) whose label calibration leaves; 0 without answers."""
    rows = is_answered(posteriors)
    if not rows.any():
        return 0.0
    return float((posteriors[rows].argmax(axis=1) == calibrated[rows].argmax(axis=1)).mean())


def consensus(peers: Sequence[Floats], anchors: Sequence[Floats]) -> NDArray[np.intp]:
    """Return the labels (n,) of the peers' mean plus the anchors' mean, -1 where there is none.

    Two templates agree with each other alike, so that only the anchors tell a lone peer's worth.
    """
    groups = [anchors] if anchors and len(peers) < 2 else [peers, anchors]
    means = [_mean(group) for group in groups if group]
    if not means:
        raise ValueError("one template alone has nothing to be compared with")
    total = np.nansum(np.stack(means), axis=0)
    is_known = np.any([is_answered(mean) for mean in means], axis=0)
    return np.where(is_known, total.argmax(axis=1), -1)


def _mean(group: Sequence[Floats]) -> Floats:
    """Return the mean over those that answered, NaN rows where none did."""
    stacked = np.stack(group)
    n_answers = np.array([is_answered(rows) for rows in group]).sum(axis=0)[:, None]
    total = np.nansum(stacked, axis=0)
    return np.where(n_answers > 0, total / np.maximum(n_answers, 1), np.nan)
