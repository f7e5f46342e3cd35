"""How far each annotator is to be trusted in one project: learned from its votes, never assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import beta
from threadpoolctl import threadpool_limits

from backend.label_model.calibration import temper_to_accuracy
from backend.label_model.latent_class import (
    Floats,
    LatentClasses,
    Standardizer,
    contrasts,
    default_inverse_temperature,
    fit_latent_classes,
    start_from,
)
from backend.label_model.linear_probe import LinearProbe, fit_least_squares
from backend.label_model.model import AnnotatorParameters, LabelModel, pool

__all__ = ["AnnotatorParameters", "LabelModel", "accuracy_from_agreement", "fit_label_model"]

_MAX_TEXTS = 4000
_N_PSEUDO_LABELS = 50
_N_FOLDS = 2
_MIN_TEXTS_TO_DOUBT = 500
_FULL_SIGNAL = 0.2
_MIN_SIGNAL = 0.5
_RIDGE = 1.0
_PROBE_PRECISION = 5.0
_PROBE_WEIGHT = 0.5
_MAX_PROBE_SCALE = 100.0
_WEIGHT_SD = 0.5
_BIAS_SD = 0.7
_SHARPNESS_SD = 1.0
_N_PRIOR_LABELS = 5.0
_INTERVAL = (0.05, 0.95)
_fit_probe = partial(fit_least_squares, precision=_PROBE_PRECISION)


def fit_label_model(
    posteriors: Mapping[str, Floats],
    embeddings: Floats | None = None,
    human: Mapping[int, int] | None = None,
) -> LabelModel:
    """Learn from a pool how to fuse its voters, with human labels or without.

    `posteriors` holds each voter's raw posteriors, shape (n, K), in a fixed row order, a row of
    NaN where it abstained; a small model's must be cross-fitted. `embeddings` (n, d) are unit
    vectors; `human` maps rows to class indices.

    The idea: what the annotators say, leaning and scale taken out, scatters around one centre per
    class (`fit_latent_classes`, a continuous Dawid-Skene model), and an annotator that does not
    move with the others has centres that coincide and so no say. A ridge probe on embeddings
    learns the fused labels and speaks besides, at half weight: it cannot be more right than its
    teachers where their errors follow the text. The rate at which the annotators agree says how
    often one of them is right, and the confidences are tempered to it. That is too low for votes
    with independent errors, which are right more often together, and too high for common errors:
    without a label nothing tells the two apart. Human labels teach the probe, each for many texts,
    and set the weights, a bias per class and the sharpness, by maximum posterior. The centres never
    see them and the probe speaks about texts that it did not learn from, so that what the labels
    are held against is as sure as it will be elsewhere.

    Cost: at most 120 products of (n, K) matrices with the annotators' features, and three systems
    of d equations, O(n d^2 + d^3), on one core; at most 4,000 texts are looked at, those with human
    labels first, then evenly spread.
    """
    votes = {name: p for name, p in posteriors.items() if len(_rows_present(p))}
    if not votes:
        raise ValueError("no voter has a posterior; expected at least one row that is not NaN")
    known = dict(human or {})
    rows = _sample(votes, known)
    with threadpool_limits(1, user_api="blas"):  # small matrices: threads cost more than they do
        return _Learning(
            {name: p[rows] for name, p in votes.items()},
            None if embeddings is None else np.asarray(embeddings, dtype=float)[rows],
            _Known.among(rows, known),
        ).learn()


@dataclass(frozen=True, slots=True)
class _Known:
    """What people said: positions among the rows that are learned from, and class indices."""

    rows: NDArray[np.intp]
    classes: NDArray[np.intp]

    @classmethod
    def among(cls, rows: NDArray[np.intp], human: Mapping[int, int]) -> _Known:
        positions = np.flatnonzero(np.isin(rows, list(human)))
        return cls(positions, np.array([human[int(rows[i])] for i in positions], dtype=np.intp))


@dataclass(frozen=True, slots=True)
class _Says:
    """Log shares (n, K) and what each speaker adds to them, (S, n, K): annotators, then a probe."""

    shares: Floats
    parts: Floats

    def pooled(self, weights: Floats) -> Floats:
        """Return the log-linear pool (n, K), not normalised."""
        pooled: Floats = self.shares + np.tensordot(weights, self.parts, 1)
        return pooled

    def about(self, rows: NDArray[np.intp]) -> _Says:
        """Return what is said about some of the texts."""
        return _Says(self.shares[rows], self.parts[:, rows])


@dataclass(frozen=True, slots=True)
class _Tuning:
    """A weight per speaker (S,), the pool's sharpness and a bias per class (K,)."""

    weights: Floats
    sharpness: float
    bias: Floats

    def posterior(self, says: _Says) -> Floats:
        """Return the fused posterior, shape (n, K)."""
        fused: Floats = softmax(self.sharpness * says.pooled(self.weights) + self.bias, axis=1)
        return fused


