"""Say in words what a project's state holds: how questions are asked and learned, the order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backend.domain.projects import QueueState
from backend.domain.questions import Question


def learning_in_words(question: Question) -> str:
    """Return whether rounds learn a question, and why not."""
    reason = question.not_learned_because
    return "learned in rounds" if reason is None else f"not learned in rounds: {reason}"


def prompt_in_words(report: Mapping[str, Any]) -> str:
    """Return the selected template, its demonstrations and second template, and the reason."""
    n_shots = len(report.get("demonstrations") or ())
    second = report.get("second")
    parts = [f"template {report['chosen']}"]
    parts += [f"{n_shots} demonstrations"] if n_shots else []
    parts += [f"{second['template']} as well where unsure"] if second else []
    return f"{', '.join(parts)} ({report['why']})"


def order_in_words(queue: QueueState | None) -> dict[str, Any] | None:
    """Return an ordering's figures and what they mean, JSON-ready; None before the first."""
    if queue is None:
        return None
    health = queue.health or {}
    words = [
        f"{queue.strategy} ordered {queue.n_tasks - queue.n_human:,} tasks; "
        f"people had answered {queue.n_human:,}",
        *_health_in_words(health),
    ]
    return {
        "strategy": queue.strategy,
        "n_tasks": queue.n_tasks,
        "n_human": queue.n_human,
        "health": dict(health),
        "words": words,
        "warnings": list(health.get("warnings", ())),
    }


def _health_in_words(health: Mapping[str, Any]) -> Iterator[str]:
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
    n_tokens = health.get("n_tokens", 0)
    if health.get("judgement_weight") is not None:
        reliability = health.get("split_half_reliability")
        known = "unknown" if reliability is None else f"{reliability:.2f}"
        yield (
            f"the LLM's judgement: split-half reliability {known}, weight "
            f"{health['judgement_weight']:.2f}, {n_tokens:,} tokens"
        )
    elif n_tokens:
        yield f"choosing cost {n_tokens:,} tokens"
