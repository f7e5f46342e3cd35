"""Cut long texts into pieces that a model reads whole, and put their spans together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Span
from backend.domain.span_student import SpanTrainingSet

_N_SPECIAL_TOKENS = 2
_SENTENCE_ENDS = ".!?\n。！？"

Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TextPieces:
    """The pieces of n texts, in order.

    Args:
        texts: of the p pieces.
        rows: (p,), the text that each is from.
        starts: (p,), the character at which each begins there.
    """

    texts: tuple[str, ...]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def cut(cls, texts: Sequence[str], tokenizer: Any, max_tokens: int) -> TextPieces:
        """Cut texts at the ends of sentences, else of words, so that each piece fits."""
        pieces: list[str] = []
        rows: list[int] = []
        starts: list[int] = []
        for row, text in enumerate(texts):
            ends = [0, *_ends(text, tokenizer, max_tokens - _N_SPECIAL_TOKENS), len(text)]
            for start, end in zip(ends, ends[1:], strict=False):
                if end > start or not text:
                    pieces.append(text[start:end])
                    rows.append(row)
                    starts.append(start)
        return cls(tuple(pieces), np.array(rows, dtype=int), np.array(starts, dtype=int))

    def of(self, data: SpanTrainingSet) -> SpanTrainingSet:
        """Return the training set of the pieces; a span across two of them is in neither."""
        spans = []
        for text, row, start in zip(self.texts, self.rows, self.starts, strict=True):
            given, end = data.spans[row], start + len(text)
            inside = (s for s in given or () if start <= s.start and s.end <= end)
            moved = tuple(replace(s, start=s.start - start, end=s.end - start) for s in inside)
            spans.append(None if given is None else moved)
        return replace(
            data,
            ids=tuple(data.ids[row] for row in self.rows),
            texts=self.texts,
            spans=tuple(spans),
            is_human=data.is_human[self.rows],
        )

    def joined(self, spans: Sequence[Spans]) -> tuple[Spans, ...]:
        """Return the spans (n,) of the texts by those of the pieces (p,)."""
        found: list[list[Span]] = [[] for _ in range(self._n_texts)]
        for row, start, own in zip(self.rows, self.starts.tolist(), spans, strict=True):
            found[row] += [replace(s, start=s.start + start, end=s.end + start) for s in own]
        return tuple(map(tuple, found))

    def least(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the least score (n,) of each text's pieces (p,)."""
        out = np.ones(self._n_texts)
        np.minimum.at(out, self.rows, scores)
        return out

    @property
    def _n_texts(self) -> int:
        return int(self.rows[-1]) + 1 if len(self.rows) else 0


def _ends(text: str, tokenizer: Any, n_tokens: int) -> list[int]:
    """Return where to cut a text: the ends of all pieces but the last."""
    if len(text) <= n_tokens:  # a token has at least one character
        return []
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    ends, first = [], 0
    while len(offsets) - first > n_tokens:
        last = first + n_tokens
        places = [
            at for at in range(first + n_tokens // 2, last + 1) if _is_word(text, offsets[at])
        ]
        sentences = [
            at for at in places if text[: offsets[at][0]].rstrip(" ")[-1:] in _SENTENCE_ENDS
        ]
        first = (sentences or places or [last])[-1]
        ends.append(int(offsets[first][0]))
    return ends


def _is_word(text: str, offset: tuple[int, int]) -> bool:
    """Return whether a token begins a word."""
    return offset[0] > 0 and text[offset[0] - 1].isspace()
