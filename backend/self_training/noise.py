"""Which labels are likely to be wrong: by loss, by confident learning, by the neighbours' labels.

All functions take what models say that did not learn from the label in question (`cross_fitted`),
except `clean_by_loss`, which reads losses as a training leaves them.
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

_SMALLEST = 1e-6
_N_STEPS = 100
_TOLERANCE = 1e-2
_MIN_VARIANCE = 5e-4
_MIN_FOR_MIXTURE = 10
_N_ROWS_COMPARED_AT_ONCE = 1024
_MAX_SAY = 3.0
_SUREST_SHARE, _MIN_SUREST = 0.2, 10
_N_UNMIXING_STEPS = 200


def assign_folds(
    keys: Sequence[Hashable], labels: Labels, *, n_folds: int, rng: np.random.Generator
) -> Labels:
    """Return a fold number for each text, shape (n,), in [0, n_folds).

    Texts with the same key (duplicates) share a fold, else one copy would vouch for the other.
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


def clean_by_loss(losses: Floats, *, seed: int, labels: Labels | None = None) -> Floats:
    """Return each label's probability of being right by the size of its loss, shape (n,).

    A mixture of two Gaussians is fitted to the losses; the posterior of the one with the smaller
    mean is returned (Arazo et al. 2019; FreeAL section 3.3). With `labels`, each class has a
    mixture of its own, because an LLM's noise differs from class to class; classes of fewer than
    10 texts share one.

    **Deviations** from FreeAL's published code: the mixture is seeded; equal losses, at which
    min-max scaling divides 0 by 0, separate nothing and count as clean; it has 100
    steps to converge instead of 10. Cost: O(n).
    """
    clean = np.ones(len(losses))
    groups = np.zeros(len(losses), dtype=np.int64) if labels is None else labels + 1
    sizes = np.bincount(groups, minlength=1)
    groups = np.where(sizes[groups] < _MIN_FOR_MIXTURE, 0, groups)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        clean[rows] = _two_gaussians(losses[rows], seed)
    return clean


def _two_gaussians(losses: Floats, seed: int) -> Floats:
    spread = losses.max() - losses.min()
    if len(losses) < 2 or spread < _SMALLEST:
        return np.ones(len(losses))
    scaled = ((losses - losses.min()) / spread)[:, None]
    mixture = GaussianMixture(
        n_components=2,
        max_iter=_N_STEPS,
        tol=_TOLERANCE,
        reg_covar=_MIN_VARIANCE,
        random_state=seed,
    )
    mixture.fit(scaled)
    posterior: Floats = mixture.predict_proba(scaled)[:, int(mixture.means_.argmin())]
    return posterior


def transition_matrix(labels: Labels, cross_fitted: Floats) -> Floats:
    """Return P(label given | true label), shape (K, K), rows by true label.

    From the confident joint (Northcutt et al. 2021, Confident Learning, section 3.1) as cleanlab
    estimates it: a text counts for the class whose own mean confidence its prediction exceeds. A
    class that nobody was given has a row of its own label. Cost: O(n K).
    """
    n_classes = cross_fitted.shape[1]
    present = np.unique(labels)
    matrix = np.eye(n_classes)
    if len(present) < 2:
        return matrix
    position = np.zeros(n_classes, dtype=np.int64)
    position[present] = np.arange(len(present))
    scores = np.clip(cross_fitted[:, present], _SMALLEST, None)
    scores = scores / scores.sum(axis=1, keepdims=True)
    joint = np.asarray(estimate_joint(position[labels], scores))
    columns = joint.sum(axis=0, keepdims=True)
    conditional = np.where(
        columns > 0, joint / np.maximum(columns, _SMALLEST), np.eye(len(present))
    )
    matrix[np.ix_(present, present)] = conditional.T
    return matrix


def share_of_noise(labels: Labels, cross_fitted: Floats) -> float:
    """Return which share of the predictions' disagreement with labels is the labels' fault.

    The rate of disagreement among the fifth of the texts on which the predictions are surest,
    over the rate among all, at most 1. Where a model is surest its own mistakes are few, so what
    is left is noise; a weak model disagrees far more elsewhere, and that is its own weakness,
    which the confident joint takes for noise. A lower bound where noise grows with difficulty.
    """
    differs = cross_fitted.argmax(axis=1) != labels
    rate = float(differs.mean()) if len(differs) else 0.0
    if rate == 0.0:
        return 1.0
    n_surest = max(_MIN_SUREST, round(len(labels) * _SUREST_SHARE))
    surest = np.argsort(-cross_fitted.max(axis=1), kind="stable")[:n_surest]
    return min(1.0, float(differs[surest].mean()) / rate)


