"""Questions: what a label config asks, of which texts, with which labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class QuestionKind(StrEnum):
    """What a question accepts as its answer."""

    SINGLE_CHOICE = "single_choice"
    MULTIPLE_CHOICE = "multiple_choice"
    RATING = "rating"
    NUMBER = "number"
    PAIRWISE = "pairwise"
    SPANS = "spans"
    FREE_TEXT = "free_text"

    @property
    def is_exclusive(self) -> bool:
        """Whether exactly one label is right, so that a posterior over the labels sums to 1."""
        return self in _EXCLUSIVE

    @property
    def is_ordinal(self) -> bool:
        """Whether the labels have an order, from low to high."""
        return self in (QuestionKind.RATING, QuestionKind.NUMBER)


_EXCLUSIVE = frozenset(
    {
        QuestionKind.SINGLE_CHOICE,
        QuestionKind.RATING,
        QuestionKind.NUMBER,
        QuestionKind.PAIRWISE,
    }
)


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
