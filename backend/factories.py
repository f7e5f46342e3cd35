"""Build what the settings name: clients, encoder, student and query strategy.

Each function imports what it builds, so that a command loads no more than it uses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from backend.domain.labels import Abstention, AbstentionReason
from backend.errors import EmbeddedModelError, PlatformUnavailable, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from backend.domain.ports import Encoder, LanguageModel
    from backend.domain.rounds import RoundRecipeName
    from backend.domain.span_student import SpanStudent
    from backend.domain.student import Student
    from backend.labelstudio.client import LabelStudioPlatform
    from backend.labelstudio.label_config import LabelConfigReader
    from backend.labelstudio.tabs import LabelStudioTabs
    from backend.llm.client.server import LLMClient
    from backend.pipeline.release import MakeStrategy, QueuePlan
    from backend.pipeline.rounds.students import StudentFactory, TaggerFactory
    from backend.settings import Settings

EMBEDDINGS = "embeddings"
"""Folder of the cached vectors in FREEAL_HOME."""
_N_PUBLISHED_HEAD = 200
_GREETING_S = 1.5


def connect_language_model(settings: Settings) -> LLMClient:
    """Return the client of the LLM server; it sends no request yet."""
    from backend.llm.client.concurrency import RequestLimits
    from backend.llm.client.server import LLMClient

    return LLMClient(
        settings.llm_base_url,
        model=settings.llm_model,
        api_key=settings.llm_api_key.reveal(),
        n_context_tokens=settings.llm_context_tokens,
        limits=RequestLimits(
            timeout_s=settings.llm_timeout_s,
            batch_size=settings.llm_batch_size,
            concurrency=settings.llm_concurrency,
        ),
    )


def llm_greeting(settings: Settings) -> Callable[[], None]:
    """Return a function that asks the LLM server for its models, which it answers however busy.

    It raises LanguageModelUnavailable, and LanguageModelRejected where the server has no such list
    or refuses the key.
    """
    from backend.llm.client.connection import ServerConnection

    key = settings.llm_api_key.reveal()
    connection = ServerConnection(settings.llm_base_url, api_key=key, n_connections=1)

    def greet() -> None:
        url = f"{connection.base_url}/models"
        connection.exchange(url, until=time.monotonic() + _GREETING_S)

    return greet


def label_studio_greeting(settings: Settings) -> Callable[[], None]:
    """Return a function that raises PlatformUnavailable unless Label Studio answers."""
    from backend.labelstudio.admin import LabelStudioAdmin

    key = settings.label_studio_api_key.reveal()
    admin = LabelStudioAdmin(settings.label_studio_url, key, timeout_s=_GREETING_S)

    def greet() -> None:
        if not admin.is_healthy():
            raise PlatformUnavailable("Label Studio does not answer")

    return greet


def closed_config_reader(settings: Settings) -> LabelConfigReader:
    """Return a reader of label configs that opens no link."""
    from backend.labelstudio.label_config import LabelConfigReader

    behind = Abstention(AbstentionReason.REMOTE_TEXT, "the text is behind a link")
    return LabelConfigReader(lambda *_: behind, skip=settings.skip_controls)


def connect_platform(settings: Settings) -> LabelStudioPlatform:
    """Return the client of Label Studio; it sends no request yet."""
    from backend.labelstudio.client import LabelStudioPlatform

    return LabelStudioPlatform(
        settings.label_studio_url,
        settings.label_studio_api_key.reveal(),
        timeout_s=settings.label_studio_timeout_s,
    )


def connect_tabs(settings: Settings) -> LabelStudioTabs:
    """Return what keeps tabs in Label Studio; it sends no request yet."""
    from backend.labelstudio.tabs import LabelStudioTabs

    return LabelStudioTabs(
        settings.label_studio_url,
        settings.label_studio_api_key.reveal(),
        timeout_s=settings.label_studio_timeout_s,
    )


def pretrained_source(model: str, home: Path, *, fetches: bool = True) -> tuple[str, str]:
    """Return what transformers loads for a setting, and the name of an embedded model.

    A folder or a name of a model hub is returned as it is, with no name of its own. The files of an
    embedded model are fetched at its first use, which takes a minute.

    Args:
        model: what ENCODER_MODEL or STUDENT_MODEL says.
        home: FREEAL_HOME.
        fetches: whether to fetch; if not, missing files are an error.

    Raises:
        EmbeddedModelError: the files are missing or cannot be fetched.
    """
    from backend.launcher.embedded_models import ENCODER_INSIDE, ENCODERS, find

    if model.lower() == ENCODER_INSIDE:
        return "", ""
    embedded = find(model, ENCODERS)
    if embedded is None:
        return model, ""
    if embedded.is_there(home):
        return str(embedded.folder(home)), embedded.name
    if not fetches:
        raise EmbeddedModelError(f"{embedded.name} is not there yet: the worker fetches it")
    from rich.console import Console

    from backend.launcher.model_files import ensure_encoder

    folder = ensure_encoder(embedded, home=home, console=Console(stderr=True))
    return str(folder), embedded.name


def cached_encoder(settings: Settings, *, fetches: bool = True, loads: bool = True) -> Encoder:
    """Return the sentence encoder with its cache; texts whose vectors are kept load no model.

    `loads`: whether other texts do; if not, they raise EmbeddedModelError.
    """
    from backend.self_training.embedding_cache import CachedEncoder

    encoder = LazyEncoder(settings, fetches=fetches, loads=loads)
    return CachedEncoder(encoder, settings.home / EMBEDDINGS)


class LazyEncoder:
    """The sentence encoder, loaded for its first text: importing its libraries takes seconds."""

    def __init__(self, settings: Settings, *, fetches: bool = True, loads: bool = True) -> None:
        self._settings = settings
        self._fetches = fetches
        self._loads = loads

    @cached_property
    def _source(self) -> tuple[str, str]:
        settings = self._settings
        return pretrained_source(settings.encoder_model, settings.home, fetches=self._fetches)

    @cached_property
    def _encoder(self) -> Encoder:
        if not self._loads:
            raise EmbeddedModelError(f"{self.name} is not loaded for this")
        from backend.self_training.encoder import SentenceEncoder

        return SentenceEncoder(self._source[0], name=self.name)

    @cached_property
    def name(self) -> str:
        return _name_of(*self._source)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._encoder.embed(texts)


def model_names(settings: Settings) -> dict[str, str]:
    """Return the names of the models that rounds compute with, by setting; fetches none."""
    models = {"ENCODER_MODEL": settings.encoder_model, "STUDENT_MODEL": settings.student_model}
    names = {
        setting: _name_of(*pretrained_source(model, settings.home, fetches=False))
        for setting, model in models.items()
    }
    return {**names, "STUDENT_RECIPE": settings.student_recipe}


def _name_of(source: str, name: str) -> str:
    """Return the name of a model from `pretrained_source`; of a folder all weights are read."""
    from backend.self_training.encoder_files import encoder_name

    return name or encoder_name(source)


def embedding_trimmer(home: Path) -> Callable[[int], int]:
    """Return a function that deletes cached vectors until they take at most so many bytes."""

    def trim(max_bytes: int) -> int:
        from backend.self_training.embedding_cache import trim_embeddings

        return trim_embeddings(home / EMBEDDINGS, max_bytes)

    return trim


def student_factory(settings: Settings, encoder: Encoder) -> StudentFactory:
    """Return a function that builds the student for a round's recipe."""

    def make(recipe: RoundRecipeName) -> Student:
        from backend.domain.student import RECIPES
        from backend.self_training.self_trainer import SelfTrainer

        chosen = RECIPES["paper" if recipe == "paper" else settings.student_recipe]
        base, _ = pretrained_source(settings.student_model, settings.home)
        return SelfTrainer(base, recipe=chosen, encoder=encoder)

    return make


