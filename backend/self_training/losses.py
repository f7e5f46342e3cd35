"""Losses that take soft targets, for each kind of question; one value per text."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from backend.domain.questions import QuestionKind

_ORDINAL_SHARE = 0.5


def label_loss(logits: Tensor, targets: Tensor, kind: QuestionKind) -> Tensor:
    """Return the loss of each text, shape (n,); `logits` and `targets` are (n, K).

    Cross-entropy with soft targets; for multiple choice the mean binary cross-entropy over the
    labels; for an ordered scale cross-entropy and the squared earth mover's distance (Hou et al.
    2016, arXiv 1611.05916, eq. 5) in equal parts, so that a near miss costs less than a far one.
    """
    if kind.is_multilabel:
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(
            dim=1
        )
    entropy = functional.cross_entropy(logits, targets, reduction="none")
    if not kind.is_ordinal:
        return entropy
    gap = logits.softmax(dim=1).cumsum(dim=1) - targets.cumsum(dim=1)
    return (1 - _ORDINAL_SHARE) * entropy + _ORDINAL_SHARE * (gap**2).sum(dim=1)


def probabilities(logits: Tensor, kind: QuestionKind) -> Tensor:
    """Return label probabilities (n, K): rows sum to 1 unless several labels may hold."""
    if kind.is_multilabel:
        return logits.sigmoid()
    return logits.softmax(dim=1)


def divergence(logits: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return KL(softmax(teacher) || softmax(logits / temperature)) of each text, shape (n,).

    No gradient flows into `teacher`; both are logits of shape (n, K).
    """
    target = teacher.detach().softmax(dim=1)
    student = (logits / temperature).log_softmax(dim=1)
    return functional.kl_div(student, target, reduction="none").sum(dim=1)


def two_way_divergence(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Return the mean of `divergence` in both directions, shape (n,)."""
    there = divergence(first, second, temperature=temperature)
    back = divergence(second, first, temperature=temperature)
    return (there + back) / 2
