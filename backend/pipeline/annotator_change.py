"""Try another LLM, encoder or prompt on a sample, and have it label the project anew."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from backend.domain.chunks import ALL_TASKS, Chunk, ChunkKind
from backend.domain.decisions import answer_value, given_value
from backend.domain.labels import (
    MIN_HUMAN_LABELS,
    AnnotatorKind,
    Answer,
    LabelOrigin,
    WeakLabel,
)
from backend.domain.llm_usage import track_usage
from backend.domain.ports import StepRunner
from backend.domain.projects import JobKind, Project, ProjectId
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.label_model.crowd import Consensus
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.chunks import ChunkedWork, planned, work_in_chunks
from backend.pipeline.origins import PresentAnnotators, guidelines_digests, note_guidelines
from backend.pipeline.pool import Guidelines
from backend.pipeline.predict import LANGUAGE_MODEL, Labeler
from backend.pipeline.prelabel import PrelabelSteps, publish
from backend.pipeline.status import RELABEL, request_release
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_MAX_SAMPLE = 400
_PATIENCE_S = 10.0
_N_RELEASES = 4
_LLM = AnnotatorKind.LLM


@dataclass(frozen=True, slots=True)
class Relabeling:
    """A request to have the present annotators label what others, or other prompts, labeled; JSON.

    `state` is "asked", "running", "refused" or "done"; `words` say what the trial found, `n_left`
    tasks are still labeled as before.
    """

    question_version: str
    share: float
    is_forced: bool
    state: str = "asked"
    words: str = ""
    n_asked: int = 0
    n_left: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """What a sample's new labels are like beside the old ones.

    Of `n_judged` labels that can be judged, by people's answers or by the other annotators', the
    old annotator's are right `n_old` times and the new one's `n_new` times; `n_swapped` were right
    with one of the two alone.
    """

    n_sampled: int
    n_changed: int
    n_judged: int = 0
    n_old: int = 0
    n_new: int = 0
    n_swapped: int = 0
    judge: str = ""

    @property
    def pays(self) -> bool:
        """Whether the gain is larger than its standard error, that of a paired comparison."""
        return self.n_new - self.n_old > math.sqrt(self.n_swapped)

    def in_words(self, old: str, new: str) -> str:
        """Return what was found as a sentence."""
        head = f"{new} labels {self.n_changed} of {self.n_sampled} tasks otherwise than {old}"
        if not self.n_judged:
            return f"{head}; nobody can tell which is better: no people's answers, nobody else"
        expectation = "expected to pay" if self.pays else "not expected to pay"
        shares = [f"{100 * n / self.n_judged:.0f} %" for n in (self.n_new, self.n_old)]
        return (
            f"{head}; on {self.n_judged} labels that {self.judge} it agrees with them on "
            f"{shares[0]} and {old} on {shares[1]}: {expectation}"
        )


@dataclass(frozen=True)
class AnnotatorChange:
    """Compares the annotators of now with those that labeled a project, and replaces their labels.

    An annotator whose prompt or guidelines have changed since is another one too.
    """

    labeler: Labeler
    aggregator: Aggregator
    stores: Stores
    chunk: int = 256

    def ask(self, project: Project, *, share: float, is_forced: bool = False) -> None:
        """Ask the worker to try what answers now, and to label anew if that is expected to pay."""
        asked = Relabeling(project.question_version, share, is_forced)
        self.stores.state.put(project.id, RELABEL, asdict(asked))
        self.stores.jobs.request_job(project.id, JobKind.RELABEL, "asked for")

    def request(self, project: Project) -> Relabeling | None:
        """Return what was asked for last, None without anything."""
        return self._read(project)[1]

    def is_due(self, project: Project) -> bool:
        """Return whether a request waits or is not finished."""
        asked = self.request(project)
        return asked is not None and asked.state in ("asked", "running")

    def note_guidelines(self, project: Project) -> None:
        """Record what the project's annotators are told now."""
        with suppress(UnsupportedLabelConfig):
            note_guidelines(self.stores, project, self.labeler.guidelines.read(project))

    def count_outdated(self, project: Project) -> int:
        """Return how many tasks carry labels as they would not be made now.

        Raises LanguageModelError, and UnsupportedLabelConfig.
        """
        return self.stores.labels.count_from(project, self._outdated(project))

    def try_sample(self, project_id: ProjectId) -> dict[str, int]:
        """Fit the annotators, label a sample and compare; a step."""
        project = self.stores.projects.connected(project_id)
        stored, asked = self._read(project) if project else (None, None)
        if project is None or asked is None or asked.state != "asked":
            is_running = asked is not None and asked.state == "running"
            return {"is_due": int(is_running), "n_asked": asked.n_asked if asked else 0}
        try:
            with track_usage(project_id, "relabel"):
                trial, old, new = self._trial(project, asked.share)
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self.stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            return {"is_due": 0, "n_asked": 0}
        n_left = self.count_outdated(project)
        words = trial.in_words(old, new) if trial.n_sampled else f"{new} has labeled all of it"
        is_due = n_left > 0 and (trial.pays or asked.is_forced)
        state = "running" if is_due else "done" if not n_left else "refused"
        found = replace(asked, state=state, words=words, n_asked=n_left, n_left=n_left)
        if not self._note(project, stored, found):
            return self.try_sample(project_id)
        _LOG.info("project=%s %s", project_id, words)
        return {"is_due": int(is_due), "n_asked": n_left}

    def plan_chunk(self, project_id: ProjectId, *, after: int, size: int) -> dict[str, int]:
        """Name the next tasks to label anew; a step."""
        project, nothing = self._running(project_id), planned(self.stores, [], after)
        if project is None:
            return nothing
        try:
            outdated = self._outdated(project)
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self.stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            return {**nothing, "is_stopped": 1}
        left = replace(ALL_TASKS, after=after)
        ids = self.stores.labels.ids_from(project, outdated, left, size)
        return planned(self.stores, ids, after)

    def label_chunk(self, project_id: ProjectId, *, chunk: Chunk) -> dict[str, int]:
        """Label a chunk of tasks anew; a step. `is_stopped`: nothing more can be labeled now."""
        project = self._running(project_id)
        if project is None:
            return {"is_stopped": 1}
        labels, started_at = self.stores.labels, time.monotonic()
        try:
            ids = labels.ids_from(project, self._outdated(project), chunk)
            tasks = self.stores.tasks.get(project_id, ids)
            with track_usage(project_id, "relabel"):
                weak_labels, predictions = self.labeler.label(project, tasks)
        except (LanguageModelError, UnsupportedLabelConfig) as exc:
            self.stores.jobs.note_problem(project_id, LANGUAGE_MODEL, str(exc))
            return {"is_stopped": 1}
        labels.save(project, weak_labels, predictions, tasks=tasks, is_anew=True)
        return {"n_tasks": len(tasks), "ms": int(1000 * (time.monotonic() - started_at))}

    def note_progress(self, project_id: ProjectId, *, is_stopped: bool) -> dict[str, int]:
        """Count what is left to label anew; a step. `is_release_due`: some of it is done.

        `is_stopped`: some could not be done now. What was tried and is left all the same stays.
        """
        project = self._running(project_id)
        stored, asked = self._read(project) if project else (None, None)
        if project is None or asked is None:
            return {"is_done": 1, "is_release_due": 0}
        try:
            n_left = self.count_outdated(project)
        except (LanguageModelError, UnsupportedLabelConfig):
            return {"is_done": 1, "is_release_due": 0}
        is_less = n_left < asked.n_left
        is_over = not n_left or not (is_less or is_stopped)
        left = replace(asked, state="done" if is_over else "running", n_left=n_left)
        is_over = not self._note(project, stored, left) or is_over
        if is_less:
            request_release(self.stores, project, "more of it is labeled anew")
        return {"is_done": int(is_over or is_stopped), "is_release_due": int(is_less)}

    def _read(self, project: Project) -> tuple[Any, Relabeling | None]:
        """Return the last request as it is stored, and as a value."""
        stored = self.stores.state.current(project, RELABEL)
        return stored, Relabeling(**stored) if stored else None

    def _note(self, project: Project, stored: Any, found: Relabeling) -> bool:
        """Store what became of a request; False if somebody has asked anew meanwhile."""
        return self.stores.state.swap(project.id, RELABEL, stored, asdict(found))

    def _running(self, project_id: ProjectId) -> Project | None:
        """Return a connected project that is labeled anew now."""
        project = self.stores.projects.connected(project_id)
        asked = self.request(project) if project else None
        return project if asked is not None and asked.state == "running" else None

    def _trial(self, project: Project, share: float) -> tuple[Trial, str, str]:
        """Return the comparison, the names of the old annotator and of the new one.

        Where the LLM's labels are outdated it is about them, else about those of similarity.
        """
        ensemble, guidelines = self.labeler.ensemble, self.labeler.guidelines
        present, outdated = self._present(project), self._outdated(project)
        kinds = {origin.annotator_kind for origin in outdated}
        kind = AnnotatorKind.SIMILARITY if kinds == {AnnotatorKind.SIMILARITY} else _LLM
        new = str(present.name(kind))
        before = self.stores.labels.weak_labels(project)
        others = [w for w in before if w.annotator_kind is kind and LabelOrigin.of(w) in outdated]
        old_labels = {(w.example_id, w.question): w for w in others if w.abstention is None}
        if not old_labels:
            return Trial(0, 0), "", new
        ensemble.fit_sample(guidelines.pool(project, is_sample=True))
        read = guidelines.read(project)
        people = _people(guidelines.consensus(project, read, has_holdout=False))
        ids = _sample(sorted({i for i, _ in old_labels}), {i for i, _ in people}, share)
        examples = guidelines.examples(read, self.stores.tasks.get(project.id, ids))
        labels = ensemble.collect(project, read, examples)
        own = {(w.example_id, w.question): w for w in labels if w.annotator_kind is kind}
        rest = {(w.example_id, w.question): w for w in labels if w.annotator_kind is not kind}
        pairs = {key: (old_labels[key], own[key]) for key in own if key in old_labels}
        names = {label.annotator for label in old_labels.values()}
        names = {f"{one} by an earlier prompt" if one == new else one for one in names}
        return _compare(read, pairs, people, rest), ", ".join(sorted(names)), new

    def _outdated(self, project: Project) -> frozenset[LabelOrigin]:
        """Return the origins of labels that annotators would not give so now."""
        return self._present(project).outdated(self.stores.labels.origins(project))

    def _present(self, project: Project) -> PresentAnnotators:
        ensemble, guidelines = self.labeler.ensemble, self.labeler.guidelines
        llm = ensemble.llm_name(deadline_s=_PATIENCE_S)
        told = guidelines_digests(guidelines.read(project))
        return PresentAnnotators(llm, ensemble.similarity.name, told)


