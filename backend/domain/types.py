"""The domain's values. Read this first; every other module speaks in these words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, NewType

ProjectId = NewType("ProjectId", str)
"""A Label Studio project for good: "<id>.<unix creation time>", so that a reused id is another."""

UNCERTAINTY_SAMPLING = "Uncertainty sampling"
"""How Label Studio calls serving the tasks with the lowest prediction score first."""

Region = dict[str, Any]
"""One element of a Label Studio result list; only `adapters.label_config` looks inside."""


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
    is the distance of possible values. `tag` is the control tag; only `adapters.label_config`
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


class AbstentionReason(StrEnum):
    """Why an annotator gave no label. The second group may go away by itself."""

    NO_TEXT = "no_text"
    REMOTE_TEXT = "remote_text"
    REJECTED = "rejected"
    UNASKED = "unasked"

    UNREADABLE = "unreadable"
    UNREACHABLE = "unreachable"

    @property
    def is_passing(self) -> bool:
        """Whether the same text may get a label later, with nothing changed by the user."""
        return self in (AbstentionReason.UNREADABLE, AbstentionReason.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class Abstention:
    """No label, and why; `detail` is for people and holds no task text."""

    reason: AbstentionReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """A task as an annotator reads it: its texts by field name.

    A field without a usable text is absent from `texts` and explained in `missing`.
    """

    id: int
    texts: Mapping[str, str]
    missing: Mapping[str, Abstention] = field(default_factory=dict)

    def text_of(self, question: Question) -> str:
        """Return what a question is about as one text, a line per field; "" without the first."""
        texts = [self.texts.get(field.name, "").strip() for field in question.fields]
        return "\n".join(text for text in texts if text) if texts and texts[0] else ""


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
class Guide:
    """How a project's questions are put to the LLM, beyond what its label config says.

    `forms` names the measured prompt form of each question; `shots` holds, by question and then by
    example id, the in-context examples of a prompt in their order.
    """

    forms: Mapping[str, str] = field(default_factory=dict)
    shots: Mapping[str, Mapping[int, tuple[Demonstration, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeakLabel:
    """An annotator's answer to one question about one example, or an abstention.

    Exactly one of these is given: `probabilities` where the question has labels that whole texts
    carry, in their order (summing to 1 for an exclusive question, one probability each for multiple
    choice); `spans`, empty for "there is none"; `text` for free text and wide numbers;
    `abstention`. `confidence` is the probability that `spans` or `text` are right as a whole.
    `label_mass` is the share of the model's probability that fell on the label space at all: under
    0.01 the prompt does not make the model answer the question. `votes` says who else was heard: a
    posterior by annotator. `suspicion` names what in the text looks like an order to the model.
    """

    example_id: int
    question: str
    annotator: str
    prompt_version: str
    probabilities: tuple[float, ...] = ()
    spans: tuple[Span, ...] | None = None
    text: str | None = None
    abstention: Abstention | None = None
    confidence: float | None = None
    label_mass: float | None = None
    votes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    suspicion: str | None = None
    is_truncated: bool = False
    n_tokens_in: int = 0
    n_tokens_out: int = 0

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


@dataclass(frozen=True, slots=True)
class Task:
    """A Label Studio task with what is already on it, as a listing gives it.

    `prediction_ids` maps each model version to the ids of its prediction rows; None means that
    the source (a webhook) did not say.
    """

    id: int
    data: Mapping[str, Any]
    annotations: tuple[HumanLabel, ...] | None = None
    prediction_ids: Mapping[str, tuple[int, ...]] | None = None

    def digest(self) -> str:
        """Return a hash of the data, to see whether a task has changed."""
        text = json.dumps(self.data, sort_keys=True, ensure_ascii=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ProjectInfo:
    """A project as Label Studio describes it. None: the source did not say."""

    id: ProjectId
    label_config: str
    title: str = ""
    instruction: str = ""
    model_version: str | None = None
    sampling: str | None = None
    n_tasks: int | None = None
    n_annotations: int | None = None
    n_predictions: int | None = None

    @property
    def platform_id(self) -> int:
        """Return Label Studio's own number of the project."""
        return int(self.id.split(".", 1)[0])


@dataclass(frozen=True, slots=True)
class Event:
    """What Label Studio reported, with everything that it said about it."""

    action: str
    project: ProjectInfo | None = None
    tasks: tuple[Task, ...] = ()
    annotations: tuple[HumanLabel, ...] = ()
    deleted_annotation_ids: tuple[int, ...] = ()
    deleted_task_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A project as this backend keeps it: what it asks and which model version it serves.

    `question_version` changes with what is asked and names the weak labels that answer it.
    `model_version` is the release whose predictions Label Studio is to show: several releases can
    answer one question.
    """

    id: ProjectId
    label_config: str
    instruction: str
    title: str
    model_version: str
    question_version: str
    is_connected: bool

    @property
    def platform_id(self) -> int:
        """Return Label Studio's own number of the project."""
        return int(self.id.split(".", 1)[0])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is shown in Label Studio for one task under one model version.

    `score`, in [0, 1], is the place in the queue, 0 being first; until the queue has its order, the
    confidence of the least sure answer in `result`.
    """

    task_id: int
    model_version: str
    result: tuple[Region, ...]
    score: float


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a task stands in the annotators' queue of a release, from 0, and why.

    `is_audit`: it belongs to the uniformly random stream that estimates are made from.
    """

    task_id: int
    position: int
    reason: str
    is_audit: bool = False
