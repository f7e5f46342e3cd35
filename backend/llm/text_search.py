"""Search for words as an LLM writes them in a text as its author wrote it."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from operator import and_

from backend.domain.labels import Span

_QUOTES = frozenset(
    "'\"`\u00b4\u00ab\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2032\u2033\u2035\u2036"
    "\u2039\u203a\u02b9\u02bb\u02bc\u02bd\u02ee\u300c\u300d\u300e\u300f\uff02\uff07"
)
_MORE_DASHES = frozenset("\u2043\u2212\u02d7")
"""Dashes that Unicode has in another category than the rest."""
_EDGES = string.whitespace + (
    "'\"`.,;:!?()[]{}<>*_\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u00a0\u202f\u3000"
)
_DOTS = re.compile(r"\.\.\.|\u2026")
_LAST_WORD = re.compile(r"(?s).*\w")
_MIN_LOOSE_CHARS = 3

Mention = tuple[str, str]
"""A label's value and the words that are to carry it."""
Place = tuple[int, int]
"""Where a piece begins and ends (exclusive), in characters of the text as it is."""
Fold = Callable[[str], str]
"""Returns what a character counts as: nothing, itself or other characters."""


def align(text: str, mentions: Sequence[Mention]) -> tuple[tuple[Span, ...], int]:
    """Return the spans of the mentions that stand in the text, and how many stand nowhere.

    Spans come from left to right and may overlap. Each mention takes the best place that no
    earlier one with its label has, so that the k-th mention of the same words is their k-th
    occurrence. One that is repeated more often than it occurs is no loss.
    """
    searchable = SearchableText(text)
    places: dict[Mention, Iterator[Place]] = {}
    taken: set[tuple[Place, str]] = set()
    found: dict[Mention, bool] = {}
    for mention in mentions:
        label, words = mention
        if mention not in places:
            places[mention], found[mention] = searchable.places(words), False
        for place in places[mention]:
            found[mention] = True
            if (place, label) not in taken:
                taken.add((place, label))
                break
    spans = [Span(*place, label) for place, label in sorted(taken)]
    return tuple(spans), sum(not is_found for is_found in found.values())


class SearchableText:
    """A text in which words are found in spite of small differences in how they are written.

    Quotes, dashes, blanks and line ends of all kinds are alike, and so are composed and decomposed
    accents, ligatures and full-width forms; invisible characters do not count. Each form of the
    text is made once, at the first search that needs it. Cost: linear in the text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._within_words = _within_words(text)
        self._forms: dict[Fold, _Form] = {}

    def places(self, words: str) -> Iterator[Place]:
        """Yield where the words stand, the best matches first, each kind from the left.

        Whole words as they are written; then whatever quotes, dashes and blanks are in them; then
        in any case; then without accents, quotes, dashes and blanks. Without a match the marks of a
        sentence around the words are dropped, and at last parts of words count. An abbreviation
        ("the long ... end") stands nowhere. No place cuts a character from its accents.
        """
        last = _LAST_WORD.match(words)
        is_abbreviated = _DOTS.search(words, last.end() if last else 0) is not None
        bare = words if is_abbreviated else words.strip(_EDGES)
        variants = list(dict.fromkeys((words, bare)))
        seen: set[Place] = set()
        for are_whole in (True, False):
            for variant in variants:
                for fold in _FOLDS if are_whole else _FOLDS[:-1]:
                    for place in self._form(fold).places(variant, are_whole=are_whole):
                        if place not in seen:
                            seen.add(place)
                            yield place
                if seen:
                    return

    def _form(self, fold: Fold) -> _Form:
        if fold not in self._forms:
            self._forms[fold] = _Form(self._text, fold, self._within_words)
        return self._forms[fold]


class _Form:
    """A text with each character replaced by its fold; `_index` leads back to the text."""

    def __init__(self, text: str, fold: Fold, within_words: bytes) -> None:
        self._text, self._fold, self._within_words = text, fold, within_words
        self._index: Sequence[int] = range(len(text))
        if fold is _exact:
            self._folded = text
            return
        chars: list[str] = []
        index: list[int] = []
        for at, char in enumerate(text):
            for folded in fold(char):
                if folded != " " or not chars or chars[-1] != " ":
                    chars.append(folded)
                    index.append(at)
        self._folded = "".join(chars)
        self._index = index

    def places(self, words: str, *, are_whole: bool) -> Iterator[Place]:
        """Yield where the words stand, folded like the text, without overlaps."""
        wanted = " ".join("".join(map(self._fold, words)).split())
        if len(wanted) < (_MIN_LOOSE_CHARS if self._fold is _loose else 1):
            return
        n, index, within = len(wanted), self._index, self._within_words
        end, at = 0, self._folded.find(wanted)
        while at >= 0:
            if not (are_whole and within[index[at]]):
                place = self._place(at, at + n)
                if place and place[0] >= end and not (are_whole and within[place[1]]):
                    end = place[1]
                    yield place
            at = self._folded.find(wanted, at + 1)

    def _place(self, first: int, last: int) -> Place | None:
        """Return the place of folded characters; None where it would cut a character in two."""
        index, text = self._index, self._text
        if first and index[first - 1] == index[first]:
            return None
        if last < len(index) and index[last] == index[last - 1]:
            return None
        start, end = index[first], index[last - 1] + 1
        while end < len(text) and _is_mark(text[end]) and not self._fold(text[end]):
            end += 1
        return None if cuts_character(text, start) or cuts_character(text, end) else (start, end)


def _within_words(text: str) -> bytes:
    """Return for each position from 0 to the text's length whether it lies within a word."""
    are_words = [*map(_is_word, text)]
    return bytes([0, *map(and_, are_words, are_words[1:]), 0] if text else [0])


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


@cache
def _is_word(char: str) -> bool:
    return char.isalnum() or _is_mark(char)


def cuts_character(text: str, at: int) -> bool:
    """Return whether what a reader sees as one character stands on both sides of a position."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if before == "\u200d":
        return unicodedata.category(after) == "So"  # emoji are joined by it, and so are letters
    if after == "\u200d":
        return at + 1 < len(text) and unicodedata.category(text[at + 1]) == "So"
    return _is_mark(after) or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones


def _exact(char: str) -> str:
    return char


@cache
def _typographic(char: str) -> str:
    """Fold quotes, dashes, blanks, accents and forms of a letter; drop what is invisible."""
    category = unicodedata.category(char)
    if char in _QUOTES:
        return "'"
    if category == "Pd" or char in _MORE_DASHES:
        return "-"
    if char.isspace():
        return " "
    if category in ("Cc", "Cf", "Cs") or "\ufe00" <= char <= "\ufe0f" or char == "\u034f":
        return ""
    return unicodedata.normalize("NFKD", char)


@cache
def _caseless(char: str) -> str:
    return "".join(folded.casefold() for folded in _typographic(char))


@cache
def _loose(char: str) -> str:
    """Fold case as well; drop blanks, quotes, dashes and the accents of European letters."""
    return "".join(
        folded
        for folded in _caseless(char)
        if folded not in " '-" and not "\u0300" <= folded <= "\u036f"
    )


_FOLDS: tuple[Fold, ...] = (_exact, _typographic, _caseless, _loose)
