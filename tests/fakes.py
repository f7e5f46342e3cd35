"""Fakes of the ports: simple, in memory, and kept honest by the contract tests."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from backend.domain.labels import Abstention, AbstentionReason, HumanLabel, Region, Span
from backend.domain.ports import Completion, Decoding, LanguageModelInfo, Prompt
from backend.domain.projects import (
    AcceptedLabel,
    Prediction,
    ProjectId,
    ProjectInfo,
    Tab,
    Task,
)
from backend.domain.span_student import SpanOutput, SpanTrainingSet
from backend.domain.student import (
    PoolTexts,
    StudentOutput,
    StudentPrediction,
    TrainingHooks,
    TrainingReport,
    TrainingSet,
)
from backend.domain.student import (
    TrainingProgress as TrainingProgress,
)
from backend.errors import (
    LanguageModelError,
    LanguageModelUnavailable,
    PlatformError,
    PlatformNotFound,
    PlatformRejected,
)
from backend.labelstudio.label_config import LabelConfigReader

OWN_ADDRESS = "http://127.0.0.1:9090"
"""This backend's address in the settings' default, which new projects of the fake list."""


@dataclass
class _FakeProject:
    """What Label Studio keeps of a project."""

    info: ProjectInfo
    tasks: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    annotations: dict[int, HumanLabel] = field(default_factory=dict)
    predictions: dict[int, Prediction] = field(default_factory=dict)
    updated: dict[int, datetime] = field(default_factory=dict)
    backends: list[str] = field(default_factory=lambda: [OWN_ADDRESS])


class FakePlatform:
    """Label Studio in memory, as the `LabelingPlatform` port sees it.

    The first group of methods is what people do in Label Studio. `calls` records what was asked
    through the port; while `failure` is set, every call raises it.
    """

    def __init__(self) -> None:
        self.projects: dict[int, _FakeProject] = {}
        self.calls: list[str] = []
        self.failure: PlatformError | None = None
        self._last_id = 0
        self._reader = LabelConfigReader(
            lambda *_: Abstention(AbstentionReason.REMOTE_TEXT, "the fake fetches nothing")
        )

    def create_project(self, label_config: str, *, title: str = "", instruction: str = "") -> int:
        number = self._new_id()
        info = ProjectInfo(
            id=ProjectId(f"{number}.1795215594"),
            label_config=label_config,
            title=title,
            instruction=instruction,
            sampling="Sequential sampling",
        )
        self.projects[number] = _FakeProject(info)
        return number

    def change_project(self, number: int, **changes: Any) -> None:
        """Change what the project's settings say, such as `label_config`."""
        project = self.projects[number]
        project.info = replace(project.info, **changes)

    def delete_project(self, number: int) -> None:
        del self.projects[number]

    def import_tasks(self, number: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
        """Create one task per element; return their ids."""
        ids = [self._new_id() for _ in data]
        self.projects[number].tasks.update(zip(ids, data, strict=True))
        return ids

    def delete_task(self, task_id: int) -> None:
        for project in self.projects.values():
            project.tasks.pop(task_id, None)
            for rows in (project.annotations, project.predictions):
                gone = [key for key, row in rows.items() if row.task_id == task_id]
                for key in gone:
                    del rows[key]

    def annotate(
        self,
        task_id: int,
        result: Sequence[Region],
        *,
        was_cancelled: bool = False,
        is_copied: bool = False,
    ) -> int:
        """Submit an annotation, or skip the task; return the annotation's number."""
        project = next(p for p in self.projects.values() if task_id in p.tasks)
        annotation_id = self._new_id()
        project.annotations[annotation_id] = HumanLabel(
            annotation_id=annotation_id,
            task_id=task_id,
            annotator_id=1,
            result=tuple(copy.deepcopy(list(result))),
            was_cancelled=was_cancelled,
            is_ground_truth=False,
            updated_at=datetime.now(UTC),
            is_copied=is_copied,
        )
        return annotation_id

    def delete_annotation(self, annotation_id: int) -> None:
        for project in self.projects.values():
            project.annotations.pop(annotation_id, None)

    def edit_annotation(self, annotation_id: int, result: Sequence[Region]) -> None:
        """Change an annotation as a person does in the editor."""
        for project in self.projects.values():
            if annotation_id in project.annotations:
                project.annotations[annotation_id] = replace(
                    project.annotations[annotation_id], result=tuple(result), is_copied=False
                )

    def project(self, platform_id: int) -> ProjectInfo:
        project = self._asked("project", platform_id)
        return replace(
            project.info,
            n_tasks=len(project.tasks),
            n_annotations=len(project.annotations),
            n_predictions=len(project.predictions),
        )

    def edit_task(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Replace a task's data; Label Studio sends no webhook for it."""
        project = next(p for p in self.projects.values() if task_id in p.tasks)
        project.tasks[task_id] = data
        project.updated[task_id] = datetime.now(UTC)

    def backends(self, platform_id: int) -> list[str]:
        return list(self._asked("backends", platform_id).backends)

    def tasks(self, platform_id: int, *, updated_since: datetime | None = None) -> Iterator[Task]:
        project = self._asked("tasks", platform_id)
        is_updated = project.updated.get
        for task_id in sorted(project.tasks):
            if updated_since and (is_updated(task_id) or updated_since) <= updated_since:
                continue
            if task_id in project.tasks:  # it can be deleted while this is listed
                yield self._listed(project, task_id)

    def import_predictions(self, platform_id: int, predictions: Sequence[Prediction]) -> int:
        project = self._asked("import_predictions", platform_id)
        fitting = [
            prediction
            for prediction in predictions
            if prediction.task_id in project.tasks
            and not self._reader.errors(project.info.label_config, prediction)
        ]
        for prediction in fitting:
            project.predictions[self._new_id()] = copy.deepcopy(prediction)
        return len(fitting)

    def predicted_task_ids(
        self, platform_id: int, task_ids: Sequence[int], model_version: str
    ) -> set[int]:
        project = self._asked("predicted_task_ids", platform_id)
        has_version = {
            row.task_id
            for row in project.predictions.values()
            if row.model_version == model_version
        }
        return has_version & set(task_ids)

    def accept_predictions(
        self, platform_id: int, labels: Sequence[AcceptedLabel]
    ) -> dict[int, int]:
        project, made = self._asked("accept_predictions", platform_id), {}
        for label in labels:
            own = [one for one in project.annotations.values() if one.task_id == label.task_id]
            if label.is_sent and own and own[0].is_copied and own[0].result == label.result:
                made[label.task_id] = own[0].annotation_id
            has_prediction = any(
                (row.task_id, row.model_version) == (label.task_id, label.model_version)
                for row in project.predictions.values()
            )
            if not own and has_prediction and label.task_id in project.tasks:
                made[label.task_id] = self.annotate(label.task_id, label.result, is_copied=True)
        return made

    def take_back(self, labels: Sequence[AcceptedLabel]) -> set[int]:
        self._note("take_back")
        kept: set[int] = set()
        for label in labels:
            for project in self.projects.values():
                own = project.annotations.get(label.annotation_id or 0)
                if own is not None and own.is_copied and own.result == label.result:
                    del project.annotations[own.annotation_id]
                elif own is not None:
                    kept.add(label.task_id)
        return kept

    def delete_predictions(self, prediction_ids: Sequence[int]) -> None:
        self._note("delete_predictions")
        for project in self.projects.values():
            for prediction_id in prediction_ids:
                project.predictions.pop(prediction_id, None)

    def delete_model_version(self, platform_id: int, model_version: str) -> None:
        project = self._asked("delete_model_version", platform_id)
        project.predictions = {
            key: row
            for key, row in project.predictions.items()
            if row.model_version != model_version
        }
        if project.info.model_version == model_version:
            project.info = replace(project.info, model_version=None)

    def serve_model_version(self, platform_id: int, model_version: str) -> None:
        project = self._asked("serve_model_version", platform_id)
        if all(row.model_version != model_version for row in project.predictions.values()):
            raise PlatformRejected(f"no prediction has the model version {model_version!r}")
        project.info = replace(
            project.info, model_version=model_version, sampling="Uncertainty sampling"
        )

    def restore_queue(
        self, platform_id: int, *, model_version: str | None, sampling: str | None
    ) -> None:
        project = self._asked("restore_queue", platform_id)
        rows = project.predictions.values()
        is_there = any(row.model_version == model_version for row in rows)
        project.info = replace(
            project.info, model_version=model_version if is_there else None, sampling=sampling
        )

    def _listed(self, project: _FakeProject, task_id: int) -> Task:
        by_version: dict[str, tuple[int, ...]] = {}
        for key, row in project.predictions.items():
            if row.task_id == task_id:
                by_version[row.model_version] = (*by_version.get(row.model_version, ()), key)
        return Task(
            id=task_id,
            data=copy.deepcopy(dict(project.tasks[task_id])),
            annotations=tuple(a for a in project.annotations.values() if a.task_id == task_id),
            prediction_ids=by_version,
        )

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _asked(self, call: str, platform_id: int) -> _FakeProject:
        self._note(call)
        if platform_id not in self.projects:
            raise PlatformNotFound(f"there is no project {platform_id}")
        return self.projects[platform_id]

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure


class FakeTabs:
    """The Data Manager's tabs in memory, as the `ProjectTabs` port sees them.

    `open` is what Label Studio's page does at first; `tabs` has all by project and id, and
    `filtered` the ids of those that somebody has given other filters.
    """

    def __init__(self) -> None:
        self.tabs: dict[int, dict[int, Tab]] = {}
        self.filtered: set[int] = set()
        self.descriptions: dict[int, str] = {}
        self.calls: list[str] = []
        self.failure: PlatformError | None = None
        self._last_id = 0

    def open(self, platform_id: int) -> None:
        self.tabs.setdefault(platform_id, {self._new_id(): Tab("Default", ())})

    def ids(self, platform_id: int) -> list[int]:
        return list(self._asked("ids", platform_id))

    def add(self, platform_id: int, tab: Tab) -> int:
        tabs = self._asked("add", platform_id)
        found = [tab_id for tab_id, present in tabs.items() if present == tab]
        tab_id = found[0] if found else self._new_id()
        tabs[tab_id] = tab
        return tab_id

    def update(self, platform_id: int, tab_id: int, *, before: Tab, after: Tab) -> None:
        tabs = self._asked("update", platform_id)
        if tab_id in tabs and tab_id not in self.filtered:
            is_titled = tabs[tab_id].title == before.title
            tabs[tab_id] = after if is_titled else replace(after, title=tabs[tab_id].title)

    def delete(self, platform_id: int, tab_id: int, tab: Tab) -> None:
        tabs = self._asked("delete", platform_id)
        if tab_id not in self.filtered:
            tabs.pop(tab_id, None)

    def describe(self, platform_id: int, text: str, *, instead_of: str) -> bool:
        self._asked("describe", platform_id)
        if self.descriptions.get(platform_id, "") != instead_of:
            return False
        self.descriptions[platform_id] = text
        return True

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _asked(self, call: str, platform_id: int) -> dict[int, Tab]:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return self.tabs.setdefault(platform_id, {})


@dataclass
class FakeSmallModel:
    """A small model that believes a word: texts with "good" in them are of the first label.

    Where several labels may hold, those hold that are named in the text.

    It says so with a probability that depends on the seed, so that two trainings differ; `fits`
    records the training sets, `failure` is raised by the next training and then forgotten. With
    `is_wrong` it says the opposite.
    """

    fits: list[TrainingSet] = field(default_factory=list)
    failure: BaseException | None = None
    is_wrong: bool = False

    def fit(
        self, data: TrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FakeFittedModel, StudentOutput]:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        (hooks or TrainingHooks()).on_progress(TrainingProgress("final", 1, 1, 0.5))
        self.fits.append(data)
        sure = 0.80 + 0.01 * (seed % 10)
        sure = 1 - sure if self.is_wrong else sure
        model = FakeFittedModel(data.labels, sure, data.kind.is_multilabel)
        answers = model.predict(data.pool)
        agrees = answers.probabilities.argmax(axis=1) == data.hard_labels
        if data.kind.is_multilabel:
            agrees = ((answers.probabilities > 0.5) == (data.targets > 0.5)).all(axis=1)
        clean = np.where(data.has_label, np.where(agrees, 0.9, 0.1), 0.5)
        return model, StudentOutput(
            answers,
            answers.probabilities,
            clean,
            answers.probabilities,
            np.flatnonzero(~agrees),
            TrainingReport("fake", {}),
        )

    def load(self, folder: Path) -> FakeFittedModel:
        stored = json.loads((folder / "fake.json").read_text())
        return FakeFittedModel(**stored | {"labels": tuple(stored["labels"])})


@dataclass(frozen=True)
class FakeFittedModel:
    """What `FakeSmallModel` learned."""

    labels: tuple[str, ...]
    sure: float
    has_many: bool = False

    def predict(self, pool: PoolTexts) -> StudentPrediction:
        rest = (1 - self.sure) / (len(self.labels) - 1)
        probabilities = np.full((len(pool), len(self.labels)), rest)
        for row, text in enumerate(pool.texts):
            probabilities[row, 0 if "good" in text else 1] = self.sure
            if self.has_many:
                holds = [label in text for label in self.labels]
                probabilities[row] = np.where(holds, self.sure, 1 - self.sure)
        vectors = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(pool), 1))
        return StudentPrediction(probabilities, vectors)

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fake.json").write_text(json.dumps(asdict(self)))
        if card is not None:
            (folder / "README.md").write_text("\n".join(card.values()))


