"""How far each annotator is to be trusted in one project: learned from its votes, never assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import beta
from threadpoolctl import threadpool_limits

from backend.core.calibration import temper_to_accuracy
from backend.core.mixture import (
    Clamped,
    Floats,
    LatentClasses,
    VoteScale,
    contrasts,
    fit_latent_classes,
    plausible_sharpness,
    start_from,
)
from backend.core.probe import LinearProbe, fit_probe
from backend.core.voters import PROBE, Trust, VoterTrust, pool

__all__ = ["PROBE", "Trust", "VoterTrust", "accuracy_from_agreement", "learn_trust"]

_MOST_TEXTS = 4000
_CLAMPED_WEIGHT = 5.0
_N_PSEUDO_LABELS = 50
_N_FOLDS = 2
_FEWEST_TEXTS_TO_DOUBT = 500
_FULL_SIGNAL = 0.2
_LEAST_SIGNAL = 0.5
_RIDGE = 1.0
_WEIGHT_SD = 0.5
_BIAS_SD = 0.7
_LEAST_SHARPNESS = 0.05
_N_PRIOR_LABELS = 5.0
_INTERVAL = (0.05, 0.95)


def learn_trust(
    posteriors: Mapping[str, Floats],
    embeddings: Floats | None = None,
    human: Mapping[int, int] | None = None,
) -> Trust:
    """Learn from a pool how to fuse its voters, with human labels or without.

    `posteriors` holds each voter's raw posteriors, shape (n, K), in a fixed row order, a row of
    NaN where it abstained; a small model's must be cross-fitted. `embeddings` (n, d) are unit
    vectors; `human` maps rows to class indices.

    The idea: what the voters say, leaning and scale taken out, scatters around one centre per
    class (`fit_latent_classes`, a continuous Dawid-Skene model), and a voter that does not move
    with the others has centres that coincide and so no say. A probe on embeddings, cross-fitted
    on the fused labels, joins as one voter more; the rate at which the annotators agree says how
    often one of them is right, and the confidences are tempered to it. That is too low for votes
    with independent errors, which are right more often together, and too high for common errors:
    without a label nothing tells the two apart. Human labels hold their texts in their class, then
    set a weight per voter and a bias per class, with priors at one and zero.

    Cost: some 100 products of (n, d) and (d, K) matrices, on one core; at most 4,000 texts are
    looked at, those with human labels first, then evenly spread.
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
            _clamped(rows, known),
        ).learn()


