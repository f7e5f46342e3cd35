"""Chunks take about a minute, whatever a task takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.pipeline.prelabel import AdaptiveBatchSize


def sizes(most, s_per_task, n_chunks):
    pace, found = AdaptiveBatchSize(most), []
    for _ in range(n_chunks):
        found.append(pace.size)
        pace = pace.after(pace.size, pace.size * s_per_task)
    return found


@pytest.mark.parametrize(
    ("most", "s_per_task", "expected"),
    [
        (256, 0.02, [16, 64, 256, 256]),
        (256, 30.0, [16, 2, 2, 2]),
        (256, 600.0, [16, 1, 1, 1]),
        (4, 0.02, [4, 4, 4, 4]),
        (256, 1.0, [16, 60, 60, 60]),
    ],
)
def test_chunks_grow_and_shrink_to_what_takes_a_minute(most, s_per_task, expected):
    assert sizes(most, s_per_task, 4) == expected


def test_a_chunk_from_the_cache_takes_no_time_and_does_not_divide_by_it():
    assert AdaptiveBatchSize(256).after(16, 0.0).size == 64


@given(st.integers(1, 300), st.lists(st.floats(0, 1e6), max_size=8))
def test_sizes_stay_between_one_and_the_most(most, durations):
    pace = AdaptiveBatchSize(most)
    for seconds in durations:
        pace = pace.after(pace.size, seconds)
        assert 1 <= pace.size <= most
