"""Written answers about spans: the forms they take, their place in the text, and their vote."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import Span
from backend.domain.questions import Question
from backend.llm.prompts.text import one_line, spoken_name

_NONE = "none"
_MAX_ENTITIES = 16
_MAX_ENTITY_CHARS = 120
_LINE = re.compile(r"\s*(?P<label>[^\n]*?)\s*:\s+(?P<text>[^\n]*?)\s*")

Mention = tuple[str, str]
"""A label's value and the words that are to carry it."""


@dataclass(frozen=True, slots=True)
class SpanCounts:
    """What became of the pieces that answers named.

    `n_invented` do not stand in the text; `n_repeated` were named more often than they stand
    there; `n_unreadable` answers could not be read at all.
    """

    n_answers: int = 0
    n_unreadable: int = 0
    n_mentions: int = 0
    n_invented: int = 0
    n_repeated: int = 0

    def __add__(self, other: SpanCounts) -> SpanCounts:
        return SpanCounts(
            self.n_answers + other.n_answers,
            self.n_unreadable + other.n_unreadable,
            self.n_mentions + other.n_mentions,
            self.n_invented + other.n_invented,
            self.n_repeated + other.n_repeated,
        )


class SpanWords:
    """What a question's labels are called in a prompt, and how answers are written and read."""

    def __init__(self, question: Question) -> None:
        names = [one_line(label.name) for label in question.labels]
        if len({name.casefold() for name in names}) < len(names):
            names = [one_line(label.value) for label in question.labels]
        self.names = tuple(names)
        self._asked = spoken_name(question.name)
        self._name_of = {label.value: n for label, n in zip(question.labels, names, strict=True)}
        self._value_of = {n.casefold(): v for v, n in self._name_of.items()}

    def told(self, question: Question) -> list[str]:
        """Return the lines that say what is looked for."""
        lines = [f"{self._asked}: every piece of the text that is one of these, word for word."]
        for label, name in zip(question.labels, self.names, strict=True):
            hint = one_line(label.hint or "")
            lines.append(f"{name}: {hint}" if hint else name)
        return lines

    def schema(self) -> str:
        """Return the JSON schema of an answer, as text."""
        entity = {
            "type": "object",
            "properties": {
                "type": {"enum": list(self.names)},
                "text": {"type": "string", "maxLength": _MAX_ENTITY_CHARS},
            },
            "required": ["type", "text"],
            "additionalProperties": False,
        }
        entities = {"type": "array", "items": entity, "maxItems": _MAX_ENTITIES}
        return json.dumps(
            {
                "type": "object",
                "properties": {"entities": entities},
                "required": ["entities"],
                "additionalProperties": False,
            }
        )

    def known(self, mentions: Sequence[Mention]) -> list[Mention]:
        """Return the mentions whose label the question has."""
        return [mention for mention in mentions if mention[0] in self._name_of]

    def as_json(self, mentions: Sequence[Mention]) -> str:
        """Return an answer as JSON on one line."""
        entities = [{"type": self._name_of[label], "text": text} for label, text in mentions]
        return json.dumps({"entities": entities}, ensure_ascii=False)

    def as_lines(self, mentions: Sequence[Mention]) -> str:
        """Return an answer as a line per piece, "none" for none."""
        lines = [f"{self._name_of[label]}: {text}" for label, text in mentions]
        return "\n".join(lines or [_NONE])

    def read_json(self, text: str, *, is_cut: bool = False) -> list[Mention] | None:
        """Return what a JSON answer names; None unless all of it is what the schema asks for.

        Of an answer that was cut (`is_cut`) the whole pieces before the cut count.
        """
        answer = _parsed(text)
        if answer is None and is_cut:
            answer = _parsed_until_cut(text)
        entities = answer.get("entities") if isinstance(answer, dict) else None
        if not isinstance(entities, list):
            return None
        mentions = [self._mention(entity) for entity in entities]
        known = [mention for mention in mentions if mention is not None]
        return known if len(known) == len(mentions) else None

    def read_lines(self, text: str) -> list[Mention] | None:
        """Return what an answer of lines names, up to the first line of another kind.

        None when already the first line is neither a piece with a known label nor "none".
        """
        mentions: list[Mention] = []
        for position, line in enumerate(text.strip().splitlines()):
            if position == 0 and line.strip().strip(".").casefold() == _NONE:
                return []
            found = _LINE.fullmatch(line)
            value = self._value_of.get(found["label"].casefold()) if found else None
            if found is None or value is None:
                break
            mentions.append((value, found["text"].strip('"')))
        return mentions or None

    def _mention(self, entity: object) -> Mention | None:
        if not isinstance(entity, dict):
            return None
        name, text = entity.get("type"), entity.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            return None
        value = self._value_of.get(name.casefold())
        return None if value is None else (value, text)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parsed_until_cut(text: str) -> Any:
    """Return a list of pieces that ends in the middle up to its last whole piece, else None."""
    ends = [at + 1 for at, char in enumerate(text) if char == "}"][-_MAX_ENTITIES:]
    found = (_parsed(text[:end] + "]}") for end in reversed(ends))
    return next((answer for answer in found if answer is not None), None)


