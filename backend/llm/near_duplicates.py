"""How much of two texts is the same, by the word sequences that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer

_N_FEATURES = 2**20


def shared_words(texts: Sequence[str], others: Sequence[str]) -> tuple[NDArray[np.float64], ...]:
    """Return how alike each text is to each other one, two arrays of shape (n, m) in [0, 1].

    The first is the Jaccard index of their sets of one to three words in a row (shared over all),
    the second the part of the text's own ones that the other has too: 1 for a piece cut out of it.
    Case and punctuation do not count; a text without words is like no other. Cost: O(n m) floats.
    """
    if not texts or not others:
        empty = np.zeros((len(texts), len(others)))
        return empty, empty
    reader = HashingVectorizer(
        n_features=_N_FEATURES,
        ngram_range=(1, 3),
        binary=True,
        norm=None,
        alternate_sign=False,
        token_pattern=r"\w+",  # noqa: S106 - a regular expression
    )
    left, right = reader.transform(texts), reader.transform(others)
    n_shared = np.asarray((left @ right.T).todense(), dtype=np.float64)
    n_left = np.asarray(left.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    n_right = np.asarray(right.sum(axis=1), dtype=np.float64).reshape(1, -1)
    n_all = n_left + n_right - n_shared
    return n_shared / np.maximum(n_all, 1.0), n_shared / np.maximum(n_left, 1.0)
