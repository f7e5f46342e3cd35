"""Whether a model reads texts alike whatever the prompt."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from backend.llm.prompts.comparison import are_alike, mean_correlation


def templates(share_of_text, *, n=32, n_labels=2, n_templates=4, bias=0.0):
    """Return posteriors whose scores have so much variance in common, each with a bias."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(n, n_labels))
    made = []
    for at in range(n_templates):
        own = rng.normal(size=(n, n_labels))
        scores = np.sqrt(share_of_text) * text + np.sqrt(1 - share_of_text) * own
        scores[:, 0] += bias * at
        made.append(softmax((1 + at) * scores, axis=1))
    return made


@pytest.mark.parametrize("n_labels", [2, 6])
@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_templates_of_a_capable_model_are_alike_whatever_label_they_prefer(n_labels, bias):
    assert are_alike(templates(0.85, n_labels=n_labels, bias=bias))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_templates_that_read_the_same_text_in_other_ways_are_not(share):
    assert not are_alike(templates(share))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_correlation_is_the_share_of_variance_in_common(share):
    assert mean_correlation(templates(share, n=1000)) == pytest.approx(share, abs=0.1)


def test_nothing_to_compare_tells_nothing():
    one, other, *_ = templates(1.0)
    assert not are_alike([one])
    assert not are_alike([one[:3], other[:3]])
    assert not are_alike([one, np.full_like(one, 0.5)])
    assert not are_alike([one, np.full_like(one, np.nan)])


def test_texts_that_one_template_could_not_answer_do_not_count():
    one, other, *_ = templates(1.0)
    other[5:10] = np.nan
    assert are_alike([one, other])