class _Learning:
    """The rows that trust is learned from."""

    def __init__(self, votes: dict[str, Floats], embeddings: Floats | None, known: _Known) -> None:
        self._votes = votes
        self._embeddings = embeddings
        self._known = known
        self._n_texts, self._n_classes = next(iter(votes.values())).shape
        self._scales = {name: Standardizer.fit(_present(p)) for name, p in votes.items()}
        self._signals = {name: self._signal(name) for name in votes}
        self._features = np.hstack([contrasts(self._scores(name)) for name in votes])

    def learn(self) -> LabelModel:
        """Fit the classes, teach the probe, temper to the agreement, then hear the people."""
        scores = sum(
            (1.0 if signal is None else signal) * self._scores(name)
            for name, signal in self._signals.items()
        )
        classes = fit_latent_classes(self._features, start_from(np.asarray(scores)))
        says, probe = self._says(classes), None
        weights: Floats = np.ones(len(says.parts))
        if self._embeddings is not None and self._n_texts >= 2 * _N_FOLDS:
            held_out, probe = self._teach_probe(classes, self._embeddings)
            says = _Says(says.shares, np.concatenate([says.parts, held_out[None]]))
            weights = np.append(weights, _PROBE_WEIGHT)
        own = self._own_labels(classes)
        accuracy = self._accuracy(own)
        sharpness = default_inverse_temperature(self._n_classes)
        if accuracy is not None:
            untempered = softmax(says.pooled(weights), axis=1)
            sharpness = min(1.0, temper_to_accuracy(untempered, accuracy))
        start = _Tuning(weights, sharpness, np.zeros(self._n_classes))
        tuning = _hear_people(says.about(self._known.rows), self._known.classes, start)
        fused = tuning.posterior(says)
        annotators = {
            name: self._annotator(name, float(weight), fused, own[name])
            for name, weight in zip(self._votes, tuning.weights, strict=False)
        }
        if probe is not None:
            probe = replace(probe, weights=probe.weights * tuning.weights[-1])
        n_human = len(self._known.rows)
        return LabelModel(
            annotators, classes, tuning.sharpness, tuning.bias, probe, accuracy, n_human
        )

    def _says(self, classes: LatentClasses) -> _Says:
        nobody = np.zeros(len(self._votes))
        shares = pool(classes, self._features, nobody)
        alone = [pool(classes, self._features, one) - shares for one in np.eye(len(nobody))]
        return _Says(shares, np.stack(alone))

    def _teach_probe(self, classes: LatentClasses, vectors: Floats) -> tuple[Floats, LinearProbe]:
        """Return a probe and what its like, not taught by a text, says about it, (n, K)."""
        targets = np.exp(classes.log_posterior(self._features))
        targets[self._known.rows] = np.eye(self._n_classes)[self._known.classes]
        weights = np.ones(self._n_texts)
        weights[self._known.rows] = max(1.0, self._n_texts / _N_PSEUDO_LABELS)
        folds = np.arange(self._n_texts) % _N_FOLDS
        held_out = np.empty_like(targets)
        for fold in range(_N_FOLDS):
            out = folds == fold
            fitted = _fit_probe(vectors[~out], targets[~out], weights[~out])
            held_out[out] = fitted.scores(vectors[out])
        held_out -= held_out.mean(axis=0)
        scale = _scale(held_out, targets, weights)
        probe = _fit_probe(vectors, targets, weights)
        return scale * held_out, replace(probe, weights=scale * probe.weights)

    def _accuracy(self, own: Mapping[str, NDArray[np.intp]]) -> float | None:
        """Return what the annotators' agreement says; those that ignore the text are not asked."""
        asked = [
            own[name]
            for name, signal in self._signals.items()
            if signal is None or signal > _MIN_SIGNAL
        ]
        return accuracy_from_agreement(asked, self._n_classes)

    def _annotator(
        self, name: str, weight: float, fused: Floats, own: NDArray[np.intp]
    ) -> AnnotatorParameters:
        """Estimate a voter's accuracy: Beta posterior, its prior from the fused labels."""
        heard = own >= 0
        expected = float(fused[heard, own[heard]].mean())
        of_people = own[self._known.rows]
        n_human = int((of_people >= 0).sum())
        n_right = int((of_people == self._known.classes).sum())
        right = 1 + _N_PRIOR_LABELS * expected + n_right
        wrong = 1 + _N_PRIOR_LABELS * (1 - expected) + n_human - n_right
        accuracy = (right - 1) / (right + wrong - 2)
        low, high = beta.ppf(_INTERVAL, right, wrong)
        return AnnotatorParameters(
            self._scales[name],
            weight,
            self._signals[name],
            float(accuracy),
            float(low),
            float(high),
            n_human,
        )

    def _own_labels(self, classes: LatentClasses) -> dict[str, NDArray[np.intp]]:
        """Return each voter's own class per text, calibrated; -1 marks an abstention inside."""
        labels = {}
        for index, (name, probabilities) in enumerate(self._votes.items()):
            alone = np.arange(len(self._votes)) == index
            own = pool(classes, self._features, np.ones(len(alone)), alone).argmax(axis=1)
            own[np.isnan(probabilities).any(axis=1)] = -1
            labels[name] = own
        return labels

    def _scores(self, name: str) -> Floats:
        scores = self._scales[name].scores(self._votes[name])
        return np.nan_to_num(scores, nan=0.0)

    def _signal(self, name: str) -> float | None:
        """Return how far a voter's scores can be foretold from the text: R2 / 0.2, cut to [0, 1].

        Two-fold ridge regression on embeddings. A voter whose answers have nothing to do with the
        text must not shape the classes, however sure it is.
        """
        rows = _rows_present(self._votes[name])
        if self._embeddings is None or len(rows) < _MIN_TEXTS_TO_DOUBT:
            return None
        vectors = self._embeddings[rows] - self._embeddings[rows].mean(axis=0)
        scores, folds = self._scores(name)[rows], np.arange(len(rows)) % _N_FOLDS
        missed = 0.0
        for fold in range(_N_FOLDS):
            seen, out = vectors[folds != fold], vectors[folds == fold]
            gram = seen.T @ seen + _RIDGE * np.eye(seen.shape[1])
            slopes = np.linalg.solve(gram, seen.T @ scores[folds != fold])
            missed += float(((scores[folds == fold] - out @ slopes) ** 2).sum())
        explained = 1 - missed / max(float((scores**2).sum()), 1e-12)
        return float(np.clip(explained / _FULL_SIGNAL, 0.0, 1.0))


