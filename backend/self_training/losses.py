"""Losses on soft labels and on two views of a text, as objectives of the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts
from backend.self_training.classifier import TextClassifier
from backend.self_training.noise import Floats
from backend.self_training.trainer import Objective, TrainingStep

_ORDINAL_SHARE = 0.5
_CUTOFF_SHARE = 0.15
_MIN_VIEW_LENGTH, _MAX_VIEW_LENGTH = 0.4, 2.0


def label_loss(logits: Tensor, targets: Tensor, kind: QuestionKind) -> Tensor:
    """Return the loss of each text, shape (n,); `logits` and `targets` are (n, K).

    Cross-entropy with soft targets; for multiple choice the mean binary cross-entropy over the
    labels; for an ordered scale cross-entropy and the squared earth mover's distance (Hou et al.
    2016, arXiv 1611.05916, eq. 5) in equal parts, so that a near miss costs less than a far one.
    """
    if kind.is_multilabel:
        each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return each.mean(dim=1)
    entropy = functional.cross_entropy(logits, targets, reduction="none")
    if not kind.is_ordinal:
        return entropy
    gap = logits.softmax(dim=1).cumsum(dim=1) - targets.cumsum(dim=1)
    return (1 - _ORDINAL_SHARE) * entropy + _ORDINAL_SHARE * (gap**2).sum(dim=1)


def consistency_loss(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Return the mean divergence of two views' predictions in both directions, shape (n,).

    KL(softmax(teacher) || softmax(student / temperature)), each view's logits (n, K) once as the
    teacher, into which no gradient flows.
    """

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        target = teacher.detach().softmax(dim=1)
        log_probabilities = (student / temperature).log_softmax(dim=1)
        return functional.kl_div(log_probabilities, target, reduction="none").sum(dim=1)

    return (divergence(first, second) + divergence(second, first)) / 2


class SupervisedObjective(Objective):
    """The weighted mean of `label_loss` over a batch.

    `targets`, (n, K), and `weights`, (n,), are those of all rows of the pool.
    """

    def __init__(self, model: TextClassifier, targets: Floats, weights: Floats) -> None:
        self._model = model
        self._targets = torch.as_tensor(targets, dtype=torch.float32, device=model.device)
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=model.device)

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the weighted mean over the batch; 0 when all weights are."""
        rows = torch.as_tensor(step.rows, device=self._model.device)
        logits = self._model.model(**inputs).logits.float()
        losses = label_loss(logits, self._targets[rows], self._model.spec.kind)
        weights = self._weights[rows]
        return (weights * losses).sum() / weights.sum().clamp(min=1e-6)


@dataclass(frozen=True, slots=True)
class ConsistencyObjective(Objective):
    """A supervised objective plus the consistency loss of two views, over all texts of a batch.

    `weight` is that of the second term; it needs no labels, so that abstained texts teach too.
    """

    inner: SupervisedObjective
    model: TextClassifier
    views: SecondViews
    weight: float

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the inner loss plus the weighted mean consistency loss."""
        first: Tensor = self.model.model(**inputs).logits.float()
        second: Tensor = self.model.model(**self.views.inputs(step.rows)).logits.float()
        gap = consistency_loss(first, second, temperature=1.0).mean()
        return self.inner.loss(inputs, step) + self.weight * gap


class SecondViews:
    """The second view of each text: a paraphrase where a usable one is given, else a cutoff."""

    def __init__(
        self, model: TextClassifier, pool: PoolTexts, views: Sequence[str | None] | None
    ) -> None:
        views = views or [None] * len(pool)
        pairs = list(zip(pool.texts, views, strict=True))
        has_view = [is_usable_view(*pair) for pair in pairs]
        texts = (str(v) if usable else t for (t, v), usable in zip(pairs, has_view, strict=True))
        self._device = model.device
        self._tokens = model.tokenize(replace(pool, texts=tuple(texts)))
        self._has_view = torch.as_tensor(has_view, device=model.device)

    def inputs(self, rows: NDArray[np.integer]) -> dict[str, Tensor]:
        """Return the model's inputs for these rows' second views; draws from torch's generator."""
        given = self._tokens.collate(rows, self._device)
        cut = cut_off_span(given)["attention_mask"]
        has_view = self._has_view[torch.as_tensor(rows, device=self._device)][:, None]
        return {**given, "attention_mask": torch.where(has_view, given["attention_mask"], cut)}


def is_usable_view(text: str, view: str | None) -> bool:
    """Whether a paraphrase is neither empty nor the same text, and of 0.4 to 2 times its length.

    Beyond these lengths lie translations that loop or stop half-way.
    """
    if view is None or not view.strip() or view.strip() == text.strip():
        return False
    return _MIN_VIEW_LENGTH <= len(view) / max(1, len(text)) <= _MAX_VIEW_LENGTH


def cut_off_span(inputs: dict[str, Tensor], *, share: float = _CUTOFF_SHARE) -> dict[str, Tensor]:
    """Return inputs in which one run of each text's tokens is masked from attention.

    Span cutoff (Shen et al. 2020, arXiv 2009.13818, section 3.2); the first token, which most heads
    read, always stays. Draws from torch's generator.
    """
    mask = inputs["attention_mask"].clone()
    n_tokens = mask.sum(dim=1)
    n_cut = ((n_tokens - 1).clamp(min=0) * share).long()
    latest = (n_tokens - n_cut).clamp(min=1)
    start = 1 + (torch.rand(len(mask), device=mask.device) * (latest - 1).clamp(min=0)).long()
    position = torch.arange(mask.shape[1], device=mask.device)[None, :]
    is_cut = (position >= start[:, None]) & (position < (start + n_cut)[:, None])
    mask[is_cut] = 0
    return {**inputs, "attention_mask": mask}
