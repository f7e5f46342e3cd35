"""Estimate the shares of a pool's classes from its annotators' posteriors, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit, softmax

from backend.label_model.latent_class import (
    INITIAL_INVERSE_TEMPERATURE,
    MIN_PROBABILITY,
    Floats,
    Standardizer,
    is_answered,
)

_SHARE_SD = 0.4  # of log class shares, before anything is known
_MIN_SHARE = 1e-3
_MAX_STEPS = 60
_TOLERANCE = 1e-3
_LOG_ODDS_SD = 1.0
"""Of the share of one class of two, before anything is known."""
_N_EVIDENCE = 150
"""The annotators' agreement counts as that of so many texts at most: more texts make chance smaller
and not what the annotators have in common, such as a preference for the same words. It and the
spread were chosen on 300 training texts each of sst2, mr, sms_spam, tweet_offensive, amazon_cf_en
and tweet_hate, with both embedded models."""
_GRID: Floats = np.linspace(0.02, 0.98, 97, dtype=np.float64)
_MIN_SPREAD = 1e-9
_MAX_CORRELATION = 0.999


def expected_shares(posteriors: Sequence[Floats]) -> Floats:
    """Return class shares (K,) that the annotators' mean posteriors suggest, before any fit.

    Args:
        posteriors: per annotator (n, K), no NaN, n >= 1; the number of texts may differ.

    The idea: an annotator's mean log posterior is the log shares plus its own preference for
    labels, the larger the more uneven it is. The estimate is their mean, weighted by the inverse
    of their variance over classes, under a Gaussian prior around equal shares (sd 0.4).
    """
    logs = [np.log(each.mean(axis=0) + _MIN_SHARE) for each in posteriors]
    precisions = [1 / max(float(each.var()), _SHARE_SD**2) for each in logs]
    total = sum(p * (each - each.mean()) for p, each in zip(precisions, logs, strict=True))
    return np.asarray(softmax(total / (sum(precisions) + 1 / _SHARE_SD**2)))


def move_to_shares(scores: Floats, shares: Floats) -> Floats:
    """Return scores (n, K) plus one constant per class, such that the first guess has the shares.

    The first guess is the mean softmax of twice the scores (`fit_latent_classes`).
    """
    logits = INITIAL_INVERSE_TEMPERATURE * scores
    bias = np.zeros(len(shares))
    for _ in range(_MAX_STEPS):
        found = softmax(logits + bias, axis=1).mean(axis=0)
        step = np.log(shares + MIN_PROBABILITY) - np.log(found + MIN_PROBABILITY)
        bias += step - step.mean()
        if np.abs(step).max() < _TOLERANCE:
            break
    return np.asarray(scores + bias / INITIAL_INVERSE_TEMPERATURE)


def shares_by_agreement(posteriors: Floats, others: Sequence[Floats]) -> Floats:
    """Return class shares (K,) that annotators' posteriors suggest, before any fit.

    Those of two classes are where other annotators' labels tell most about an annotator's scores
    (see `share_by_agreement`) on texts that all have answered; otherwise `expected_shares`.

    Args:
        posteriors: of the annotator (n, K), a row of NaN where it abstained.
        others: likewise, one or more, of annotators that err for other reasons, such as similarity
            beside an LLM. Each annotator has answered some.
    """
    everyone = [posteriors, *others]
    answered = [own[is_answered(own)] for own in everyone]
    shares = expected_shares(answered)
    rows = np.all([is_answered(own) for own in everyone], axis=0)
    if len(shares) != 2 or not rows.any():
        return shares
    first, *labelers = (
        Standardizer.fit(known).transform(own[rows])[:, 1]
        for known, own in zip(answered, everyone, strict=True)
    )
    share = share_by_agreement(first, labelers, float(shares[1]))
    return np.array([1 - share, share])


def share_by_agreement(scores: Floats, others: Sequence[Floats], expected: float) -> float:
    """Return the share of the second of two classes at which others' labels tell most.

    Args:
        scores: an annotator's preference for the second class (n,), on any scale.
        others: those of one or more annotators that err independently of it, on the same texts.
        expected: the share before their agreement is looked at.

    The idea: at the right share the others' labels, each one's top texts by its own score, tell
    most about these scores. Where errors are independent, the correlation of labels and scores is
    largest where the labels agree best with the truth (by phi). The evidence of a share is that of
    the regression of the scores on the labels, -n / 2 * log(1 - r^2) with n of at most 150, summed
    over the others; the prior of the share's log-odds is normal around the expected ones. Unlike a
    mixture fitted to the scores it needs no shape of theirs: a long tail is no class. Labels made
    of the scores themselves are no evidence: a weak LLM's top texts share a few words, about which
    the others agree with it too. Returned is the posterior mean of the log-odds, as a share; that
    of unrelated annotators is about the expected one.

    Cost: O(n log n) for each of the others.
    """
    log_odds = logit(_GRID)
    evidence = sum(_evidence(own, scores) for own in others)
    prior = -0.5 * ((log_odds - logit(expected)) / _LOG_ODDS_SD) ** 2
    weights = softmax(evidence + prior - np.log(_GRID * (1 - _GRID)))
    return float(expit(weights @ log_odds))


def _evidence(own: Floats, scores: Floats) -> Floats:
    """Return how much better an annotator's labels explain scores at each share, in nats.

    Texts of one own score have one label: between such shares the evidence is interpolated.
    """
    n_texts = len(own)
    order = np.argsort(-own, kind="stable")
    is_edge = np.diff(own[order]) < -_MIN_SPREAD
    shares = np.arange(1, n_texts)[is_edge] / n_texts
    centered = scores[order] - scores.mean()
    covariance = np.cumsum(centered)[:-1][is_edge] / n_texts
    scale = np.sqrt(shares * (1 - shares)) * max(float(scores.std()), _MIN_SPREAD)
    correlation = np.clip(covariance / scale, 0.0, _MAX_CORRELATION)
    evidence = -0.5 * min(n_texts, _N_EVIDENCE) * np.log1p(-(correlation**2))
    return np.asarray(np.interp(_GRID, [0.0, *shares, 1.0], [0.0, *evidence, 0.0]))