@dataclass
class FakeTagger:
    """A tagger that believes a letter: capitalized words are spans of the first label.

    Its probability depends on the seed; `fits` records the training sets, `failure` is raised by
    the next training and then forgotten. With `is_blind` it finds nothing.
    """

    fits: list[SpanTrainingSet] = field(default_factory=list)
    failure: BaseException | None = None
    is_blind: bool = False

    def fit(
        self, data: SpanTrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FakeFittedTagger, SpanOutput]:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        (hooks or TrainingHooks()).on_progress(TrainingProgress("spans", 1, 1, 0.5))
        self.fits.append(data)
        tagger = FakeFittedTagger(data.labels, 0.80 + 0.01 * (seed % 10), self.is_blind)
        found = tuple(tagger.predict(data.texts))
        agrees = [
            {(s.start, s.end, s.label) for s in given or ()}
            == {(s.start, s.end, s.label) for s in own}
            for given, own in zip(data.spans, found, strict=True)
        ]
        clean = np.where([spans is None for spans in data.spans], 0.5, np.where(agrees, 0.9, 0.1))
        issues = np.flatnonzero(~np.array(agrees))
        return tagger, SpanOutput(found, found, clean, issues, TrainingReport("fake", {}))

    def load(self, folder: Path) -> FakeFittedTagger:
        stored = json.loads((folder / "fake.json").read_text())
        return FakeFittedTagger(tuple(stored["labels"]), stored["sure"])


