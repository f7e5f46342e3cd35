"""Learn how to weight annotators on a single-label question, and aggregate their posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from backend.label_model.calibration import (
    BatchCalibrator,
    HumanLabels,
    LogLinearPool,
    accuracy_from_agreement,
    inverse_temperature_for_accuracy,
)
from backend.label_model.capable import CapableLLM
from backend.label_model.class_shares import expected_shares, move_to_shares, shares_by_agreement
from backend.label_model.latent_class import (
    Floats,
    LatentClassModel,
    Standardizer,
    contrasts,
    default_inverse_temperature,
    fit_latent_classes,
    is_answered,
    sample_rows,
)
from backend.label_model.linear_probe import LinearProbe, cross_fit_ridge, explained_variance

HUMAN = "human"
AGREEMENT = "agreement"
COMBINATION = "combination"
_OWN = "own"
_MIN_DEPENDENCE = 0.5
_MIN_TEXTS_FOR_DEPENDENCE = 500
_FULL_DEPENDENCE = 0.2  # explained variance
_SHARED_WITH_PROBE = 0.75
_PROBE_WEIGHT = 0.5
_MIN_TEXTS_FOR_PROBE = 4
_N_PSEUDO_LABELS = 50
_LOG_TEMPERATURE_SD = 1.0
_LOG_TEMPERATURE_SD_BY_AGREEMENT = 0.5


@dataclass(frozen=True, slots=True)
class AnnotatorParameters:
    """Parameters of one annotator.

    `weight` multiplies its log-likelihood in the log-linear pool; `text_dependence` in [0, 1] is
    how far its posteriors depend on the text, None if not measured.
    """

    standardizer: Standardizer
    weight: float
    text_dependence: float | None


@dataclass(frozen=True, slots=True)
class LabelModel:
    """Everything needed to aggregate the annotators' posteriors on any text of a project.

    `probe` works on embeddings, its weight already in its scores; `inverse_temperature` multiplies
    the pooled log-probabilities, `class_bias` (K,) is added. `n_human` human labels were used.
    """

    annotators: Mapping[str, AnnotatorParameters]
    classes: LatentClassModel
    inverse_temperature: float
    class_bias: Floats
    probe: LinearProbe | None
    n_human: int

    def posterior(self, posteriors: Mapping[str, Floats], embeddings: Floats | None) -> Floats:
        """Return the aggregated posterior, shape (n, K).

        Args:
            posteriors: raw posteriors (n, K) by annotator; NaN rows are abstentions, unknown
                annotators are ignored. Without any the class shares are returned.
            embeddings: unit vectors (n, d) for the probe.
        """
        logits = None
        if self.probe is not None and embeddings is not None:
            logits = self.probe.scores(embeddings)
        known = [*posteriors.values(), *([] if logits is None else [logits])]
        features, is_present = self._features(posteriors, len(known[0]) if known else 0)
        weights = np.array([annotator.weight for annotator in self.annotators.values()])
        pooled = np.empty((len(features), len(self.class_bias)))
        for pattern in np.unique(is_present, axis=0):
            rows = (is_present == pattern).all(axis=1)
            pooled[rows] = self.classes.log_linear_pool(features[rows], weights, pattern)
        if logits is not None:
            pooled += logits
        return np.asarray(softmax(self.inverse_temperature * pooled + self.class_bias, axis=1))

    def annotator_posterior(self, name: str, probabilities: Floats) -> Floats:
        """Return one annotator's raw posteriors (n, K) calibrated by themselves."""
        features, _ = self._features({name: probabilities}, len(probabilities))
        is_present = np.array([annotator == name for annotator in self.annotators])
        pooled = self.classes.log_linear_pool(features, np.ones(len(is_present)), is_present)
        inverse_temperature = default_inverse_temperature(len(self.class_bias))
        return np.asarray(softmax(inverse_temperature * pooled, axis=1))

    def _features(
        self, posteriors: Mapping[str, Floats], n_texts: int
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return all annotators' features (n, d), 0 where absent, and who is present (n, A)."""
        absent = np.full((n_texts, len(self.class_bias)), np.nan)
        given = [posteriors.get(name, absent) for name in self.annotators]
        blocks = [
            np.nan_to_num(contrasts(annotator.standardizer.transform(rows)), nan=0.0)
            for annotator, rows in zip(self.annotators.values(), given, strict=True)
        ]
        return np.hstack(blocks), np.stack([is_answered(rows) for rows in given], axis=1)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `from_json`."""
        annotators = {
            name: {
                **annotator.standardizer.to_json(),
                "weight": annotator.weight,
                "text_dependence": annotator.text_dependence,
            }
            for name, annotator in self.annotators.items()
        }
        return {
            "annotators": annotators,
            "classes": self.classes.to_json(),
            "inverse_temperature": self.inverse_temperature,
            "class_bias": self.class_bias.tolist(),
            "probe": self.probe.to_json() if self.probe else None,
            "n_human": self.n_human,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LabelModel:
        """Read what `to_json` wrote."""
        annotators = {
            name: AnnotatorParameters(
                Standardizer.from_json(found), float(found["weight"]), found["text_dependence"]
            )
            for name, found in data["annotators"].items()
        }
        return cls(
            annotators,
            LatentClassModel.from_json(data["classes"]),
            float(data["inverse_temperature"]),
            np.asarray(data["class_bias"], dtype=float),
            LinearProbe.from_json(data["probe"]) if data["probe"] else None,
            int(data["n_human"]),
        )


@dataclass(frozen=True, slots=True)
class AggregatedLabels:
    """One label per text.

    `probabilities` (n, K); `labels` (n,) class indices; `sources` says what each label comes from:
    "human", "agreement" (at least two annotators, all with this label), "combination", or the name
    of the only annotator that answered; None where none did, so that the posterior is the class
    shares alone. `annotator_posteriors`: calibrated (n, K) by annotator, NaN where absent.
    """

    probabilities: Floats
    labels: NDArray[np.intp]
    sources: tuple[str | None, ...]
    annotator_posteriors: Mapping[str, Floats]


def aggregate(
    posteriors: Mapping[str, Floats],
    label_model: LabelModel,
    *,
    embeddings: Floats | None = None,
    human: Mapping[int, int] | None = None,
) -> AggregatedLabels:
    """Aggregate annotators' posteriors into one label per text, human labels being certain.

    Args:
        posteriors: raw posteriors (n, K) by annotator, NaN rows being abstentions; any texts, also
            such as the model was not fitted on.
        embeddings: unit vectors (n, d) for the probe.
        human: class index by row.

    Cost: O(n A K^2) for A annotators.
    """
    human = human or {}
    probabilities = label_model.posterior(posteriors, embeddings)
    for row, label in human.items():
        probabilities[row] = np.eye(probabilities.shape[1])[label]
    labels = probabilities.argmax(axis=1)
    known = [name for name in label_model.annotators if name in posteriors]
    own = {name: label_model.annotator_posterior(name, posteriors[name]) for name in known}
    for name in known:
        own[name][~is_answered(posteriors[name])] = np.nan
    has_probe = label_model.probe is not None and embeddings is not None
    sources: list[str | None] = []
    for row, label in enumerate(labels):
        answers = {n: p[row].argmax() for n, p in own.items() if not np.isnan(p[row]).any()}
        if row in human:
            sources.append(HUMAN)
        elif not answers and not has_probe:
            sources.append(None)
        elif set(answers.values()) != {label}:
            sources.append(COMBINATION)
        else:
            sources.append(AGREEMENT if len(answers) > 1 else next(iter(answers)))
    return AggregatedLabels(probabilities, labels, tuple(sources), own)


def fit_label_model(
    posteriors: Mapping[str, Floats],
    embeddings: Floats | None = None,
    human: Mapping[int, int] | None = None,
    *,
    shares: Floats | None = None,
    capable: CapableLLM | None = None,
) -> LabelModel:
    """Fit a label model to a pool's posteriors, with human labels or without.

    Args:
        posteriors: raw posteriors (n, K) by annotator in one row order, a row of NaN where it
            abstained; a student's must be cross-fitted.
        embeddings: unit vectors (n, d).
        human: class index by row.
        shares: of the classes (K,), to start from; `expected_shares` by default.
        capable: a capable LLM and similarity, if they are among the annotators.

    The idea: standardized posteriors scatter around one mean per class (`fit_latent_classes`, a
    continuous Dawid-Skene model); an annotator that is unrelated to the others has means that
    coincide, and so no influence. A ridge probe on embeddings learns the aggregated labels and is
    added at half weight, since it repeats errors that follow the text. An annotator that embeddings
    predict, such as similarity, says the same twice with it, and has less weight than one that
    reads the text in another way. Confidences are tempered to the accuracy that the annotators'
    agreement implies: too low for independent errors, too high for common ones, which nothing tells
    apart without a label. Human labels train the probe, each counting for many texts, and set
    weights, class biases and temperature by maximum posterior. The class means never see them, and
    the probe's scores are cross-fitted, so that what is compared with the labels is as sure as it
    will be elsewhere.

    Cost: at most 120 products of (n, K) matrices with the annotators' features and three systems
    of d equations, O(n d^2 + d^3), on one core; n is at most 4,000 and the human labels.

    Raises:
        ValueError: no annotator answered anything.
    """
    posteriors = {name: p for name, p in posteriors.items() if is_answered(p).any()}
    if not posteriors:
        raise ValueError("no annotator has a posterior; expected at least one row that is not NaN")
    human = human or {}
    rows = sample_rows(np.any([is_answered(p) for p in posteriors.values()], axis=0), human)
    labeled = np.flatnonzero(np.isin(rows, list(human)))
    classes = np.array([human[int(rows[row])] for row in labeled], dtype=np.intp)
    with threadpool_limits(1, user_api="blas"):  # small matrices: threads cost more than they do
        return _Fit(
            {name: p[rows] for name, p in posteriors.items()},
            None if embeddings is None else np.asarray(embeddings, dtype=float)[rows],
            (labeled, classes),
            shares,
            capable,
        ).label_model()


def calibrate_beside(posteriors: Floats, others: Sequence[Floats]) -> Floats:
    """Return one annotator's posteriors (n, K) without its preference for labels; NaN rows stay.

    The place of its classes and their shares are those of a label model that is fitted to it and
    the others (n, K) together, two classes' shares from where they agree (`shares_by_agreement`);
    without others see `BatchCalibrator`. What the others say of a text does not move its label.
    """
    rows = is_answered(posteriors)
    result = np.full(posteriors.shape, np.nan)
    if not rows.any():
        return result
    answered = posteriors[rows]
    others = [other for other in others if is_answered(other[rows]).any()]
    if not others:
        result[rows] = BatchCalibrator.fit(answered).apply(answered)
        return result
    by_name = {_OWN: posteriors, **{str(at): other for at, other in enumerate(others)}}
    label_model = fit_label_model(by_name, shares=shares_by_agreement(posteriors, others))
    result[rows] = label_model.annotator_posterior(_OWN, answered)
    return result


class _Fit:
    """One fit of a label model to sampled rows."""

    def __init__(
        self,
        posteriors: Mapping[str, Floats],
        embeddings: Floats | None,
        human: HumanLabels,
        shares: Floats | None,
        capable: CapableLLM | None,
    ) -> None:
        """Standardize the posteriors, compare them with the embeddings and fit the classes."""
        agreed, factors = (None, {}) if capable is None else capable.parameters(posteriors)
        shares = shares if agreed is None else agreed
        self._posteriors = posteriors
        self._embeddings = embeddings
        self._human = human
        self._n_texts, self._n_classes = next(iter(posteriors.values())).shape
        self._standardizers: dict[str, Standardizer] = {}
        self._dependence: dict[str, float | None] = {}
        answered = {name: is_answered(p) for name, p in posteriors.items()}
        if shares is None:
            shares = expected_shares([p[answered[name]] for name, p in posteriors.items()])
        features, independence = [], []
        total = np.zeros((self._n_texts, self._n_classes))
        for name, p in posteriors.items():
            rows = answered[name]
            standardizer = Standardizer.fit(p[rows])
            scores = np.nan_to_num(standardizer.transform(p), nan=0.0)
            explained = self._explained(rows, scores)
            dependence = self._text_dependence(rows, explained)
            features.append(contrasts(scores))
            independence.append(factors.get(name, 1.0) * (1 - _SHARED_WITH_PROBE * explained))
            initial = move_to_shares(scores[rows], shares)
            total[rows] += initial if dependence is None else dependence * initial
            self._standardizers[name], self._dependence[name] = standardizer, dependence
        self._weights: Floats = np.array(independence) / max(independence)
        self._features = np.hstack(features)
        self._classes = fit_latent_classes(self._features, total)

    def _explained(self, rows: NDArray[np.bool_], scores: Floats) -> float:
        """Return how much of an annotator's scores embeddings predict; 0 without embeddings."""
        if self._embeddings is None:
            return 0.0
        return explained_variance(self._embeddings[rows], scores[rows])

    def _text_dependence(self, rows: NDArray[np.bool_], explained: float) -> float | None:
        """Return how far an annotator depends on the text; None without embeddings or few texts.

        One whose answers have nothing to do with the text must not shape the classes, however sure
        it is.
        """
        if self._embeddings is None or rows.sum() < _MIN_TEXTS_FOR_DEPENDENCE:
            return None
        return min(1.0, explained / _FULL_DEPENDENCE)

    def label_model(self) -> LabelModel:
        """Train the probe, temper to the agreement, then tune on the human labels."""
        weights = self._weights
        pooled = partial(self._classes.log_linear_pool, self._features)
        everyone = np.ones(len(weights), dtype=bool)
        log_shares = pooled(np.zeros(len(weights)), everyone)
        terms = [pooled(unit, everyone) - log_shares for unit in np.eye(len(weights))]
        probe = None
        if self._embeddings is not None and self._n_texts >= _MIN_TEXTS_FOR_PROBE:
            targets = softmax(LogLinearPool(log_shares, np.stack(terms)).logits(weights), axis=1)
            scores, probe = cross_fit_ridge(self._embeddings, *self._with_human_labels(targets))
            terms.append(scores)
            weights = np.append(weights, _PROBE_WEIGHT)
        pool = LogLinearPool(log_shares, np.stack(terms))
        accuracy = self._accuracy()
        inverse_temperature = default_inverse_temperature(self._n_classes)
        log_sd = _LOG_TEMPERATURE_SD
        if accuracy is not None:
            log_sd = _LOG_TEMPERATURE_SD_BY_AGREEMENT
            untempered = softmax(pool.logits(weights), axis=1)
            inverse_temperature = min(1.0, inverse_temperature_for_accuracy(untempered, accuracy))
        weights, inverse_temperature, class_bias = pool.tune(
            self._human, weights, inverse_temperature, log_sd
        )
        annotators = {
            name: AnnotatorParameters(self._standardizers[name], float(weight), dependence)
            for (name, dependence), weight in zip(self._dependence.items(), weights, strict=False)
        }
        if probe is not None:
            probe = replace(probe, weights=probe.weights * weights[-1])
        n_human = len(self._human[0])
        return LabelModel(
            annotators, self._classes, inverse_temperature, class_bias, probe, n_human
        )

    def _with_human_labels(self, targets: Floats) -> tuple[Floats, Floats]:
        """Return soft labels (n, K) and weights (n,): human labels count for many texts."""
        rows, classes = self._human
        targets[rows] = np.eye(self._n_classes)[classes]
        weights = np.ones(self._n_texts)
        weights[rows] = max(1.0, self._n_texts / _N_PSEUDO_LABELS)
        return targets, weights

    def _accuracy(self) -> float | None:
        """Return the accuracy implied by the agreement of those that depend on the text."""
        labels = []
        for index, (name, probabilities) in enumerate(self._posteriors.items()):
            dependence = self._dependence[name]
            if dependence is None or dependence > _MIN_DEPENDENCE:
                alone = np.arange(len(self._posteriors)) == index
                pooled = self._classes.log_linear_pool(self._features, np.ones(len(alone)), alone)
                labels.append(np.where(is_answered(probabilities), pooled.argmax(axis=1), -1))
        return accuracy_from_agreement(labels, self._classes.shares)
