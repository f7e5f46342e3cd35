"""Second views of a text: another wording where there is a usable one, else tokens hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.domain.student import PoolTexts

_HIDDEN_SHARE = 0.15
_LONGEST_GROWTH = 2.0
_MIN_SHARE = 0.4


def usable_view(text: str, view: str | None) -> bool:
    """Whether a second wording is one: not empty, not the same, not a machine's loop or stump.

    Between 0.4 and 2 times the text's length: beyond lie translations that loop or stop half-way.
    """
    if view is None or not view.strip() or view.strip() == text.strip():
        return False
    return _MIN_SHARE <= len(view) / max(1, len(text)) <= _LONGEST_GROWTH


def with_views(pool: PoolTexts, views: Sequence[str | None] | None) -> tuple[PoolTexts, list[bool]]:
    """Return the pool in its second wording, and where it has one; elsewhere the text stays."""
    if views is None:
        return pool, [False] * len(pool)
    is_usable = [usable_view(*pair) for pair in zip(pool.texts, views, strict=True)]
    texts = tuple(
        str(view) if is_good else text
        for text, view, is_good in zip(pool.texts, views, is_usable, strict=True)
    )
    return PoolTexts(pool.ids, texts, pool.pairs), is_usable


def hide_span(inputs: dict[str, Tensor], *, share: float = _HIDDEN_SHARE) -> dict[str, Tensor]:
    """Return inputs in which one run of each text's tokens is masked from attention.

    Span cut-off (Shen et al. 2020, arXiv 2009.13818, section 3.2); the first token, which most
    heads read, always stays. Draws from torch's generator.
    """
    mask = inputs["attention_mask"].clone()
    n_tokens = mask.sum(dim=1)
    n_hidden = ((n_tokens - 1).clamp(min=0) * share).long()
    latest = (n_tokens - n_hidden).clamp(min=1)
    start = 1 + (torch.rand(len(mask), device=mask.device) * (latest - 1).clamp(min=0)).long()
    place = torch.arange(mask.shape[1], device=mask.device)[None, :]
    is_hidden = (place >= start[:, None]) & (place < (start + n_hidden)[:, None])
    mask[is_hidden] = 0
    return {**inputs, "attention_mask": mask}
