"""What a project's queue is like, in words and numbers, and which tasks come next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backend.domain.projects import Project, QueuePlace
from backend.pipeline.release import ReleaseBuilder
from backend.store import Stores


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next places of a queue; `n_open` tasks of its ordering wait for people in all.

    `n_later` tasks were imported after the ordering: they stand among the others by how unsure
    their labels are.
    """

    places: tuple[QueuePlace, ...]
    n_open: int
    n_later: int


class QueueStatus:
    """Reads what is stored about a project's queue."""

    def __init__(self, releaser: ReleaseBuilder, stores: Stores) -> None:
        self._releaser = releaser
        self._stores = stores

    def state(self, project: Project) -> dict[str, Any] | None:
        """Return the newest ordering's figures and what they mean; None before the first."""
        queue = self._releaser.queue(project)
        if queue is None:
            return None
        health = queue.health or {}
        words = [
            f"{queue.strategy} ordered {queue.n_tasks - queue.n_human:,} tasks; "
            f"people had answered {queue.n_human:,}",
            *_words(health),
        ]
        return {
            "strategy": queue.strategy,
            "n_tasks": queue.n_tasks,
            "n_human": queue.n_human,
            "health": dict(health),
            "words": words,
            "warnings": list(health.get("warnings", ())),
        }

    def upcoming(self, project: Project, limit: int) -> Upcoming:
        """Return the first places of the release that people have not answered since."""
        places = self._stores.releases.places(project)
        answered = {label.task_id for label in self._stores.tasks.human_labels(project.id)}
        ids = set(self._stores.tasks.ids(project.id)) - answered
        waiting = [place for place in places if place.task_id in ids]
        n_later = len(ids) - len(waiting) if places else 0
        return Upcoming(tuple(waiting[:limit]), len(waiting), n_later)


def _words(health: Mapping[str, Any]) -> Iterator[str]:
    head = f"the first {health.get('n_head', 0)}"
    ascending, correlation = health.get("ascending_share"), health.get("position_correlation")
    if ascending is not None:
        also = "" if correlation is None else f", rank correlation with the list {correlation:.2f}"
        yield f"{head}: {ascending:.0%} of neighbours ascend by id (50% is chance){also}"
    if health.get("coverage") is not None:
        yield (
            f"{head} and the answered ones resemble the project's texts by {health['coverage']:.2f}"
            " on average (1 is equal)"
        )
    if health.get("class_balance") is not None:
        yield f"{head}: expected classes are balanced to {health['class_balance']:.0%}"
    if health.get("n_near_duplicates"):
        yield f"{health['n_near_duplicates']:,} near-duplicates stand at the end"
    if health.get("judgement_weight") is not None:
        yield _judgement(health)
    elif health.get("n_tokens"):
        yield f"choosing cost {health['n_tokens']:,} tokens"


def _judgement(health: Mapping[str, Any]) -> str:
    reliability = health.get("split_half_reliability")
    known = "unknown" if reliability is None else f"{reliability:.2f}"
    return (
        f"the LLM's judgement: split-half reliability {known}, weight "
        f"{health['judgement_weight']:.2f}, {health.get('n_tokens', 0):,} tokens"
    )
