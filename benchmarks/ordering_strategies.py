"""Build query strategies by name, with ablations and controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from backend.active_learning.activellm import ActiveLLMStrategy
from backend.active_learning.activellm_paper import PaperActiveLLM, parse_mode
from backend.active_learning.baselines import PUBLISHED, PublishedStrategy, complete_order
from backend.active_learning.informativeness import LLMInformativenessScorer
from backend.active_learning.pool_estimate import ActiveLLMSettings
from backend.active_learning.strategy_interface import Ordering, PoolView, QueryStrategy
from backend.domain.ports import LanguageModel
from backend.llm.client.server import LLMClient
from benchmarks.language_models import cached_language_model
from benchmarks.ordering_pools import LabeledSet
from benchmarks.ordering_protocol import Build

_N_SHORTLIST = 100


def task_description(data: LabeledSet) -> str:
    """Describe a data set's labels for a prompt."""
    return "each text is one of " + ", ".join(data.label_names)


@dataclass(frozen=True)
class Builders:
    """Builds strategies by name.

    Args:
        llm: URL of an LLM server, for strategies that need one.
        cache: Folder of the LLM's cached answers.
        task: Description of the labels, for prompts.
    """

    llm: str
    cache: Path
    task: str

    def __call__(self, name: str) -> Build:
        """Return a function from batch size to strategy.

        Raises:
            ValueError: The name is unknown, or the strategy needs an LLM and there is no URL.
        """
        if name in PUBLISHED:
            return lambda n: PublishedStrategy(name, n_head=n)
        if name in _OWN:
            return _OWN[name]
        name, _, mode = name.partition("@")
        with_llm = {
            "activellm-judged": self._scored(lambda strategy: strategy),
            "activellm-judged-permuted": self._scored(_Permuted),
            "activellm-judged-blank": self._scored(_Blank),
            "activellm-paper": self._paper(lambda strategy: strategy, mode),
            "activellm-paper-permuted": self._paper(_Permuted, mode),
            "activellm-paper-blank": self._paper(_Blank, mode),
        }
        if name not in with_llm:
            known = ", ".join([*_OWN, *with_llm, *PUBLISHED])
            raise ValueError(f"no strategy {name!r}; there are {known}")
        if not self.llm:
            raise ValueError(f"{name} needs an LLM: give its URL with --llm")
        return with_llm[name]

    def _scored(self, wrap: Wrapper) -> Build:
        def build(n: int) -> QueryStrategy:
            scorer = LLMInformativenessScorer(self._model, question=self.task)
            settings = ActiveLLMSettings(n_head=n, n_shortlist=_N_SHORTLIST)
            return wrap(ActiveLLMStrategy(scorer=scorer, settings=settings))

        return build

    def _paper(self, wrap: Wrapper, mode: str) -> Build:
        """Let the LLM select the first 32 and the default strategy the rest (a warm start).

        A mode follows the name: "activellm-paper@advice@texts=100".
        """
        settings = parse_mode(mode.replace("@", ","), guidelines=self.task)

        def build(n: int) -> QueryStrategy:
            return wrap(_WarmStart(PaperActiveLLM(self._model, settings=settings), _default()(n)))

        return build

    @cached_property
    def _model(self) -> LanguageModel:
        return cached_language_model(LLMClient(self.llm), self.cache)


Wrapper = Callable[[QueryStrategy], QueryStrategy]


class FirstInList:
    """Keep the order of the list, which the published "pick 32 of 200" mostly returned."""

    name = "first-k"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        return complete_order(pool, pool.open_positions.tolist(), "next in the list", rng)


class EveryNth:
    """Take every n-th open position for a first batch of `n_head`, then random ones."""

    name = "every-nth"

    def __init__(self, n_head: int) -> None:
        self._n_head = n_head

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        open_positions = pool.open_positions
        step = max(1, len(open_positions) // self._n_head)
        head = open_positions[::step][: self._n_head].tolist()
        return complete_order(pool, head, f"every {step}th of the list", rng)


class _WarmStart:
    """A strategy for the first 32 labels, then another."""

    def __init__(self, first: QueryStrategy, then: QueryStrategy) -> None:
        self._first, self._then = first, then
        self.name = first.name

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        chosen = self._first if len(pool.labeled) < 32 else self._then
        return chosen.order(pool, rng=rng)


class _WithoutPosteriors:
    """A strategy without the posteriors of annotators and student."""

    def __init__(self, strategy: QueryStrategy) -> None:
        self._strategy = strategy
        self.name = f"{strategy.name}-blind"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        blind = replace(pool, posteriors=None, student_posteriors=None, agreement=None)
        return self._strategy.order(blind, rng=rng)


class _Permuted:
    """A control whose positions show other texts: what it gains is not from reading."""

    def __init__(self, strategy: QueryStrategy) -> None:
        self._strategy = strategy
        self.name = f"{strategy.name}-permuted"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        other = np.random.default_rng(0).permutation(len(pool))
        read = pool.read_texts

        def read_other(positions: Sequence[int]) -> Sequence[str]:
            return [] if read is None else read([int(other[at]) for at in positions])

        return self._strategy.order(replace(pool, read_texts=read_other), rng=rng)


class _Blank:
    """A control whose positions show empty texts."""

    def __init__(self, strategy: QueryStrategy) -> None:
        self._strategy = strategy
        self.name = f"{strategy.name}-blank"

    def order(self, pool: PoolView, *, rng: np.random.Generator) -> Ordering:
        blank = replace(pool, read_texts=lambda positions: ["" for _ in positions])
        return self._strategy.order(blank, rng=rng)


def _default(**changes: float) -> Build:
    def build(n: int) -> QueryStrategy:
        settings = replace(ActiveLLMSettings(n_head=n), **changes)  # type: ignore[arg-type]
        return ActiveLLMStrategy(settings=settings)

    return build


_OWN: dict[str, Build] = {
    "activellm": _default(),
    "activellm-blind": lambda n: _WithoutPosteriors(_default()(n)),
    "activellm-no-herding": _default(min_agreement=-1.0),
    "activellm-no-quota": _default(quota_power=0.0),
    "activellm-no-clarity": _default(margin_power=0.0),
    "activellm-text-only": _default(label_share=0.0),
    "first-k": lambda n: FirstInList(),
    "every-nth": EveryNth,
}

WITHOUT_ANNOTATORS = {*PUBLISHED, "activellm-blind", "first-k", "every-nth"}
"""Strategies that do not look at the annotators' posteriors."""
