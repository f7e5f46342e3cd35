"""Batches, losses, views, calibration: the parts of a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.questions import QuestionKind
from backend.self_training.batches import Tokens, reading_batches, training_batches
from backend.self_training.classifier import decide
from backend.self_training.losses import divergence, label_loss, two_way_divergence
from backend.self_training.temperature import fit_temperature
from backend.self_training.trainer import (
    learning_rate_share,
    suited_batch_size,
    suited_learning_rate,
)
from backend.self_training.views import hide_span, usable_view

LENGTHS = st.lists(st.integers(1, 600), min_size=0, max_size=200)


@given(LENGTHS)
def test_every_text_is_read_once(lengths):
    batches = reading_batches(np.array(lengths, dtype=np.int64))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 16_384


@given(LENGTHS, st.integers(1, 40))
def test_every_row_is_in_one_training_batch(lengths, batch_size):
    rows = np.arange(len(lengths))[::2]
    batches = training_batches(
        rows, np.array(lengths), batch_size=batch_size, rng=np.random.default_rng(0)
    )
    assert sorted(row for batch in batches for row in batch) == rows.tolist()
    assert all(len(batch) <= batch_size for batch in batches)


def test_texts_are_padded_to_the_longest_of_their_batch():
    tokens = Tokens([[5, 6, 7], [8]], None, pad_id=0)
    inputs = tokens.collate([0, 1], torch.device("cpu"))
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_soft_target_is_the_mean_of_the_hard_losses():
    logits = torch.tensor([[2.0, 0.0]])
    one = label_loss(logits, torch.tensor([[1.0, 0.0]]), QuestionKind.SINGLE_CHOICE)
    other = label_loss(logits, torch.tensor([[0.0, 1.0]]), QuestionKind.SINGLE_CHOICE)
    both = label_loss(logits, torch.tensor([[0.25, 0.75]]), QuestionKind.SINGLE_CHOICE)
    assert both.item() == pytest.approx(0.25 * one.item() + 0.75 * other.item())


def test_a_near_miss_on_a_scale_costs_less_than_a_far_one():
    target = torch.tensor([[1.0, 0.0, 0.0]])
    near = torch.tensor([[0.0, 3.0, 0.0]])
    far = torch.tensor([[0.0, 0.0, 3.0]])
    for kind, is_less in ((QuestionKind.RATING, True), (QuestionKind.SINGLE_CHOICE, False)):
        gap = label_loss(far, target, kind) - label_loss(near, target, kind)
        assert (gap.item() > 1e-4) is is_less


def test_equal_views_do_not_diverge():
    logits = torch.tensor([[1.0, -1.0, 0.3]])
    assert divergence(logits, logits, temperature=1.0).item() == pytest.approx(0, abs=1e-6)
    assert two_way_divergence(logits, -logits, temperature=1.0).item() > 0


def test_the_learning_rate_goes_up_then_down_to_nothing():
    shares = [learning_rate_share(step, 10, 0.2) for step in range(11)]
    assert shares[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert shares[-1] == 0.0
    assert all(later < earlier for earlier, later in zip(shares[2:], shares[3:], strict=False))


@pytest.mark.parametrize(
    ("width", "rate"), [(64, 5e-4), (384, 2e-4), (768, 5e-5), (1024, 2.8125e-5)]
)
def test_narrow_encoders_learn_faster(width, rate):
    assert suited_learning_rate(width) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("n_passes", "batch_size"), [(1, 8), (1200, 8), (3000, 20), (4800, 32), (10**6, 32)]
)
def test_few_texts_come_in_small_batches(n_passes, batch_size):
    assert suited_batch_size(n_passes) == batch_size


def test_a_rating_is_the_median_and_a_choice_the_likeliest():
    probabilities = np.array([[0.4, 0.15, 0.45]])
    assert decide(probabilities, QuestionKind.RATING).tolist() == [1]
    assert decide(probabilities, QuestionKind.SINGLE_CHOICE).tolist() == [2]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_the_logits_were_stretched_by(factor):
    logits = np.random.default_rng(0).normal(0, 2, (2000, 3))
    targets = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.01)


def test_few_texts_leave_the_temperature_alone():
    assert fit_temperature(np.ones((5, 2)), np.ones((5, 2)) / 2) == 1.0


@pytest.mark.parametrize(
    ("view", "is_usable"),
    [
        ("a film that is good", True),
        ("a good film here", False),
        ("", False),
        (None, False),
        ("good", False),
        ("good " * 20, False),
    ],
)
def test_a_view_is_another_wording_of_like_length(view, is_usable):
    assert usable_view("a good film here", view) is is_usable


def test_hidden_tokens_are_one_run_and_never_the_first():
    torch.manual_seed(0)
    mask = torch.ones((50, 20), dtype=torch.long)
    mask[:, 15:] = 0
    hidden = hide_span({"attention_mask": mask})["attention_mask"]
    assert (hidden[:, 0] == 1).all()
    assert ((mask - hidden).sum(dim=1) == 2).all()


def test_a_text_of_one_token_hides_nothing():
    mask = torch.ones((1, 1), dtype=torch.long)
    assert hide_span({"attention_mask": mask})["attention_mask"].tolist() == [[1]]
