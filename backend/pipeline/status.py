"""Report the state of a project, its queue and its rounds, for people and programs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backend.domain.holdout import HOLDOUT_SHARE, holdout_seed, in_holdout
from backend.domain.labels import MIN_HOLDOUT_ANSWERS, N_NEXT_ANSWERS
from backend.domain.llm_usage import LLMBudget, Prices
from backend.domain.ports import ConfigReader
from backend.domain.projects import (
    ACCEPTANCE,
    CERTIFICATE,
    Project,
    ProjectId,
    QueuePlace,
    QueueState,
)
from backend.domain.questions import Question
from backend.domain.rounds import MAX_CHANGED, Round, RoundState
from backend.errors import StoreUnavailable, UnsupportedLabelConfig
from backend.evaluation.stopping import (
    ExpectedAnswers,
    advise_on_labels,
    advise_on_rounds,
    seconds_per_answer,
)
from backend.pipeline.origins import labeled_by, noted_annotators
from backend.pipeline.status_words import learning_in_words, order_in_words, prompt_in_words
from backend.store import Stores

_LOG = logging.getLogger(__name__)
QUEUE, LLM_BUDGET, FITTED = "queue", "llm_share", "label_model"
RELABEL, LLM_SERVER = "relabel", "llm_server"
"""States of a request to label anew, and of what the LLM's server offers."""
LABELS = "labels"
"""Provenance of a release: by question how often it has each label, and labels of each source."""
OUTDATED = "outdated"
"""State of a project whose served predictions say something else than its labels."""
_MAX_ROUNDS = 20
_N_PACE = 1_000  # of the last answers: how fast people are now
_MAX_UNREADABLE = 10
_PROGRESS = (
    *("n_tasks", "n_labelled", "n_published", "n_refused", "n_to_label", "n_human_labels"),
    *("n_without_label", "n_abstained", "seconds_left", "is_complete"),
)
_USAGE = (
    *("n_llm_calls", "n_prompts", "n_cache_hits", "n_tokens_in", "n_tokens_out"),
    *("llm_seconds", "llm_cost"),
)
_ROUND = ("number", "recipe", "reason", "n_human", "step", "model_version", "error", "seconds")


def read_queue(stores: Stores, project: Project) -> QueueState | None:
    """Return what is known about the present question's queue, None before the first ordering."""
    stored = stores.state.current(project, QUEUE)
    return QueueState(**stored | {"uncertainty": tuple(stored["uncertainty"])}) if stored else None


def read_llm_budget(stores: Stores, project: Project) -> LLMBudget:
    """Return the decision for the present question; before one the LLM labels all tasks."""
    stored = stores.state.current(project, LLM_BUDGET)
    if not stored:
        return LLMBudget(project.question_version)
    return LLMBudget(**stored | {"left_out": tuple(stored["left_out"])})


def request_release(stores: Stores, project: Project, why: str) -> None:
    """Have what is served replaced by a release of the present labels."""
    state = {"question_version": project.question_version, "why": why}
    stores.state.put(project.id, OUTDATED, state)
    _LOG.info("project=%s a new release is due: %s", project.id, why)


@dataclass(frozen=True, slots=True)
class Upcoming:
    """The next places of a queue; `n_open` tasks of its ordering wait for people in all.

    `n_later` tasks were imported after the ordering: they stand among the others by how uncertain
    their labels are.
    """

    places: tuple[QueuePlace, ...]
    n_open: int
    n_later: int


