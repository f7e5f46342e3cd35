"""The composition root: the only module that wires stores, adapters and use cases together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from backend.domain.llm_usage import Prices
from backend.domain.ports import Encoder, LabelingPlatform, LanguageModel, ProjectTabs
from backend.pipeline.connection import Connections
from backend.pipeline.events import EventService, ProjectLimits
from backend.pipeline.status import StatusReporter
from backend.pipeline.tabs import TabKeeper
from backend.settings import Settings
from backend.store import Database, Stores

if TYPE_CHECKING:
    from backend.labelstudio.label_config import LabelConfigReader
    from backend.llm.annotator import LLMAnnotator
    from backend.llm.client.cache import CachedLanguageModel
    from backend.pipeline.accept import Acceptor
    from backend.pipeline.aggregate import Aggregator
    from backend.pipeline.annotator_change import AnnotatorChange
    from backend.pipeline.certificate import Certifier
    from backend.pipeline.ensemble import AnnotatorEnsemble
    from backend.pipeline.export import Exporter
    from backend.pipeline.issues import IssueReader
    from backend.pipeline.pool import GuidelinesReader
    from backend.pipeline.predict import PredictionService, StudentPredictor
    from backend.pipeline.prompt_preview import PromptPreview
    from backend.pipeline.readiness import Readiness
    from backend.pipeline.release import MakeStrategy, ReleaseBuilder
    from backend.pipeline.retention import Housekeeper
    from backend.pipeline.rounds.requests import RoundRequests
    from backend.pipeline.rounds.students import StudentFactory, StudentTrainers, TaggerFactory
    from backend.pipeline.rounds.workflow import RoundSteps
    from backend.pipeline.task_texts import TaskTexts
    from backend.self_training.similarity import SimilarityAnnotator


@dataclass(frozen=True, slots=True)
class Adapters:
    """Parts that replace those of the settings; None: as the settings say."""

    platform: LabelingPlatform | None = None
    language_model: LanguageModel | None = None
    encoder: Encoder | None = None
    make_student: StudentFactory | None = None
    make_tagger: TaggerFactory | None = None
    tabs: ProjectTabs | None = None


@dataclass(frozen=True)
class Services:
    """Everything that the web process, the worker and the command line call.

    Each part is imported and built at its first use: the web process starts in a second and never
    loads what only the worker needs. Nor does it download models: `fetches_models` is false there.
    """

    settings: Settings
    database: Database
    stores: Stores
    given: Adapters
    fetches_models: bool = True

    def close(self) -> None:
        """Close all connections."""
        for name in ("platform", "tabs", "language_model"):
            close = getattr(self.__dict__.get(name), "close", None)
            if close is not None:
                close()
        self.database.close()

    @cached_property
    def platform(self) -> LabelingPlatform:
        """Return Label Studio's client."""
        from backend.factories import connect_platform

        return self.given.platform or connect_platform(self.settings)

    @cached_property
    def connections(self) -> Connections:
        """Return the use case of connected projects."""
        return Connections(self.platform, self.stores, self.settings.own_url, self.tabs)

    @cached_property
    def tabs(self) -> TabKeeper:
        """Return what keeps tabs in Label Studio's Data Manager."""
        from backend.factories import connect_tabs

        settings = self.settings
        return TabKeeper(
            self.given.tabs or connect_tabs(settings),
            self.stores,
            {
                "Probable label errors": self.issues.task_ids,
                "Certified": lambda project: self.certifier.task_ids(project),
            },
            settings.own_url,
            settings.manage_views,
        )

    @cached_property
    def language_model(self) -> CachedLanguageModel:
        """Return the LLM with the cache of its answers."""
        from backend.factories import connect_language_model
        from backend.llm.client.cache import CachedLanguageModel

        model = self.given.language_model or connect_language_model(self.settings)
        return CachedLanguageModel(model, self.stores.llm_cache)

    @cached_property
    def encoder(self) -> Encoder:
        """Return the sentence encoder."""
        from backend.factories import cached_encoder

        return self.given.encoder or cached_encoder(self.settings, fetches=self.fetches_models)

    @cached_property
    def config(self) -> LabelConfigReader:
        """Return the reader of label configs."""
        from backend.labelstudio.label_config import LabelConfigReader
        from backend.labelstudio.remote_text import RemoteTexts
        from backend.labelstudio.stored_files import StoredFiles

        key = self.settings.label_studio_api_key.reveal()
        files = StoredFiles(self.settings.label_studio_url, key)
        texts = RemoteTexts(self.settings.allowed_data_hosts, stored_files=files)
        return LabelConfigReader(texts, skip=self.settings.skip_controls)

    @cached_property
    def annotator(self) -> LLMAnnotator:
        """Return the annotator that prompts the LLM."""
        from backend.llm.annotator import LLMAnnotator

        model = self.language_model
        return LLMAnnotator(model, shortlist=self.similarity.shortlist, discard=model.discard)

    @cached_property
    def similarity(self) -> SimilarityAnnotator:
        """Return the annotator that compares texts with label definitions."""
        from backend.self_training.similarity import SimilarityAnnotator

        return SimilarityAnnotator(self.encoder)

    @cached_property
    def ensemble(self) -> AnnotatorEnsemble:
        """Return all annotators with their label model."""
        from backend.pipeline.ensemble import AnnotatorEnsemble

        return AnnotatorEnsemble(
            self.annotator,
            self.similarity,
            self.encoder,
            self.stores,
            self.settings.llm_prompts_per_text,
        )

    @cached_property
    def aggregator(self) -> Aggregator:
        """Return what aggregates the labels of a whole pool."""
        from backend.pipeline.aggregate import Aggregator

        return Aggregator(self.ensemble, self.guidelines, self.stores)

    @cached_property
    def events(self) -> EventService:
        """Return the use case of connections and webhooks."""
        settings = self.settings
        allowed = frozenset(map(int, settings.allowed_projects))
        limits = ProjectLimits(allowed, settings.max_projects)
        return EventService(self.config, self.stores, limits)

    @cached_property
    def prediction(self) -> PredictionService:
        """Return the use case of /predict."""
        from backend.pipeline.predict import Labeler, PredictionService

        return PredictionService(
            lambda: Labeler(
                self.ensemble, self.guidelines, self.config, self.stores, self.student_predictor
            ),
            self.stores,
            deadline_s=self.settings.predict_deadline_s,
            live_limit=self.settings.live_predict_limit,
            max_parallel=max(1, self.settings.web_threads // 2),
        )

    @cached_property
    def student_predictor(self) -> StudentPredictor:
        """Return what labels texts with the served version's students."""
        from backend.pipeline.predict import StudentPredictor

        return StudentPredictor(self.stores, self.models, self.student_trainers)

    @cached_property
    def reporter(self) -> StatusReporter:
        """Return the use case of status pages."""
        prices = Prices(self.settings.llm_price_in, self.settings.llm_price_out)
        return StatusReporter(
            self.stores, self.config, prices, max_cycles=self.settings.round_limit
        )

    @cached_property
    def readiness(self) -> Readiness:
        """Return the use case of /ready."""
        from backend.factories import label_studio_greeting, llm_greeting
        from backend.pipeline import readiness as parts

        settings, jobs = self.settings, self.stores.jobs
        return parts.Readiness(
            {
                "database": partial(parts.check_database, self.database),
                "disk": partial(parts.check_disk, settings.home),
                "worker": partial(parts.check_worker, jobs),
                "llm": partial(parts.check_server, llm_greeting(settings)),
                "label_studio": partial(parts.check_server, label_studio_greeting(settings)),
                "queue": partial(parts.check_queue, jobs),
            }
        )

    @cached_property
    def issues(self) -> IssueReader:
        """Return the use case of probable label errors."""
        from backend.pipeline.issues import IssueReader

        return IssueReader(self.stores, self.config)

    @cached_property
    def task_texts(self) -> TaskTexts:
        """Return the reader of texts that are shown to people."""
        from backend.factories import closed_config_reader
        from backend.pipeline.task_texts import TaskTexts

        return TaskTexts(self.stores, closed_config_reader(self.settings))

    @cached_property
    def prompt_preview(self) -> PromptPreview:
        """Return the use case of prompts that are shown to people."""
        from backend.factories import cached_encoder
        from backend.pipeline.prompt_preview import PromptPreview
        from backend.self_training.similarity import SimilarityAnnotator

        kept = self.given.encoder or cached_encoder(self.settings, loads=False, fetches=False)
        shortlist = SimilarityAnnotator(kept).shortlist
        return PromptPreview(self.language_model, shortlist, self.ensemble, self.guidelines)

    @cached_property
    def round_requests(self) -> RoundRequests:
        """Return the use case of rounds and rollbacks that somebody asks for."""
        from backend.pipeline.rounds.requests import RoundRequests

        return RoundRequests(self.stores)

    @cached_property
    def certifier(self) -> Certifier:
        """Return the use case of certified labels."""
        from backend.pipeline.certificate import Certifier

        return Certifier(self.guidelines, self.stores)

    @cached_property
    def acceptor(self) -> Acceptor:
        """Return the use case of accepted labels."""
        from backend.pipeline.accept import Acceptor

        return Acceptor(self.platform, self.certifier, self.stores)

    @cached_property
    def exporter(self) -> Exporter:
        """Return the use case of exports."""
        from backend.pipeline.export import Exporter

        return Exporter(self.guidelines, self.config, self.stores, self.models)

    @cached_property
    def housekeeper(self) -> Housekeeper:
        """Return what deletes data that nothing needs any more."""
        from backend.factories import embedding_trimmer
        from backend.pipeline.retention import Housekeeper, RetentionPlan

        settings = self.settings
        plan = RetentionPlan(
            keep_releases=settings.keep_releases,
            events_days=settings.keep_events_days,
            llm_cache_days=settings.llm_cache_days,
            llm_cache_mb=settings.llm_cache_mb,
            embedding_cache_mb=settings.embedding_cache_mb,
            grace_days=settings.project_grace_days,
            manages_queue=settings.manage_queue,
        )
        return Housekeeper(
            self.stores,
            self.models,
            plan,
            embedding_trimmer(settings.home),
            lambda project_id: self.round_steps.cleaner.clean(project_id, is_thorough=True),
        )

    @cached_property
    def round_steps(self) -> RoundSteps:
        """Return the steps of the worker's workflows."""
        from backend.workflow_parts import make_round_steps

        return make_round_steps(self)

    @cached_property
    def annotator_change(self) -> AnnotatorChange:
        """Return the use case of another LLM."""
        from backend.pipeline.annotator_change import AnnotatorChange
        from backend.pipeline.predict import Labeler

        labeler = Labeler(self.ensemble, self.guidelines, self.config, self.stores)
        chunk = self.settings.annotate_chunk
        return AnnotatorChange(labeler, self.aggregator, self.stores, chunk)

    @cached_property
    def guidelines(self) -> GuidelinesReader:
        """Return the reader of guidelines, examples and human labels."""
        from backend.domain.definitions import read_definitions
        from backend.pipeline.pool import GuidelinesReader

        definitions = partial(read_definitions, self.settings.definitions_folder)
        return GuidelinesReader(self.config, self.stores, definitions, self.settings.max_text_chars)

    @cached_property
    def releases(self) -> ReleaseBuilder:
        """Return what drafts releases."""
        from backend.factories import queue_plan
        from backend.pipeline.release import ReleaseBuilder

        plan = queue_plan(self.settings)
        return ReleaseBuilder(self.ensemble, self.config, self.stores, self.make_strategy, plan)

    @cached_property
    def make_strategy(self) -> MakeStrategy:
        """Return what makes a project's query strategy."""
        from backend.factories import query_strategies

        return query_strategies(self.settings, self.language_model)

    @cached_property
    def make_student(self) -> StudentFactory:
        """Return what makes a round's student."""
        from backend.factories import student_factory

        return self.given.make_student or student_factory(self.settings, self.encoder)

    @cached_property
    def student_trainers(self) -> StudentTrainers:
        """Return what trains the students of rounds, by kind of question."""
        from backend.factories import tagger_factory
        from backend.pipeline.rounds.students import (
            ClassifierTrainer,
            StudentTrainers,
            TaggerTrainer,
        )

        make_tagger = self.given.make_tagger or tagger_factory(self.settings)
        return StudentTrainers(
            ClassifierTrainer(self.make_student), TaggerTrainer(make_tagger, self.encoder)
        )

    @property
    def models(self) -> Path:
        """Return the folder of the rounds' files."""
        return self.settings.home / "models"


def build_services(
    settings: Settings,
    given: Adapters | None = None,
    *,
    fetches_models: bool = True,
    max_writers: int | None = None,
) -> Services:
    """Bring the database up to date and return the parts, not built yet.

    `given` parts take the place of those of the settings, in tests and benchmarks.
    `fetches_models`: whether embedded models that are not there yet are downloaded at first use.
    `max_writers`: how many threads may wait for the database at a time; None: all.

    Raises:
        StoreUnavailable: The database cannot be opened.
        SettingsError: There is no query strategy of that name.
    """
    database = Database(settings.state_url, max_writers=max_writers)
    database.migrate()
    services = Services(settings, database, Stores(database), given or Adapters(), fetches_models)
    if settings.query_strategy not in ("activellm", "random"):
        services.make_strategy  # noqa: B018  a wrong name ends the start, not the first ordering
    return services
