"""Questions: what a label config asks, of which texts, with which labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, StrEnum, auto

MIN_LABELS = 2
"""Labels under which no annotator can be told from a constant."""


class Trait(Flag):
    """What an answer to a question holds, and what sets its kind apart from others."""

    EXCLUSIVE = auto()
    MULTILABEL = auto()
    SPANS = auto()
    FREE_TEXT = auto()
    ORDINAL = auto()
    NUMERIC = auto()
    COMPARES_TEXTS = auto()
    DATED = auto()
    FROM_TASK = auto()
    SEVERAL = auto()
    RANKED = auto()
    PER_REGION = auto()
    LINKS = auto()


class QuestionKind(StrEnum):
    """The kinds of questions, each with its properties; no other module decides by a kind's name.

    A new kind is one line here, and one of the control tags in `labelstudio.label_config` asks it.
    A member is its stored value, the prefix of its prompt versions, and its traits.
    """

    SINGLE_CHOICE = "single_choice", "choice", Trait.EXCLUSIVE
    MULTIPLE_CHOICE = "multiple_choice", "yes-no", Trait.MULTILABEL
    RATING = "rating", "rating", Trait.EXCLUSIVE | Trait.ORDINAL
    NUMBER = "number", "number", Trait.EXCLUSIVE | Trait.ORDINAL | Trait.NUMERIC
    PAIRWISE = "pairwise", "pairwise", Trait.EXCLUSIVE | Trait.COMPARES_TEXTS
    SPANS = "spans", "spans", Trait.SPANS
    FREE_TEXT = "free_text", "text", Trait.FREE_TEXT
    DATE_TIME = "date_time", "date", Trait.FREE_TEXT | Trait.DATED
    TASK_CHOICE = "task_choice", "option", Trait.FREE_TEXT | Trait.FROM_TASK
    TASK_CHOICES = "task_choices", "options", Trait.FREE_TEXT | Trait.FROM_TASK | Trait.SEVERAL
    RANKING = "ranking", "ranking", Trait.FREE_TEXT | Trait.FROM_TASK | Trait.RANKED
    REGION = "region", "region", Trait.FREE_TEXT | Trait.PER_REGION
    RELATION = "relation", "relation", Trait.FREE_TEXT | Trait.LINKS

    prompt_prefix: str
    is_exclusive: bool  # exactly one label is right: a posterior over the labels sums to 1
    is_multilabel: bool  # each label holds or not by itself: one probability per label
    has_posterior: bool  # whole texts carry the labels, so that annotators give probabilities
    has_spans: bool  # pieces of a text carry the labels
    is_free_text: bool  # the answer is a text of its own
    can_be_empty: bool  # "there is none" is an answer
    is_ordinal: bool  # the labels run from low to high
    is_numeric: bool  # an answer is a number
    compares_texts: bool  # an answer is about all texts of the question alike
    is_dated: bool  # an answer is a date, a time or both
    is_from_task: bool  # each task brings its own labels
    takes_several: bool  # of the labels that a task brings any number may hold
    is_ranked: bool  # an answer puts all that the task brings in order
    is_per_region: bool  # asked about each span of another question, or each turn of a dialogue
    links_regions: bool  # an answer connects spans of another question

    def __new__(
        cls, value: str, prompt_prefix: str = "", traits: Trait = Trait.EXCLUSIVE
    ) -> QuestionKind:
        """Make a member that is found by its value alone."""
        kind = str.__new__(cls, value)
        kind._value_, kind.prompt_prefix = value, prompt_prefix
        kind.is_exclusive = Trait.EXCLUSIVE in traits
        kind.is_multilabel = Trait.MULTILABEL in traits
        kind.has_posterior = kind.is_exclusive or kind.is_multilabel
        kind.has_spans = Trait.SPANS in traits
        kind.is_free_text = Trait.FREE_TEXT in traits
        kind.can_be_empty = kind.is_multilabel or kind.has_spans
        kind.is_ordinal = Trait.ORDINAL in traits
        kind.is_numeric = Trait.NUMERIC in traits
        kind.compares_texts = Trait.COMPARES_TEXTS in traits
        kind.is_dated = Trait.DATED in traits
        kind.is_from_task = Trait.FROM_TASK in traits
        kind.takes_several = Trait.SEVERAL in traits
        kind.is_ranked = Trait.RANKED in traits
        kind.is_per_region = Trait.PER_REGION in traits
        kind.links_regions = Trait.LINKS in traits
        return kind


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
    TABLE = "table"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class TextField:
    """Where a text comes from: the object tag's name and the key in a task's data.

    `turn_keys` are a dialogue's keys of the speaker and of the turn's text. `template` is the
    text with `$field`s in it, where it is not one field alone. `has_messages`: the turns are
    regions of their own, told by their roles.
    """

    name: str
    key: str
    is_url: bool = False
    format: TextFormat = TextFormat.PLAIN
    turn_keys: tuple[str, str] = ("author", "text")
    template: str = ""
    has_messages: bool = False


@dataclass(frozen=True, slots=True)
class Condition:
    """When a question is shown: an answer to another question holds one of these labels.

    Args:
        question: "": whichever choice.
        values: stored values or shown names; none: any answer.
        is_selected: False turns it round: the question is shown without such an answer.
    """

    question: str = ""
    values: tuple[str, ...] = ()
    is_selected: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about an example; one per control tag that this backend can label.

    `fields` are the texts to read, the one that the answer is attached to first. `labels` is the
    label space, in the config's order: every posterior follows it. A rating's labels are its
    possible values from low to high; free text, and a number with too many possible values, have
    none. `bounds` are a number's least and greatest value, infinite where there is none, and `step`
    is the distance of possible values. `tag` is the control tag; only `labelstudio.label_config`
    looks at it.

    Args:
        headers: instructions that stand above this question alone.
        conditions: the question is asked where all of them hold.
        options: the labels as the config has them, with `$field`s, where each task brings its own.
        inner: what is asked about each region, or about each item of a ranking.
        region_of: the question whose spans are the regions; "": the turns of the first field.
        only: the labels of the regions, or the roles of the turns, that are asked about; none: all.
        date_format: how a date is stored, as `strftime` has it.
    """

    name: str
    fields: tuple[TextField, ...]
    kind: QuestionKind
    labels: tuple[LabelDefinition, ...] = ()
    bounds: tuple[float, float] | None = None
    step: float | None = None
    tag: str = ""
    headers: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    options: tuple[LabelDefinition, ...] = ()
    inner: Question | None = None
    region_of: str = ""
    only: tuple[str, ...] = ()
    date_format: str = ""

    @property
    def field(self) -> TextField:
        """Return the text that the answer is attached to."""
        return self.fields[0]

    @property
    def not_learned_because(self) -> str | None:
        """Return why rounds do not learn the question, None where they do."""
        if not self.labels or self.kind.is_free_text:
            return "answers are no labels: the LLM answers alone"
        if self.conditions:
            return "it is asked about a part of the tasks alone"
        if self.kind.has_posterior and len(self.labels) < MIN_LABELS:
            return "there is only one label, so that annotators cannot be compared"
        return None


@dataclass(frozen=True, slots=True)
class TaskSchema:
    """What a project asks, read from its label config alone.

    `headers` are the config's own instructions to annotators, for all questions; `unsupported`
    names the control tags that are left alone, each with the reason.
    """

    questions: tuple[Question, ...]
    headers: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()

    @property
    def learned(self) -> tuple[Question, ...]:
        """Return the questions that rounds learn, in the config's order."""
        return tuple(q for q in self.questions if q.not_learned_because is None)
