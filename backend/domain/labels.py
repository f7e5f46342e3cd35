"""Examples, the labels that annotators and people give them, and in-context demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from backend.domain.questions import LabelDefinition, Question

Region = dict[str, Any]
"""One element of a Label Studio result list; only `labelstudio.label_config` looks inside."""


MIN_HUMAN_LABELS = 20
"""Human labels under which nothing is decided by them."""


N_NEXT_ANSWERS = 50
"""Answers of which an ordering tells what they are expected to correct."""
MIN_HOLDOUT_ANSWERS = 40
"""Answers in the random holdout from which an accuracy says something: to about 10 points."""


class AnnotatorKind(StrEnum):
    """Kinds of annotators; stored with every weak label."""

    LLM = "llm"
    LLM_DEMONSTRATIONS = "llm_demonstrations"
    SIMILARITY = "similarity"
    STUDENT = "student"
    AGGREGATED = "aggregated"

    @property
    def is_from_round(self) -> bool:
        """Whether a round made the labels, so that the next round replaces them."""
        return self in (AnnotatorKind.LLM_DEMONSTRATIONS, AnnotatorKind.STUDENT)

    @property
    def is_llm(self) -> bool:
        """Whether these are the LLM's first answers."""
        return self is AnnotatorKind.LLM


class AbstentionReason(StrEnum):
    """Why an annotator gave no label. The second group may go away by itself."""

    NO_TEXT = "no_text"
    REMOTE_TEXT = "remote_text"
    UNSUITABLE = "unsuitable"
    REJECTED = "rejected"
    NOT_SAMPLED = "not_sampled"
    NOT_SHOWN = "not_shown"

    UNREADABLE = "unreadable"
    UNREACHABLE = "unreachable"

    @property
    def is_transient(self) -> bool:
        """Whether the same text may get a label later, with nothing changed by the user."""
        return self in (AbstentionReason.UNREADABLE, AbstentionReason.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Abstention:
    """No label, and why; `detail` is for people and holds no task text."""

    reason: AbstentionReason
    detail: str = ""


_BLANK = Abstention(AbstentionReason.NO_TEXT, "the text is blank")


@dataclass(frozen=True, slots=True)
class Example:
    """A task as an annotator reads it: its texts by field name.

    A field without a usable text is absent from `texts` and explained in `missing`; `truncated`
    names the fields whose texts were cut. `options` holds the labels that the task brings, by
    question.
    """

    id: int
    texts: Mapping[str, str]
    missing: Mapping[str, Abstention] = field(default_factory=dict)
    truncated: frozenset[str] = frozenset()
    options: Mapping[str, tuple[LabelDefinition, ...]] = field(default_factory=dict)

    def truncate(self, max_chars: int) -> Example:
        """Return the example with each text cut to its first characters."""
        cut = frozenset(name for name, text in self.texts.items() if len(text) > max_chars)
        if not cut:
            return self
        texts = {name: text[:max_chars] for name, text in self.texts.items()}
        return replace(self, texts=texts, truncated=cut)

    def text_of(self, question: Question) -> str:
        """Return what a question is about, a line per field; "" where it cannot be asked."""
        if self.why_not_asked(question):
            return ""
        texts = [self.texts.get(field.name, "").strip() for field in question.fields]
        return "\n".join(text for text in texts if text)

    def why_not_asked(self, question: Question) -> Abstention | None:
        """Return why a question cannot be asked about the example; None where it can.

        The text that the answer is attached to is needed, and so are both sides of a comparison.
        Any other may be blank, but neither lost on its way nor something else than a text.
        """
        for position, text_field in enumerate(question.fields):
            if self.texts.get(text_field.name, "").strip():
                continue
            is_needed = position == 0 or question.kind.compares_texts
            why = self.missing.get(text_field.name, _BLANK)
            if is_needed or why.reason is not AbstentionReason.NO_TEXT:
                return why
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled piece of a text: characters `start` to `end` (exclusive) of a field's text.

    `label` is a label's value; `probability` is that this very span carries this label.
    """

    start: int
    end: int
    label: str
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person answered to one question, in the words of its label space.

    `labels` holds label values: one for an exclusive question, any number for multiple choice.
    No spans and no labels is an answer too: "there is none".
    """

    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An in-context example: texts by field name with the answer to one question.

    `example_id` is the task it was taken from, None for a generated one.
    """

    texts: Mapping[str, str]
    answer: Answer
    source: Literal["human", "generated", "weak"]
    example_id: int | None = None


@dataclass(frozen=True, slots=True)
class PromptContext:
    """How a project's questions are put to the LLM, beyond what its label config says.

    `templates` names the selected prompt template of each question; `demonstrations` are shown in
    all prompts of a question, but for a text's own; `shots` holds, by question and then by example
    id, the in-context examples of a single prompt in their order, in place of those.
    """

    templates: Mapping[str, str] = field(default_factory=dict)
    demonstrations: Mapping[str, tuple[Demonstration, ...]] = field(default_factory=dict)
    shots: Mapping[str, Mapping[int, tuple[Demonstration, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeakLabel:
    """An annotator's answer to one question about one example, or an abstention.

    Exactly one of these is given: `probabilities` (K,) in the order of the question's labels
    (summing to 1 for an exclusive question, one probability each for multiple choice); `spans`,
    empty for "there is none"; `text` for free text and wide numbers; `abstention`.

    `confidence`: probability that `spans` or `text` are right as a whole. `label_mass`: share of
    the model's probability on the label space; under 0.01 the prompt does not make it answer.
    `injection_flag`: which part of the text looks like an order to the model.

    An aggregated label has the calibrated posterior of each annotator in `annotator_posteriors`,
    and in `source` what it comes from: "human", "agreement", "combination" or an annotator's name.
    """

    example_id: int
    question: str
    annotator: str
    prompt_version: str = ""
    probabilities: tuple[float, ...] = ()
    spans: tuple[Span, ...] | None = None
    text: str | None = None
    abstention: Abstention | None = None
    confidence: float | None = None
    label_mass: float | None = None
    annotator_posteriors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    injection_flag: str | None = None
    is_truncated: bool = False
    n_tokens_in: int = 0
    n_tokens_out: int = 0
    annotator_kind: AnnotatorKind = AnnotatorKind.LLM
    source: str = ""

    def __post_init__(self) -> None:
        given = (
            bool(self.probabilities),
            self.spans is not None,
            self.text is not None,
            self.abstention is not None,
        )
        if sum(given) != 1:
            raise ValueError("a weak label has probabilities, spans, a text or an abstention")


@dataclass(frozen=True, slots=True)
class LabelOrigin:
    """Which annotator labels on a question are from, and the prompt that asked for them."""

    question: str
    annotator: str
    annotator_kind: AnnotatorKind
    prompt_version: str

    @classmethod
    def of(cls, label: WeakLabel) -> LabelOrigin:
        """Return where a weak label is from."""
        kind = label.annotator_kind
        return cls(label.question, label.annotator, kind, label.prompt_version)


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """One annotation by a person. `result` is kept as Label Studio gave it.

    `is_copied`: it was made in bulk from predictions and nobody has touched it since, so it says
    what a model thinks and nothing about what a person does.
    """

    annotation_id: int
    task_id: int
    annotator_id: int | None
    result: tuple[Region, ...]
    was_cancelled: bool
    is_ground_truth: bool
    updated_at: datetime
    is_copied: bool = False


def region_values(result: Sequence[Region]) -> list[tuple[Any, Any]]:
    """Return what a prediction or an annotation says, without its scores and ids."""
    return [(region.get("from_name"), region.get("value")) for region in result]
