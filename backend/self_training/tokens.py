"""Tokenize texts once, and batch texts of like length, so that little of a batch is padding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

_CHARS_PER_TOKEN = 20
"""More than a token ever covers on average: cuts a huge text before it is tokenized."""
_MAX_TOKENS_PER_BATCH = 16_384
_MAX_TEXTS_PER_BATCH = 256
_N_BATCHES_SORTED_TOGETHER = 50

Rows = NDArray[np.integer] | Sequence[int]


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

    @property
    def digest(self) -> NDArray[np.uint8]:
        """Return a hash of all tokens, to tell one set of texts from another."""
        digest = hashlib.sha256()
        for ids in self.ids:
            digest.update(np.asarray([*ids, -1], dtype=np.int32).tobytes())
        return np.frombuffer(digest.digest(), dtype=np.uint8)

    def subset(self, rows: Rows) -> Tokens:
        """Return the tokens of these rows, in the order given."""
        type_ids = None if self.type_ids is None else [self.type_ids[row] for row in rows]
        return Tokens([self.ids[row] for row in rows], type_ids, self.pad_id)

    def collate(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """Return a model's inputs for these rows, padded to the longest of them."""
        chosen = self.subset(rows)
        ids = [torch.tensor(each, dtype=torch.long) for each in chosen.ids]
        columns = {"input_ids": ids, "attention_mask": [torch.ones_like(each) for each in ids]}
        if chosen.type_ids is not None:
            columns["token_type_ids"] = [torch.tensor(each) for each in chosen.type_ids]
        padding = {"input_ids": self.pad_id}
        return {
            name: pad_sequence(tensors, True, padding.get(name, 0)).to(device)
            for name, tensors in columns.items()
        }


def truncate(texts: Sequence[str], max_tokens: int) -> list[str]:
    """Cut texts to what `max_tokens` tokens can hold at most."""
    return [text[: max_tokens * _CHARS_PER_TOKEN] for text in texts]


def training_batches(
    rows: Rows, lengths: NDArray[np.integer], *, batch_size: int, rng: np.random.Generator
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


def inference_batches(lengths: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """Return all rows in batches of like length, of at most 16,384 tokens with padding."""
    order = np.argsort(lengths, kind="stable")
    batches: list[NDArray[np.integer]] = []
    start = 0
    for end in range(1, len(order) + 1):
        is_full = end == len(order) or end - start == _MAX_TEXTS_PER_BATCH
        if is_full or (end - start + 1) * lengths[order[end]] > _MAX_TOKENS_PER_BATCH:
            batches.append(order[start:end])
            start = end
    return batches