@dataclass(frozen=True)
class FakeFittedTagger:
    """What `FakeTagger` learned."""

    labels: tuple[str, ...]
    sure: float
    is_blind: bool = False

    def predict(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        if self.is_blind:
            return [()] * len(texts)
        return [
            tuple(
                Span(*found.span(), self.labels[0], self.sure)
                for found in re.finditer(r"\b[A-Z]\w*", text)
            )
            for text in texts
        ]

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fake.json").write_text(json.dumps({"labels": self.labels, "sure": self.sure}))
        if card is not None:
            (folder / "README.md").write_text("\n".join(card.values()))


_PIECES = re.compile(r" ?\w+|\s|[^\w\s]")
_UNLIKELY = 1e-6


class FakeLanguageModel:
    """A language model that thinks with a function, as the `LanguageModel` port sees it.

    `thinks` maps a prompt to probabilities of words, such as {"positive": 0.8}; words that it
    leaves out are unlikely. `refuses` maps a prompt to the reason why the server refuses it,
    `loses` to the reason why its answer did not come. Every prompt takes `seconds_per_prompt`,
    which counts against a deadline without passing.
    `calls` records (method, what was asked); while `failure` is set, every call raises it.
    """

    def __init__(
        self,
        thinks: Callable[[str], Mapping[str, float]] = lambda prompt: {},
        *,
        name: str = "fake",
        n_context_tokens: int = 256,
        n_top_logprobs: int | None = None,
        has_chat: bool = False,
    ) -> None:
        self.thinks = thinks
        self.name = name
        self.has_chat = has_chat
        self.n_context_tokens = n_context_tokens
        self.n_top_logprobs = n_top_logprobs
        self.refuses: Callable[[str], str | None] = lambda prompt: None
        self.loses: Callable[[str], str | None] = lambda prompt: None
        self.seconds_per_prompt = 0.0
        self.failure: LanguageModelError | None = None
        self.calls: list[tuple[str, Any]] = []
        self._ids: dict[str, int] = {}

    @property
    def asked(self) -> list[Prompt]:
        """All prompts that were to be completed, in order."""
        return [prompt for call, what in self.calls if call == "complete" for prompt in what]

    @property
    def prompts(self) -> list[str]:
        """The texts of all prompts that were to be completed, in order."""
        return [str(prompt) for prompt in self.asked]

    def describe(self, *, deadline_s: float | None = None) -> LanguageModelInfo:
        self._note("describe", None)
        return LanguageModelInfo(
            name=self.name,
            n_context_tokens=self.n_context_tokens,
            reads_token_ids=self.n_top_logprobs is None,
            n_top_logprobs=self.n_top_logprobs or 0,
            has_chat=self.has_chat,
        )

    def tokenize(self, text: str, *, deadline_s: float | None = None) -> tuple[int, ...]:
        self._note("tokenize", text)
        return self._tokens(text)

    def truncate(self, text: str, n_tokens: int, *, deadline_s: float | None = None) -> str:
        self._note("truncate", text)
        return "".join(_PIECES.findall(text)[: max(0, n_tokens)])

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, *, deadline_s: float | None = None
    ) -> list[Completion]:
        self._note("complete", list(prompts))
        if decoding.model not in ("", self.name):
            raise LanguageModelUnavailable(f"the server now serves {self.name!r}")
        n_in_time = len(prompts)
        if deadline_s is not None and self.seconds_per_prompt:
            n_in_time = int(deadline_s / self.seconds_per_prompt)
        late = Completion(failure=f"no answer within {deadline_s or 0:g} s")
        return [
            self._completion(prompt, decoding) if position < n_in_time else late
            for position, prompt in enumerate(prompts)
        ]

    def _completion(self, asked: Prompt, decoding: Decoding) -> Completion:
        prompt, space = str(asked), " " if isinstance(asked, str) else ""
        n_tokens = len(self._tokens(prompt))
        reason = self.refuses(prompt)
        if n_tokens >= self.n_context_tokens:
            reason = f"the maximum context length is {self.n_context_tokens} tokens"
        if reason is not None:
            return Completion(failure=reason, was_refused=True)
        if (loss := self.loses(prompt)) is not None:
            return Completion(failure=loss)
        thoughts = self.thinks(prompt)
        likely = {self._tokens(space + word)[0]: p for word, p in thoughts.items()}
        if self.n_top_logprobs is None:
            shown = {token: likely.get(token, _UNLIKELY) for token in decoding.token_ids}
        else:
            best = sorted(likely.items(), key=lambda item: -item[1])
            shown = dict(best[: self.n_top_logprobs])
        logprobs = {token: math.log(p) for token, p in shown.items()}
        return Completion(
            text=max(thoughts, key=lambda word: thoughts[word], default=""),
            logprobs=logprobs if decoding.token_ids else None,
            n_tokens_in=n_tokens,
            n_tokens_out=decoding.max_tokens,
        )

    def _tokens(self, text: str) -> tuple[int, ...]:
        pieces = _PIECES.findall(text)
        return tuple(self._ids.setdefault(piece, len(self._ids)) for piece in pieces)

    def _note(self, call: str, what: Any) -> None:
        self.calls.append((call, what))
        if self.failure is not None:
            raise self.failure
