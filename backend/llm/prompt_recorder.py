"""Write prompts without sending them, with a task's texts masked where nobody asked for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from backend.domain.labels import Demonstration, Example, PromptContext
from backend.domain.ports import Completion, Decoding, LanguageModel, LanguageModelInfo, Prompt
from backend.domain.questions import LabelDefinition

_NOT_SENT = "the prompt was written to be shown, and not sent"
FindAnswers = Callable[[Sequence[Prompt], Decoding], Sequence[Completion | None]]


@dataclass
class PromptRecorder:
    """The `LanguageModel` port that notes prompts, and answers with what was answered before.

    Args:
        model: tells what its server offers, and how texts are tokenized.
        known: returns the stored answer to each prompt, None where there is none.
    """

    model: LanguageModel
    known: FindAnswers
    prompts: list[Prompt] = field(default_factory=list)

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the model offers."""
        return self.model.describe(deadline_s=deadline_s)

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`."""
        return self.model.tokenize(text, deadline_s=deadline_s)

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens."""
        return self.model.truncate(text, n_tokens, deadline_s=deadline_s)

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Note the prompts; those without a stored answer fail."""
        self.prompts += prompts
        nothing = Completion(failure=_NOT_SENT)
        return [found or nothing for found in self.known(prompts, decoding)]


def mask_example(example: Example) -> Example:
    """Return an example with a letter x for each character but blanks, in texts and options."""
    options = {
        name: tuple(
            LabelDefinition(f"{mask(label.value)} {at}", f"{mask(label.name)} {at}")
            for at, label in enumerate(labels, start=1)
        )
        for name, labels in example.options.items()
    }
    texts = {name: mask(text) for name, text in example.texts.items()}
    return replace(example, texts=texts, options=options)


def mask_demonstrations(context: PromptContext) -> PromptContext:
    """Return a prompt context whose demonstrations have masked texts: these are other tasks'."""
    masked: Mapping[str, tuple[Demonstration, ...]] = {
        name: tuple(
            replace(one, texts={key: mask(text) for key, text in one.texts.items()}) for one in all_
        )
        for name, all_ in context.demonstrations.items()
    }
    return replace(context, demonstrations=masked)


def mask(text: str) -> str:
    """Return a text of the same length and line breaks that tells nothing else."""
    return re.sub(r"\S", "x", text)
