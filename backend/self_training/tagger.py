"""A transformer that finds labelled spans by tagging words in BIO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForTokenClassification

from backend.domain.labels import Span
from backend.self_training.pretrained import PretrainedModel, create_model, load_model
from backend.self_training.text_pieces import TextPieces
from backend.self_training.tokens import Tokens, truncate

OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Words:
    """A text's words as the tokenizer splits it, without those behind the truncation.

    Args:
        positions: (w,), each word's first token, whose prediction is the word's.
        extents: (w, 2), each word's characters.
    """

    positions: NDArray[np.int64]
    extents: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TaggerSpec:
    """Labels, base model (hub name or folder, "" for the embedded encoder) and truncation."""

    labels: tuple[str, ...]
    base: str = ""
    max_tokens: int = 256

    @property
    def tags(self) -> tuple[str, ...]:
        """Return O, then B and I of each label in order."""
        return (OUTSIDE, *(f"{part}-{label}" for label in self.labels for part in "BI"))


class SpanTagger(PretrainedModel[TaggerSpec]):
    """Token classification in BIO over words, each by its first token."""

    @classmethod
    def create(cls, spec: TaggerSpec, *, seed: int) -> SpanTagger:
        """Return the base model with a new random head; raises SettingsError."""
        architecture = AutoModelForTokenClassification
        return cls(*create_model(architecture, spec.base, spec.tags, seed=seed), spec)

    @classmethod
    def load(cls, folder: Path) -> SpanTagger:
        """Read what `save` wrote; raises InvalidRequest."""

        def read_spec(stored: Mapping[str, Any]) -> TaggerSpec:
            return TaggerSpec(tuple(stored["span_labels"]), str(folder), stored["max_tokens"])

        return cls(*load_model(AutoModelForTokenClassification, folder, read_spec, what="tagger"))

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write model, tokenizer and card; an existing folder is replaced as a whole."""
        spec = {"span_labels": list(self.spec.labels), "max_tokens": self.spec.max_tokens}
        self.write(folder, spec, card=card, task="token-classification")

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels of its spans."""
        return self.spec.labels

    def tokenize(self, texts: Sequence[str]) -> tuple[Tokens, list[Words]]:
        """Return the texts' tokens and words."""
        pad_id = self.tokenizer.pad_token_id or 0
        if not texts:
            return Tokens([], None, pad_id), []
        max_tokens, texts = self.spec.max_tokens, truncate(texts, self.spec.max_tokens)
        encoded = self.tokenizer(
            texts, truncation=True, max_length=max_tokens, return_offsets_mapping=True
        )
        offsets = encoded["offset_mapping"]
        words = [_words(encoded.word_ids(row), offsets[row]) for row in range(len(texts))]
        return Tokens(encoded["input_ids"], encoded.get("token_type_ids"), pad_id), words

    def predict_tags(
        self,
        tokens: Tokens,
        words: Sequence[Words],
        before_batch: Callable[[], None] = lambda: None,
    ) -> list[NDArray[np.float64]]:
        """Return the tags' probabilities of each text's words, shapes (w, tags)."""
        out: list[NDArray[np.float64]] = [np.zeros((0, len(self.spec.tags)))] * len(tokens)
        for rows, _, output in self.forward(tokens, before_batch):
            probabilities = output.logits.double().softmax(dim=-1).cpu().numpy()
            for position, row in enumerate(rows):
                out[row] = probabilities[position, words[row].positions]
        return out

    def predict(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return each text's spans with their probabilities, in order."""
        pieces = self.cut(texts)
        tokens, words = self.tokenize(pieces.texts)
        probabilities = self.predict_tags(tokens, words)
        found = [self.decode(*pair) for pair in zip(words, probabilities, strict=True)]
        return list(pieces.joined(found))

    def cut(self, texts: Sequence[str]) -> TextPieces:
        """Return the texts in pieces that are read whole."""
        return TextPieces.cut(texts, self.tokenizer, self.spec.max_tokens)

    def decode(self, words: Words, probabilities: NDArray[np.float64]) -> tuple[Span, ...]:
        """Read spans off the words' likeliest tags.

        An I that continues nothing of its label opens a span. A span's probability is the mean,
        over its words, of its label's two tags' sum.
        """
        spans: list[Span] = []
        open_label, first = 0, 0
        tags = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, dtype=int)
        for index in range(len(tags) + 1):
            tag = int(tags[index]) if index < len(tags) else 0
            label = (tag + 1) // 2
            if open_label and (label != open_label or tag % 2 == 1):
                mass = probabilities[first:index, 2 * open_label - 1 : 2 * open_label + 1]
                start, end = int(words.extents[first, 0]), int(words.extents[index - 1, 1])
                name = self.spec.labels[open_label - 1]
                spans.append(Span(start, end, name, float(mass.sum(axis=1).mean())))
                open_label = 0
            if label and not open_label:
                open_label, first = label, index
        return tuple(spans)


def tag_words(words: Words, spans: Sequence[Span], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the tag index of each word: a span's first word is B, its others I, the rest O.

    A word belongs to the first span that shares a character with it; spans of unknown labels are
    skipped.
    """
    tags = np.zeros(len(words.extents), dtype=np.int64)
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if span.label not in labels:
            continue
        is_inside = (words.extents[:, 0] < span.end) & (words.extents[:, 1] > span.start)
        indices = np.flatnonzero(is_inside & (tags == 0))
        begin = 2 * labels.index(span.label) + 1
        tags[indices] = begin + 1
        tags[indices[:1]] = begin
    return tags


def _words(word_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> Words:
    positions: list[int] = []
    extents: list[list[int]] = []
    last: int | None = None
    for position, (word, (start, end)) in enumerate(zip(word_ids, offsets, strict=True)):
        if word is not None and word == last:
            extents[-1][1] = end
        elif word is not None:
            positions.append(position)
            extents.append([start, end])
        last = word
    return Words(np.array(positions, dtype=int), np.array(extents, dtype=int).reshape(-1, 2))
