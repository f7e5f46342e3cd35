"""What the settings name: the servers, the models and the strategy of the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.activellm import ActiveLLMStrategy
from backend.active_learning.activellm_paper import PaperActiveLLM, read_mode
from backend.active_learning.baselines import RandomOrder
from backend.active_learning.informativeness import LLMInformativenessScorer
from backend.domain.ports import Encoder, LanguageModel
from backend.domain.rounds import RoundRecipe
from backend.domain.student import PLAIN, Recipe, Student, TrainingHooks, TrainingSet
from backend.errors import SettingsError
from backend.labelstudio.client import LabelStudioPlatform
from backend.launcher.child import ChildProcess, Command
from backend.launcher.environments import PROJECT_FOLDER
from backend.llm.client.load_balancer import Replicas
from backend.llm.client.server import LLMClient
from backend.pipeline.release import MakeStrategy
from backend.pipeline.rounds.train import StudentFactory
from backend.settings import Settings

_N_PUBLISHED_HEAD = 200
_MIN_TEXTS_FOR_SEVERAL = 5000
"""Below, one GPU is done before several processes have started."""


def connect_language_model(settings: Settings) -> LLMClient | Replicas:
    """Return the client of the servers that the settings name; asks nothing of them yet."""
    servers = [
        LLMClient(
            url,
            model=settings.llm_model,
            api_key=settings.llm_api_key.reveal(),
            timeout_s=settings.llm_timeout_s,
            batch_size=settings.llm_batch_size,
            concurrency=settings.llm_concurrency,
        )
        for url in settings.llm_base_urls
    ]
    return servers[0] if len(servers) == 1 else Replicas(servers)


def connect_platform(settings: Settings) -> LabelStudioPlatform:
    """Return the client of Label Studio; asks nothing of it yet."""
    return LabelStudioPlatform(
        settings.label_studio_url,
        settings.label_studio_api_key.reveal(),
        timeout_s=settings.label_studio_timeout_s,
    )


class EncoderAtFirstUse:
    """The encoder, whose libraries take seconds to import: most commands embed nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _encoder(self) -> Encoder:
        from backend.self_training.embedding_cache import CachedEncoder
        from backend.self_training.encoder import SentenceEncoder

        encoder = SentenceEncoder(self._settings.encoder_model)
        return CachedEncoder(encoder, self._settings.home / "embeddings")

    @property
    def name(self) -> str:
        return self._encoder.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder.embed(texts)


def student_factory(settings: Settings, encoder: Encoder) -> StudentFactory:
    """Return what makes the small model of the settings, for the recipe of a round."""

    def make(recipe: RoundRecipe) -> Student:
        from backend.self_training.self_trainer import SelfTrainer

        ways = {"default": Recipe(), "plain": PLAIN, "probe": Recipe(name="probe")}
        how = replace(PLAIN, name="paper") if recipe == "paper" else ways[settings.student_recipe]
        alone = SelfTrainer(settings.student_model, recipe=how, encoder=encoder)
        return alone if how.name == "probe" else _by_several(settings, alone, how, encoder)

    return make


def _by_several(settings: Settings, alone: Student, recipe: Recipe, encoder: Encoder) -> Student:
    """Return the small model trained by as many processes as the settings want, one GPU each."""
    from backend.self_training.encoder import n_gpus
    from backend.self_training.side_by_side import Order, SideBySide, known_vectors

    n_found = n_gpus()
    n_processes = settings.slm_processes or n_found
    if n_found:
        n_processes = min(n_processes, n_found)
    if n_processes < 2:
        return alone

    def order(data: TrainingSet, seed: int, hooks: TrainingHooks) -> Order:
        vectors = known_vectors(encoder, data.pool) if recipe.n_neighbours else None
        return Order(
            data, recipe, settings.student_model, seed, hooks.checkpoints, n_found == 0, vectors
        )

    def start(argv: tuple[str, ...], log_file: Path) -> ChildProcess:
        return ChildProcess(Command("training", argv, PROJECT_FOLDER), log_file=log_file)

    fewest = 0 if settings.slm_processes else _MIN_TEXTS_FOR_SEVERAL
    return SideBySide(alone, order, start, n_processes=n_processes, fewest_texts=fewest)


def query_strategies(settings: Settings, model: LanguageModel) -> MakeStrategy:
    """Return what makes the query strategy of the settings; raises SettingsError for no such."""
    name = settings.query_strategy
    if name != "activellm-paper":
        return _query_strategy("QUERY_STRATEGY", name, settings, model)
    read_mode(settings.query_paper_mode)  # a wrong one ends the start, not the first order
    then = _query_strategy("QUERY_PAPER_THEN", settings.query_paper_then, settings, model)
    return lambda asked: PaperActiveLLM(
        model, settings=read_mode(settings.query_paper_mode, guidelines=asked), then=then(asked)
    )


def _query_strategy(
    setting: str, name: str, settings: Settings, model: LanguageModel
) -> MakeStrategy:
    if name == "activellm" and settings.query_llm_judge:
        return lambda asked: ActiveLLMStrategy(
            scorer=LLMInformativenessScorer(model, question=asked)
        )
    if name == "activellm":
        return lambda asked: ActiveLLMStrategy()
    if name == "random":
        return lambda asked: RandomOrder()
    from backend.active_learning.published import PUBLISHED, PublishedStrategy

    if name not in PUBLISHED:
        alone = ["activellm-paper"] if setting == "QUERY_STRATEGY" else []
        known = ", ".join(["activellm", *alone, "random", *PUBLISHED])
        raise SettingsError(f"{setting}={name!r}: expected one of {known}")
    return lambda asked: PublishedStrategy(name, n_head=_N_PUBLISHED_HEAD)
