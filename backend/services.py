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
    small_models,
)
from backend.labelstudio.definition_files import DefinitionFiles
from backend.labelstudio.label_config import LabelConfigReader
from backend.labelstudio.remote_text import RemoteTexts
from backend.llm.annotator import LLMAnnotator
from backend.llm.client.cache import CachedLanguageModel
from backend.llm.paraphraser import Reworder
from backend.llm.spans import SpanAsker
from backend.pipeline.aggregate import Settler
from backend.pipeline.annotation import Labelling, PreAnnotator
from backend.pipeline.ensemble import Jury
from backend.pipeline.events import EventService
from backend.pipeline.export import Exporter
from backend.pipeline.guidelines import BriefReader
from backend.pipeline.llm_budget import Sharer
from backend.pipeline.ordering import Orderer
from backend.pipeline.predict import PredictionService
from backend.pipeline.prelabel import Crew
from backend.pipeline.publish import Publisher
from backend.pipeline.queue_status import QueueReporter
from backend.pipeline.release import Releaser
from backend.pipeline.rounds.context import RoundDesk, RoundPlan
from backend.pipeline.rounds.paraphrases import SecondWordings
from backend.pipeline.rounds.promote import Decider
from backend.pipeline.rounds.relabel import Refiner
from backend.pipeline.rounds.scheduler import Beginner, RoundPolicy
from backend.pipeline.rounds.status import RoundReporter
from backend.pipeline.rounds.train import MakeSmallModel, Trainer
from backend.pipeline.rounds.workflow import RoundCrew
from backend.pipeline.status import Reporter
from backend.pipeline.student_predictor import SmallModelVoice
from backend.pipeline.sync import Synchroniser
from backend.self_training.similarity import SimilarityAnnotator
from backend.settings import Settings
from backend.store import (
    AnswerStore,
    Database,
    LabelStore,
    ProjectStore,
    ReleaseStore,
    RoundStore,
    StateStore,
    TaskStore,
    WorkStore,
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
    work: WorkStore
    answers: AnswerStore
    state: StateStore
    platform: LabelingPlatform
    language_model: LanguageModel
    encoder: Encoder
    config: LabelConfigReader
    annotator: LLMAnnotator
    similarity: SimilarityAnnotator
    jury: Jury
    settler: Settler
    events: EventService
    prediction: PredictionService
    crew: RoundCrew
    queue: QueueReporter
    exporter: Exporter
    reporter: Reporter

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
    work: WorkStore
    answers: AnswerStore
    state: StateStore


@dataclass(frozen=True, slots=True)
class _Shared:
    """What several use cases are made of."""

    config: LabelConfigReader
    briefs: BriefReader
    annotator: LLMAnnotator
    similarity: SimilarityAnnotator
    jury: Jury
    settler: Settler
    releaser: Releaser
    sharer: Sharer


def build_services(
    settings: Settings,
    *,
    platform: LabelingPlatform | None = None,
    language_model: LanguageModel | None = None,
    encoder: Encoder | None = None,
    make_small_model: MakeSmallModel | None = None,
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
    make_small_model = make_small_model or small_models(settings, encoder)
    shared = _shared(settings, stores, language_model, encoder)
    voice = SmallModelVoice(stores.releases, _models(settings), make_small_model)
    prelabel = _prelabel_crew(settings, stores, shared, platform, voice)
    queue = QueueReporter(shared.releaser, stores.releases, stores.tasks)
    wordings = SecondWordings(settings.slm_views, Reworder(language_model).reword)
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
        jury=shared.jury,
        settler=shared.settler,
        events=EventService(shared.config, (stores.projects, stores.tasks, stores.work)),
        prediction=_prediction(settings, stores, shared),
        crew=_round_crew(settings, stores, shared, prelabel, make_small_model, wordings),
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
        work=WorkStore(database),
        answers=AnswerStore(database),
        state=StateStore(database),
    )


def _shared(
    settings: Settings, stores: _Stores, language_model: LanguageModel, encoder: Encoder
) -> _Shared:
    config = LabelConfigReader(RemoteTexts(settings.allowed_data_hosts))
    definitions = DefinitionFiles(settings.definitions_folder)
    briefs = BriefReader(config, stores.tasks, definitions.read)
    similarity = SimilarityAnnotator(encoder)
    annotator = LLMAnnotator(
        language_model, shortlist=similarity.shortlist, span_asker=SpanAsker(language_model)
    )
    jury = Jury(annotator, similarity, encoder, stores.state)
    make_strategy = query_strategies(settings, language_model)
    releaser = Releaser(jury, config, (stores.releases, stores.state), make_strategy)
    return _Shared(
        config=config,
        briefs=briefs,
        annotator=annotator,
        similarity=similarity,
        jury=jury,
        settler=Settler(jury, briefs, stores.tasks, stores.labels),
        releaser=releaser,
        sharer=Sharer(
            jury,
            briefs,
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
    voice: SmallModelVoice,
) -> Crew:
    five = (stores.projects, stores.tasks, stores.labels, stores.releases, stores.work)
    orderer = Orderer(shared.settler, shared.releaser, five, manages_queue=settings.manage_queue)
    return Crew(
        Synchroniser(
            platform,
            shared.config,
            five,
            full_interval_s=settings.full_sync_interval_s,
            manages_queue=settings.manage_queue,
            is_order_due=orderer.is_due,
        ),
        PreAnnotator(
            Labelling(shared.jury, shared.briefs, shared.config, shared.releaser, voice),
            shared.settler,
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
    prelabel: Crew,
    make_small_model: MakeSmallModel,
    wordings: SecondWordings,
) -> RoundCrew:
    labels, settler, jury = stores.labels, shared.settler, shared.jury
    desk = RoundDesk(
        (stores.projects, stores.rounds, stores.work), _models(settings), _round_plan(settings)
    )
    policy = RoundPolicy(settings.round_min_tasks, settings.round_every)
    return RoundCrew(
        prelabel,
        Beginner(desk, shared.briefs, (stores.projects, labels, stores.rounds), policy),
        Trainer(desk, settler, make_small_model, wordings),
        Refiner(desk, settler, jury, shared.briefs, (stores.tasks, labels)),
        Decider(desk, settler, jury, shared.releaser, (labels, stores.releases)),
    )


def _prediction(settings: Settings, stores: _Stores, shared: _Shared) -> PredictionService:
    return PredictionService(
        Labelling(shared.jury, shared.briefs, shared.config, shared.releaser),
        (stores.projects, stores.tasks, stores.labels, stores.work),
        deadline_s=settings.predict_deadline_s,
        live_limit=settings.live_predict_limit,
    )


def _exporter(settings: Settings, stores: _Stores, shared: _Shared) -> Exporter:
    three = (stores.tasks, stores.labels, stores.releases)
    return Exporter(shared.briefs, shared.config, three, _models(settings))


def _reporter(
    settings: Settings, stores: _Stores, shared: _Shared, queue: QueueReporter
) -> Reporter:
    return Reporter(
        (stores.projects, stores.tasks, stores.labels, stores.work),
        stores.answers,
        queue,
        shared.sharer,
        RoundReporter(stores.rounds, _round_plan(settings)),
        prices=Prices(settings.llm_price_in, settings.llm_price_out),
    )


def _models(settings: Settings) -> Path:
    return settings.home / "models"


def _round_plan(settings: Settings) -> RoundPlan:
    return RoundPlan(
        recipe="paper" if settings.round_recipe == "paper" else "default",
        limit=settings.round_limit,
        n_shots=settings.round_shots,
        llm_share=settings.llm_share or None,
        chunk=settings.annotate_chunk,
    )
