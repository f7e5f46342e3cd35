"""What is past its time is deleted, what a rollback or a late event needs stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from backend.domain.labels import HumanLabel, WeakLabel
from backend.domain.projects import AcceptedLabel, Event, Prediction, ProjectId, QueuePlace, Task
from backend.store import tables as t
from tests.conftest import SENTIMENT, TOPIC

ONE, TWO = ProjectId("1.1795215594"), ProjectId("2.1795215595")
LONG_AGO = datetime.now(UTC) - timedelta(days=40)


def annotation(number, task_id):
    return HumanLabel(number, task_id, 1, (), False, False, datetime.now(UTC))


def rows(database, table, project_id=ONE):
    query = sa.select(sa.func.count()).where(table.c.project_id == project_id)
    return database.fetch_value(query)


@pytest.fixture
def retention(stores):
    return stores.retention


@pytest.fixture
def release(stores):
    """Make, serve and withdraw releases of three tasks, as rounds do."""

    def make(project_id=ONE, *, is_withdrawn=True):
        project = stores.projects.get(project_id)
        predictions = [Prediction(n, "", ({"id": "r"},), 0.5) for n in (1, 2, 3)]
        places = [QueuePlace(n, n, "first") for n in (1, 2, 3)]
        draft = stores.releases.draft(project, predictions, places, {})
        stores.releases.promote(draft)
        if is_withdrawn:
            for name in stores.projects.superseded_versions(project_id):
                stores.projects.note_withdrawn(project_id, name)
        return draft

    return make


@pytest.fixture
def project(stores):
    saved, _ = stores.projects.save(ONE, label_config=SENTIMENT)
    stores.tasks.save(ONE, [Task(n, {"text": f"text {n}"}) for n in (1, 2, 3)])
    return saved


def test_the_newest_releases_stay_and_the_rest_goes_with_queue_and_predictions(
    database, stores, project, retention, release
):
    made = [release().model_version for _ in range(6)]
    served = stores.projects.get(ONE)
    gone = retention.prune_releases(served, 3, even_unwithdrawn=False)
    assert set(gone) == {project.model_version, *made[:3]}
    assert stores.projects.versions(ONE) == made[:2:-1]
    assert rows(database, t.predictions) == rows(database, t.queue_places) == 9
    assert retention.prune_releases(served, 3, even_unwithdrawn=False) == []
    restored = stores.releases.restore(served, made[3])
    assert len(stores.releases.places(restored)) == 3


def test_the_served_release_stays_however_old(database, stores, project, retention, release):
    made = [release() for _ in range(4)]
    stores.releases.promote(stores.releases.restore(made[-1], made[0].model_version))
    served = stores.projects.get(ONE)
    assert served.model_version == made[0].model_version
    retention.prune_releases(served, 1, even_unwithdrawn=True)
    assert stores.projects.versions(ONE) == [made[3].model_version, made[0].model_version]
    assert rows(database, t.predictions) == 6


def test_what_label_studio_still_has_waits_unless_nobody_withdraws_it(
    stores, project, retention, release
):
    made = [release(is_withdrawn=False) for _ in range(3)]
    served = stores.projects.get(ONE)
    assert retention.prune_releases(served, 1, even_unwithdrawn=False) == []
    assert len(retention.prune_releases(served, 1, even_unwithdrawn=True)) == 3
    assert stores.projects.versions(ONE) == [made[-1].model_version]


def test_drafts_stay_and_numbers_go_on(stores, project, retention, release):
    for _ in range(3):
        release()
    served = stores.projects.get(ONE)
    draft = stores.releases.draft(served, [], [], {})
    retention.prune_releases(served, 1, even_unwithdrawn=True)
    assert stores.releases.pending(served) == draft
    assert release().model_version.startswith("freeal-6-")


def test_an_interrupted_deletion_cannot_be_rolled_back_to_and_is_finished(
    database, stores, project, retention, release, monkeypatch
):
    from backend.errors import UnknownModelVersion

    old, new = release(), release()
    monkeypatch.setattr(retention, "_delete_release", lambda *_: (_ for _ in ()).throw(OSError))
    with pytest.raises(OSError):
        retention.prune_releases(new, 1, even_unwithdrawn=False)
    with pytest.raises(UnknownModelVersion):
        stores.releases.restore(new, old.model_version)
    monkeypatch.undo()
    assert old.model_version in retention.prune_releases(new, 1, even_unwithdrawn=False)
    assert rows(database, t.predictions) == 3


def test_a_release_that_is_asked_for_meanwhile_stays(
    database, stores, project, retention, release, monkeypatch
):
    old, new = release(), release()
    fetch = database.fetch

    def fetch_and_restore(query):
        rows = fetch(query)
        stores.releases.restore(new, old.model_version)
        monkeypatch.setattr(database, "fetch", fetch)
        return rows

    monkeypatch.setattr(database, "fetch", fetch_and_restore)
    assert old.model_version not in retention.prune_releases(new, 1, even_unwithdrawn=False)
    assert stores.releases.pending(new) == old
    assert len(stores.releases.places(old)) == 3


def test_labels_of_a_former_question_go_with_its_last_release(
    database, stores, project, retention, release
):
    weak = WeakLabel(1, "sentiment", "llm", "v1", (0.4, 0.6))
    stores.labels.save(project, [weak], [])
    asked, _ = stores.projects.save(ONE, label_config=TOPIC)
    topic = WeakLabel(1, "topic", "llm", "v1", (0.4, 0.6))
    stores.labels.save(asked, [topic], [])
    retention.prune_releases(asked, 3, even_unwithdrawn=True)
    assert rows(database, t.weak_labels) == 2
    retention.prune_releases(asked, 1, even_unwithdrawn=True)
    assert [label.question for label in stores.labels.weak_labels(asked)] == ["topic"]
    assert rows(database, t.weak_labels) == 1


def test_old_events_and_marks_of_deleted_rows_go_and_all_else_stays(
    database, stores, project, retention
):
    apply = stores.tasks.apply
    for number in (1, 2):
        label = annotation(number, number)
        apply(ONE, Event("ANNOTATION_CREATED", annotations=(label,)), None)
    apply(ONE, Event("TASKS_DELETED", deleted_task_ids=(2,)), None)
    assert retention.forget_events(30) == 0
    with database.write() as connection:
        connection.execute(sa.update(t.events).values(received_at=LONG_AGO))
        for table in (t.tasks, t.human_labels):
            is_deleted = table.c.deleted_at.is_not(None)
            connection.execute(sa.update(table).where(is_deleted).values(deleted_at=LONG_AGO))
    assert retention.forget_events(30) == 5
    assert stores.tasks.ids(ONE) == [1, 3]
    assert [label.annotation_id for label in stores.tasks.human_labels(ONE)] == [1]
    assert rows(database, t.tasks) == 2
    assert stores.tasks.events(ONE) == {}


def test_deleting_a_project_leaves_nothing_of_it_and_all_of_the_others(
    database, stores, project, retention, release
):
    for project_id in (ONE, TWO):
        stores.projects.save(project_id, label_config=SENTIMENT)
        stores.tasks.save(project_id, [Task(n, {"text": f"text {n}"}) for n in (1, 2, 3)])
        created = Event("ANNOTATION_CREATED", annotations=(annotation(1, 1),))
        stores.tasks.apply(project_id, created, ("prelabel", "news"))
        release(project_id)
        weak = WeakLabel(1, "sentiment", "llm", "v1", (0.4, 0.6))
        stores.labels.save(stores.projects.get(project_id), [weak], [])
        stores.state.put(project_id, "queue", {"question_version": "x"})
        stores.jobs.note_problem(project_id, "llm", "down")
        stores.issues.dismiss(project_id, 1, "1-ab", "anna")
        stores.accepted.plan(project_id, [AcceptedLabel(1, "one", (), "freeal-1", 0.9)])
        stores.rounds.open(
            stores.projects.get(project_id), recipe="default", reason="asked for", n_human=0
        )
    assert not retention.delete_project(ONE)
    stores.projects.disconnect(ONE)
    assert retention.delete_project(ONE)
    of_projects = [table for table in t.metadata.sorted_tables if "project_id" in table.c]
    assert [table.name for table in of_projects if rows(database, table)] == []
    untouched = {table.name for table in of_projects if rows(database, table, TWO)}
    assert untouched == {table.name for table in of_projects} - {"llm_usage"}
    assert [one.id for one in stores.projects.all()] == [TWO]


def test_a_disconnected_project_is_found_after_its_grace_and_not_once_it_is_back(
    stores, project, retention
):
    stores.projects.disconnect(ONE)
    assert retention.disconnected_for(1) == []
    assert retention.disconnected_for(0) == [ONE]
    stores.projects.reconnect(project)
    assert retention.disconnected_for(0) == []


def test_the_grace_counts_from_the_first_time(database, stores, project, retention):
    stores.projects.disconnect(ONE)
    with database.write() as connection:
        connection.execute(sa.update(t.projects).values(disconnected_at=LONG_AGO))
    stores.projects.disconnect(ONE)
    assert retention.disconnected_for(30) == [ONE]


def test_what_label_studio_never_showed_is_forgotten_after_a_day(
    database, stores, project, retention, release
):
    stores.projects.save(TWO, label_config=SENTIMENT)
    for project_id in (ONE, TWO):
        stores.projects.disconnect(project_id)
    assert retention.disconnected_for(30) == []
    with database.write() as connection:
        two_days_ago = datetime.now(UTC) - timedelta(days=2)
        connection.execute(sa.update(t.projects).values(disconnected_at=two_days_ago))
    stores.projects.note_full_sync(ONE, 1.0, 0)
    assert retention.disconnected_for(30) == [TWO]
    stores.projects.note_full_sync(TWO, 1.0, 0)
    assert retention.disconnected_for(30) == []
    for project_id in (ONE, TWO):
        stores.projects.forget_full_sync(project_id)
    release(ONE)  # a release is found by its predictions while the next listing is awaited
    assert retention.disconnected_for(30) == [TWO]


def test_rows_of_what_never_was_a_project_are_found_after_a_day(database, stores, retention):
    stores.tasks.apply(TWO, Event("TASKS_CREATED", tasks=(Task(1, {"text": "a"}),)), None)
    assert retention.strays() == []
    with database.write() as connection:
        connection.execute(sa.update(t.events).values(received_at=LONG_AGO))
    assert retention.strays() == [TWO]
    assert retention.delete_project(TWO)
    assert rows(database, t.tasks, TWO) == 0


def test_the_size_of_each_table_is_known(stores, project, retention):
    sizes = retention.table_sizes()
    assert sizes["tasks"] > 0
    assert {"predictions", "weak_labels", "llm_answers"} <= set(sizes)


def test_a_file_of_deleted_rows_becomes_small_again(database, stores, project, retention):
    if not database.is_sqlite:
        pytest.skip("PostgreSQL does this by itself")
    stores.tasks.save(ONE, [Task(n, {"text": "x" * 1_000}) for n in range(1, 5_001)])
    stores.projects.disconnect(ONE)
    retention.compact()
    with database.read() as connection:
        path = connection.engine.url.database
    from pathlib import Path

    full = Path(path).stat().st_size
    assert full > 5_000_000
    retention.delete_project(ONE)
    retention.compact()
    assert Path(path).stat().st_size < full / 10
