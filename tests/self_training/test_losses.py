"""Losses on soft labels, and second views of a text."""

from __future__ import annotations

import pytest
import torch

from backend.domain.questions import QuestionKind
from backend.self_training.losses import (
    consistency_loss,
    cut_off_span,
    is_usable_view,
    label_loss,
)


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
    same = consistency_loss(logits, logits, temperature=1.0)
    assert same.item() == pytest.approx(0, abs=1e-6)
    assert consistency_loss(logits, -logits, temperature=1.0).item() > 0


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
def test_a_usable_view_is_a_paraphrase_of_like_length(view, is_usable):
    assert is_usable_view("a good film here", view) is is_usable


def test_a_cutoff_is_one_run_of_tokens_and_never_the_first():
    torch.manual_seed(0)
    mask = torch.ones((50, 20), dtype=torch.long)
    mask[:, 15:] = 0
    cut = cut_off_span({"attention_mask": mask})["attention_mask"]
    assert (cut[:, 0] == 1).all()
    assert ((mask - cut).sum(dim=1) == 2).all()


def test_a_text_of_one_token_is_not_cut_off():
    mask = torch.ones((1, 1), dtype=torch.long)
    assert cut_off_span({"attention_mask": mask})["attention_mask"].tolist() == [[1]]