def deconvolve_noise(predicted: Floats, matrix: Floats) -> Floats:
    """Return the posterior of the true label from predictions of the label as given, shape (n, K).

    A model that learned noisy labels foretells noisy labels: its predictions (n, K) are the true
    label's posterior times `matrix`, P(label given | true label), (K, K), rows by true label. Each
    row is taken back by itself, as the mixture of the matrix's rows that is nearest to it in
    Kullback-Leibler divergence: 200 steps of expectation maximisation from the prediction itself
    (Richardson 1972, Lucy 1974), which stay distributions where the matrix's inverse would not. An
    identity matrix changes nothing. Cost: O(n K^2) a step.
    """
    seen = np.clip(predicted, _SMALLEST, None)
    seen = seen / seen.sum(axis=1, keepdims=True)
    true: Floats = seen.copy()
    for _ in range(_N_UNMIXING_STEPS):
        true *= (seen / np.clip(true @ matrix, _SMALLEST, None)) @ matrix.T
        true /= true.sum(axis=1, keepdims=True)
    return true


def neighbour_posterior(
    vectors: NDArray[np.floating],
    targets: Floats,
    has_label: NDArray[np.bool_],
    *,
    n_neighbours: int,
) -> Floats:
    """Return the mean target of each text's nearest labelled texts, itself left out, shape (n, K).

    `vectors` (n, d) are unit vectors of a model that never saw the labels. Neighbours count by the
    cosine, negative ones not at all; texts with the very same vector are left out, since duplicates
    carry no news. Rows without a neighbour are uniform. Cost: O(n^2 d) time, O(1024 n) memory.
    """
    n_classes = targets.shape[1]
    out = np.full((len(vectors), n_classes), 1.0 / n_classes)
    known = np.flatnonzero(has_label)
    n_taken = min(n_neighbours, max(0, len(known) - 1))
    if n_taken == 0:
        return out
    for start in range(0, len(vectors), _N_ROWS_COMPARED_AT_ONCE):
        block = vectors[start : start + _N_ROWS_COMPARED_AT_ONCE]
        cosines = block @ vectors[known].T
        cosines[cosines > 1 - 1e-4] = -1.0
        nearest = np.argpartition(-cosines, n_taken - 1, axis=1)[:, :n_taken]
        weights = np.clip(np.take_along_axis(cosines, nearest, axis=1), 0.0, None)
        sums = np.einsum("bk,bkc->bc", weights, targets[known[nearest]])
        totals = weights.sum(axis=1, keepdims=True)
        rows = slice(start, start + len(block))
        out[rows] = np.where(totals > 0, sums / np.maximum(totals, _SMALLEST), out[rows])
    return out


def log_opinion_pool(
    opinions: Sequence[Floats], targets: Floats, has_label: NDArray[np.bool_]
) -> Floats:
    """Return one posterior from several, each (n, K), weighted by how well they foretell labels.

    A logarithmic opinion pool (Genest and Zidek 1986, section 3): the normalised product of the
    opinions, each to a power of its own in [0, 3]. The powers maximise the likelihood of
    `targets` (n, K) where `has_label`; no opinion may have seen the label of its row. So an opinion
    that knows nothing counts for nothing, and related ones are not taken for independent. Cost:
    O(n K) for each step of the fit.
    """
    logs = np.stack([np.log(np.clip(opinion, _SMALLEST, None)) for opinion in opinions])
    known, wanted = logs[:, has_label], targets[has_label]
    n_known = max(1, len(wanted))

    def loss(powers: Floats) -> tuple[float, Floats]:
        pooled = log_softmax(np.tensordot(powers, known, 1), axis=1)
        gap = (np.exp(pooled) - wanted) / n_known
        return -float((wanted * pooled).sum()) / n_known, (known * gap).sum(axis=(1, 2))

    start = np.full(len(opinions), 1.0 / len(opinions))
    bounds = [(0.0, _MAX_SAY)] * len(opinions)
    powers = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x
    pooled: Floats = softmax(np.tensordot(powers, logs, 1), axis=1)
    return pooled


def join(weak: Floats, cross_fitted: Floats, *, strength: float = 1.0) -> Floats:
    """Return the posterior of the true label from two opinions, shape (n, K).

    Each opinion is a posterior over the same prior; given the true label they are taken as
    independent, so that the product over the prior is the joint posterior (naive Bayes). The prior
    is divided out of the second opinion, whose mean it is. `strength` raises the second opinion's
    say (above 1) or lowers it.
    """
    prior = np.clip(cross_fitted.mean(axis=0, keepdims=True), _SMALLEST, None)
    logs = np.log(np.clip(weak, _SMALLEST, None)) + strength * (
        np.log(np.clip(cross_fitted, _SMALLEST, None)) - np.log(prior)
    )
    logs -= logs.max(axis=1, keepdims=True)
    posterior: Floats = np.exp(logs)
    posterior /= posterior.sum(axis=1, keepdims=True)
    return posterior


def label_issues(
    label_quality_score: Floats, has_label: NDArray[np.bool_], ids: Sequence[int]
) -> NDArray[np.int64]:
    """Return the labelled rows, the likeliest errors first; ties by id."""
    rows = np.flatnonzero(has_label)
    order = np.lexsort((np.asarray(ids)[rows], label_quality_score[rows]))
    ranked: NDArray[np.int64] = rows[order]
    return ranked