def align(text: str, mentions: Sequence[Mention]) -> tuple[tuple[Span, ...], SpanCounts]:
    """Return where the pieces stand in the text, and how many do not.

    The k-th mention of the same words with the same label is their k-th occurrence from the left,
    whole words before parts of words; pieces may overlap. White space of any kind is alike, and
    so are the quotes that prompts show as apostrophes; case counts.
    """
    spans: list[Span] = []
    n_invented = n_repeated = 0
    places: dict[Mention, list[tuple[int, int]]] = {}
    for mention in mentions:
        label, words = mention
        if mention not in places:
            places[mention] = _occurrences(text, words)
            if not places[mention]:
                n_invented += 1
                continue
        elif not places[mention]:
            n_repeated += 1
            continue
        start, end = places[mention].pop(0)
        spans.append(Span(start, end, label))
    unique = tuple(sorted(set(spans), key=lambda span: (span.start, span.end, span.label)))
    counts = SpanCounts(n_mentions=len(mentions), n_invented=n_invented, n_repeated=n_repeated)
    return unique, counts


def vote(
    readings: Sequence[tuple[Span, ...]], *, least_share: float
) -> tuple[tuple[Span, ...], float]:
    """Return the spans that at least this share of the readings has, and how sure the whole is.

    A span's probability is its share of the readings; the confidence is the share of the readings
    that are exactly the answer. `readings` is not empty.
    """
    votes = Counter(span for reading in readings for span in reading)
    n = len(readings)
    kept = [span for span, n_votes in votes.items() if n_votes >= least_share * n]
    kept.sort(key=lambda span: (span.start, span.end, span.label))
    confidence = sum(set(reading) == set(kept) for reading in readings) / n
    spans = tuple(Span(s.start, s.end, s.label, votes[s] / n) for s in kept)
    return spans, confidence


def mentions_of(text: str, spans: Sequence[Span]) -> list[Mention]:
    """Return spans of a text as mentions, from left to right, each on one line."""
    ordered = sorted(spans, key=lambda span: (span.start, span.end, span.label))
    return [(span.label, one_line(text[span.start : span.end])) for span in ordered]


def _occurrences(text: str, words: str) -> list[tuple[int, int]]:
    """Return where some words stand in a text, whole words first, then parts of words."""
    pieces = words.split()
    if not pieces:
        return []
    pattern = r"\s+".join(re.escape(piece).replace("'", "['\"]") for piece in pieces)
    found = [match.span() for match in re.finditer(pattern, text)]
    whole = [place for place in found if _is_whole(text, *place)]
    return whole or found


def _is_whole(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    cuts_before = before.isalnum() and text[start].isalnum()
    cuts_after = after.isalnum() and text[end - 1].isalnum()
    return not cuts_before and not cuts_after
