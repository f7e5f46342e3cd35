"""A house without servers: Label Studio and the annotator in memory, the stores on SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from backend.adapters.label_config import LabelConfigReader
from backend.core.ports import Step
from backend.core.types import (
    Abstention,
    AbstentionReason,
    Event,
    Example,
    ProjectId,
    TaskSchema,
    WeakLabel,
)
from backend.errors import BackendError
from backend.workflow.annotation import Labelling, PreAnnotator
from backend.workflow.events import EventService
from backend.workflow.prediction import PredictionService
from backend.workflow.prelabel import prelabel
from backend.workflow.publishing import Publisher
from backend.workflow.synchronisation import Synchroniser
from tests.conftest import SENTIMENT
from tests.fakes import FakePlatform

CHUNK = 4


class KilledHere(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass
class FakeAnnotator:
    """Says Positive to texts with "good" in them; `failure` is raised while it is set."""

    failure: BackendError | None = None
    unreadable: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        if self.failure is not None:
            raise self.failure
        self.asked += [example.id for example in examples]
        return [self._label(schema, example) for example in examples]

    def _label(self, schema: TaskSchema, example: Example) -> WeakLabel:
        question = schema.questions[0]
        start = (example.id, question.name, "fake", "v1")
        if example.missing:
            return WeakLabel(*start, abstention=next(iter(example.missing.values())))
        if example.id in self.unreadable:
            return WeakLabel(*start, abstention=Abstention(AbstentionReason.UNREADABLE))
        is_good = "good" in next(iter(example.texts.values()))
        return WeakLabel(*start, (0.9, 0.1) if is_good else (0.2, 0.8))


class PlainSteps:
    """Runs steps one after the other; `kill_before` and `kill_after` end it like kill -9."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.kill_after: tuple[str, int] | None = None

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        counts = step(project_id)
        self.ran.append(name)
        if self.kill_after == (name, self.ran.count(name)):
            raise KilledHere
        return counts


class House:
    """All parts together, and short words for what the tests do with them."""

    def __init__(self, stores, *, manages_queue: bool = True) -> None:
        self.projects, self.tasks, self.labels, self.work = stores
        self.platform = FakePlatform()
        self.annotator = FakeAnnotator()
        config = LabelConfigReader(lambda _: Abstention(AbstentionReason.REMOTE_TEXT))
        labelling = Labelling(self.annotator, config)
        self.events = EventService(config, (self.projects, self.tasks, self.work))
        self.synchroniser = Synchroniser(
            self.platform, config, stores, full_interval_s=3600, manages_queue=manages_queue
        )
        three = (self.projects, self.labels, self.work)
        self.pre_annotator = PreAnnotator(labelling, three, chunk=CHUNK, retry_abstentions_s=0)
        self.publisher = Publisher(
            self.platform, three, chunk=CHUNK, manages_queue=manages_queue, patience_s=0
        )
        self.prediction = PredictionService(labelling, stores, deadline_s=1.0, live_limit=3)

    def connected(self, n_texts: int = 10, label_config: str = SENTIMENT) -> ProjectId:
        """Make a project in Label Studio, with texts, and connect it."""
        number = self.platform.create_project(label_config)
        self.platform.import_tasks(
            number, [{"text": f"{'good' if i % 2 else 'bad'} {i}"} for i in range(n_texts)]
        )
        project_id = self.platform.projects[number].info.id
        self.events.connect(project_id, label_config)
        return project_id

    def prelabel(self, project_id: ProjectId, steps: PlainSteps | None = None) -> PlainSteps:
        steps = steps or PlainSteps()
        prelabel(project_id, steps, (self.synchroniser, self.pre_annotator, self.publisher))
        return steps

    def remote(self, project_id: ProjectId):
        """What Label Studio keeps of the project."""
        return self.platform.projects[int(project_id.split(".")[0])]

    def report(self, project_id: ProjectId, event: Event) -> None:
        self.tasks.apply(project_id, event, None)


@pytest.fixture
def house(projects, tasks, labels, work) -> House:
    return House((projects, tasks, labels, work))
