"""The composition root: the only module that wires stores, adapters and use cases together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backend.domain.llm_usage import Prices
from backend.domain.ports import Encoder, LabelingPlatform, LanguageModel
from backend.factories import (
    EncoderAtFirstUse,
    connect_language_model,
    connect_platform,
    query_strategies,
    student_factory,
)
from backend.labelstudio.definition_files import DefinitionFiles
from backend.labelstudio.label_config import LabelConfigReader
from backend.labelstudio.remote_text import RemoteTexts
from backend.llm.annotator import LLMAnnotator
from backend.llm.client.cache import CachedLanguageModel
from backend.llm.paraphraser import Paraphraser
from backend.llm.spans import SpanAsker
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.annotation import Labelling, PreAnnotator
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.events import EventService
from backend.pipeline.export import Exporter
from backend.pipeline.guidelines import GuidelinesReader
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.ordering import Orderer
from backend.pipeline.predict import PredictionService
from backend.pipeline.prelabel import PrelabelSteps
from backend.pipeline.publish import Publisher
from backend.pipeline.queue_status import QueueStatus
from backend.pipeline.release import ReleaseBuilder
from backend.pipeline.rounds.context import RoundContext, RoundPlan
from backend.pipeline.rounds.paraphrases import Paraphrases
from backend.pipeline.rounds.promote import PromoteStep
from backend.pipeline.rounds.relabel import RelabelStep
from backend.pipeline.rounds.scheduler import RoundPolicy, RoundScheduler
from backend.pipeline.rounds.status import RoundStatus
from backend.pipeline.rounds.train import StudentFactory, TrainStep
from backend.pipeline.rounds.workflow import RoundSteps
from backend.pipeline.status import StatusReporter
from backend.pipeline.student_predictor import StudentPredictor
from backend.pipeline.sync import Synchronizer
from backend.self_training.similarity import SimilarityAnnotator
from backend.settings import Settings
from backend.store import (
    Database,
    JobStore,
    LabelStore,
    LLMCache,
    ProjectStore,
    ReleaseStore,
    RoundStore,
    StateStore,
    TaskStore,
)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the web process, the worker and the command line call."""

    settings: Settings
    database: Database
    projects: ProjectStore
    tasks: TaskStore
    labels: LabelStore
    releases: ReleaseStore
    rounds: RoundStore
    work: JobStore
    answers: LLMCache
    state: StateStore
    platform: LabelingPlatform
    language_model: LanguageModel
    encoder: Encoder
    config: LabelConfigReader
    annotator: LLMAnnotator
    similarity: SimilarityAnnotator
    ensemble: AnnotatorEnsemble
    aggregator: Aggregator
    events: EventService
    prediction: PredictionService
    round_steps: RoundSteps
    queue: QueueStatus
    exporter: Exporter
    reporter: StatusReporter

    def close(self) -> None:
        """Close all connections."""
        for part in (self.platform, self.language_model):
            close = getattr(part, "close", None)
            if close is not None:
                close()
        self.database.close()


