"""Count what the LLM is asked, by project and purpose: set where work begins, read at requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UsageScope:
    """A project and what the LLM is used for; both may be empty.

    Purposes are stored, so their names stay: "annotate", "study" (label the first sample),
    "rewording" (paraphrase texts), "order" (score texts for the queue), "predict", "relabel",
    "round 2".
    """

    project_id: str = ""
    purpose: str = ""


STUDY = "study"
NO_SCOPE = UsageScope()
_scope: ContextVar[UsageScope] = ContextVar("usage_scope", default=NO_SCOPE)


@contextmanager
def track_usage(project_id: str, purpose: str) -> Iterator[None]:
    """Count what this thread asks of the LLM within the block under a project and a purpose."""
    token = _scope.set(UsageScope(project_id, purpose))
    try:
        yield
    finally:
        _scope.reset(token)


def current_scope() -> UsageScope:
    """Return the scope of the innermost `track_usage` block around the caller."""
    return _scope.get()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the LLM was asked in a scope, and what that took.

    `n_cache_hits` of the `n_prompts` cost nothing; tokens and `seconds` are of the others. The
    seconds are those that callers waited, the answers of one call together.
    """

    scope: UsageScope = NO_SCOPE
    n_calls: int = 0
    n_prompts: int = 0
    n_cache_hits: int = 0
    n_tokens_in: int = 0
    n_tokens_out: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LLMBudget:
    """Which tasks of a project the LLM is asked about at first; JSON in the state store.

    `left_out`: ids of tasks up to `last_id` that it is not asked about; `share` in (0, 1] and
    `why`, in words, are of the newest decision.
    """

    question_version: str
    share: float = 1.0
    why: str = "the LLM labels every task"
    last_id: int = 0
    left_out: tuple[int, ...] = ()

    @property
    def summary(self) -> str:
        """Return the newest decision in words, and how many tasks all decisions left out."""
        if not self.left_out:
            return self.why
        return f"{self.why}; {len(self.left_out):,} tasks in all are left to similarity at first"


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in the user's own currency."""

    per_million_in: float = 0.0
    per_million_out: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Return what the usage cost."""
        spent = usage.n_tokens_in * self.per_million_in + usage.n_tokens_out * self.per_million_out
        return spent / 1e6
