"""What the settings name: the servers, the models and the strategy of the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backend.adapters.label_studio import LabelStudioPlatform
from backend.adapters.replicas import Replicas
from backend.adapters.vllm import VllmServer
from backend.core.controls import RandomOrder
from backend.core.ports import Encoder, LanguageModel
from backend.core.query import ActiveLLMStrategy
from backend.core.rounds import RoundRecipe
from backend.core.small_model import PLAIN, Recipe, SmallModel
from backend.errors import SettingsError
from backend.llm.paper_sampler import PaperActiveLLM
from backend.llm.sampler import LLMJudge
from backend.settings import Settings
from backend.workflow.releasing import MakeStrategy
from backend.workflow.training import MakeSmallModel

_N_PUBLISHED_HEAD = 200


def connect_language_model(settings: Settings) -> VllmServer | Replicas:
    """Return the client of the servers that the settings name; asks nothing of them yet."""
    servers = [
        VllmServer(
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
        from backend.slm.encoder import SentenceEncoder
        from backend.slm.vector_cache import CachedEncoder

        encoder = SentenceEncoder(self._settings.encoder_model)
        return CachedEncoder(encoder, self._settings.home / "embeddings")

    @property
    def name(self) -> str:
        return self._encoder.name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder.embed(texts)


def small_models(settings: Settings, encoder: Encoder) -> MakeSmallModel:
    """Return what makes the small model of the settings, for the recipe of a round."""

    def make(recipe: RoundRecipe) -> SmallModel:
        from backend.slm.model import Transformer

        ways = {"default": Recipe(), "plain": PLAIN, "probe": Recipe(name="probe")}
        how = replace(PLAIN, name="paper") if recipe == "paper" else ways[settings.slm_recipe]
        return Transformer(settings.slm_model, recipe=how, encoder=encoder)

    return make


def query_strategies(settings: Settings, model: LanguageModel) -> MakeStrategy:
    """Return what makes the query strategy of the settings; raises SettingsError for no such."""
    name = settings.query_strategy
    if name == "activellm" and settings.query_llm_judge:
        return lambda asked: ActiveLLMStrategy(judge=LLMJudge(model, question=asked))
    if name == "activellm":
        return lambda asked: ActiveLLMStrategy()
    if name == "activellm-paper":
        return lambda asked: PaperActiveLLM(model, then=ActiveLLMStrategy())
    if name == "random":
        return lambda asked: RandomOrder()
    from backend.adapters.active_learning import PUBLISHED, PublishedStrategy

    if name not in PUBLISHED:
        known = ", ".join(["activellm", "activellm-paper", "random", *PUBLISHED])
        raise SettingsError(f"QUERY_STRATEGY={name!r}: expected one of {known}")
    return lambda asked: PublishedStrategy(name, n_head=_N_PUBLISHED_HEAD)
