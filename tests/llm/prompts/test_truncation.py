"""How a prompt's texts share a context that is too small for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.llm.prompts.truncation import token_limits


@pytest.mark.parametrize(
    ("counts", "total", "limits"),
    [
        ([5, 5], 10, [5, 5]),
        ([2, 100], 50, [2, 48]),
        ([100, 60], 50, [25, 25]),
        ([10, 100, 30], 60, [10, 25, 25]),
        ([7], 3, [3]),
        ([], 3, []),
    ],
)
def test_the_longest_texts_are_cut_first(counts, total, limits):
    assert token_limits(counts, total) == limits


@given(st.lists(st.integers(0, 100), max_size=5), st.integers(0, 200))
def test_limits_keep_within_the_total_and_never_exceed_a_text(counts, total):
    limits = token_limits(counts, total)
    assert sum(limits) <= max(total, 0)
    assert all(limit <= count for limit, count in zip(limits, counts, strict=True))
    cut = [limit for limit, count in zip(limits, counts, strict=True) if limit < count]
    assert max(cut, default=0) - min(cut, default=0) <= 1
