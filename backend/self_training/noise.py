"""Estimate which labels are wrong: by loss, by confident learning, by the neighbors' labels.

All functions take cross-fitted predictions, by models that did not learn the label in question,
except `small_loss_score`, which takes losses as a training leaves them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from cleanlab.count import estimate_joint
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.mixture import GaussianMixture

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]

_MIN_PROBABILITY = 1e-6
_MIN_LOSS_RANGE = 1e-6
_MIXTURE = {"n_components": 2, "max_iter": 100, "tol": 1e-2, "reg_covar": 5e-4}
_N_ROWS_PER_BLOCK = 1024
_DUPLICATE_COSINE = 1 - 1e-4
_MAX_EXPONENT = 3.0
_CONFIDENT_SHARE, _MIN_CONFIDENT = 0.2, 10
_N_DECONVOLUTION_STEPS = 200


def assign_folds(
    keys: Sequence[Hashable], labels: Labels, *, n_folds: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return a fold number for each text, shape (n,), in [0, n_folds).

    Texts with the same key (duplicates) share a fold, else a model would have seen its test text.
    Each label's groups are dealt out in turn, so that folds are alike in size and in labels.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    groups = list(rows_of.values())
    order = rng.permutation(len(groups))
    by_label = sorted(order, key=lambda group: int(labels[groups[group][0]]))
    folds = np.zeros(len(labels), dtype=np.int64)
    for turn, group in enumerate(by_label):
        folds[groups[group]] = turn % n_folds
    return folds


def small_loss_score(losses: Floats, *, seed: int) -> Floats:
    """Return each label's probability of being right by the size of its loss, shape (n,).

    A mixture of two Gaussians is fitted to the losses; the posterior of the one with the smaller
    mean is returned (Arazo et al. 2019; FreeAL section 3.3).

    **Deviations** from FreeAL's published code: the mixture is seeded; equal losses, at which
    min-max scaling divides 0 by 0, separate nothing and count as clean; it has 100
    steps to converge instead of 10. Cost: O(n).
    """
    if len(losses) < 2 or np.ptp(losses) < _MIN_LOSS_RANGE:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / np.ptp(losses))[:, None]
    mixture = GaussianMixture(**_MIXTURE, random_state=seed).fit(scaled)
    return np.asarray(mixture.predict_proba(scaled)[:, int(mixture.means_.argmin())])


def transition_matrix(labels: Labels, cross_fitted: Floats) -> Floats:
    """Return P(label given | true label), shape (K, K), rows by true label.

    From the confident joint (Northcutt et al. 2021, Confident Learning, section 3.1) as cleanlab
    estimates it: a text counts for the class whose own mean confidence its prediction exceeds. A
    class that is never given has a row of its own label. Cost: O(n K).
    """
    n_classes = cross_fitted.shape[1]
    present, positions = np.unique(labels, return_inverse=True)
    matrix = np.eye(n_classes)
    if len(present) < 2:
        return matrix
    scores = np.clip(cross_fitted[:, present], _MIN_PROBABILITY, None)
    scores = scores / scores.sum(axis=1, keepdims=True)
    joint = np.asarray(estimate_joint(positions, scores))
    columns = joint.sum(axis=0, keepdims=True)
    conditional = joint / np.maximum(columns, _MIN_PROBABILITY)
    conditional = np.where(columns > 0, conditional, np.eye(len(present)))
    matrix[np.ix_(present, present)] = conditional.T
    return matrix


def label_noise_share(labels: Labels, cross_fitted: Floats) -> float:
    """Return the share of the predictions' disagreement with labels that is label noise.

    The rate of disagreement among the fifth of the texts with the most confident predictions, over
    the rate among all, at most 1. Where a model is confident its own mistakes are few, so what is
    left is noise; a weak model disagrees far more elsewhere, and that is its own weakness, which
    the confident joint takes for noise. A lower bound where noise grows with difficulty.
    """
    differs = cross_fitted.argmax(axis=1) != labels
    rate = float(differs.mean()) if len(differs) else 0.0
    if rate == 0.0:
        return 1.0
    n_confident = max(_MIN_CONFIDENT, round(len(labels) * _CONFIDENT_SHARE))
    confident = np.argsort(-cross_fitted.max(axis=1), kind="stable")[:n_confident]
    return min(1.0, float(differs[confident].mean()) / rate)


def deconvolve_noise(predicted: Floats, matrix: Floats) -> Floats:
    """Return the posterior of the true label from predictions of the label as given, shape (n, K).

    Predictions learned from noisy labels are the true label's posterior times `matrix`. Each row is
    taken back by itself, as the mixture of the matrix's rows that is nearest to it in
    Kullback-Leibler divergence: 200 steps of expectation maximization from the prediction itself
    (Richardson 1972, Lucy 1974), which stay distributions where the matrix's inverse would not. An
    identity matrix changes nothing. `matrix` is that of `transition_matrix`. Cost: O(n K^2) a step.
    """
    seen = np.clip(predicted, _MIN_PROBABILITY, None)
    seen = seen / seen.sum(axis=1, keepdims=True)
    true: Floats = seen.copy()
    for _ in range(_N_DECONVOLUTION_STEPS):
        true *= (seen / np.clip(true @ matrix, _MIN_PROBABILITY, None)) @ matrix.T
        true /= true.sum(axis=1, keepdims=True)
    return true


def neighbor_posterior(
    vectors: Floats, targets: Floats, has_label: NDArray[np.bool_], *, n_neighbors: int
) -> Floats:
    """Return the mean target of each text's nearest labelled texts, itself left out, shape (n, K).

    Neighbors are weighted by the cosine, negative ones not at all; texts with the very same vector
    are left out, since duplicates carry no news. Rows without a neighbor are uniform. Cost:
    O(n^2 d) time, O(1024 n) memory.

    Args:
        vectors: (n, d), unit vectors of a model that never saw the labels.
        targets: (n, K), soft labels.
        has_label: (n,).
        n_neighbors: how many are averaged at most.
    """
    n_classes = targets.shape[1]
    out = np.full((len(vectors), n_classes), 1.0 / n_classes)
    known = np.flatnonzero(has_label)
    n_taken = min(n_neighbors, max(0, len(known) - 1))
    if n_taken == 0:
        return out
    for start in range(0, len(vectors), _N_ROWS_PER_BLOCK):
        block = vectors[start : start + _N_ROWS_PER_BLOCK]
        cosines = block @ vectors[known].T
        cosines[cosines > _DUPLICATE_COSINE] = -1.0
        nearest = np.argpartition(-cosines, n_taken - 1, axis=1)[:, :n_taken]
        weights = np.clip(np.take_along_axis(cosines, nearest, axis=1), 0.0, None)
        sums = np.einsum("bk,bkc->bc", weights, targets[known[nearest]])
        totals = weights.sum(axis=1, keepdims=True)
        rows = slice(start, start + len(block))
        out[rows] = np.where(totals > 0, sums / np.maximum(totals, _MIN_PROBABILITY), out[rows])
    return out


def log_opinion_pool(
    predictions: Sequence[Floats], targets: Floats, has_label: NDArray[np.bool_]
) -> Floats:
    """Return one posterior from several predictions, weighted by how well they predict labels.

    A logarithmic opinion pool (Genest and Zidek 1986, section 3): the normalized product of the
    predictions, each to an exponent of its own in [0, 3]. The exponents maximize the likelihood of
    the labels, so that an uninformative prediction counts for nothing, and related ones are not
    taken for independent. Cost: O(n K) for each step of the fit.

    Args:
        predictions: (n, K) each, by models that did not see the label of the row.
        targets: (n, K), soft labels.
        has_label: (n,), which of them count.
    """
    logs = np.stack([np.log(np.clip(each, _MIN_PROBABILITY, None)) for each in predictions])
    known, wanted = logs[:, has_label], targets[has_label]
    n_known = max(1, len(wanted))

    def loss(exponents: Floats) -> tuple[float, Floats]:
        pooled = log_softmax(np.tensordot(exponents, known, 1), axis=1)
        gap = (np.exp(pooled) - wanted) / n_known
        return -float((wanted * pooled).sum()) / n_known, (known * gap).sum(axis=(1, 2))

    start = np.full(len(predictions), 1.0 / len(predictions))
    bounds = [(0.0, _MAX_EXPONENT)] * len(predictions)
    exponents = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    return np.asarray(softmax(np.tensordot(exponents, logs, 1), axis=1))


def bayes_combine(weak: Floats, cross_fitted: Floats, *, exponent: float = 1.0) -> Floats:
    """Return the posterior of the true label from label and prediction, shape (n, K).

    Each is a posterior over the same prior; given the true label they are taken as independent, so
    that the product over the prior is the joint posterior (naive Bayes). The prior is divided out
    of the prediction, whose mean it is; with an `exponent` above 1 the prediction counts more.
    """
    prior = np.clip(cross_fitted.mean(axis=0, keepdims=True), _MIN_PROBABILITY, None)
    logs = np.log(np.clip(weak, _MIN_PROBABILITY, None)) + exponent * (
        np.log(np.clip(cross_fitted, _MIN_PROBABILITY, None)) - np.log(prior)
    )
    posterior: Floats = np.exp(logs - logs.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)
    return posterior


def label_issues(
    label_quality_score: Floats, has_label: NDArray[np.bool_], ids: Sequence[int]
) -> NDArray[np.int64]:
    """Return the labelled rows, the likeliest errors first; ties by id."""
    rows = np.flatnonzero(has_label)
    return np.asarray(rows[np.lexsort((np.asarray(ids)[rows], label_quality_score[rows]))])
