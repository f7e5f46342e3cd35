"""Answers that are drawn, not read: a real vLLM on a CPU has to outlive them."""

from __future__ import annotations

import pytest

from backend.domain.ports import Decoding
from backend.factories import connect_language_model

pytestmark = pytest.mark.e2e

N_PROMPTS = 24
SENTENCE = "The parcel came late, the box was torn and nobody answered the phone. "


def test_vllm_outlives_drawn_answers_to_more_than_it_reads_at_once(stack):
    """A seed in such a request ends vLLM 0.32 on a CPU."""
    model = connect_language_model(stack.settings)
    prompts = [f"Complaint {number}: {SENTENCE * 90}" for number in range(N_PROMPTS)]
    try:
        drawn = model.complete(prompts, Decoding(max_tokens=4, temperature=0.8, seed=7))
        again = model.complete(prompts[:1], Decoding(max_tokens=4))
    finally:
        model.close()
    assert [completion.failure for completion in (*drawn, *again)] == [None] * (N_PROMPTS + 1)
    assert len({completion.text for completion in drawn}) > 1
