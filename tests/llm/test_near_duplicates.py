"""Shared word sequences: by hand and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.llm.near_duplicates import shared_words


def test_shared_sequences_are_counted_over_all_and_over_the_text_s_own():
    # "a good film" has 6 sequences of one to three words; "a good play" shares a, good, "a good"
    alike, part = shared_words(["a good film"], ["a good play", "A good film!"])
    assert alike[0].tolist() == pytest.approx([3 / 9, 1.0])
    assert part[0].tolist() == pytest.approx([3 / 6, 1.0])


def test_a_piece_cut_out_of_a_text_is_all_in_it_and_little_like_it():
    alike, part = shared_words(["good film"], ["a very good film that I saw twice this week"])
    assert part[0, 0] == 1.0
    assert alike[0, 0] < 0.2


@pytest.mark.parametrize(("n", "m"), [(0, 2), (2, 0)])
def test_no_texts_are_like_none(n, m):
    alike, part = shared_words(["x"] * n, ["x"] * m)
    assert alike.shape == part.shape == (n, m)


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_both_measures_lie_between_0_and_1(texts, others):
    for measure in shared_words(texts, others):
        assert np.all((measure >= 0.0) & (measure <= 1.0))
