"""Wire the steps of the worker's workflows: pre-annotation and FreeAL rounds."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, cast

from backend.factories import model_names
from backend.llm.paraphraser import Paraphraser
from backend.pipeline.llm_budget import LLMBudgetPlanner
from backend.pipeline.ordering import Orderer
from backend.pipeline.predict import Labeler
from backend.pipeline.prelabel import PreAnnotator, PrelabelSteps
from backend.pipeline.publish import Publisher
from backend.pipeline.rounds.cleanup import RoundCleaner
from backend.pipeline.rounds.context import RoundContext, RoundPlan
from backend.pipeline.rounds.promote import PromoteStep
from backend.pipeline.rounds.recipes import round_recipes
from backend.pipeline.rounds.relabel import RelabelStep
from backend.pipeline.rounds.scheduler import RoundPolicy, RoundScheduler
from backend.pipeline.rounds.train import Paraphrases, TrainStep
from backend.pipeline.rounds.workflow import RoundSteps
from backend.pipeline.sync import PrelabelPlan, Synchronizer

if TYPE_CHECKING:
    from backend.domain.rounds import LabelsChange
    from backend.services import Services


def make_round_steps(services: Services) -> RoundSteps:
    """Return the steps of a round, the pre-annotation before it included."""
    settings, stores = services.settings, services.stores
    aggregator, ensemble, guidelines = services.aggregator, services.ensemble, services.guidelines
    plan = RoundPlan(
        recipe="paper" if settings.round_recipe == "paper" else "default",
        max_cycles=settings.round_limit,
        n_shots=settings.round_shots,
        llm_share=settings.llm_share or None,
        chunk=settings.annotate_chunk,
        labels_change=cast("LabelsChange", settings.labels_change),
    )
    recipes = round_recipes(ensemble)
    models = cache(partial(model_names, settings))  # of a folder it reads the whole weights
    context = RoundContext(stores, guidelines, services.models, plan, recipes, models)
    policy = RoundPolicy(settings.round_min_tasks, settings.round_every)
    views = Paraphrases(settings.student_views, Paraphraser(services.language_model).paraphrase)
    return RoundSteps(
        _make_prelabel_steps(services),
        RoundScheduler(context, guidelines, stores, policy),
        TrainStep(context, aggregator, services.student_trainers, views),
        RelabelStep(context, aggregator, ensemble, guidelines, stores),
        PromoteStep(context, aggregator, ensemble, services.releases, stores),
        RoundCleaner(context, stores),
    )


def _make_prelabel_steps(services: Services) -> PrelabelSteps:
    settings, stores, config = services.settings, services.stores, services.config
    platform, connections = services.platform, services.connections
    ensemble, guidelines = services.ensemble, services.guidelines
    plan = PrelabelPlan(
        annotate_chunk=settings.annotate_chunk,
        publish_chunk=settings.publish_chunk,
        manages_queue=settings.manage_queue,
        full_sync_interval_s=settings.full_sync_interval_s,
        retry_abstentions_s=settings.retry_abstentions_s,
    )
    share = settings.llm_share or None
    budget = LLMBudgetPlanner(ensemble, guidelines, stores, services.make_strategy, share)
    orderer = Orderer(services.aggregator, services.releases, stores, plan)
    labeler = Labeler(ensemble, guidelines, config, stores, services.student_predictor)
    return PrelabelSteps(
        Synchronizer(platform, connections, config, stores, plan, orderer.is_due),
        PreAnnotator(labeler, services.aggregator, budget, stores, plan),
        Publisher(platform, connections, stores, plan),
        orderer,
        services.tabs,
    )
