"""A transformer that finds labelled spans: words tagged, spans read off, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForTokenClassification

from backend.domain.labels import Span
from backend.self_training.batches import Tokens, reading_batches
from backend.self_training.encoder import compute_device, embedded_encoder_folder, has_fast_bf16
from backend.self_training.pretrained import Pretrained, read_ours, under_new_head

OUTSIDE = "O"
_CHARS_PER_TOKEN = 20


@dataclass(frozen=True, slots=True)
class Words:
    """A text's words as the tokenizer splits it.

    `positions` are the tokens that speak for the words (each one's first), `extents` (w, 2) the
    words' characters. Words behind the cut at `max_tokens` are not there.
    """

    positions: NDArray[np.int64]
    extents: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TaggerSpec:
    """Which encoder finds which labels; `base` is a hub name or a folder, "" the embedded one."""

    labels: tuple[str, ...]
    base: str = ""
    max_tokens: int = 256

    @property
    def tags(self) -> tuple[str, ...]:
        """Return O, then B and I of each label in order."""
        return (OUTSIDE, *(f"{part}-{label}" for label in self.labels for part in "BI"))


class SpanTagger:
    """Token classification in BIO over words, each by its first token."""

    def __init__(self, model: Any, tokenizer: Any, spec: TaggerSpec) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.spec = spec
        self.device = compute_device()
        self.model.to(self.device)
        self._bf16 = has_fast_bf16(self.device)

    @classmethod
    def create(cls, spec: TaggerSpec, *, seed: int) -> SpanTagger:
        """Return the base model under a new head; raises SettingsError."""
        torch.manual_seed(seed)
        base = spec.base or str(embedded_encoder_folder())
        head = {
            "num_labels": len(spec.tags),
            "id2label": dict(enumerate(spec.tags)),
            "label2id": {tag: index for index, tag in enumerate(spec.tags)},
        }
        made = under_new_head(AutoModelForTokenClassification, base, head)
        return cls(made.model, made.tokenizer, spec)

    @classmethod
    def load(cls, folder: Path) -> SpanTagger:
        """Read what `save` wrote; raises InvalidRequest."""

        def read_spec(ours: Mapping[str, Any]) -> TaggerSpec:
            return TaggerSpec(tuple(ours["span_labels"]), str(folder), ours["max_tokens"])

        read, spec = read_ours(AutoModelForTokenClassification, folder, read_spec, what="tagger")
        return cls(read.model, read.tokenizer, spec)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tokens, list[Words]]:
        """Return the texts' tokens and words."""
        pad = self.tokenizer.pad_token_id or 0
        if not texts:
            return Tokens([], None, pad), []
        most = self.spec.max_tokens * _CHARS_PER_TOKEN
        encoded = self.tokenizer(
            [text[:most] for text in texts],
            truncation=True,
            max_length=self.spec.max_tokens,
            return_offsets_mapping=True,
        )
        words = [
            _words(encoded.word_ids(row), encoded["offset_mapping"][row])
            for row in range(len(texts))
        ]
        return Tokens(encoded["input_ids"], encoded.get("token_type_ids"), pad), words

    def read(
        self,
        tokens: Tokens,
        words: Sequence[Words],
        *,
        between: Callable[[], None] = lambda: None,
    ) -> list[NDArray[np.float64]]:
        """Return the tags' probabilities of each text's words, shapes (words, tags)."""
        out: list[NDArray[np.float64]] = [np.zeros((0, len(self.spec.tags)))] * len(tokens)
        self.model.eval()
        for rows in reading_batches(tokens.lengths):
            between()
            with torch.inference_mode(), self.autocast():
                logits = self.model(**tokens.collate(rows, self.device)).logits
            answers = logits.double().softmax(dim=-1).cpu().numpy()
            for line, row in enumerate(rows):
                out[row] = answers[line, words[row].positions]
        return out

    def predict(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """Return each text's spans with their probabilities, in order."""
        tokens, words = self.tokenize(texts)
        found = self.read(tokens, words)
        return [self.decode(*pair) for pair in zip(words, found, strict=True)]

    def decode(self, words: Words, probabilities: NDArray[np.float64]) -> tuple[Span, ...]:
        """Read spans off the words' likeliest tags.

        An I that continues nothing of its label opens a span. A span's probability is the mean,
        over its words, of what its label's two tags have together.
        """
        spans: list[Span] = []
        open_label, first = 0, 0
        tags = probabilities.argmax(axis=1) if len(probabilities) else np.zeros(0, dtype=int)
        for place in range(len(tags) + 1):
            tag = int(tags[place]) if place < len(tags) else 0
            label = (tag + 1) // 2
            if open_label and (label != open_label or tag % 2 == 1):
                spans.append(self._span(words, probabilities, (first, place), open_label))
                open_label = 0
            if label and not open_label:
                open_label, first = label, place
        return tuple(spans)

    def _span(
        self,
        words: Words,
        probabilities: NDArray[np.float64],
        places: tuple[int, int],
        label: int,
    ) -> Span:
        rows = slice(*places)
        mass = probabilities[rows, 2 * label - 1 : 2 * label + 1].sum(axis=1)
        start, end = words.extents[places[0], 0], words.extents[places[1] - 1, 1]
        return Span(int(start), int(end), self.spec.labels[label - 1], float(mass.mean()))

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write model, tokenizer and card; a folder that is there is replaced as a whole."""
        ours = {"span_labels": list(self.spec.labels), "max_tokens": self.spec.max_tokens}
        made = Pretrained(self.model, self.tokenizer)
        made.write(folder, ours, card=card, task="token-classification")


def tag_words(words: Words, spans: Sequence[Span], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the tag index of each word: a span's first word is B, its others I, the rest O.

    A word belongs to the first span that shares a character with it; spans of unknown labels are
    passed over.
    """
    tags = np.zeros(len(words.extents), dtype=np.int64)
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        if span.label not in labels:
            continue
        inside = (words.extents[:, 0] < span.end) & (words.extents[:, 1] > span.start)
        places = np.flatnonzero(inside & (tags == 0))
        begin = 2 * labels.index(span.label) + 1
        tags[places] = begin + 1
        tags[places[:1]] = begin
    return tags


def _words(word_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> Words:
    positions: list[int] = []
    extents: list[list[int]] = []
    last: int | None = None
    for place, (word, (start, end)) in enumerate(zip(word_ids, offsets, strict=True)):
        if word is None:
            last = None
        elif word == last:
            extents[-1][1] = end
        else:
            positions.append(place)
            extents.append([start, end])
            last = word
    return Words(
        np.array(positions, dtype=np.int64), np.array(extents, dtype=np.int64).reshape(-1, 2)
    )
