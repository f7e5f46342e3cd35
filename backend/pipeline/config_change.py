"""Compare what two label configs ask: by meaning, not by their text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher

from backend.domain.labels import WeakLabel
from backend.domain.ports import ConfigReader
from backend.domain.projects import Project
from backend.domain.questions import Question, TaskSchema
from backend.errors import UnsupportedLabelConfig
from backend.pipeline.status import request_release
from backend.store import Stores

ASKED = "asked"
"""State of a project that is to ask something new: the config and instruction, and since when."""
_MIN_LIKENESS = 0.6


@dataclass(frozen=True, slots=True)
class AskedChange:
    """What a config change leaves: questions as they were, and those with renamed labels.

    `renamed` maps the old label values to the new ones by question; `is_complete`: there is no
    question that has no labels yet; `keeps_rounds`: questions were added or removed, not changed.
    """

    kept: frozenset[str]
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    is_complete: bool = False
    keeps_rounds: bool = False


def asks_the_same(config: ConfigReader, project: Project, label_config: str) -> bool:
    """Return whether another config asks the project's questions, whatever its text looks like."""
    if label_config == project.label_config:
        return True
    try:
        ours, other = config.read_schema(project.label_config), config.read_schema(label_config)
    except UnsupportedLabelConfig:
        return False
    return (ours.questions, ours.headers) == (other.questions, other.headers)


def compare(before: TaskSchema, after: TaskSchema) -> AskedChange:
    """Return what is left of the labels of one schema under another one."""
    if before.headers != after.headers:  # they are part of every prompt
        return AskedChange(frozenset())
    known = {question.name: question for question in before.questions}
    kept = frozenset(q.name for q in after.questions if known.get(q.name) == q)
    others = [q for q in after.questions if q.name not in kept and q.name in known]
    renamed = {q.name: names for q in others if (names := _renamed(known[q.name], q))}
    return AskedChange(
        kept,
        renamed,
        is_complete=len(kept) + len(renamed) == len(after.questions),
        keeps_rounds=bool(kept) and not others,
    )


def note_asked(stores: Stores, project: Project, label_config: str, instruction: str) -> None:
    """Note that a project is to ask something new; the clock starts again with each change."""
    new = {"label_config": label_config, "instruction": instruction}
    noted = stores.state.get(project.id, ASKED) or {}
    if {name: noted.get(name) for name in new} != new:
        since = datetime.now(UTC).isoformat()
        stores.state.put(project.id, ASKED, new | {"since": since})


def is_debounced(stores: Stores, project: Project, debounce_s: float) -> bool:
    """Return whether what was noted last has been so for long enough."""
    noted = stores.state.get(project.id, ASKED)
    age = datetime.now(UTC) - datetime.fromisoformat(noted["since"]) if noted else timedelta.max
    return age >= timedelta(seconds=debounce_s)


def carry_over(stores: Stores, before: Project, after: Project, change: AskedChange) -> None:
    """Give a new question version what still answers it.

    The LLM's own answers to unchanged questions are not copied: they come from its cache at no
    cost, and a task counts as labeled only when all its questions have an answer. Labels that
    rounds made are copied, and so is everything where only labels were renamed.
    """
    is_renaming = change.is_complete and bool(change.renamed)
    names = {*change.kept, *change.renamed} if is_renaming else change.kept
    labels = [
        _under_new_names(label, change.renamed.get(label.question, {}))
        for label in stores.labels.weak_labels(before)
        if label.question in names and (is_renaming or label.annotator_kind.is_from_round)
    ]
    stores.labels.save(after, labels, [])
    if is_renaming:
        request_release(stores, after, "labels have other names")
    if change.keeps_rounds:
        stores.rounds.carry_over(before, after)
        stores.releases.inherit(before, after, questions=change.kept)


def _renamed(before: Question, after: Question) -> Mapping[str, str]:
    """Return new values by old ones where some labels got a similar name, and nothing else is new.

    "Positive" and "Pos" are one label; "Sports" and "Politics" are not.
    """
    if replace(before, labels=()) != replace(after, labels=()):
        return {}
    if len(before.labels) != len(after.labels):
        return {}
    names: dict[str, str] = {}
    for old, new in zip(before.labels, after.labels, strict=True):
        is_alike = old.value == new.value or _is_alike(old.name, new.name)
        if old != new and not (is_alike and old.hint == new.hint):
            return {}
        names[old.value] = new.value
    return names


def _is_alike(one: str, other: str) -> bool:
    one, other = one.casefold().strip(), other.casefold().strip()
    is_part = bool(one and other) and (one.startswith(other) or other.startswith(one))
    return is_part or SequenceMatcher(None, one, other).ratio() >= _MIN_LIKENESS


def _under_new_names(label: WeakLabel, names: Mapping[str, str]) -> WeakLabel:
    """Return a label with the spans' labels renamed; posteriors follow the labels' order."""
    if not label.spans or not names:
        return label
    spans = tuple(replace(span, label=names.get(span.label, span.label)) for span in label.spans)
    return replace(label, spans=spans)
