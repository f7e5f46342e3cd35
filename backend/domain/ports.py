"""What the use cases need from the outside. Each port has an adapter and a fake in the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from backend.domain.chunks import Chunk, ChunkKind
from backend.domain.labels import Answer, Example, PromptContext, Region, WeakLabel
from backend.domain.projects import (
    AcceptedLabel,
    Prediction,
    ProjectId,
    ProjectInfo,
    Tab,
    Task,
)
from backend.domain.questions import Question, TaskSchema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LanguageModelInfo:
    """What an LLM server offers. Measured by a request each, never assumed.

    `n_context_tokens`: for a prompt and its answer; a guess unless `tells_context`.

    `reads_token_ids`: log-probabilities of named tokens can be asked for (a vLLM extension);
    `n_top_logprobs`: how many of the likeliest tokens it reports otherwise, 0 for none;
    `names_token_ids`: these are the tokens of `tokenize`, else they come by their text.
    `constrains_choices` and `constrains_json`: an answer can be held to a list of choices, or to
    a JSON schema. `has_plain` and `has_chat`: prompts can be completed as they stand, or put into
    the model's chat template. `thinks`: it thinks before it answers, and cannot be kept from it.
    """

    name: str
    n_context_tokens: int
    reads_token_ids: bool
    n_top_logprobs: int
    constrains_choices: bool = False
    constrains_json: bool = False
    has_plain: bool = True
    has_chat: bool = False
    names_token_ids: bool = True
    thinks: bool = False
    tells_context: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """A chat prompt: the system's text, then turns of user and assistant, the user's last.

    Args:
        system: "" for no system turn.
        turns: odd in number: user, assistant, user, ....
    """

    system: str
    turns: tuple[str, ...]

    def __str__(self) -> str:
        """Return all of its texts, one below the other."""
        return "\n\n".join(text for text in (self.system, *self.turns) if text)


Prompt = str | Conversation
"""A text to complete as it stands, or a conversation for the model's chat template."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a completion is made.

    `token_ids` asks for the log-probabilities of exactly these tokens at the first position,
    under the whole vocabulary; `n_logprobs` asks for that many of the likeliest tokens there, and
    for the answer's mean log-probability. `model` names the model whose tokens they are, so that
    no other answers. "": whichever is served.

    `choices` or `json_schema` (JSON text) hold the answer to
    one of the choices or to the schema where the server can do so (`LanguageModelInfo` says): what
    comes back is to be checked all the same. `stop` ends the answer before any of these texts.
    Under a temperature above 0 the same `seed` gives the same answer on many servers, not on vLLM;
    everywhere it tells one drawn answer from another in the cache.
    """

    max_tokens: int = 1
    temperature: float = 0.0
    token_ids: tuple[int, ...] = ()
    model: str = ""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str | None = None
    choices: tuple[str, ...] = ()
    n_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one prompt, or why there is none.

    `logprobs` maps token ids to natural-log probabilities at the first position, `text_logprobs`
    texts of tokens where the server names them so; tokens that it did not report are absent.
    `mean_logprob` is the mean over the answer's own tokens, if asked for. `finish_reason` is the
    server's: "length" means that the answer was cut; ours is "thinking": it was cut before it
    began, in the model's thoughts. `failure`
    says, without the prompt, why there is no answer; `was_refused` tells that the server refused
    this prompt, so that a retry gives the same. `is_from_cache`: nothing was paid for it.
    `cache_key` names the stored answer, so that one that cannot be read can be dropped.
    """

    text: str = ""
    logprobs: Mapping[int, float] | None = None
    text_logprobs: Mapping[str, float] | None = None
    mean_logprob: float | None = None
    finish_reason: str | None = None
    is_from_cache: bool = False
    failure: str | None = None
    was_refused: bool = False
    n_tokens_in: int = 0
    n_tokens_out: int = 0
    cache_key: bytes | None = None


class LanguageModel(Protocol):
    """An LLM behind a completions API.

    Every method raises LanguageModelUnavailable when the server does not answer, within
    `deadline_s` if one is given, and LanguageModelRejected when it refuses what every prompt
    needs: the key, the model's name, a route.
    """

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        """Return what the server offers; measured at the first call and remembered."""
        ...

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        """Return the token ids of `text`, without special tokens added.

        Where the server has no tokenizer only their number means something, and is an estimate.
        """
        ...

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        """Return the longest prefix of `text` that has at most `n_tokens` tokens."""
        ...

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        """Complete each prompt; same length and order as `prompts`, which are all of one type.

        A server with the chat route alone gets a text as the only message of a user.
        One bad prompt fails alone. Prompts that have no answer by the deadline come back as
        failures. An error is raised only when, before that, the server failed all of them.
        """
        ...


class Annotator(Protocol):
    """Whatever gives weak labels."""

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Answer every question about every example, example by example in the given order.

        The answer has `len(examples) * len(schema.questions)` elements. Raises
        LanguageModelUnavailable when the model behind cannot be reached at all.
        """
        ...


class PoolAnnotator(Protocol):
    """An annotator that learns its scales from a project's own texts; needs no server."""

    @property
    def name(self) -> str:
        """Return the annotator's name in weak labels."""
        ...

    def can_answer(self, question: Question) -> bool:
        """Return whether the annotator can know anything about a question like this."""
        ...

    def learn(
        self, question: Question, examples: Sequence[Example], human: Mapping[int, int]
    ) -> dict[str, Any]:
        """Return what can be learned about a question, as JSON; `human`: class by example id."""
        ...

    def recall(self, learned: Mapping[str, Mapping[str, Any]]) -> Annotator:
        """Return the annotator as it answers with what was learned, by question."""
        ...


