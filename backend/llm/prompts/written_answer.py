"""Match a written answer to one of a question's labels, or to none: nothing is guessed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.llm.client.connection import json_or_none

_AROUND = " \t\n\"'`*_#~.,:;!?()[]{}<>\\/|«»“”„‚‘’…-–—。、，！？：；（）「」『』【】《》"
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufe0e\ufe0f\ufeff]")
_FENCE = re.compile(r"```[\w-]*\n?(.*?)```", re.DOTALL)
_ANNOUNCED = re.compile(r"^[^:：]{1,60}[:：]\s*(.+)$", re.DOTALL)
_LETTER = re.compile(
    r"^[\s*_\"'`(\[]*+(?:the\s+)?(?:(?:correct|best|right)\s+)?(?:(?:option|answer|choice|label)\b[\s:*]*+(?:is[\s:*]++)?)?"
    r"[*_\"'`(\[]*([A-Za-z])(?:[*_\"'`]*\s*[).:\]\-–—][\s*_]*(.*))?[\s*_\"'`)\].:]*$",
    re.DOTALL | re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.;:!?](?=\s)|[\n。！？；：]")
_SEGMENT_END = re.compile(r"[,.;:!?\n–—。、，！？：；]")
_NEGATION = re.compile(
    r"n't\b|[不没非無无未]|\b(?:no|not|non|none|nor|never|neither|nothing|without|cannot|unable"
    r"|unclear|unsure|whether|hardly|instead|rather|except|but|if|either|ni|nicht|kein|keine|keiner"
    r"|weder|nie|ohne|pas|ne|aucun|jamais|sans|sino|nunca|ningun|ninguna|sin|nem|não|sem|geen|niet"
    r"|нет|не|ни|без|нельзя)\b"
)
"""Words beside which a label's name says little: the answer may deny it, or be undecided."""
_MAX_WORDS = 60


def match_answer(
    text: str, words: Sequence[str], names: Sequence[str] = (), *, is_cut: bool = False
) -> int | None:
    """Return the position of the label that an answer is about, None unless exactly one.

    An answer is a word as it stands, or without brackets, quotes, fences, marks of emphasis, case
    and blanks; or a line such as "Answer: ..."; or a sentence that holds exactly one label's name
    as whole words and denies nothing, with nothing after it that names another.

    Args:
        words: each label's answer word; single letters are option letters if there are `names`.
        names: each label's name where the words are option letters.
        is_cut: the answer ended at its maximum length, so that its end is unknown.
    """
    labels = Labels(words, names)
    for piece in _pieces(text):
        if (found := labels.named(piece)) is not None:
            return None if is_cut and labels.begins_another(piece, found) else found
    for piece in _pieces(text):
        if (found := labels.lettered(piece)) is not None:
            return None if is_cut and labels.begins_another(piece, found) else found
    return labels.mentioned(text, is_cut=is_cut)


def normalize(text: str) -> str:
    """Return a text by which labels are compared: case, blanks and look-alikes do not count."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).replace("’", "'")
    return unicodedata.normalize("NFKC", " ".join(text.split()).casefold())


def bare(text: str) -> str:
    """Return a normalized text without the marks around it, unless it consists of marks."""
    plain = normalize(text)
    return plain.strip(_AROUND) or plain


class Labels:
    """The forms in which each label may be answered."""

    def __init__(self, words: Sequence[str], names: Sequence[str] = ()) -> None:
        self._letters = tuple(words) if names else ()
        self._names = tuple(names or words)

    def named(self, piece: str) -> int | None:
        """Return the label whose name a text is, first letter by letter, then without marks."""
        for form in (str.strip, normalize, bare):
            found = [at for at, name in enumerate(self._names) if form(name) == form(piece)]
            if found:
                return found[0] if len(found) == 1 else None
        return None

    def lettered(self, piece: str) -> int | None:
        """Return the label whose option letter a text is, such as "B", "(b)" or "B. Positive"."""
        match = _LETTER.match(piece) if self._letters else None
        if match is None:
            return None
        letter, rest = match[1], bare(match[2] or "")
        exact = [at for at, one in enumerate(self._letters) if one == letter]
        found = exact or [at for at, one in enumerate(self._letters) if one == letter.upper()]
        if not found:
            return None
        says_other = any(
            bare(name) == rest for at, name in enumerate(self._names) if rest and at != found[0]
        )
        return None if says_other else found[0]

    def begins_another(self, piece: str, found: int) -> bool:
        """Return whether a text could go on to be the name of another label than the found one."""
        start = bare(piece)
        return any(bare(n).startswith(start) for at, n in enumerate(self._names) if at != found)

    def mentioned(self, text: str, *, is_cut: bool) -> int | None:
        """Return the only label that a text names as whole words, if it denies nothing.

        It has to stand in the first sentence: what comes later may be dictated by the text.
        """
        rest = normalize(text)
        sentence = normalize(_SENTENCE_END.split(text.strip(), maxsplit=1)[0])
        if len(rest.split()) > _MAX_WORDS:
            return None
        opening = bare(_SEGMENT_END.split(text.strip(_AROUND), maxsplit=1)[0])
        found: set[int] = set()
        for at in sorted(range(len(self._names)), key=lambda at: -len(self._names[at])):
            name = bare(self._names[at])
            hidden = _without(rest, name)
            if hidden != rest and (len(name) > 1 or not name.isalpha() or opening == name):
                found.add(at)
            rest = hidden
        if len(found) != 1:
            return None
        (label,) = found
        name = bare(self._names[label])
        if opening == name:
            return label
        if _without(sentence, name) == sentence:
            return None
        is_denied = _NEGATION.search(rest) or _NEGATION.fullmatch(name)
        return None if is_cut or is_denied else label


def goes_on(char: str) -> bool:
    """Return whether a character is part of a word: a letter, a digit or a sign on a letter."""
    return char.isalnum() or unicodedata.category(char).startswith("M")


def _without(text: str, name: str) -> str:
    """Return a text with a name, where it stands as whole words, replaced by a mark."""
    kept, end = [], 0
    for match in re.finditer(re.escape(name), text):
        start, stop = match.span()
        before, after = text[max(0, start - 1) : start], text[stop : stop + 2]
        is_number_part = name[-1:].isdecimal() and re.match(r"[.,]\d", after)
        is_inside = (before and goes_on(before) and goes_on(name[0])) or (
            after and goes_on(after[0]) and goes_on(name[-1])
        )
        if not is_inside and not is_number_part:
            kept += [text[end:start], " \0 "]
            end = stop
    return "".join([*kept, text[end:]])


def _pieces(text: str) -> Iterator[str]:
    """Yield what of an answer may be a label's name: all of it, what is wrapped, its first line."""
    yield text
    inner = fence[1] if (fence := _FENCE.search(text)) else text
    if (only := _only_text(json_or_none(inner.strip()))) is not None:
        yield only
    yield inner
    lines = [line for line in inner.splitlines() if line.strip()]
    if lines:
        yield lines[0]
    for line in (inner, *lines[:1]):
        if announced := _ANNOUNCED.match(line.strip()):
            yield announced[1]


def _only_text(value: Any) -> str | None:
    """Return the only text of a JSON value: "a", ["a"], {"answer": "a"} or {"answer": ["a"]}."""
    while not isinstance(value, str):
        if isinstance(value, Mapping):
            value = list(value.values())
        if not isinstance(value, list) or len(value) != 1:
            return None
        value = value[0]
    return value
