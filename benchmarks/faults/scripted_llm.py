"""Serve scripted LLMs in vLLM's format that answer about four texts in five correctly."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tests.llm_server import ScriptedLlmServer, prompts_in

_LABELS = ("Positive", "Negative")
_ACCURACY = 0.8
_CERTAINTY, _CERTAINTY_RANGE = 0.75, 0.2
_PROPERTY = re.compile(r'"\\"(\w+)\\":"')
"""A property's name in a grammar."""
_CHECK = re.compile(r'Is "([^"]+)" in this [^"]+ an? (\w+)\? Answer yes or no\.')

Piece = tuple[str, str]
"""A piece's label and its words."""


class _ScriptedAnnotator(ScriptedLlmServer):
    """Answers about the known text that comes last in a prompt."""

    def __init__(self, texts: Collection[str]) -> None:
        self._texts = texts
        super().__init__(model="scripted", n_context_tokens=4096)

    def text_in(self, prompt: str) -> str | None:
        """Return the text that a prompt asks about."""
        found = max(self._texts, key=prompt.rfind)
        return found if found in prompt else None

    def show(
        self, choice: dict[str, Any], body: dict[str, Any], probabilities: Sequence[float]
    ) -> None:
        """Set the log-probabilities of the requested tokens, by their position."""
        shown = choice["logprobs"] or {}
        keys = [self.key(token, body) for token in body["logprob_token_ids"]]
        logprobs = dict(zip(keys, map(math.log, probabilities), strict=True))
        for position in shown.get("top_logprobs", ())[:1]:
            position.update(logprobs)
        for position in shown.get("content", ())[:1]:
            for entry in position["top_logprobs"]:
                entry["logprob"] = logprobs.get(entry["token"], entry["logprob"])


class ScriptedSentimentLLM(_ScriptedAnnotator):
    """Tells good from bad, with fixed pseudorandom errors."""

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        self._label = {row["text"]: row["label"] for row in rows}
        super().__init__(self._label)

    def choice(self, route: str, body: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a choice with scripted log-probabilities of the requested tokens."""
        choice = super().choice(route, body, index)
        if n_tokens := len(body.get("logprob_token_ids", ())):
            self.show(choice, body, self._probabilities(prompts_in(body)[index], n_tokens))
        return choice

    def _probabilities(self, prompt: str, n_tokens: int) -> list[float]:
        text = self.text_in(prompt) or next(iter(self._label))
        draw, certainty = _draws(text, len(prompt))
        confidence = 0.55 + 0.4 * certainty
        correct = _LABELS.index(self._label[text]) if self._label[text] in _LABELS else 0
        index = correct if draw < _ACCURACY else 1 - correct
        rest = (0.98 - confidence) / max(1, n_tokens - 1)
        return [confidence if token == index % n_tokens else rest for token in range(n_tokens)]


class ScriptedSpansLLM(_ScriptedAnnotator):
    """Lists a text's pieces as JSON, and says of each whether it carries its label.

    In one text of five the last piece is left out or of a wrong type; half of the latter are
    confirmed.
    """

    def __init__(self, pieces: Mapping[str, Sequence[Piece]]) -> None:
        self._pieces = pieces
        super().__init__(pieces)

    def choice(self, route: str, body: dict[str, Any], index: int) -> dict[str, Any]:
        """Return a choice with the pieces, or with scripted log-probabilities of yes and no."""
        choice = super().choice(route, body, index)
        prompt = prompts_in(body)[index]
        text, asked = self.text_in(prompt), _CHECK.search(prompt)
        grammar = body.get("structured_outputs", {}).get("grammar")
        if grammar is not None:
            names = _PROPERTY.findall(grammar)
            listed: Mapping[str, object] = dict.fromkeys(names, False)  # where nothing is asked
            if text is not None:
                listed = self._listed(text, names, len(prompt))
            _write(choice, json.dumps(listed, separators=(",", ":")), _draws(prompt)[1])
        elif text is not None and asked is not None and "logprob_token_ids" in body:
            yes = self._yes_probability(text, asked[1], asked[2])
            words = [self.text([token]).strip() for token in body["logprob_token_ids"]]
            self.show(choice, body, [yes if word == "yes" else 1 - yes for word in words])
        return choice

    def _listed(self, text: str, names: Sequence[str], n_chars: int) -> dict[str, list[str]]:
        pieces = list(self._pieces[text])
        draw, which = _draws(text, n_chars)
        if draw >= _ACCURACY and pieces:
            label, words = pieces.pop()
            if which < 0.5:
                pieces.append((names[(names.index(label) + 1) % len(names)], words))
        return {name: [words for label, words in pieces if label == name] for name in names}

    def _yes_probability(self, text: str, words: str, label: str) -> float:
        draw, certainty = _draws(text, words, label)
        is_confirmed = (label, words) in self._pieces[text] or draw < 0.5
        confidence = _CERTAINTY + _CERTAINTY_RANGE * certainty
        return confidence if is_confirmed else 1 - confidence


def _write(choice: dict[str, Any], text: str, certainty: float) -> None:
    """Make this text the whole answer of a choice."""
    choice["finish_reason"] = "stop"
    if "message" in choice:
        choice["message"] = {"content": text}
    else:
        choice["text"] = text
    logprob = math.log(_CERTAINTY + _CERTAINTY_RANGE * certainty)
    shown = choice["logprobs"] or {}
    for position in shown.get("content", ()):
        position["logprob"] = logprob
    if "token_logprobs" in shown:
        shown["token_logprobs"] = [logprob]


def _draws(*parts: object) -> tuple[float, float]:
    """Return two numbers in [0, 1) that depend on the parts alone."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4]) / 2**32, int.from_bytes(digest[4:]) / 2**32
