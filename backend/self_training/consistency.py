"""Agreement between two views of a text: where the second view comes from, and learning by it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.domain.student import PoolTexts
from backend.self_training.batches import Tokens
from backend.self_training.classifier import TextClassifier
from backend.self_training.losses import two_way_divergence
from backend.self_training.trainer import Objective, TrainingStep
from backend.self_training.views import hide_span, with_views


class SecondViews:
    """The second view of each text: its other wording where one is given, else tokens hidden."""

    def __init__(
        self, model: TextClassifier, pool: PoolTexts, views: tuple[str | None, ...] | None
    ) -> None:
        worded, has_view = with_views(pool, views)
        self._device = model.device
        self._tokens: Tokens = model.tokenize(worded)
        self._has_view = torch.as_tensor(has_view, device=model.device)

    def of(self, rows: NDArray[np.integer]) -> dict[str, Tensor]:
        """Return the model's inputs for these rows' second views; draws from torch's generator."""
        given = self._tokens.collate(rows, self._device)
        hidden = hide_span(given)["attention_mask"]
        has_view = self._has_view[torch.as_tensor(rows, device=self._device)][:, None]
        return {**given, "attention_mask": torch.where(has_view, given["attention_mask"], hidden)}


class WithAgreement:
    """An objective plus the divergence of two views, over all texts of a batch.

    `share` weighs the second term, which has no labels in it, so that abstained texts teach too.
    """

    def __init__(
        self, inner: Objective, model: TextClassifier, views: SecondViews, *, share: float
    ) -> None:
        self._inner = inner
        self._model = model
        self._views = views
        self._share = share

    def before_epoch(self, epoch: int) -> None:
        """Prepare the objective within."""
        self._inner.before_epoch(epoch)

    def loss(self, inputs: dict[str, Tensor], step: TrainingStep) -> Tensor:
        """Return the inner loss plus the views' mean divergence."""
        first: Tensor = self._model.model(**inputs).logits.float()
        second: Tensor = self._model.model(**self._views.of(step.rows)).logits.float()
        gap = two_way_divergence(first, second, temperature=1.0).mean()
        return self._inner.loss(inputs, step) + self._share * gap