class _Learning:
    """The rows that trust is learned from."""

    def __init__(
        self, votes: dict[str, Floats], embeddings: Floats | None, clamped: Clamped
    ) -> None:
        self._votes = votes
        self._embeddings = embeddings
        self._clamped = clamped
        self._n_texts, self._n_classes = next(iter(votes.values())).shape
        self._scales = {name: VoteScale.fit(_present(p)) for name, p in votes.items()}
        self._signals = {name: self._signal(name) for name in votes}

    def learn(self) -> Trust:
        """Fit the classes, add the probe, temper to the agreement, then hear the people."""
        scores = sum(
            (1.0 if signal is None else signal) * self._scores(name)
            for name, signal in self._signals.items()
        )
        start = start_from(np.asarray(scores))
        classes = fit_latent_classes(self._features(), start, self._clamped)
        probe = None
        if self._embeddings is not None and self._n_texts >= 2 * _N_FOLDS:
            classes, probe = self._with_probe(classes, self._embeddings)
        pooled = pool(classes, self._features(), np.ones(len(self._votes)))
        accuracy = self._accuracy(classes)
        sharpness = plausible_sharpness(self._n_classes)
        if accuracy is not None:
            tempered = temper_to_accuracy(softmax(pooled, axis=1), accuracy)
            sharpness = float(np.clip(tempered, _LEAST_SHARPNESS, 1.0))
        weights, bias = self._hear_people(classes, sharpness)
        fused = softmax(sharpness * pool(classes, self._features(), weights) + bias, axis=1)
        own = self._own_labels(classes)
        voters = {
            name: self._voter(name, weight, fused, own[name])
            for name, weight in zip(self._votes, weights.tolist(), strict=True)
        }
        n_human = len(self._clamped.rows)
        return Trust(voters, classes, sharpness, bias, probe, accuracy, n_human)

    def _with_probe(
        self, classes: LatentClasses, vectors: Floats
    ) -> tuple[LatentClasses, LinearProbe]:
        """Let a probe on embeddings vote on texts that it was not trained on, and fit again."""
        targets = softmax(pool(classes, self._features(), np.ones(len(self._votes))), axis=1)
        targets[self._clamped.rows] = np.eye(self._n_classes)[self._clamped.classes]
        weights = np.full(self._n_texts, _N_PSEUDO_LABELS / self._n_texts)
        weights[self._clamped.rows] = 1.0
        folds = np.arange(self._n_texts) % _N_FOLDS
        held_out = np.empty_like(targets)
        for fold in range(_N_FOLDS):
            out = folds == fold
            part = np.where(weights[~out] < 1, weights[~out] * _N_FOLDS, 1.0)
            fitted = fit_probe(vectors[~out], targets[~out], part)
            held_out[out] = fitted.posterior(vectors[out])
        self._votes[PROBE] = held_out
        self._scales[PROBE] = VoteScale.fit(held_out)
        self._signals[PROBE] = None
        refitted = fit_latent_classes(self._features(), targets, self._clamped)
        return refitted, fit_probe(vectors, targets, weights)

    def _accuracy(self, classes: LatentClasses) -> float | None:
        """Return what the annotators' agreement says; those that ignore the text are not asked."""
        labels = self._own_labels(classes)
        asked = [
            labels[name]
            for name, signal in self._signals.items()
            if name != PROBE and (signal is None or signal > _LEAST_SIGNAL)
        ]
        return accuracy_from_agreement(asked, self._n_classes)

    def _hear_people(self, classes: LatentClasses, sharpness: float) -> tuple[Floats, Floats]:
        """Return a weight per voter (V,) and a bias per class (K,), by maximum posterior."""
        n_voters, rows = len(self._votes), self._clamped.rows
        if len(rows) == 0:
            return np.ones(n_voters), np.zeros(self._n_classes)
        features = self._features()[rows]
        nothing = sharpness * pool(classes, features, np.zeros(n_voters))
        says = np.stack(
            [sharpness * pool(classes, features, one) - nothing for one in np.eye(n_voters)]
        )
        truth = np.eye(self._n_classes)[self._clamped.classes]

        def loss(parameters: Floats) -> tuple[float, Floats]:
            weights, bias = parameters[:n_voters], parameters[n_voters:]
            scores = log_softmax(np.tensordot(weights, says, 1) + nothing + bias, axis=1)
            nats = -float((truth * scores).sum())
            nats += 0.5 * float(((weights - 1) ** 2).sum()) / _WEIGHT_SD**2
            nats += 0.5 * float((bias**2).sum()) / _BIAS_SD**2
            error = np.exp(scores) - truth
            slopes = (error[None] * says).sum(axis=(1, 2)) + (weights - 1) / _WEIGHT_SD**2
            return nats, np.concatenate([slopes, error.sum(axis=0) + bias / _BIAS_SD**2])

        start = np.concatenate([np.ones(n_voters), np.zeros(self._n_classes)])
        found = minimize(loss, start, jac=True, method="L-BFGS-B").x
        return found[:n_voters], found[n_voters:]

    def _voter(self, name: str, weight: float, fused: Floats, own: NDArray[np.intp]) -> VoterTrust:
        """Estimate a voter's accuracy: Beta posterior, its prior from the fused labels."""
        heard = own >= 0
        expected = float(fused[heard, own[heard]].mean())
        of_people = own[self._clamped.rows]
        n_human = int((of_people >= 0).sum())
        n_right = int((of_people == self._clamped.classes).sum())
        right = 1 + _N_PRIOR_LABELS * expected + n_right
        wrong = 1 + _N_PRIOR_LABELS * (1 - expected) + n_human - n_right
        accuracy = (right - 1) / (right + wrong - 2)
        low, high = beta.ppf(_INTERVAL, right, wrong)
        return VoterTrust(
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
        labels, features = {}, self._features()
        for index, (name, probabilities) in enumerate(self._votes.items()):
            alone = np.arange(len(self._votes)) == index
            own = pool(classes, features, np.ones(len(alone)), alone).argmax(axis=1)
            own[np.isnan(probabilities).any(axis=1)] = -1
            labels[name] = own
        return labels

    def _scores(self, name: str) -> Floats:
        scores = self._scales[name].scores(self._votes[name])
        return np.nan_to_num(scores, nan=0.0)

    def _features(self) -> Floats:
        return np.hstack([contrasts(self._scores(name)) for name in self._votes])

    def _signal(self, name: str) -> float | None:
        """Return how far a voter's scores can be foretold from the text: R2 / 0.2, cut to [0, 1].

        Two-fold ridge regression on embeddings. A voter whose answers have nothing to do with the
        text must not shape the classes, however sure it is.
        """
        rows = _rows_present(self._votes[name])
        if self._embeddings is None or len(rows) < _FEWEST_TEXTS_TO_DOUBT:
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
    others = others[:: max(1, -(-len(others) // _MOST_TEXTS))]
    return np.sort(np.concatenate([np.flatnonzero(is_human), others]))


def _clamped(rows: NDArray[np.intp], human: Mapping[int, int]) -> Clamped:
    positions = np.flatnonzero(np.isin(rows, list(human)))
    classes = np.array([human[int(rows[i])] for i in positions], dtype=np.intp)
    return Clamped(positions, classes, _CLAMPED_WEIGHT)


def _rows_present(probabilities: Floats) -> NDArray[np.intp]:
    return np.flatnonzero(~np.isnan(probabilities).any(axis=1))


def _present(probabilities: Floats) -> Floats:
    return probabilities[_rows_present(probabilities)]