@dataclass(frozen=True)
class StatusReporter:
    """Reads the stores; every figure is counted when it is asked for.

    `max_cycles` is that of rounds, for advice on further ones.
    """

    stores: Stores
    config: ConfigReader
    prices: Prices
    max_cycles: int

    def overview(self, *, is_brief: bool = False, has_disconnected: bool = True) -> dict[str, Any]:
        """Return the state of all projects, or their figures where it `is_brief`, JSON-ready.

        `unreadable`: the ids of projects whose state cannot be told; the log has the reason.
        """
        states: list[dict[str, Any]] = []
        unreadable: list[str] = []
        for project in self.stores.projects.all():
            if not (project.is_connected or has_disconnected):
                continue
            try:
                states.append(self.figures(project) if is_brief else self.project(project))
            except StoreUnavailable:
                raise
            except Exception:
                _LOG.exception("project=%s its state cannot be told", project.id)
                unreadable.append(project.id)
        workers = self.stores.jobs.live_workers()
        return {"workers": workers, "projects": states, "unreadable": unreadable}

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the state of a project by Label Studio's number or by our id, None if unknown."""
        project = self.stores.projects.named(name)
        return None if project is None else self.project(project)

    def project(self, project: Project) -> dict[str, Any]:
        """Return one project's state: its figures, and what is chosen, served and advised."""
        stores, counts = self.stores, self._counts(project)
        questions, queue = self._questions(project), read_queue(stores, project)
        return {
            **counts,
            "disconnection": project.disconnection,
            "model_version": project.model_version,
            "served_version": stores.projects.served_version(project.id),
            "unreadable_answers": stores.labels.unreadable(project, _MAX_UNREADABLE),
            "llm_share": read_llm_budget(stores, project).summary,
            "prompts": self.prompts(project),
            "questions": {q.name: learning_in_words(q) for q in questions},
            **self._labeled_by(project),
            "holdout": self._holdout(project, counts["n_tasks"]),
            "labels": stores.releases.provenance(project.id, project.model_version).get(LABELS, {}),
            "queue": order_in_words(queue),
            "certificate": stores.state.current(project, CERTIFICATE),
            "acceptance": stores.state.get(project.id, ACCEPTANCE),
            "versions": stores.projects.versions(project.id),
            **self._rounds(project, questions, queue, counts["llm_usage"]),
            "events": stores.tasks.events(project.id),
        }

    def figures(self, project: Project) -> dict[str, Any]:
        """Return what is counted of one project: tasks, the LLM's work, rounds, problems."""
        return self._counts(project) | _last_rounds(self.stores.rounds.current(project))

    def _counts(self, project: Project) -> dict[str, Any]:
        progress = self.stores.labels.progress(project)
        return {
            "project": project.id,
            "platform_id": project.platform_id,
            "title": project.title,
            "is_connected": project.is_connected,
            "disconnected_why": project.disconnected_why,
            **{name: getattr(progress, name) for name in _PROGRESS},
            "n_human_labelled_tasks": progress.n_human_labelled,
            "abstentions": dict(progress.abstentions),
            "labels_per_s": round(progress.labels_per_s, 2),
            **self._llm(project),
            "problems": [
                asdict(problem)
                | {
                    "first_seen_at": problem.first_seen_at.isoformat(),
                    "last_seen_at": problem.last_seen_at.isoformat(),
                }
                for problem in self.stores.jobs.problems(project.id)
            ],
        }

    def _labeled_by(self, project: Project) -> dict[str, Any]:
        """Return who labeled how many tasks, what has changed since, and what to do."""
        labels, present = self.stores.labels, noted_annotators(self.stores, project)
        origins = labels.origins(project)
        outdated = present.outdated(origins)
        asked = self.stores.state.current(project, RELABEL)
        words = []
        if outdated and not (asked and asked["state"] in ("asked", "running")):
            n, changes = labels.count_from(project, outdated), "; ".join(present.changes(outdated))
            tries = f"`python -m backend relabel {project.platform_id}` tries it"
            words.append(f"{n:,} tasks before a change ({changes}): {tries}")
        if asked:
            words.append(f"relabeling {asked['state']}: {asked['words']} ({asked['n_left']} left)")
        return {
            "labeled_by": labeled_by(origins),
            "llm_now": present.llm,
            "relabeling": asked,
            "relabeling_words": words,
        }

    def _holdout(self, project: Project, n_tasks: int) -> dict[str, int]:
        """Return how many answers the random holdout has, and needs before it says something.

        A small project's holdout says what it can when all of it is answered.
        """
        tasks, seed = self.stores.tasks, holdout_seed(project.id)
        n_answers = sum(in_holdout(i, seed=seed) for i in tasks.answered_ids(project.id))
        n_needed = MIN_HOLDOUT_ANSWERS
        if n_answers < n_needed and n_tasks * HOLDOUT_SHARE < 2 * n_needed:
            n_held_out = sum(in_holdout(i, seed=seed) for i in tasks.ids(project.id))
            n_needed = max(1, min(n_needed, n_held_out))
        return {"n_answers": n_answers, "n_needed": n_needed}

    def prompts(self, project: Project) -> dict[str, str]:
        """Return by question how the LLM is asked, and why; empty before a template is selected."""
        fitted = self.stores.state.current(project, FITTED) or {}
        return {name: prompt_in_words(report) for name, report in fitted.get("reports", {}).items()}

    def queue(self, project: Project) -> dict[str, Any] | None:
        """Return the newest ordering's figures and what they mean; None before the first."""
        return order_in_words(read_queue(self.stores, project))

    def upcoming(self, project: Project, limit: int, offset: int = 0) -> Upcoming:
        """Return places of the release that people have not answered since, from `offset` on."""
        places, n_open, n_later = self.stores.releases.waiting(project, limit, offset)
        return Upcoming(tuple(places), n_open, n_later)

    def answered(self, project: Project, limit: int = 10) -> list[dict[str, Any]]:
        """Return the last tasks that people answered or skipped, with their places, JSON-ready."""
        found = self.stores.releases.answered_lately(project, limit)
        return [asdict(one) | {"answered_at": one.answered_at.isoformat()} for one in found]

    def _llm(self, project: Project) -> dict[str, Any]:
        """Return what the LLM was asked for the project, in all and by purpose."""
        by_purpose = self.stores.llm_cache.usage(project.id)
        purposes = {
            usage.scope.purpose: {
                "n_llm_calls": usage.n_calls,
                "n_prompts": usage.n_prompts,
                "n_cache_hits": usage.n_cache_hits,
                "n_tokens_in": usage.n_tokens_in,
                "n_tokens_out": usage.n_tokens_out,
                "llm_seconds": round(usage.seconds, 3),
                "llm_cost": round(self.prices.cost(usage), 6),
            }
            for usage in by_purpose
        }
        totals = {name: sum(usage[name] for usage in purposes.values()) for name in _USAGE}
        return {**totals, "llm_usage": purposes}

    def rounds(self, project: Project) -> dict[str, Any]:
        """Return the rounds of the present question, newest last, with their cost, and advice."""
        queue, usage = read_queue(self.stores, project), self._llm(project)["llm_usage"]
        return self._rounds(project, self._questions(project), queue, usage)

    def _rounds(
        self,
        project: Project,
        questions: Sequence[Question],
        queue: QueueState | None,
        usage: Mapping[str, Any],
    ) -> dict[str, Any]:
        history = self.stores.rounds.current(project)
        figures = _last_rounds(history)
        expected = self._expected_answers(project, queue)
        return {
            "n_rounds": figures["n_rounds"],
            "rounds": [
                made | {"llm_usage": usage.get(f"round {made['number']}", {})}
                for made in figures["rounds"]
            ],
            "advice": {
                question.name: self._advice(history, question.name, expected)
                for question in questions
                if question.not_learned_because is None
            },
        }

    def releases(self, project: Project) -> list[dict[str, Any]]:
        """Return the kept releases, newest first, with what their labels and students come from."""
        served = self.stores.projects.served_version(project.id)
        return [
            {
                "name": release.name,
                "created_at": release.created_at.isoformat(),
                "is_served": release.name == served,
                "is_draft": release.is_draft,
                "can_return": release.can_return,
                "kind": release.provenance.get("kind"),
                "learned": release.provenance.get("learned", {}),
            }
            for release in self.stores.releases.history(project)
        ]

    def llm_server(self) -> dict[str, Any] | None:
        """Return what the LLM server was last found to offer, and when; None before that."""
        found: dict[str, Any] | None = self.stores.state.get(ProjectId(""), LLM_SERVER)
        return found

    def _questions(self, project: Project) -> tuple[Question, ...]:
        try:
            return self.config.read_schema(project.label_config).questions
        except UnsupportedLabelConfig:
            return ()

    def _expected_answers(
        self, project: Project, queue: QueueState | None
    ) -> ExpectedAnswers | None:
        """Return what the next answers are expected to correct; None before an order of labels."""
        n_wrong = queue.health.get("expected_corrections") if queue and queue.health else None
        if queue is None or n_wrong is None:
            return None
        moments: dict[object, list[float]] = defaultdict(list)
        for annotator_id, answered_at in self.stores.tasks.answer_times(project.id, _N_PACE):
            moments[annotator_id].append(answered_at.timestamp())
        n = min(N_NEXT_ANSWERS, queue.n_tasks - queue.n_human)
        seconds = seconds_per_answer(moments)
        gain = n_wrong / max(1, queue.n_tasks)
        return ExpectedAnswers(n, gain, None if seconds is None else n * seconds / 3600)

    def _advice(
        self, history: Sequence[Round], question: str, expected: ExpectedAnswers | None
    ) -> dict[str, Any]:
        released = [made for made in history if made.state is RoundState.RELEASED]
        measured = [(made.n_human, made.figures.get(question, {})) for made in released]
        changed = [share for _, figures in measured[-1:] for share in figures.get("changed", [])]
        widths = [
            fused["high"] - fused["low"]
            for _, figures in measured
            if (fused := figures.get("accuracies", {}).get("fused")) is not None
        ]
        on_rounds = advise_on_rounds(
            changed, max_changed=MAX_CHANGED, max_rounds=1 + self.max_cycles
        )
        on_labels = advise_on_labels(
            expected,
            width=widths[-1] if widths else None,
            changed_share=changed[-1] if changed else None,
        )
        return {
            "rounds": on_rounds.sentence,
            "is_converged": on_rounds.is_converged,
            "labels": on_labels.sentence,
            "are_labels_paying": on_labels.is_paying,
            "figures": {**on_rounds.figures, **on_labels.figures},
        }


def _last_rounds(history: Sequence[Round]) -> dict[str, Any]:
    rounds = [_round_in_figures(made) for made in history[-_MAX_ROUNDS:]]
    return {"n_rounds": len(history), "rounds": rounds}


def _round_in_figures(made: Round) -> dict[str, Any]:
    return {name: getattr(made, name) for name in _ROUND} | {
        "state": str(made.state),
        "progress": dict(made.progress),
        "metrics": dict(made.metrics),
        "started_at": made.started_at.isoformat(),
    }
