"""Read a posterior from a server that names its likeliest first tokens by their text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.ports import Completion
from backend.llm.prompts.written_answer import bare, goes_on, match_answer, normalize

WRITTEN_PROBABILITY = 0.8
"""Assumed for an answer without probabilities; human labels calibrate it."""

_SHOWN_BLANKS = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n"})
"""How tokenizers show a blank or a line end: Ġ, ▁ and Ċ stand for them."""
_PART_OF_CHARACTER = re.compile("\ufffd|\\\\x[0-9a-fA-F]{2}|<0x[0-9a-fA-F]{2}>")
_UNREPORTED = math.exp(-1.0)
"""A label without a reported token gets this share of the least likely reported one."""


@dataclass(frozen=True, slots=True)
class Token:
    """A reported token: its text, its probability, and the labels it may begin.

    `whole`: the labels whose whole word it is. `is_open`: it tells nothing yet: a mark, a blank or
    a part of a character can begin any answer.
    """

    text: str
    probability: float
    labels: frozenset[int]
    whole: frozenset[int] = frozenset()
    is_open: bool = False


class TokenReader:
    """Assigns the probabilities of first tokens to labels.

    A token that begins the word of one label alone counts for it. What begins several is decided by
    the answer that was written, or by a longer token that the server reports for one of them, as a
    tokenizer never cuts a word that is a token. What is still open is no evidence: if there is more
    of it than between the best two labels, the answer counts as unreadable.
    """

    def __init__(self, words: Sequence[str], names: Sequence[str] = ()) -> None:
        self._words, self._names = tuple(words), tuple(names)
        self._n_labels = len(words)

    def read(self, completion: Completion) -> Mapping[str, Any] | Abstention:
        """Return the posterior and the label mass, or why they cannot be read."""
        is_cut = completion.finish_reason == "length"
        written = match_answer(completion.text, self._words, self._names, is_cut=is_cut)
        tokens = self._tokens(completion.text_logprobs or {})
        first = _first_of(completion.text, tokens)
        if written is not None and (first is None or written not in first.labels):
            return {"probabilities": written_posterior(written, self._n_labels)}
        masses = [0.0] * self._n_labels
        unsettled = unknown = 0.0
        for token in tokens:
            labels = _settled(token, tokens)
            if written is not None:
                labels = frozenset((written,)) if token is first else token.whole or labels
            for label in labels:
                masses[label] += token.probability / len(labels)
            if token.is_open or len(labels) > 1:
                unsettled += token.probability
            elif not labels:
                unknown = max(unknown, token.probability)
        best, second = sorted([*masses, 0.0], reverse=True)[:2]
        if best <= 0.0:
            return _unreadable("the model's answer is none of the labels")
        if written is None and (unsettled > best - second or unknown > math.fsum(masses)):
            return _unreadable("the model's first token could begin several labels, or none")
        floor = _UNREPORTED * min(token.probability for token in tokens)
        weights = [max(mass, floor) for mass in masses]
        total = math.fsum(weights)
        if written is not None and masses[written] < best and unsettled > best - masses[written]:
            return {"probabilities": written_posterior(written, self._n_labels)}
        mass = min(1.0, math.fsum(masses))
        return {"probabilities": tuple(weight / total for weight in weights), "label_mass": mass}

    @cached_property
    def _forms(self) -> list[tuple[int, str]]:
        """Each label's forms in which tokens are looked up."""
        pairs = [*enumerate(self._names or self._words)]
        forms = {(at, form(text)) for at, text in pairs for form in (normalize, bare)}
        return sorted(forms)

    def _tokens(self, logprobs: Mapping[str, float]) -> list[Token]:
        tokens = []
        for text, logprob in sorted(logprobs.items()):
            shown = text.translate(_SHOWN_BLANKS)
            labels, whole = self._candidates(shown.strip())
            is_mark = not any(map(goes_on, normalize(shown)))
            is_open = bool(_PART_OF_CHARACTER.search(shown)) or (is_mark and not whole)
            labels = frozenset() if is_open else labels
            probability = math.exp(min(0.0, logprob))
            tokens.append(Token(shown, probability, labels, whole & labels, is_open))
        return tokens

    def _candidates(self, shown: str) -> tuple[frozenset[int], frozenset[int]]:
        """Return the labels that a token may begin, and those whose whole word it is."""
        text, core = normalize(shown), bare(shown)
        whole = self._lettered(shown) if self._names else set()
        begun = set()
        for at, form in self._forms:
            if form in (text, core) or _is_form_and_mark(text, form):
                whole.add(at)
            elif core and form.startswith(core):
                begun.add(at)
        return frozenset(whole | begun), frozenset(whole)

    def _lettered(self, shown: str) -> set[int]:
        """Return the labels whose option letter a token is, in the same case before the other."""
        letter = shown.strip("()[]*\"'`.: ")
        exact = {at for at, word in enumerate(self._words) if word == letter}
        return exact or {at for at, word in enumerate(self._words) if word == letter.upper()}


def _settled(token: Token, tokens: Sequence[Token]) -> frozenset[int]:
    """Return a token's labels without those that the server begins with a longer token."""
    if len(token.labels) < 2:
        return token.labels
    begun_otherwise = {
        label
        for other in tokens
        if len(other.text) > len(token.text.rstrip()) and other.text.startswith(token.text.rstrip())
        for label in (other.labels if len(other.labels) == 1 else ())
    }
    return token.labels - begun_otherwise or token.labels


def written_posterior(index: int, n_labels: int) -> tuple[float, ...]:
    """Return a posterior with `WRITTEN_PROBABILITY` for the named label; others share the rest."""
    if n_labels == 1:
        return (1.0,)
    rest = (1.0 - WRITTEN_PROBABILITY) / (n_labels - 1)
    return tuple(WRITTEN_PROBABILITY if at == index else rest for at in range(n_labels))


def begin_alike(words: Sequence[str]) -> bool:
    """Return whether one of the words begins another, so that a token can stand for both."""
    plain = sorted(normalize(word) for word in words)
    return any(after.startswith(before) for before, after in zip(plain, plain[1:], strict=False))


def _first_of(text: str, tokens: Sequence[Token]) -> Token | None:
    """Return the reported token that a written answer begins with, the likeliest such one.

    That is the one which greedy decoding has chosen. Servers may leave out the blanks before it.
    """
    for form in (str, str.strip):
        pairs = [(form(one.text), one) for one in tokens]
        fitting = [(one.probability, len(s), one) for s, one in pairs if s and text.startswith(s)]
        if fitting:
            return max(fitting, key=lambda row: row[:2])[2]
    return None


def _is_form_and_mark(text: str, form: str) -> bool:
    """Return whether a token is a whole word and a mark that ends it, such as "no,"."""
    return len(text) > len(form) > 0 and text.startswith(form) and not goes_on(text[len(form)])


def _unreadable(detail: str) -> Abstention:
    return Abstention(AbstentionReason.UNREADABLE, detail)
