"""An encoder without a model: a text is the unit vector of its words' counts."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray


class BagOfWordsEncoder:
    """The `Encoder` port; equal words, equal directions. `asked` lists every text embedded."""

    name = "bag-of-words"

    def __init__(self, n_dimensions: int = 256) -> None:
        self._n_dimensions = n_dimensions
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.extend(texts)
        vectors = np.zeros((len(texts), self._n_dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(":", " ").split() or [""]:
                vectors[row, crc32(word.encode()) % self._n_dimensions] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
