"""Weak labels of every kind, and a project's state, come back as they were saved."""

from __future__ import annotations

from backend.domain.labels import Abstention, AbstentionReason, Span, WeakLabel
from backend.domain.projects import ProjectId
from backend.store import LabelStore, ProjectStore, StateStore

PROJECT_ID = ProjectId("3.1795215594")


LABELS = [
    WeakLabel(
        1,
        "topic",
        "llm:tiny",
        "v2",
        probabilities=(0.25, 0.75),
        label_mass=0.5,
        votes={"similarity": (0.5, 0.5)},
        injection_flag="asks for a label",
        n_tokens_in=5,
    ),
    WeakLabel(2, "who", "llm:tiny", "v2", spans=(Span(0, 4, "PER", 0.9),), confidence=0.8),
    WeakLabel(3, "who", "llm:tiny", "v2", spans=()),
    WeakLabel(4, "why", "llm:tiny", "v2", text="", confidence=0.1, is_truncated=True),
    WeakLabel(5, "why", "llm:tiny", "v2", abstention=Abstention(AbstentionReason.NO_TEXT, "blank")),
]


def test_every_kind_of_weak_label_comes_back_as_it_was_saved(database, project):
    store = LabelStore(database)
    store.save(project, LABELS, [])
    assert store.weak_labels(project) == LABELS


def test_a_project_has_only_its_own_weak_labels(database, project):
    other = ProjectStore(database).save(ProjectId("4.1795215594"), label_config="<View/>")[0]
    store = LabelStore(database)
    store.save(project, LABELS, [])
    assert store.weak_labels(other) == []


def test_state_is_kept_by_project_and_name(database):
    store = StateStore(database)
    assert store.get(PROJECT_ID, "trust") is None
    store.put(PROJECT_ID, "trust", {"llm": 0.8})
    store.put(PROJECT_ID, "trust", {"llm": 0.7, "similarity": [1, 2]})
    store.put(PROJECT_ID, "forms", None)
    assert StateStore(database).get(PROJECT_ID, "trust") == {"llm": 0.7, "similarity": [1, 2]}
    assert store.get(PROJECT_ID, "forms") is None
    assert store.get(ProjectId("9.9"), "trust") is None
