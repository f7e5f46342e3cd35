"""A stand-in for the tokenizer of a server that has no route for it, such as OpenAI or Ollama."""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Mapping, Sequence

_LONGEST_PIECE = 8
_PIECES = re.compile(rf" ?[A-Za-z]{{1,{_LONGEST_PIECE}}}|\s|\d{{1,2}}|[^\sA-Za-z\d]")
"""Shorter than most real tokens, so that a text that fits by this count fits the model."""
_MAX_REMEMBERED = 100_000


class PseudoTokenizer:
    """Numbers pieces of text, the same in every process, and finds them in a server's answer.

    Such a server names tokens by their text. A wanted piece is found in any reported token that
    begins it, whatever the case: of " positive" the server may report " pos" or "Positive". A piece
    that is only the first letters of a word is found in tokens that begin with it, too.
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._lock = threading.Lock()

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return a number for each piece of the text."""
        return tuple(self._number(piece) for piece in _PIECES.findall(text))

    def prefix(self, text: str, n_tokens: int) -> str:
        """Return the beginning of the text that has at most this many pieces."""
        return "".join(_PIECES.findall(text)[: max(0, n_tokens)])

    def named(self, reported: Mapping[str, float], wanted_ids: Sequence[int]) -> dict[int, float]:
        """Return the log-probability of each wanted piece that was reported, and of all others.

        A token that could begin two wanted pieces counts for neither.
        """
        with self._lock:
            wanted = {number: _bare(self._texts.get(number, "")) for number in wanted_ids}
        found: dict[int, list[float]] = {}
        for text, logprob in reported.items():
            meant = [number for number, piece in wanted.items() if _matches(_bare(text), piece)]
            number = meant[0] if len(meant) == 1 else self._number(text)
            found.setdefault(number, []).append(logprob)
        return {number: min(0.0, _log_sum(values)) for number, values in found.items()}

    def _number(self, piece: str) -> int:
        digest = hashlib.blake2b(piece.encode("utf-8", "replace"), digest_size=6).digest()
        number = int.from_bytes(digest)
        with self._lock:
            if len(self._texts) < _MAX_REMEMBERED:
                self._texts[number] = piece
        return number


def _bare(text: str) -> str:
    return text.strip().lower()


def _matches(reported: str, piece: str) -> bool:
    if not reported or not piece:
        return False
    is_cut = len(piece) == _LONGEST_PIECE
    return piece.startswith(reported) or (is_cut and reported.startswith(piece))


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
