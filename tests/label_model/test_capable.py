"""A capable LLM leads its label model; a weak one, or none, changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from backend.domain.labels import AnnotatorKind
from backend.label_model.capable import CapableLLM
from backend.label_model.single_label import fit_label_model

N = 400
KINDS = {"qwen": AnnotatorKind.LLM, "similarity:e": AnnotatorKind.SIMILARITY}
BOTH = CapableLLM("qwen", "similarity:e")


def annotators(rng, share):
    """Return truth (n,), of which this share is the second class, and two annotators' posteriors.

    The LLM parts the classes well; similarity does so a little. Both prefer neither class.
    """
    truth = (rng.random(N) < share).astype(int)
    posteriors = {}
    for name, separation in {"qwen": 3.0, "similarity:e": 1.0}.items():
        second = expit(separation * (2 * truth - 1) + rng.normal(0, 1, N))
        posteriors[name] = np.column_stack([1 - second, second])
    return truth, posteriors


def accuracy(truth, posteriors, capable):
    label_model = fit_label_model(posteriors, capable=capable)
    return float((label_model.posterior(posteriors, None).argmax(axis=1) == truth).mean())


def test_it_is_known_by_the_comparison_of_templates():
    assert CapableLLM.of(KINDS, {"has_alike_templates": True}) == BOTH
    assert CapableLLM.of(KINDS, {"has_alike_templates": False}) is None
    assert CapableLLM.of(KINDS, {"chosen": "plain-hints"}) is None  # of before there was such a key
    assert CapableLLM.of(KINDS, None) is None
    assert CapableLLM.of({"qwen": AnnotatorKind.LLM}, {"has_alike_templates": True}) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_class_stays_rare(seed):
    truth, posteriors = annotators(np.random.default_rng(seed), 0.1)
    found = accuracy(truth, posteriors, BOTH)
    assert found > 0.97
    assert found >= accuracy(truth, posteriors, None)


def test_similarity_has_half_its_weight():
    _, posteriors = annotators(np.random.default_rng(0), 0.5)
    alone = fit_label_model(posteriors).annotators["similarity:e"].weight
    beside = fit_label_model(posteriors, capable=BOTH).annotators["similarity:e"].weight
    assert beside == pytest.approx(alone / 2)


def test_of_more_classes_the_shares_are_the_expected_ones():
    rng = np.random.default_rng(0)
    posteriors = {name: rng.dirichlet(np.ones(3), N) for name in ("qwen", "similarity:e")}
    shares, factors = BOTH.parameters(posteriors)
    assert shares is None
    assert factors == {"similarity:e": 0.5}


def test_without_one_of_them_nothing_is_said():
    _, posteriors = annotators(np.random.default_rng(0), 0.5)
    del posteriors["qwen"]
    assert BOTH.parameters(posteriors) == (None, {})
    plain, led = (fit_label_model(posteriors, capable=one) for one in (None, BOTH))
    assert led.to_json() == plain.to_json()
