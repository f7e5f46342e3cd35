"""Texts tokenized once and put into batches of like length, so that little is padding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.domain.student import PoolTexts

_CHARS_PER_TOKEN = 20
_N_TOKENS_PER_READING = 16_384
_N_TEXTS_PER_READING = 256
_N_BATCHES_SORTED_TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of each text; `type_ids` mark a second text's where a model has them."""

    ids: list[list[int]]
    type_ids: list[list[int]] | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the number of tokens of each text, shape (n,)."""
        return np.array([len(ids) for ids in self.ids], dtype=np.int64)

    def subset(self, rows: NDArray[np.integer] | Sequence[int]) -> Tokens:
        """Return the tokens of these rows, in the order given."""
        type_ids = None if self.type_ids is None else [self.type_ids[row] for row in rows]
        return Tokens([self.ids[row] for row in rows], type_ids, self.pad_id)

    @property
    def digest(self) -> NDArray[np.uint8]:
        """Return a hash of all tokens, to tell one set of texts from another."""
        digest = hashlib.sha256()
        for ids in self.ids:
            digest.update(np.asarray([*ids, -1], dtype=np.int32).tobytes())
        return np.frombuffer(digest.digest(), dtype=np.uint8)

    def collate(
        self, rows: NDArray[np.integer] | Sequence[int], device: torch.device
    ) -> dict[str, torch.Tensor]:
        """Return the texts at these rows as a model's inputs, padded to the longest of them."""
        width = max(len(self.ids[row]) for row in rows)
        inputs = {
            "input_ids": torch.full((len(rows), width), self.pad_id, dtype=torch.long),
            "attention_mask": torch.zeros((len(rows), width), dtype=torch.long),
        }
        if self.type_ids is not None:
            inputs["token_type_ids"] = torch.zeros((len(rows), width), dtype=torch.long)
        for line, row in enumerate(rows):
            n_tokens = len(self.ids[row])
            inputs["input_ids"][line, :n_tokens] = torch.tensor(self.ids[row])
            inputs["attention_mask"][line, :n_tokens] = 1
            if self.type_ids is not None:
                inputs["token_type_ids"][line, :n_tokens] = torch.tensor(self.type_ids[row])
        return {name: tensor.to(device) for name, tensor in inputs.items()}


def tokenize(tokenizer: Any, pool: PoolTexts, *, max_tokens: int) -> Tokens:
    """Tokenize every text, cut at `max_tokens`; an empty text has the model's marks only."""
    if not len(pool):
        return Tokens([], None, tokenizer.pad_token_id or 0)
    most = max_tokens * _CHARS_PER_TOKEN
    texts = [text[:most] for text in pool.texts]
    pairs = [text[:most] for text in pool.pairs] if pool.pairs is not None else None
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_tokens)
    return Tokens(encoded["input_ids"], encoded.get("token_type_ids"), tokenizer.pad_token_id or 0)


def training_batches(
    rows: NDArray[np.integer],
    lengths: NDArray[np.integer],
    *,
    batch_size: int,
    rng: np.random.Generator,
) -> list[NDArray[np.integer]]:
    """Return `rows` in random batches whose texts are of like length.

    The rows are shuffled, and sorted by length only within stretches of 50 batches, so that batches
    differ from epoch to epoch; then the batches are shuffled. Each row is in one batch.
    """
    shuffled = rng.permutation(rows)
    stretch = batch_size * _N_BATCHES_SORTED_TOGETHER
    batches: list[NDArray[np.integer]] = []
    for start in range(0, len(shuffled), stretch):
        part = shuffled[start : start + stretch]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
    return [batches[position] for position in rng.permutation(len(batches))]


def reading_batches(lengths: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """Return all rows in batches of like length, of at most 16,384 tokens with padding."""
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.integer]] = []
    start = 0
    for end in range(1, len(order) + 1):
        is_last = end == len(order)
        n_texts = end - start
        if (
            is_last
            or n_texts == _N_TEXTS_PER_READING
            or (n_texts + 1) * lengths[order[end]] > _N_TOKENS_PER_READING
        ):
            batches.append(order[start:end])
            start = end
    return batches