def tagger_factory(settings: Settings) -> TaggerFactory:
    """Return a function that builds the student of questions about spans for a round's recipe.

    A recipe that only classifiers have is the default one.
    """

    def make(recipe: RoundRecipeName) -> SpanStudent:
        from backend.domain.student import RECIPES
        from backend.self_training.tagger_training import SpanTrainer

        is_plain = recipe == "paper" or settings.student_recipe == "plain"
        base, _ = pretrained_source(settings.student_model, settings.home)
        return SpanTrainer(base, recipe=RECIPES["plain" if is_plain else "default"])

    return make


def queue_plan(settings: Settings) -> QueuePlan:
    """Return what the queue aims at; raises SettingsError."""
    from backend.pipeline.release import QueuePlan

    weights: dict[str, float] = {}
    for pair in settings.question_weights:
        name, _, weight = pair.rpartition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError as exc:
            raise SettingsError(f"QUESTION_WEIGHTS={pair!r}: expected name=weight") from exc
        if not name or not 0 <= weights[name.strip()] < float("inf"):
            raise SettingsError(f"QUESTION_WEIGHTS={pair!r}: expected name=weight, at least 0")
    if not 0 <= settings.holdout_share <= 1:
        raise SettingsError(f"HOLDOUT_SHARE={settings.holdout_share}: expected 0 to 1")
    return QueuePlan(settings.holdout_share, weights)


def query_strategies(settings: Settings, model: LanguageModel) -> MakeStrategy:
    """Return a function that builds the query strategy for the guidelines of a project.

    Raises:
        SettingsError: a setting names no strategy, or the mode cannot be read.
    """
    name = settings.query_strategy
    if name != "activellm-paper":
        return _query_strategy("QUERY_STRATEGY", name, settings, model)
    from backend.active_learning.activellm_paper import PaperActiveLLM, parse_mode

    parse_mode(settings.query_paper_mode)  # a wrong one ends the start, not the first order
    then = _query_strategy("QUERY_PAPER_THEN", settings.query_paper_then, settings, model)
    return lambda guidelines: PaperActiveLLM(
        model,
        settings=parse_mode(settings.query_paper_mode, guidelines=guidelines),
        then=then(guidelines),
    )


def _query_strategy(
    setting: str, name: str, settings: Settings, model: LanguageModel
) -> MakeStrategy:
    from backend.active_learning.activellm import ActiveLLMStrategy
    from backend.active_learning.baselines import PUBLISHED, PublishedStrategy, RandomOrder
    from backend.active_learning.informativeness import LLMInformativenessScorer

    if name == "activellm" and settings.query_llm_judge:
        return lambda guidelines: ActiveLLMStrategy(
            scorer=LLMInformativenessScorer(model, question=guidelines)
        )
    if name == "activellm":
        return lambda guidelines: ActiveLLMStrategy()
    if name == "random":
        return lambda guidelines: RandomOrder()
    if name not in PUBLISHED:
        alone = ["activellm-paper"] if setting == "QUERY_STRATEGY" else []
        known = ", ".join(["activellm", *alone, "random", *PUBLISHED])
        raise SettingsError(f"{setting}={name!r}: expected one of {known}")
    return lambda guidelines: PublishedStrategy(name, n_head=_N_PUBLISHED_HEAD)