def _hear_people(says: _Says, labels: NDArray[np.intp], start: _Tuning) -> _Tuning:
    """Return the likeliest tuning under human labels, with priors around `start`."""
    if len(labels) == 0:
        return start
    n_speakers, truth = len(says.parts), np.eye(len(start.bias))[labels]
    centre = np.concatenate([[np.log(start.sharpness)], start.weights, start.bias])
    spread = np.repeat([_SHARPNESS_SD, _WEIGHT_SD, _BIAS_SD], [1, n_speakers, len(start.bias)])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        sharpness = float(np.exp(parameters[0]))
        weights, bias = parameters[1 : 1 + n_speakers], parameters[1 + n_speakers :]
        pooled = sharpness * says.pooled(weights)
        scores = log_softmax(pooled + bias, axis=1)
        pulls = (parameters - centre) / spread
        nats = -float((truth * scores).sum()) + 0.5 * float(pulls @ pulls)
        error = np.exp(scores) - truth
        of_weights = sharpness * (error[None] * says.parts).sum(axis=(1, 2))
        slopes = np.concatenate([[(error * pooled).sum()], of_weights, error.sum(axis=0)])
        return nats, slopes + pulls / spread

    found = minimize(loss, centre, jac=True, method="L-BFGS-B").x
    return _Tuning(found[1 : 1 + n_speakers], float(np.exp(found[0])), found[1 + n_speakers :])


def _scale(scores: Floats, targets: Floats, weights: Floats) -> float:
    """Return what makes scores (n, K) log-odds: the likeliest factor under soft labels."""
    shares = np.log(np.clip(weights @ targets / weights.sum(), 1e-9, None))

    def loss(factor: float) -> float:
        logs = log_softmax(factor * scores + shares, axis=1)
        return -float((weights[:, None] * targets * logs).sum())

    bounds = (0.0, _MAX_PROBE_SCALE)
    return float(minimize_scalar(loss, bounds=bounds, method="bounded").x)


def accuracy_from_agreement(labels: Sequence[NDArray[np.intp]], n_classes: int) -> float | None:
    """Return the accuracy that the annotators' agreement bears out; None for a single one.

    `labels` holds each annotator's class indices (n,), -1 where it abstained. The idea: two that
    are right with probability a, independently, and wrong at random otherwise agree with
    probability a^2 + (1 - a)^2 / (K - 1) (the one-coin model of Dawid and Skene 1979); the mean
    pairwise agreement is solved for a. Common errors make it too high.
    """
    rates: list[float] = []
    for first, second in combinations(labels, 2):
        both = (first >= 0) & (second >= 0)
        if both.any():
            rates.append(float((first == second)[both].mean()))
    if not rates or n_classes < 2:
        return None
    root = max(0.0, 1 - n_classes * (1 - float(np.mean(rates)) * (n_classes - 1)))
    return float((1 + np.sqrt(root)) / n_classes)


def _sample(votes: Mapping[str, Floats], human: Mapping[int, int]) -> NDArray[np.intp]:
    n_texts = len(next(iter(votes.values())))
    heard = np.zeros(n_texts, dtype=bool)
    for probabilities in votes.values():
        heard[_rows_present(probabilities)] = True
    heard[list(human)] = True
    is_human = np.zeros(n_texts, dtype=bool)
    is_human[list(human)] = True
    others = np.flatnonzero(heard & ~is_human)
    others = others[:: max(1, -(-len(others) // _MAX_TEXTS))]
    return np.sort(np.concatenate([np.flatnonzero(is_human), others]))


def _rows_present(probabilities: Floats) -> NDArray[np.intp]:
    return np.flatnonzero(~np.isnan(probabilities).any(axis=1))


def _present(probabilities: Floats) -> Floats:
    return probabilities[_rows_present(probabilities)]