@dataclass(frozen=True, slots=True)
class _Stores:
    """All that is kept, in one database."""

    projects: ProjectStore
    tasks: TaskStore
    labels: LabelStore
    releases: ReleaseStore
    rounds: RoundStore
    work: JobStore
    answers: LLMCache
    state: StateStore


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several use cases are made of."""

    config: LabelConfigReader
    guidelines_reader: GuidelinesReader
    annotator: LLMAnnotator
    similarity: SimilarityAnnotator
    ensemble: AnnotatorEnsemble
    aggregator: Aggregator
    releaser: ReleaseBuilder
    sharer: LLMBudgetPlanner


def build_services(
    settings: Settings,
    *,
    platform: LabelingPlatform | None = None,
    language_model: LanguageModel | None = None,
    encoder: Encoder | None = None,
    make_small_model: StudentFactory | None = None,
) -> Services:
    """Wire everything together and bring the database up to date; raises StoreUnavailable.

    Tests give their own platform, language model, encoder and small model.
    """
    database = Database(settings.state_url)
    database.migrate()
    stores = _stores(database)
    platform = platform or connect_platform(settings)
    model = language_model or connect_language_model(settings)
    language_model = CachedLanguageModel(model, stores.answers)
    encoder = encoder or EncoderAtFirstUse(settings)
    make_small_model = make_small_model or student_factory(settings, encoder)
    shared = _shared(settings, stores, language_model, encoder)
    student_predictor = StudentPredictor(stores.releases, _models(settings), make_small_model)
    prelabel = _prelabel_crew(settings, stores, shared, platform, student_predictor)
    queue = QueueStatus(shared.releaser, stores.releases, stores.tasks)
    wordings = Paraphrases(settings.student_views, Paraphraser(language_model).reword)
    return Services(
        settings=settings,
        database=database,
        projects=stores.projects,
        tasks=stores.tasks,
        labels=stores.labels,
        releases=stores.releases,
        rounds=stores.rounds,
        work=stores.work,
        answers=stores.answers,
        state=stores.state,
        platform=platform,
        language_model=language_model,
        encoder=encoder,
        config=shared.config,
        annotator=shared.annotator,
        similarity=shared.similarity,
        ensemble=shared.ensemble,
        aggregator=shared.aggregator,
        events=EventService(shared.config, (stores.projects, stores.tasks, stores.work)),
        prediction=_prediction(settings, stores, shared),
        round_steps=_round_crew(settings, stores, shared, prelabel, make_small_model, wordings),
        queue=queue,
        exporter=_exporter(settings, stores, shared),
        reporter=_reporter(settings, stores, shared, queue),
    )


def _stores(database: Database) -> _Stores:
    return _Stores(
        projects=ProjectStore(database),
        tasks=TaskStore(database),
        labels=LabelStore(database),
        releases=ReleaseStore(database),
        rounds=RoundStore(database),
        work=JobStore(database),
        answers=LLMCache(database),
        state=StateStore(database),
    )


def _shared(
    settings: Settings, stores: _Stores, language_model: LanguageModel, encoder: Encoder
) -> _Shared:
    config = LabelConfigReader(RemoteTexts(settings.allowed_data_hosts))
    definitions = DefinitionFiles(settings.definitions_folder)
    guidelines_reader = GuidelinesReader(config, stores.tasks, definitions.read)
    similarity = SimilarityAnnotator(encoder)
    annotator = LLMAnnotator(
        language_model, shortlist=similarity.shortlist, span_asker=SpanAsker(language_model)
    )
    ensemble = AnnotatorEnsemble(annotator, similarity, encoder, stores.state)
    make_strategy = query_strategies(settings, language_model)
    releaser = ReleaseBuilder(ensemble, config, (stores.releases, stores.state), make_strategy)
    return _Shared(
        config=config,
        guidelines_reader=guidelines_reader,
        annotator=annotator,
        similarity=similarity,
        ensemble=ensemble,
        aggregator=Aggregator(ensemble, guidelines_reader, stores.tasks, stores.labels),
        releaser=releaser,
        sharer=LLMBudgetPlanner(
            ensemble,
            guidelines_reader,
            (stores.labels, stores.answers, stores.state),
            make_strategy,
            share=settings.llm_share or None,
        ),
    )


def _prelabel_crew(
    settings: Settings,
    stores: _Stores,
    shared: _Shared,
    platform: LabelingPlatform,
    student_predictor: StudentPredictor,
) -> PrelabelSteps:
    five = (stores.projects, stores.tasks, stores.labels, stores.releases, stores.work)
    orderer = Orderer(shared.aggregator, shared.releaser, five, manages_queue=settings.manage_queue)
    return PrelabelSteps(
        Synchronizer(
            platform,
            shared.config,
            five,
            full_interval_s=settings.full_sync_interval_s,
            manages_queue=settings.manage_queue,
            is_order_due=orderer.is_due,
        ),
        PreAnnotator(
            Labelling(
                shared.ensemble,
                shared.guidelines_reader,
                shared.config,
                shared.releaser,
                student_predictor,
            ),
            shared.aggregator,
            shared.sharer,
            (stores.projects, stores.labels, stores.work),
            chunk=settings.annotate_chunk,
            retry_abstentions_s=settings.retry_abstentions_s,
        ),
        Publisher(
            platform,
            (stores.projects, stores.labels, stores.releases, stores.work),
            chunk=settings.publish_chunk,
            manages_queue=settings.manage_queue,
        ),
        orderer,
    )


def _round_crew(
    settings: Settings,
    stores: _Stores,
    shared: _Shared,
    prelabel: PrelabelSteps,
    make_small_model: StudentFactory,
    wordings: Paraphrases,
) -> RoundSteps:
    labels, aggregator, ensemble = stores.labels, shared.aggregator, shared.ensemble
    context = RoundContext(
        (stores.projects, stores.rounds, stores.work), _models(settings), _round_plan(settings)
    )
    policy = RoundPolicy(settings.round_min_tasks, settings.round_every)
    return RoundSteps(
        prelabel,
        RoundScheduler(
            context, shared.guidelines_reader, (stores.projects, labels, stores.rounds), policy
        ),
        TrainStep(context, aggregator, make_small_model, wordings),
        RelabelStep(
            context, aggregator, ensemble, shared.guidelines_reader, (stores.tasks, labels)
        ),
        PromoteStep(context, aggregator, ensemble, shared.releaser, (labels, stores.releases)),
    )


def _prediction(settings: Settings, stores: _Stores, shared: _Shared) -> PredictionService:
    return PredictionService(
        Labelling(shared.ensemble, shared.guidelines_reader, shared.config, shared.releaser),
        (stores.projects, stores.tasks, stores.labels, stores.work),
        deadline_s=settings.predict_deadline_s,
        live_limit=settings.live_predict_limit,
    )


def _exporter(settings: Settings, stores: _Stores, shared: _Shared) -> Exporter:
    three = (stores.tasks, stores.labels, stores.releases)
    return Exporter(shared.guidelines_reader, shared.config, three, _models(settings))


def _reporter(
    settings: Settings, stores: _Stores, shared: _Shared, queue: QueueStatus
) -> StatusReporter:
    return StatusReporter(
        (stores.projects, stores.tasks, stores.labels, stores.work),
        stores.answers,
        queue,
        shared.sharer,
        RoundStatus(stores.rounds, _round_plan(settings)),
        prices=Prices(settings.llm_price_in, settings.llm_price_out),
    )


def _models(settings: Settings) -> Path:
    return settings.home / "models"


def _round_plan(settings: Settings) -> RoundPlan:
    return RoundPlan(
        recipe="paper" if settings.round_recipe == "paper" else "default",
        limit=settings.round_max_cycles,
        n_shots=settings.round_shots,
        llm_share=settings.llm_share or None,
        chunk=settings.annotate_chunk,
    )
