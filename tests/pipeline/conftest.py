"""A house without servers: Label Studio and the annotator in memory, the stores on SQLite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from backend.active_learning.activellm import ActiveLLMStrategy
from backend.domain.chunks import ChunkKind
from backend.domain.definitions import Definitions
from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.llm_usage import Prices
from backend.domain.projects import Event, ProjectId
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.accept import Acceptor
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.annotator_change import AnnotatorChange, relabel_chunk
from backend.pipeline.certificate import Certifier
from backend.pipeline.connection import Connections
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.events import EventService
from backend.pipeline.export import Exporter
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.ordering import Orderer
from backend.pipeline.pool import GuidelinesReader
from backend.pipeline.predict import Labeler, PredictionService, StudentPredictor
from backend.pipeline.prelabel import PreAnnotator, PrelabelSteps, chunk_work, prelabel
from backend.pipeline.publish import Publisher
from backend.pipeline.release import MakeStrategy, ReleaseBuilder
from backend.pipeline.rounds.cleanup import RoundCleaner
from backend.pipeline.rounds.context import RoundContext, RoundPlan
from backend.pipeline.rounds.promote import PromoteStep
from backend.pipeline.rounds.recipes import round_recipes
from backend.pipeline.rounds.relabel import RelabelStep
from backend.pipeline.rounds.scheduler import RoundPolicy, RoundScheduler
from backend.pipeline.rounds.students import ClassifierTrainer, StudentTrainers, TaggerTrainer
from backend.pipeline.rounds.train import Paraphrases, TrainStep
from backend.pipeline.rounds.workflow import RoundSteps, run_round
from backend.pipeline.status import StatusReporter
from backend.pipeline.sync import PrelabelPlan, Synchronizer
from backend.pipeline.tabs import TabKeeper
from backend.store import Stores
from tests.conftest import SENTIMENT
from tests.fakes import OWN_ADDRESS, FakePlatform, FakeSmallModel, FakeTabs, FakeTagger
from tests.pipeline.annotators import FakeAnnotator, FakeEncoder, FakeSimilarity
from tests.pipeline.snapshots import Setups
from tests.pipeline.steps import PlainSteps

CHUNK = 4
_SETUPS = Setups()
LARGE_CHUNK = 10  # for 30 texts and more: three chunks say what eight do, and sooner


def _activellm(asked: str) -> ActiveLLMStrategy:
    return ActiveLLMStrategy()


class House:
    """All parts together, and short words for what the tests do with them."""

    def __init__(
        self,
        stores: Stores,
        *,
        platform: FakePlatform | None = None,
        folder: Path = Path("nowhere"),
        manages_queue: bool = True,
        orders_queue: bool = False,
        chunk: int = CHUNK,
        plan: RoundPlan | None = None,
        policy: RoundPolicy | None = None,
        make_strategy: MakeStrategy = _activellm,
        paraphrases: Paraphrases | None = None,
    ) -> None:
        self._labels_by = (chunk, manages_queue, orders_queue)
        self._is_plain = make_strategy is _activellm and not (plan and plan.llm_share)
        self.stores = stores
        self.projects, self.tasks, self.labels = stores.projects, stores.tasks, stores.labels
        self.releases, self.rounds, self.jobs = stores.releases, stores.rounds, stores.jobs
        self.publication = stores.publication
        self.platform = platform or FakePlatform()
        self.paraphrases = paraphrases or Paraphrases("", lambda texts: [None] * len(texts))
        self.folder = folder
        self._config = LabelConfigReader(lambda *_: Abstention(AbstentionReason.REMOTE_TEXT))
        self._make_annotators()
        self._make_aggregation(make_strategy, share=plan.llm_share if plan else None)
        prelabel_plan = PrelabelPlan(
            annotate_chunk=chunk,
            publish_chunk=chunk,
            manages_queue=manages_queue,
            full_sync_interval_s=3600,
            retry_abstentions_s=0,
            patience_s=0,
            debounce_s=0,
        )
        self.orderer = Orderer(
            self.aggregator,
            self.releaser,
            stores,
            replace(prelabel_plan, manages_queue=orders_queue),
        )
        self.events = EventService(self._config, stores)
        self.prediction = PredictionService(
            lambda: self._labeler, stores, deadline_s=1.0, live_limit=3
        )
        self.round_steps = self._make_round_steps(
            self._make_prelabel_steps(prelabel_plan),
            plan or RoundPlan(chunk=chunk, max_cycles=2, n_shots=2),
            policy or RoundPolicy(min_tasks=20, every=5),
        )
        self.annotator_change = AnnotatorChange(self._labeler, self.aggregator, stores, chunk)
        self.certifier = Certifier(self.guidelines, stores)
        self.acceptor = Acceptor(self.platform, self.certifier, stores)
        self.exporter = Exporter(self.guidelines, self._config, stores, folder)

    def _make_annotators(self) -> None:
        self.annotator, self.similarity = FakeAnnotator(), FakeSimilarity()
        self.encoder = FakeEncoder()
        self.student = FakeSmallModel()
        self.tagger = FakeTagger()
        self._trainers = StudentTrainers(
            ClassifierTrainer(lambda recipe: self.student),
            TaggerTrainer(lambda recipe: self.tagger, FakeEncoder()),
        )
        self.ensemble = AnnotatorEnsemble(
            self.annotator, self.similarity, self.encoder, self.stores
        )

    def _make_aggregation(self, make_strategy: MakeStrategy, *, share: float | None) -> None:
        stores = self.stores
        self.releaser = ReleaseBuilder(self.ensemble, self._config, stores, make_strategy)
        self.reporter = StatusReporter(stores, self._config, Prices(), max_cycles=3)
        self.definitions = Definitions()
        self.guidelines = GuidelinesReader(self._config, stores, lambda _: self.definitions)
        student = StudentPredictor(stores, self.folder, self._trainers)
        self._labeler = Labeler(self.ensemble, self.guidelines, self._config, stores, student)
        self.budget = LLMBudgetPlanner(
            self.ensemble, self.guidelines, stores, make_strategy, share=share
        )
        self.aggregator = Aggregator(self.ensemble, self.guidelines, stores)

    def _make_prelabel_steps(self, plan: PrelabelPlan) -> PrelabelSteps:
        self.tabs, self.wrong_tasks = FakeTabs(), list[int]()
        lists = {"Probable label errors": lambda project: self.wrong_tasks}
        self.tab_keeper = TabKeeper(self.tabs, self.stores, lists, OWN_ADDRESS, is_on=True)
        self.connections = Connections(self.platform, self.stores, OWN_ADDRESS, self.tab_keeper)
        self.synchronizer = Synchronizer(
            self.platform, self.connections, self._config, self.stores, plan, self.orderer.is_due
        )
        self.pre_annotator = PreAnnotator(
            self._labeler, self.aggregator, self.budget, self.stores, plan
        )
        self.publisher = Publisher(self.platform, self.connections, self.stores, plan)
        return PrelabelSteps(
            self.synchronizer, self.pre_annotator, self.publisher, self.orderer, self.tab_keeper
        )

    def _make_round_steps(
        self, prelabel_steps: PrelabelSteps, plan: RoundPlan, policy: RoundPolicy
    ) -> RoundSteps:
        stores, aggregator, ensemble = self.stores, self.aggregator, self.ensemble
        recipes = round_recipes(ensemble)
        self.models = {"ENCODER_MODEL": "fake", "STUDENT_MODEL": "fake"}
        context = RoundContext(
            stores, self.guidelines, self.folder, plan, recipes, lambda: self.models
        )
        self.scheduler = RoundScheduler(context, self.guidelines, stores, policy)
        return RoundSteps(
            prelabel_steps,
            self.scheduler,
            TrainStep(context, aggregator, self._trainers, self.paraphrases),
            RelabelStep(context, aggregator, ensemble, self.guidelines, stores),
            PromoteStep(context, aggregator, ensemble, self.releaser, stores),
            RoundCleaner(context, stores),
        )

    def round(
        self, project_id: ProjectId, steps: PlainSteps | None = None, *, is_asked: bool = True
    ) -> PlainSteps:
        steps = self.equip(steps or PlainSteps())
        run_round(project_id, steps, self.round_steps, is_asked=is_asked)
        return steps

    def connected(
        self,
        n_texts: int = 10,
        label_config: str = SENTIMENT,
        *,
        text_of: Callable[[int], str] = lambda i: f"{'good' if i % 2 else 'bad'} {i}",
    ) -> ProjectId:
        """Make a project in Label Studio, with texts, and connect it."""
        number = self.platform.create_project(label_config)
        self.platform.import_tasks(number, [{"text": text_of(i)} for i in range(n_texts)])
        project_id = self.platform.projects[number].info.id
        self.events.connect(project_id, label_config)
        return project_id

    def labeled(
        self,
        n_texts: int,
        label_config: str = SENTIMENT,
        *,
        text_of: Callable[[int], str] = lambda i: f"{'good' if i % 2 else 'bad'} {i}",
    ) -> ProjectId:
        """Make a project that is connected and labeled: the only one here.

        One that another test has labeled in the same way is taken over as it was then: not in a
        house with a query strategy or an LLM budget of its own.
        """
        assert self._is_plain
        annotator = {**vars(self.annotator), "asked": [], "shots": []}
        annotators = (repr(annotator), repr(vars(self.similarity)))
        texts = tuple(map(text_of, range(n_texts)))

        def set_up() -> ProjectId:
            project_id = self.connected(n_texts, label_config, text_of=text_of)
            self.prelabel(project_id)
            return project_id

        key = (label_config, texts, annotators, self._labels_by)
        return _SETUPS.project(self, key, set_up)

    def prelabel(self, project_id: ProjectId, steps: PlainSteps | None = None) -> PlainSteps:
        steps = self.equip(steps or PlainSteps())
        prelabel(project_id, steps, self.round_steps.prelabel)
        return steps

    def equip(self, steps: PlainSteps) -> PlainSteps:
        """Tell steps what this house's chunks of work are."""
        relabel = partial(relabel_chunk, change=self.annotator_change)
        steps.chunks = {**chunk_work(self.round_steps.prelabel), ChunkKind.RELABEL: relabel}
        return steps

    def remote(self, project_id: ProjectId):
        """What Label Studio keeps of the project."""
        return self.platform.projects[int(project_id.split(".")[0])]

    def report(self, project_id: ProjectId, event: Event) -> None:
        self.tasks.apply(project_id, event, None)


@pytest.fixture(autouse=True)
def listings_are_affordable(monkeypatch):
    """Let a listing follow the last one however long that took on a busy machine."""
    monkeypatch.setattr("backend.pipeline.sync._LISTING_SHARE", math.inf)


@pytest.fixture
def house(stores) -> House:
    return House(stores)
