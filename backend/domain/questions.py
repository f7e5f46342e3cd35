"""Questions: what a label config asks, of which texts, with which labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, StrEnum, auto


class AnswerShape(StrEnum):
    """What an answer holds: exactly one label, any set of labels, labeled spans, or a text."""

    LABEL = "label"
    LABEL_SET = "label_set"
    SPANS = "spans"
    TEXT = "text"


class Trait(Flag):
    """What sets a kind apart from others of its shape."""

    NONE = 0
    ORDINAL = auto()  # labels run from low to high
    NUMERIC = auto()  # an answer is a number
    COMPARES_TEXTS = auto()  # an answer is about all texts of the question alike


class QuestionKind(StrEnum):
    """The kinds of questions, each with its properties; no other module decides by a kind's name.

    A new kind is one line here, and one of the control tags in `labelstudio.label_config` asks it.
    A member is its stored value, the answer's shape, the prefix of its prompt versions, and traits.
    """

    SINGLE_CHOICE = "single_choice", AnswerShape.LABEL, "choice"
    MULTIPLE_CHOICE = "multiple_choice", AnswerShape.LABEL_SET, "yes-no"
    RATING = "rating", AnswerShape.LABEL, "rating", Trait.ORDINAL
    NUMBER = "number", AnswerShape.LABEL, "number", Trait.ORDINAL | Trait.NUMERIC
    PAIRWISE = "pairwise", AnswerShape.LABEL, "pairwise", Trait.COMPARES_TEXTS
    SPANS = "spans", AnswerShape.SPANS, "spans"
    FREE_TEXT = "free_text", AnswerShape.TEXT, "text"

    shape: AnswerShape
    prompt_prefix: str
    traits: Trait

    def __new__(
        cls,
        value: str,
        shape: AnswerShape = AnswerShape.LABEL,
        prompt_prefix: str = "",
        traits: Trait = Trait.NONE,
    ) -> QuestionKind:
        """Make a member that is found by its value alone."""
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.shape, kind.prompt_prefix, kind.traits = shape, prompt_prefix, traits
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
        """Whether the answer is a text of its own."""
        return self.shape is AnswerShape.TEXT

    @property
    def can_be_empty(self) -> bool:
        """Whether "there is none" is an answer."""
        return self.is_multilabel or self.has_spans

    @property
    def is_ordinal(self) -> bool:
        """Whether the labels run from low to high."""
        return Trait.ORDINAL in self.traits

    @property
    def is_numeric(self) -> bool:
        """Whether an answer is a number."""
        return Trait.NUMERIC in self.traits

    @property
    def compares_texts(self) -> bool:
        """Whether an answer is about all texts of the question alike."""
        return Trait.COMPARES_TEXTS in self.traits


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

    `turn_keys` are a dialogue's keys of the speaker and of the turn's text.
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
