"""The JSON in which an LLM names the pieces of a text: asked for, written and read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import Demonstration
from backend.domain.questions import Question
from backend.llm.loose_json import json_blocks
from backend.llm.prompts.templates import one_line
from backend.llm.text_search import Mention

MAX_REQUIRED_LABELS = 12
"""With more labels than this an answer lists only those that it has pieces of."""
_LABEL_KEYS = ("type", "label", "category", "class", "tag", "entity_type", "entity")
_TEXT_KEYS = ("text", "span", "words", "word", "value", "mention", "entity", "name")
_KEYS = frozenset((*_LABEL_KEYS, *_TEXT_KEYS))
_NOTHING = frozenset(("none", "n/a", "null", "nil"))
_NOT_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Mentions:
    """The pieces that an answer names, in its order.

    `is_partial`: the answer breaks off, so that there may be more.
    """

    mentions: tuple[Mention, ...]
    is_partial: bool = False


class SpanFormat:
    """How a question's labels are named in an answer, and how answers are written and read."""

    def __init__(self, question: Question) -> None:
        names = [one_line(label.name) for label in question.labels]
        if len({_plain(name) for name in names}) < len(names):
            names = [one_line(label.value) for label in question.labels]
        self.names = tuple(names)
        self.lists_all = len(names) <= MAX_REQUIRED_LABELS
        self._field = question.field.name
        self._name_of = {label.value: n for label, n in zip(question.labels, names, strict=True)}
        self._value_of = {_plain(label.value): label.value for label in question.labels}
        self._value_of |= {_plain(name): value for value, name in self._name_of.items()}

    def json_schema(self) -> str:
        """Return the JSON schema of an answer, as text: a list of words under each label's name."""
        words = {"type": "array", "items": {"type": "string"}}
        return json.dumps(
            {
                "type": "object",
                "properties": dict.fromkeys(self.names, words),
                "required": list(self.names) if self.lists_all else [],
                "additionalProperties": False,
            }
        )

    def form(self) -> str:
        """Return the answer that names nothing."""
        return self._written({})

    def demonstration(self, shot: Demonstration) -> str | None:
        """Return a demonstration's spans as an answer names them; None without its text."""
        text = shot.texts.get(self._field)
        if text is None:
            return None
        words: dict[str, list[str]] = {}
        for span in sorted(shot.answer.spans, key=lambda span: (span.start, span.end)):
            if span.label in self._name_of:
                name = self._name_of[span.label]
                words.setdefault(name, []).append(one_line(text[span.start : span.end]))
        return self._written(words)

    def _written(self, words: Mapping[str, Sequence[str]]) -> str:
        names = [name for name in self.names if self.lists_all or name in words]
        listed = {name: words.get(name, []) for name in names}
        return json.dumps(listed, ensure_ascii=False, separators=(",", ":"))

    def parse(self, answer: str) -> Mentions | None:
        """Return the pieces that an answer names; None where it holds no list of them.

        Taken are lists by label and lists of pieces, in a fence or after a sentence, with single
        quotes or a comma too many. What breaks off counts up to its last whole piece. A piece that
        is malformed or has an unknown label costs itself alone.
        """
        found: list[list[Mention]] = []
        n_malformed, is_partial = 0, False
        for block, is_whole in json_blocks(answer):
            reader = _BlockReader(self._value_of)
            if reader.read(block):
                n_malformed += reader.n_malformed
                is_partial |= not is_whole
                if reader.mentions not in found:
                    found.append(reader.mentions)
        mentions = tuple(mention for each in found for mention in each)
        if not found or (n_malformed and not mentions):
            return None
        return Mentions(mentions, is_partial)


class _BlockReader:
    """Collects the pieces in one JSON value."""

    def __init__(self, value_of: Mapping[str, str]) -> None:
        self._value_of = value_of
        values = set(value_of.values())
        self._only_label = values.pop() if len(values) == 1 else None
        self.mentions: list[Mention] = []
        self.n_malformed = 0

    def read(self, block: Any) -> bool:
        """Return whether a JSON value is an answer, and collect the pieces in it."""
        if isinstance(block, list):
            self._read_pieces(block)
            return True
        if not isinstance(block, dict):
            return False
        if self._read_piece(block):
            return True
        if any(self._label(key) for key in block):
            for key, value in block.items():
                self._read_words(self._label(key), value)
            return True
        if _KEYS.isdisjoint(block) and any(map(self._label, block.values())):
            for words, label in block.items():  # such as {"Ann": "Person"}
                self._keep(self._label(label), words)
            return True
        is_read = not block
        for value in block.values():  # such as {"entities": [...]}, or an unknown label's words
            if isinstance(value, list):
                self._read_pieces([piece for piece in value if not isinstance(piece, str)])
                is_read = True
            elif isinstance(value, dict):
                is_read |= self.read(value)
        return is_read

    def _read_pieces(self, pieces: Sequence[Any]) -> None:
        for piece in pieces:
            if isinstance(piece, dict):
                is_read = self._read_piece(piece) or self.read(piece)
            elif isinstance(piece, list | tuple) and len(piece) == 2:
                is_read = self._read_pair(*piece)
            else:
                is_read = isinstance(piece, str) and self._only_label is not None
                self._keep(self._only_label, piece if is_read else "")
            self.n_malformed += not is_read

    def _read_piece(self, piece: Mapping[str, Any]) -> bool:
        """Return whether an object is one piece with its label, and keep it if that is known."""
        texts = {str(key).lower(): value for key, value in piece.items() if isinstance(value, str)}
        label = next((key for key in _LABEL_KEYS if key in texts), None)
        words = next((key for key in _TEXT_KEYS if key in texts and key != label), None)
        if label is None or words is None:
            return False
        self._keep(self._label(texts[label]), texts[words])
        return True

    def _read_pair(self, one: Any, other: Any) -> bool:
        if not isinstance(one, str) or not isinstance(other, str):
            return False
        label, words = (one, other) if self._label(one) else (other, one)
        self._keep(self._label(label), words)
        return True

    def _read_words(self, label: str | None, value: Any) -> None:
        """Keep what stands under a label's name: words, or objects that hold them."""
        items = value if isinstance(value, list) else [value]
        if len(items) == 1 and isinstance(items[0], str) and items[0].casefold() in _NOTHING:
            return
        for item in items:
            words = item
            if isinstance(item, dict):
                strings = {str(key).lower(): each for key, each in item.items()}
                words = next((strings[key] for key in _TEXT_KEYS if key in strings), None)
            if isinstance(words, str):
                self._keep(label, words)
            else:
                self.n_malformed += words is not None

    def _keep(self, label: str | None, words: str) -> None:
        if label is not None and words.strip():
            self.mentions.append((label, words))

    def _label(self, name: Any) -> str | None:
        return self._value_of.get(_plain(name)) if isinstance(name, str) else None


def _plain(name: str) -> str:
    """Return a label's name without regard to case, blanks and marks between its words."""
    return _NOT_LETTERS.sub(" ", name.casefold()).strip() or name
