"""The composition root: the only module that names all concrete adapters."""

from __future__ import annotations

from dataclasses import dataclass

from backend.adapters.label_config import LabelConfigReader
from backend.adapters.label_studio import LabelStudioPlatform
from backend.adapters.remote_text import RemoteTexts
from backend.adapters.store import Database, LabelStore, ProjectStore, TaskStore, WorkStore
from backend.adapters.vllm import VllmServer
from backend.core.ports import LabelingPlatform, LanguageModel
from backend.llm.annotator import LLMAnnotator
from backend.settings import Settings
from backend.workflow.annotation import Labelling, PreAnnotator
from backend.workflow.events import EventService
from backend.workflow.prediction import PredictionService
from backend.workflow.publishing import Publisher
from backend.workflow.reporting import Reporter
from backend.workflow.synchronisation import Synchroniser


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the web process, the worker and the command line call."""

    settings: Settings
    database: Database
    projects: ProjectStore
    tasks: TaskStore
    labels: LabelStore
    work: WorkStore
    config: LabelConfigReader
    platform: LabelingPlatform
    language_model: LanguageModel
    events: EventService
    prediction: PredictionService
    synchroniser: Synchroniser
    pre_annotator: PreAnnotator
    publisher: Publisher
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
) -> Services:
    """Wire everything together and bring the database up to date; raises StoreUnavailable.

    Tests give their own platform and language model.
    """
    database = Database(settings.state_url)
    database.migrate()
    projects, tasks = ProjectStore(database), TaskStore(database)
    labels, work = LabelStore(database), WorkStore(database)
    config = LabelConfigReader(RemoteTexts(settings.allowed_data_hosts))
    platform = platform or _platform(settings)
    language_model = language_model or _language_model(settings)
    labelling = Labelling(LLMAnnotator(language_model), config)
    return Services(
        settings=settings,
        database=database,
        projects=projects,
        tasks=tasks,
        labels=labels,
        work=work,
        config=config,
        platform=platform,
        language_model=language_model,
        events=EventService(config, (projects, tasks, work)),
        prediction=PredictionService(
            labelling,
            (projects, tasks, labels, work),
            deadline_s=settings.predict_deadline_s,
            live_limit=settings.live_predict_limit,
        ),
        synchroniser=Synchroniser(
            platform,
            config,
            (projects, tasks, labels, work),
            full_interval_s=settings.full_sync_interval_s,
            manages_queue=settings.manage_queue,
        ),
        pre_annotator=PreAnnotator(
            labelling,
            (projects, labels, work),
            chunk=settings.annotate_chunk,
            retry_abstentions_s=settings.retry_abstentions_s,
        ),
        publisher=Publisher(
            platform,
            (projects, labels, work),
            chunk=settings.publish_chunk,
            manages_queue=settings.manage_queue,
        ),
        reporter=Reporter((projects, tasks, labels, work)),
    )


def _platform(settings: Settings) -> LabelStudioPlatform:
    return LabelStudioPlatform(
        settings.label_studio_url,
        settings.label_studio_api_key.reveal(),
        timeout_s=settings.label_studio_timeout_s,
    )


def _language_model(settings: Settings) -> VllmServer:
    return VllmServer(
        settings.llm_base_url,
        model=settings.llm_model,
        api_key=settings.llm_api_key.reveal(),
        timeout_s=settings.llm_timeout_s,
        batch_size=settings.llm_batch_size,
        concurrency=settings.llm_concurrency,
    )
