"""Tokens and batches: every text once, padded little."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.self_training.tokens import Tokens, inference_batches, training_batches

LENGTHS = st.lists(st.integers(1, 600), min_size=0, max_size=200)


@given(LENGTHS)
def test_every_text_is_in_one_inference_batch(lengths):
    batches = inference_batches(np.array(lengths, dtype=np.int64))
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
