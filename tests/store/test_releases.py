"""Releases: unseen until they are whole, promoted at once, restored on demand."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from backend.domain.labels import WeakLabel
from backend.domain.projects import Prediction, ProjectId, QueuePlace, Task
from backend.errors import UnknownModelVersion
from backend.store import releases as release_store
from backend.store.database import upsert
from tests.conftest import SENTIMENT

PROJECT = ProjectId("1.1795215594")


def prediction(task_id: int, score: float = 0.5) -> Prediction:
    return Prediction(task_id, "not looked at", ({"id": "r"},), score)


@pytest.fixture
def project(projects, tasks):
    saved, _ = projects.save(PROJECT, label_config=SENTIMENT)
    tasks.save(PROJECT, [Task(n, {"text": f"text {n}"}) for n in range(1, 6)])
    return saved


def test_a_draft_is_seen_by_nobody_until_it_is_promoted(project, projects, labels, releases):
    labels.save(project, [], [prediction(1)])
    draft = releases.draft(project, [prediction(1, 0.1)], [], {"round": 1})
    assert draft.model_version != project.model_version
    assert projects.get(PROJECT) == project
    assert projects.superseded_versions(PROJECT) == []
    assert releases.pending(project) == draft

    assert releases.promote(draft)
    assert projects.get(PROJECT) == draft
    assert projects.superseded_versions(PROJECT) == [project.model_version]
    assert releases.pending(draft) is None
    assert releases.provenance(PROJECT, draft.model_version) == {"round": 1}


def test_what_was_predicted_meanwhile_is_carried_over(
    project, labels, releases, tasks, publication
):
    draft = releases.draft(project, [prediction(1, 0.1)], [], {})
    labels.save(project, [], [prediction(1, 0.9), prediction(2, 0.8)])
    publication.note_published(project, [1, 2])
    releases.promote(draft)
    found = publication.predictions(draft, [Task(n, {"text": f"text {n}"}) for n in (1, 2)])
    assert {task_id: p.score for task_id, p in found.items()} == {1: 0.1, 2: 0.8}
    unpublished, doubtful = publication.take_unpublished(draft, 10, patience_s=0)
    assert [p.task_id for p in unpublished] == [1, 2]


def test_labels_made_under_a_replaced_release_become_predictions_of_the_new_one(
    project, labels, releases, publication
):
    draft = releases.draft(project, [], [], {})
    releases.promote(draft)
    weak = WeakLabel(3, "sentiment", "llm:x", "v", (0.4, 0.6))
    labels.save(project, [weak], [prediction(3)])
    found = publication.predictions(draft, [Task(3, {"text": "text 3"})])
    assert found[3].model_version == draft.model_version


def test_a_label_that_is_saved_while_a_release_takes_over_becomes_its_prediction(
    project, labels, releases, publication, monkeypatch
):
    draft = releases.draft(project, [], [], {})
    saving = threading.Thread(target=labels.save, args=(project, [], [prediction(3)]))

    def copied(*args):
        copy(*args)
        saving.start()
        saving.join(0.3)

    copy = release_store._copy_later_predictions
    monkeypatch.setattr(release_store, "_copy_later_predictions", copied)
    releases.promote(draft)
    saving.join()
    assert publication.predictions(draft, [Task(3, {"text": "text 3"})])


def test_a_draft_that_answers_another_question_is_not_promoted(project, projects, releases):
    draft = releases.draft(project, [prediction(1)], [], {})
    changed, _ = projects.save(PROJECT, label_config=SENTIMENT, instruction="another")
    assert releases.pending(changed) is None
    assert not releases.promote(draft)
    assert projects.get(PROJECT).model_version == changed.model_version
    assert draft.model_version in projects.superseded_versions(PROJECT)


def test_a_release_can_be_restored_after_it_was_withdrawn(
    project, projects, labels, releases, publication
):
    labels.save(project, [], [prediction(1)])
    publication.note_published(project, [1])
    releases.promote(releases.draft(project, [prediction(1, 0.2)], [], {}))
    projects.note_withdrawn(PROJECT, project.model_version)
    assert not publication.has_published(project)

    restored = releases.restore(projects.get(PROJECT), project.model_version)
    assert restored == project
    assert publication.has_unpublished(restored)
    assert releases.pending(projects.get(PROJECT)) == restored


def test_restoring_an_unknown_release_is_refused(project, projects, releases):
    with pytest.raises(UnknownModelVersion, match="no release 'freeal-9'"):
        releases.restore(project, "freeal-9")


def test_what_a_kill_left_half_written_is_removed(
    project, releases, labels, monkeypatch, publication
):
    state = releases._set_state
    monkeypatch.setattr(releases, "_set_state", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        releases.draft(project, [prediction(1)], [QueuePlace(1, 0, "first")], {})
    monkeypatch.setattr(releases, "_set_state", state)
    assert releases.pending(project) is None
    draft = releases.draft(project, [prediction(2)], [QueuePlace(2, 0, "first")], {})
    assert draft.model_version.startswith("freeal-2-")
    assert publication.has_unpublished(draft)


def test_a_task_has_a_place_while_its_queue_is_replaced(project, releases, monkeypatch):
    releases.put_places(project, [QueuePlace(n, n, "old") for n in (1, 2, 3)])
    seen = []

    def spied(connection, table, rows):
        upsert(connection, table, rows)
        seen.append(releases.positions(project, [1, 2, 3]))

    monkeypatch.setattr("backend.store.releases._MAX_ROWS", 1)
    monkeypatch.setattr("backend.store.releases.upsert", spied)
    releases.put_places(project, [QueuePlace(2, 0, "new"), QueuePlace(1, 1, "new")])
    assert [sorted(found) for found in seen] == [[1, 2, 3]] * 2
    assert releases.positions(project, [1, 2, 3]) == {2: 0, 1: 1}


def test_the_queue_comes_back_in_its_order(project, releases):
    places = [QueuePlace(3, 1, "then"), QueuePlace(1, 0, "first", is_holdout=True)]
    draft = releases.draft(project, [], places, {})
    assert [place.task_id for place in releases.places(draft)] == [1, 3]
    assert releases.places(draft)[0].is_holdout
    assert releases.places(replace(draft, model_version="other")) == []