class Encoder(Protocol):
    """Turns texts into vectors whose cosine says how alike they are."""

    @property
    def name(self) -> str:
        """Return what names these vectors: they are cached under it."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, shape (n, d); an empty text has one too."""
        ...


class LabelingPlatform(Protocol):
    """Label Studio, as far as the use cases need it.

    Every method raises PlatformUnavailable, PlatformUnauthorized or PlatformRejected.
    """

    def project(self, platform_id: int) -> ProjectInfo:
        """Return the project's present description."""
        ...

    def backends(self, platform_id: int) -> list[str]:
        """Return the addresses of the ML backends that the project lists, the first one first."""
        ...

    def tasks(self, platform_id: int, *, updated_since: datetime | None = None) -> Iterator[Task]:
        """Yield every task, or those updated since, with annotations and ids of predictions."""
        ...

    def import_predictions(self, platform_id: int, predictions: Sequence[Prediction]) -> int:
        """Store predictions in bulk; return how many were stored, which can be fewer."""
        ...

    def predicted_task_ids(
        self, platform_id: int, task_ids: Sequence[int], model_version: str
    ) -> set[int]:
        """Return which of the tasks carry a prediction of this model version."""
        ...

    def accept_predictions(
        self, platform_id: int, labels: Sequence[AcceptedLabel]
    ) -> dict[int, int]:
        """Make predictions annotations that name them; return the annotations' ids by task.

        Left out is a task that is gone, that lacks the prediction, or that somebody has annotated
        or skipped. A label that was sent before is looked up, and made where it is not there.
        """
        ...

    def take_back(self, labels: Sequence[AcceptedLabel]) -> set[int]:
        """Delete annotations made of predictions; return the tasks whose one was edited and stays.

        Those already gone are passed over.
        """
        ...

    def delete_predictions(self, prediction_ids: Sequence[int]) -> None:
        """Delete single predictions; those already gone are passed over."""
        ...

    def delete_model_version(self, platform_id: int, model_version: str) -> None:
        """Delete every prediction of a model version."""
        ...

    def serve_model_version(self, platform_id: int, model_version: str) -> None:
        """Make Label Studio show this version's predictions and order its queue by their score."""
        ...

    def restore_queue(
        self, platform_id: int, *, model_version: str | None, sampling: str | None
    ) -> None:
        """Set what `serve_model_version` changes; a version that is not there becomes none."""
        ...


class ProjectTabs(Protocol):
    """A project's tabs in Label Studio's Data Manager, and its description.

    Every method raises PlatformUnavailable, PlatformUnauthorized or PlatformRejected.
    """

    def ids(self, platform_id: int) -> list[int]:
        """Return the ids of all tabs; none before somebody has opened the Data Manager."""
        ...

    def add(self, platform_id: int, tab: Tab) -> int:
        """Add a tab after the others; return its id."""
        ...

    def update(self, platform_id: int, tab_id: int, *, before: Tab, after: Tab) -> None:
        """Show other tasks in a tab, and keep what people have changed in it.

        A title other than `before`'s stays, and a tab with other filters stays as it is.
        """
        ...

    def delete(self, platform_id: int, tab_id: int, tab: Tab) -> None:
        """Delete a tab unless somebody has given it other filters, or deleted it."""
        ...

    def describe(self, platform_id: int, text: str, *, instead_of: str) -> bool:
        """Set the project's description if it is `instead_of` now; return whether it was."""
        ...


class ConfigReader(Protocol):
    """Between Label Studio's XML and JSON and this project's values."""

    def read_schema(self, label_config: str) -> TaskSchema:
        """Return what the config asks; raises UnsupportedLabelConfig."""
        ...

    def read_example(self, schema: TaskSchema, task: Task) -> Example:
        """Return the texts of a task; fields without a usable text are left out."""
        ...

    def write_prediction(
        self,
        schema: TaskSchema,
        weak_labels: Sequence[WeakLabel],
        model_version: str,
        task: Task | None = None,
    ) -> Prediction | None:
        """Turn one example's weak labels into a prediction; None when there is no answer in them.

        Spans need the task. Where a text is not plain, they raise InvalidRequest without it.
        """
        ...

    def read_answers(
        self, schema: TaskSchema, result: Sequence[Region], data: Mapping[str, Any]
    ) -> dict[str, Answer]:
        """Return what a person answered, by question; other tags' regions are left out."""
        ...

    def errors(self, label_config: str, prediction: Prediction) -> list[str]:
        """Return what is wrong with a prediction under this config; empty when it fits."""
        ...


class Step(Protocol):
    """One checkpointed piece of work; safe to repeat, and its counts are JSON."""

    def __call__(self, project_id: ProjectId) -> dict[str, int]:
        """Do the work for one project."""
        ...


class StepRunner(Protocol):
    """Runs the steps of a durable workflow: a finished step is never run again."""

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        """Run one step to its end, or return what it returned before a restart."""
        ...

    def start(
        self, kind: ChunkKind, project_id: ProjectId, chunk: Chunk
    ) -> Callable[[], dict[str, int]]:
        """Queue a chunk of work for any worker; return what waits for its counts.

        A chunk that failed has `is_stopped` among them.
        """
        ...


class ChunkWork(Protocol):
    """Does one chunk of a project's work, step by step, and returns its counts."""

    def __call__(self, project_id: ProjectId, chunk: Chunk, runner: StepRunner) -> dict[str, int]:
        """Do a chunk; `is_stopped` among the counts: further ones would fail too."""
        ...


class Jobs(Protocol):
    """Durable workflows in the background."""

    def submit(self, project_id: ProjectId, kind: str) -> bool:
        """Enqueue a job; False while any job of the project is queued or running."""
        ...