def change_annotator(
    project_id: ProjectId, runner: StepRunner, change: AnnotatorChange, steps: PrelabelSteps
) -> None:
    """Try the annotators of now on a sample, and label a project anew if that pays.

    Releases follow quarter by quarter, so that people see better labels before all are made.
    """
    tried = runner.run("try", change.try_sample, project_id)
    is_done = not tried["is_due"]
    work = ChunkedWork(ChunkKind.RELABEL, change.plan_chunk, change.chunk)
    quarter = math.ceil(tried["n_asked"] / _N_RELEASES)
    while not is_done:
        is_stopped = not work_in_chunks(project_id, runner, work, max_tasks=quarter)
        note = partial(change.note_progress, is_stopped=is_stopped)
        counts = runner.run("count", note, project_id)
        is_done = bool(counts["is_done"])
        if counts["is_release_due"]:
            runner.run("order", steps.orderer.order, project_id)
            publish(project_id, runner, steps)


def relabel_chunk(
    project_id: ProjectId, chunk: Chunk, runner: StepRunner, *, change: AnnotatorChange
) -> dict[str, int]:
    """Label a chunk anew; its predictions are those of the next release."""
    return runner.run("relabel", partial(change.label_chunk, chunk=chunk), project_id)


def _sample(ids: Sequence[int], judged: set[int], share: float) -> list[int]:
    """Return a share of the ids, spread evenly: those that people answered first."""
    n = min(_MAX_SAMPLE, max(MIN_HUMAN_LABELS, math.ceil(share * len(ids))))
    known = [i for i in ids if i in judged][:n]
    rest = [i for i in ids if i not in judged]
    spread = rest[:: max(1, -(-len(rest) // n))][: n - len(known)] if n > len(known) else []
    return sorted({*known, *spread})


def _people(consensus: Mapping[str, Consensus]) -> dict[tuple[int, str], Answer]:
    """Return people's consensus by example id and question."""
    return {
        (example_id, name): label.answer
        for name, found in consensus.items()
        for example_id, label in found.labels.items()
    }


def _compare(
    guidelines: Guidelines,
    pairs: Mapping[tuple[int, str], tuple[WeakLabel, WeakLabel]],
    people: Mapping[tuple[int, str], Answer],
    others: Mapping[tuple[int, str], WeakLabel],
) -> Trial:
    """Judge old and new labels by people where they answered enough, else by other annotators."""
    questions = {question.name: question for question in guidelines.schema.questions}
    said = {
        key: tuple(answer_value(questions[key[1]], label) for label in pair)
        for key, pair in pairs.items()
        if key[1] in questions
    }
    changed = {i for (i, _), (old, new) in said.items() if old != new}
    trial = Trial(len({i for i, _ in said}), len(changed))
    truth = {k: given_value(people[k]) for k in said if k in people}
    judge = "people gave"
    if len(truth) < MIN_HUMAN_LABELS:
        truth = {
            k: answer_value(questions[k[1]], others[k])
            for k in said
            if k in others and others[k].abstention is None
        }
        judge = "the other annotators gave"
    right = [(said[k][0] == truth[k], said[k][1] == truth[k]) for k in truth]
    return replace(
        trial,
        n_judged=len(right),
        n_old=sum(old for old, _ in right),
        n_new=sum(new for _, new in right),
        n_swapped=sum(old != new for old, new in right),
        judge=judge,
    )
