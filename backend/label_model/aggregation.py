"""Fuses what people, annotators and models say about a text into one label with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from backend.evaluation.metrics import cohens_kappa
from backend.label_model.latent_class import Floats
from backend.label_model.model import LabelModel
from backend.label_model.multilabel import MultilabelModel

HUMAN = "human"
AGREEMENT = "agreement"
COMBINATION = "combination"
_SMALLEST_PROBABILITY = 1e-6
_MIN_TO_AGREE = 100


@dataclass(frozen=True, slots=True)
class AggregatedLabels:
    """One label per text.

    `probabilities` (n, K); `labels` (n,) class indices; `sources` says who it is from: "human",
    "agreement" (at least two annotators, all of this opinion), "combination", or the name of the
    only annotator that was heard; None where nobody was, so that the posterior is the class
    shares alone. `votes` holds each heard annotator's calibrated posterior.
    """

    probabilities: Floats
    labels: NDArray[np.intp]
    sources: tuple[str | None, ...]
    votes: tuple[Mapping[str, tuple[float, ...]], ...]


def fuse(
    posteriors: Mapping[str, Floats],
    label_model: LabelModel,
    *,
    embeddings: Floats | None = None,
    human: Mapping[int, int] | None = None,
) -> AggregatedLabels:
    """Fuse raw posteriors (n, K) by name, NaN rows being abstentions, under a learned trust.

    `embeddings` (n, d) let the probe vote; `human` maps rows to class indices, which stand with
    certainty. Any text may be fused, also one that trust was not learned from. Cost: O(n V K^2).
    """
    known = dict(human or {})
    probabilities = label_model.posterior(posteriors, embeddings)
    for row, label in known.items():
        probabilities[row] = np.eye(probabilities.shape[1])[label]
    labels = probabilities.argmax(axis=1)
    own = {
        name: label_model.annotator_posterior(name, posteriors[name])
        for name in label_model.annotators
        if name in posteriors
    }
    votes = tuple(_votes(posteriors, own, row) for row in range(len(labels)))
    has_probe = label_model.probe is not None and embeddings is not None
    sources = tuple(
        HUMAN if row in known else _source(votes[row], int(labels[row]), has_probe)
        for row in range(len(labels))
    )
    return AggregatedLabels(probabilities, labels, sources, votes)


def agreement(posteriors: Mapping[str, Floats]) -> float | None:
    """Return how far annotators agree on texts' likeliest classes beyond chance, at most 1.

    `posteriors` holds each annotator's own calibrated posteriors (n, K), NaN rows being
    abstentions. Cohen's kappa, averaged over pairs: 0 is what their shares of classes alone would
    bring about, and so what annotators come to that guess. None where no two answered the same
    100 texts.
    """
    kappas = []
    for first, second in combinations(posteriors.values(), 2):
        both = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
        if both.sum() >= _MIN_TO_AGREE:
            kappa = cohens_kappa(first[both].argmax(axis=1), second[both].argmax(axis=1))
            kappas.append(kappa or 0.0)
    return float(np.mean(kappas)) if kappas else None


def aggregate_multilabel_posteriors(
    posteriors: Mapping[str, Floats], label_model: MultilabelModel | None = None
) -> Floats:
    """Fuse probabilities per label (n, L) by annotator, for multiple choice.

    Without a learned trust, or where it knows none of the annotators (another LLM is served now),
    it is the mean in log-odds; there, NaN entries are abstentions and leave the others to speak,
    and 0.5 stands where nobody spoke. Raises ValueError without votes.
    """
    if not posteriors:
        raise ValueError("no voter; expected at least one posterior")
    if label_model is not None and label_model.annotators.keys() & posteriors.keys():
        return label_model.posterior(posteriors)
    stacked = np.stack([posteriors[name] for name in posteriors])
    odds = logit(np.clip(stacked, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY))
    n_heard = (~np.isnan(odds)).sum(axis=0)
    fused: Floats = expit(np.nan_to_num(odds).sum(axis=0) / np.maximum(n_heard, 1))
    return fused


def _votes(
    posteriors: Mapping[str, Floats], own: Mapping[str, Floats], row: int
) -> Mapping[str, tuple[float, ...]]:
    return {
        name: tuple(calibrated[row].tolist())
        for name, calibrated in own.items()
        if not np.isnan(posteriors[name][row]).any()
    }


def _source(votes: Mapping[str, tuple[float, ...]], label: int, has_probe: bool) -> str | None:
    opinions = {int(np.argmax(vote)) for vote in votes.values()}
    if len(votes) > 1:
        return AGREEMENT if opinions == {label} else COMBINATION
    if not votes:
        return COMBINATION if has_probe else None
    return next(iter(votes)) if opinions == {label} else COMBINATION
