"""The composition root: the only module that wires stores, adapters and use cases together."""

from __future__ import annotations

from dataclasses import dataclass

from backend.adapters.answer_cache import CachedLanguageModel
from backend.adapters.definitions import DefinitionFiles
from backend.adapters.label_config import LabelConfigReader
from backend.adapters.remote_text import RemoteTexts
from backend.adapters.store import (
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
from backend.configured import (
    EncoderAtFirstUse,
    connect_language_model,
    connect_platform,
    query_strategies,
    small_models,
)
from backend.core.accounts import Prices
from backend.core.ports import Encoder, LabelingPlatform, LanguageModel
from backend.llm.annotator import LLMAnnotator
from backend.llm.spans import SpanAsker
from backend.settings import Settings
from backend.slm.similarity import SimilarityAnnotator
from backend.workflow.annotation import Labelling, PreAnnotator
from backend.workflow.beginning import Beginner, RoundPolicy
from backend.workflow.briefs import BriefReader
from backend.workflow.deciding import Decider
from backend.workflow.events import EventService
from backend.workflow.exporting import Exporter
from backend.workflow.jury import Jury
from backend.workflow.ordering import Orderer
from backend.workflow.prediction import PredictionService
from backend.workflow.prelabel import Crew
from backend.workflow.publishing import Publisher
from backend.workflow.queue_report import QueueReporter
from backend.workflow.refining import Refiner
from backend.workflow.releasing import Releaser
from backend.workflow.reporting import Reporter
from backend.workflow.round_desk import RoundDesk, RoundPlan
from backend.workflow.round_reporting import RoundReporter
from backend.workflow.rounds import RoundCrew
from backend.workflow.settling import Settler
from backend.workflow.sharing import Sharer
from backend.workflow.synchronisation import Synchroniser
from backend.workflow.training import MakeSmallModel, Trainer


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
    config: LabelConfigReader
    platform: LabelingPlatform
    language_model: LanguageModel
    annotator: LLMAnnotator
    similarity: SimilarityAnnotator
    encoder: Encoder
    events: EventService
    prediction: PredictionService
    synchroniser: Synchroniser
    pre_annotator: PreAnnotator
    publisher: Publisher
    orderer: Orderer
    settler: Settler
    jury: Jury
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
    projects, tasks = ProjectStore(database), TaskStore(database)
    labels, work = LabelStore(database), WorkStore(database)
    releases = ReleaseStore(database)
    config = LabelConfigReader(RemoteTexts(settings.allowed_data_hosts))
    platform = platform or connect_platform(settings)
    answers = AnswerStore(database)
    model = language_model or connect_language_model(settings)
    language_model = CachedLanguageModel(model, answers)
    encoder = encoder or EncoderAtFirstUse(settings)
    similarity = SimilarityAnnotator(encoder)
    annotator = LLMAnnotator(
        language_model, shortlist=similarity.shortlist, span_asker=SpanAsker(language_model)
    )
    state = StateStore(database)
    briefs = BriefReader(config, tasks, DefinitionFiles(settings.definitions_folder).read)
    jury = Jury(annotator, similarity, encoder, state)
    make_strategy = query_strategies(settings, language_model)
    releaser = Releaser(jury, config, (releases, state), make_strategy)
    queue = QueueReporter(releaser, releases, tasks)
    labelling = Labelling(jury, briefs, config, releaser)
    sharer = Sharer(
        jury, briefs, (labels, answers, state), make_strategy, share=settings.llm_share or None
    )
    settler = Settler(jury, briefs, tasks, labels)
    stores = (projects, tasks, labels, releases, work)
    orderer = Orderer(settler, releaser, stores, manages_queue=settings.manage_queue)
    rounds = RoundStore(database)
    desk = RoundDesk((projects, rounds, work), settings.home / "models", _round_plan(settings))
    make_small_model = make_small_model or small_models(settings, encoder)
    synchroniser = Synchroniser(
        platform,
        config,
        stores,
        full_interval_s=settings.full_sync_interval_s,
        manages_queue=settings.manage_queue,
        is_order_due=orderer.is_due,
    )
    pre_annotator = PreAnnotator(
        labelling,
        settler,
        sharer,
        (projects, labels, work),
        chunk=settings.annotate_chunk,
        retry_abstentions_s=settings.retry_abstentions_s,
    )
    publisher = Publisher(
        platform,
        (projects, labels, releases, work),
        chunk=settings.publish_chunk,
        manages_queue=settings.manage_queue,
    )
    crew = RoundCrew(
        Crew(synchroniser, pre_annotator, publisher, orderer),
        Beginner(
            desk,
            briefs,
            (projects, labels, rounds),
            RoundPolicy(settings.round_min_tasks, settings.round_every),
        ),
        Trainer(desk, settler, jury, make_small_model),
        Refiner(desk, settler, jury, briefs, (tasks, labels)),
        Decider(desk, settler, jury, releaser, (labels, releases)),
    )
    return Services(
        settings=settings,
        database=database,
        projects=projects,
        tasks=tasks,
        labels=labels,
        releases=releases,
        rounds=rounds,
        work=work,
        answers=answers,
        state=state,
        config=config,
        platform=platform,
        language_model=language_model,
        annotator=annotator,
        similarity=similarity,
        encoder=encoder,
        events=EventService(config, (projects, tasks, work)),
        prediction=PredictionService(
            labelling,
            (projects, tasks, labels, work),
            deadline_s=settings.predict_deadline_s,
            live_limit=settings.live_predict_limit,
        ),
        synchroniser=synchroniser,
        pre_annotator=pre_annotator,
        publisher=publisher,
        orderer=orderer,
        settler=settler,
        jury=jury,
        crew=crew,
        queue=queue,
        exporter=Exporter(briefs, config, (tasks, labels, releases), settings.home / "models"),
        reporter=Reporter(
            (projects, tasks, labels, work),
            answers,
            queue,
            sharer,
            RoundReporter(rounds, _round_plan(settings)),
            prices=Prices(settings.llm_price_in, settings.llm_price_out),
        ),
    )


def _round_plan(settings: Settings) -> RoundPlan:
    return RoundPlan(
        recipe="paper" if settings.round_recipe == "paper" else "default",
        limit=settings.round_limit,
        n_shots=settings.round_shots,
        llm_share=settings.llm_share or None,
        chunk=settings.annotate_chunk,
    )
