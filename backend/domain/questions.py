"""Questions: what a label config asks, of which texts, with which labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class AnswerShape(StrEnum):
    """How many labels an answer holds: exactly one, any set, labelled spans, or written text."""

    LABEL = "label"
    LABEL_SET = "label_set"
    SPANS = "spans"
    TEXT = "text"


class QuestionKind(StrEnum):
    """The kinds of questions; everything that the code decides by kind is a property of it.

    `shape` is what an answer holds; `prompt_prefix` begins the prompt version of stored labels;
    `tag` is the control tag (lower case) that writes results where a question names none.
    `is_ordinal`: labels run from low to high. `is_numeric`: an answer is a number.
    `compares_texts`: the answer is about all texts of the question alike.
    """

    SINGLE_CHOICE = "single_choice", AnswerShape.LABEL, "choice", "choices"
    MULTIPLE_CHOICE = "multiple_choice", AnswerShape.LABEL_SET, "yes-no", "choices"
    RATING = "rating", AnswerShape.LABEL, "rating", "rating", {"is_ordinal": True}
    NUMBER = (
        "number",
        AnswerShape.LABEL,
        "number",
        "number",
        {"is_ordinal": True, "is_numeric": True},
    )
    PAIRWISE = "pairwise", AnswerShape.LABEL, "pairwise", "pairwise", {"compares_texts": True}
    SPANS = "spans", AnswerShape.SPANS, "spans", "labels"
    FREE_TEXT = "free_text", AnswerShape.TEXT, "text", "textarea"

    shape: AnswerShape
    prompt_prefix: str
    tag: str
    is_ordinal: bool
    is_numeric: bool
    compares_texts: bool

    def __new__(
        cls,
        value: str,
        shape: AnswerShape = AnswerShape.LABEL,
        prompt_prefix: str = "",
        tag: str = "",
        traits: Mapping[str, bool] = MappingProxyType({}),
    ) -> QuestionKind:
        """Make a member that is found by its value alone."""
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.shape, kind.prompt_prefix, kind.tag = shape, prompt_prefix, tag
        kind.is_ordinal = traits.get("is_ordinal", False)
        kind.is_numeric = traits.get("is_numeric", False)
        kind.compares_texts = traits.get("compares_texts", False)
        return kind

    @property
    def is_exclusive(self) -> bool:
        """Whether exactly one label is right, so that a posterior over the labels sums to 1."""
        return self.shape is AnswerShape.LABEL

    @property
    def is_multilabel(self) -> bool:
        """Whether each label holds or not by itself: one probability per label."""
        return self.shape is AnswerShape.LABEL_SET

    @property
    def has_posterior(self) -> bool:
        """Whether whole texts carry the labels, so that annotators give probabilities of them."""
        return self.is_exclusive or self.is_multilabel

    @property
    def has_spans(self) -> bool:
        """Whether pieces of a text carry the labels."""
        return self.shape is AnswerShape.SPANS

    @property
    def is_free_text(self) -> bool:
        """Whether the answer is written out in words."""
        return self.shape is AnswerShape.TEXT

    @property
    def can_be_empty(self) -> bool:
        """Whether "there is none" is an answer."""
        return self.is_multilabel or self.has_spans


@dataclass(frozen=True, slots=True)
class LabelDefinition:
    """One class: what is stored, what a reader sees, and what it means.

    A leaf of a tree (nested choices, a taxonomy) also has its `path`, from the root to itself.
    """

    value: str
    name: str
    hint: str | None = None
    path: tuple[str, ...] = ()


class TextFormat(StrEnum):
    """How an object tag shows its text."""

    PLAIN = "plain"
    HTML = "html"
    DIALOGUE = "dialogue"


@dataclass(frozen=True, slots=True)
class TextField:
    """Where a text comes from: the object tag's name and the key in a task's data.

    `turn_keys` are a dialogue's: who speaks, and what is said.
    """

    name: str
    key: str
    is_url: bool = False
    format: TextFormat = TextFormat.PLAIN
    turn_keys: tuple[str, str] = ("author", "text")


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about an example; one per control tag that this backend can label.

    `fields` are the texts to read, the one that the answer is attached to first. `labels` is the
    label space, in the config's order: every posterior follows it. A rating's labels are its
    possible values from low to high; free text, and a number with too many possible values, have
    none. `bounds` are a number's least and greatest value, infinite where there is none, and `step`
    is the distance of possible values. `tag` is the control tag; only `labelstudio.label_config`
    looks at it.
    """

    name: str
    fields: tuple[TextField, ...]
    kind: QuestionKind
    labels: tuple[LabelDefinition, ...] = ()
    bounds: tuple[float, float] | None = None
    step: float | None = None
    tag: str = ""

    @property
    def field(self) -> TextField:
        """Return the text that the answer is attached to."""
        return self.fields[0]


@dataclass(frozen=True, slots=True)
class TaskSchema:
    """What a project asks, read from its label config alone.

    `headers` are the config's own instructions to annotators; `unsupported` names the control
    tags that are left alone.
    """

    questions: tuple[Question, ...]
    headers: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
