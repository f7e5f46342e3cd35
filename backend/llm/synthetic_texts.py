"""New texts to order: prompts in a project's style, and which answers are new whole texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from backend.domain.labels import Example
from backend.domain.ports import Completion, Decoding, LanguageModel
from backend.domain.questions import LabelDefinition, Question
from backend.llm.near_duplicates import shared_words
from backend.llm.prompts.text import one_line, slot_text, spoken_name

_N_STYLE_TEXTS = 4
_MAX_STYLE_CHARS = 400
_MAX_TOLD_CHARS = 500
_MIN_TOKENS, _MAX_TOKENS = 24, 160
_CHARS_PER_TOKEN = 3
_TEMPERATURE = 0.8
_MAX_ALIKE = 0.5
_MAX_COPIED = 0.6
_N_POOL_TEXTS_COMPARED = 5000

Written = tuple[LabelDefinition, dict[str, str]]


@dataclass(frozen=True, slots=True)
class WritingStyle:
    """What new texts are to be like: the question, what annotators are told, and real texts."""

    question: Question
    told: tuple[str, ...]
    examples: Sequence[Example]
    deadline_s: float | None = None


@dataclass(slots=True)
class TextWriter:
    """Prompts for new texts, and what has been written so far."""

    model: LanguageModel
    style: WritingStyle
    rng: np.random.Generator
    _styles: list[dict[str, str]] = field(init=False)
    _known: list[str] = field(init=False)

    def __post_init__(self) -> None:
        names = [text_field.name for text_field in self.style.question.fields]
        whole = [one for one in self.style.examples if all(one.texts.get(n) for n in names)]
        self._styles = [
            {name: slot_text(one.texts[name])[:_MAX_STYLE_CHARS] for name in names} for one in whole
        ]
        self._known = []

    @property
    def can_write(self) -> bool:
        """Whether there is a text to learn the style from."""
        return bool(self._styles)

    def write(self, labels: Sequence[LabelDefinition]) -> list[Written]:
        """Return the texts that were written, each with the label it was written for."""
        n_most = int(np.quantile([len(" ".join(one.values())) for one in self._styles], 0.9))
        decoding = Decoding(
            max_tokens=min(_MAX_TOKENS, max(_MIN_TOKENS, n_most // _CHARS_PER_TOKEN)),
            temperature=_TEMPERATURE,
            seed=int(self.rng.integers(2**31)),
            stop=("\n\n",) if len(self.style.question.fields) > 1 else ("\n",),
        )
        prompts = [self._prompt(label) for label in labels]
        completions = self.model.complete(prompts, decoding, deadline_s=self.style.deadline_s)
        read = [self._read(completion) for completion in completions]
        return [(label, texts) for label, texts in zip(labels, read, strict=True) if texts]

    def without_copies(self, written: Sequence[Written]) -> list[Written]:
        """Return the texts that neither an earlier one nor the pool has nearly so already."""
        lines = [" ".join(texts.values()) for _, texts in written]
        pool = [" ".join(style.values()) for style in self._styles[:_N_POOL_TEXTS_COMPARED]]
        alike_to_pool, part_of_pool = shared_words(lines, pool)
        is_copy = (alike_to_pool >= _MAX_ALIKE) | (part_of_pool >= _MAX_COPIED)
        to_known, _ = shared_words(lines, self._known)
        to_each_other, _ = shared_words(lines, lines)
        kept: list[int] = []
        for at in range(len(written)):
            is_known = bool((to_known[at] >= _MAX_ALIKE).any())
            is_twin = any(to_each_other[at, other] >= _MAX_ALIKE for other in kept)
            if not is_copy[at].any() and not is_known and not is_twin:
                kept.append(at)
        self._known += [lines[at] for at in kept]
        return [written[at] for at in kept]

    def _prompt(self, label: LabelDefinition) -> str:
        question = self.style.question
        drawn = self.rng.choice(
            len(self._styles), size=min(_N_STYLE_TEXTS, len(self._styles)), replace=False
        )
        opening = "".join(f"{line[:_MAX_TOLD_CHARS]}\n" for line in self.style.told)
        shown = "".join(f"{self._block(self._styles[at])}\n\n" for at in drawn)
        first, *_ = question.fields
        meaning = f" ({one_line(label.hint)})" if label.hint else ""
        asked = f"{spoken_name(question.name)}: {one_line(label.name)}{meaning}"
        return f'{opening}\n{shown}{asked}\n{spoken_name(first.name)}: "'

    def _block(self, texts: Mapping[str, str]) -> str:
        return "\n".join(f'{spoken_name(name)}: "{text}"' for name, text in texts.items())

    def _read(self, completion: Completion) -> dict[str, str] | None:
        """Return the texts of a completion; None unless each of them is whole."""
        if completion.failure is not None or completion.finish_reason == "length":
            return None
        names = [text_field.name for text_field in self.style.question.fields]
        rest, texts = completion.text, {}
        for at, name in enumerate(names):
            if at:
                opened = re.match(rf'\s*{re.escape(spoken_name(name))}: "', rest)
                if opened is None:
                    return None
                rest = rest[opened.end() :]
            text, _, rest = rest.partition('"')
            texts[name] = slot_text(text)
        return texts if all(re.search(r"\w", text) for text in texts.values()) else None
