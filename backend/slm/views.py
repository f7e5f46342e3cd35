"""Second views of a text: given wordings, paraphrases by an LLM, or free ones by hiding tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backend.core.small_model import PoolTexts

_HIDDEN_SHARE = 0.15
_LONGEST_GROWTH = 2.0
_LEAST_SHARE = 0.4

Rewrite = Callable[[Sequence[str]], Sequence[str | None]]
"""Rewords each text, in order; None where it could not."""


def usable_view(text: str, view: str | None) -> bool:
    """Whether a second wording is one: not empty, not the same, not a machine's loop or stump.

    Between 0.4 and 2 times the text's length: beyond lie translations that loop or stop half-way.
    """
    if view is None or not view.strip() or view.strip() == text.strip():
        return False
    return _LEAST_SHARE <= len(view) / max(1, len(text)) <= _LONGEST_GROWTH


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


def paraphrases(texts: Sequence[str], rewrite: Rewrite) -> list[str | None]:
    """Return a second wording of each text by an LLM, None where the answer is not usable."""
    return [
        view if usable_view(text, view) else None
        for text, view in zip(texts, rewrite(texts), strict=True)
    ]


def delete_spans(text: str, rng: random.Random, *, share: float = _HIDDEN_SHARE) -> str:
    """Return a text without one run of words, at most `share` of them; short texts stay whole."""
    words = text.split()
    n_gone = int(len(words) * share)
    if n_gone == 0:
        return text
    start = rng.randrange(len(words) - n_gone + 1)
    return " ".join(words[:start] + words[start + n_gone :])


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
