"""Weak labels and predictions: what is left to do, and what Label Studio has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
import sqlalchemy as sa

from backend.domain.chunks import Chunk
from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    AnnotatorKind,
    HumanLabel,
    Span,
    WeakLabel,
)
from backend.domain.projects import Event, Prediction, ProjectId, Task
from backend.store import tables as t
from backend.store.label_rows import weak_label_row
from backend.store.labels import changed_tasks
from tests.conftest import TOPIC
from tests.statements import noted_queries


@pytest.fixture
def three(tasks, project):
    listed = [Task(n, {"text": f"text {n}"}) for n in (1, 2, 3)]
    tasks.save(project.id, listed)
    return listed


def weak(number, **changes):
    return WeakLabel(
        number, "sentiment", "llm:fake", "v1", **({"probabilities": (0.9, 0.1)} | changes)
    )


def abstained(number, reason):
    return weak(number, probabilities=(), abstention=Abstention(reason))


def prediction(project, number):
    return Prediction(number, project.model_version, ({"from_name": "sentiment"},), 0.9)


def test_tasks_without_any_label_are_next_by_id(labels, project, three):
    labels.save(project, [weak(2)], [prediction(project, 2)])
    assert labels.unlabeled_ids(project, 9) == [1, 3]
    assert labels.unlabeled_ids(project, 1) == [1]


def test_a_task_that_a_person_has_labelled_is_left_to_people(tasks, labels, project, three):
    label = HumanLabel(1, 1, 1, ({},), False, False, datetime.now(UTC))
    tasks.apply(project.id, Event("ANNOTATION_CREATED", annotations=(label,)), None)
    assert labels.unlabeled_ids(project, 9) == [2, 3]


def test_a_skipped_task_is_still_labelled(tasks, labels, project, three):
    label = HumanLabel(1, 1, 1, (), True, False, datetime.now(UTC))
    tasks.apply(project.id, Event("ANNOTATION_CREATED", annotations=(label,)), None)
    assert len(labels.unlabeled_ids(project, 9)) == 3


def test_tasks_count_once_whoever_answered_and_only_while_label_studio_has_them(
    tasks, labels, project
):
    tasks.save(project.id, [Task(n, {"text": f"text {n}"}) for n in range(1, 9)])
    labels.save(project, [weak(n) for n in (1, 2, 3)], [prediction(project, n) for n in (1, 2, 9)])
    second = replace(weak(3), question="topic")
    similarity = weak(4, annotator_kind=AnnotatorKind.SIMILARITY)
    labels.save(project, [second, similarity], [])
    moment = datetime.now(UTC)
    answers = [HumanLabel(n, of, 1, ({},), False, False, moment) for n, of in ((1, 2), (2, 2))]
    answers += [HumanLabel(3, 5, 1, ({},), False, False, moment)]
    answers += [HumanLabel(4, 6, 1, ({},), True, False, moment)]  # skipped
    answers += [HumanLabel(5, 7, 1, ({},), False, False, moment, is_copied=True)]
    answers += [HumanLabel(6, None, 1, ({},), False, False, moment)]
    tasks.apply(project.id, Event("ANNOTATIONS_CREATED", annotations=tuple(answers)), None)
    tasks.apply(project.id, Event("TASKS_DELETED", deleted_task_ids=(1, 8)), None)
    progress = labels.progress(project)
    assert progress.n_tasks == 6  # 2 to 7
    assert progress.n_to_label == 3  # 4, 6, 7: similarity closes no task, nor does a copy
    assert labels.unlabeled_ids(project, 9) == [4, 6, 7]
    assert progress.n_without_label == 4  # 3, 4, 6, 7
    assert (progress.n_human_labels, progress.n_human_labelled) == (4, 2)


def test_large_tables_are_counted_by_their_indexes(database, tasks, labels, project, three):
    labels.save(project, [weak(1)], [prediction(project, 1)])
    with noted_queries() as queries:
        labels.progress(project)
        labels.origins(project)
    if not database.is_sqlite:  # which index a server takes depends on its statistics
        assert len(queries) == 4
        return
    plans = []
    for query, values in queries:
        with database.read() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
            plans += [row[3] for row in rows]
    large = ("SEARCH tasks", "SEARCH weak_labels", "SEARCH human_labels")
    read = [plan for plan in plans if plan.startswith(large)]
    by_time = [plan for plan in read if "created_at>?" in plan]  # of the last minute alone
    assert len(read) == 11
    assert [plan for plan in read if "COVERING INDEX" not in plan] == by_time
    assert sum(plan.startswith("MERGE (EXCEPT)") for plan in plans) == 4
    assert plans[-1].startswith("SEARCH weak_labels USING COVERING INDEX ix_weak_labels_by_origin")


@contextmanager
def in_other_transactions(*calls) -> Iterator[None]:
    """Make calls in threads while the block's own transaction is open; wait for them after it."""
    failures = []

    def guarded(call) -> None:
        try:
            call()
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
        thread.join(0.3)  # it comes as far as it can
        assert thread.is_alive()
    yield
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_text_that_another_transaction_changes_gets_no_label_of_the_old_one(
    database, tasks, labels, project, three
):
    table = t.tasks
    changed = Task(2, {"text": "another"})
    is_two = sa.and_(table.c.project_id == project.id, table.c.id == 2)
    new = sa.update(table).where(is_two).values(data=changed.data, digest=changed.digest())
    weak_labels, predictions = [weak(n) for n in (1, 2, 3)], [prediction(project, 2)]
    save = partial(labels.save, project, weak_labels, predictions, tasks=three)
    with ExitStack() as until_saved, database.write() as connection:
        connection.execute(new)
        until_saved.enter_context(in_other_transactions(save))
    assert [label.example_id for label in labels.weak_labels(project)] == [1, 3]
    assert labels.progress(project).n_labelled == 0


def test_a_label_that_is_being_saved_goes_when_its_text_changes(
    database, tasks, labels, project, three
):
    changed = [Task(2, {"text": "another"}, annotations=())]
    listing = partial(tasks.save_listing, project.id, changed, datetime.now(UTC))
    with ExitStack() as until_listed, database.write() as connection:
        assert changed_tasks(connection, project.id, three, is_locked=True) == set()
        until_listed.enter_context(in_other_transactions(listing))
        row = weak_label_row(project, weak(2), datetime.now(UTC))
        connection.execute(sa.insert(t.weak_labels).values(row))
    assert labels.weak_labels(project) == []


def test_writers_of_the_same_tasks_do_not_wait_for_each_other_in_a_circle(
    database, tasks, labels, project, three
):
    back = three[::-1]
    everything = [weak(n) for n in (3, 2, 1)], [prediction(project, n) for n in (3, 2, 1)]
    listed = [replace(task, annotations=()) for task in (three[0], three[2], three[1])]
    writers = (
        partial(labels.save, project, *everything, tasks=back, is_anew=True),
        partial(tasks.save_listing, project.id, listed, datetime.now(UTC)),
        partial(labels.save, project, *everything, tasks=three),
    )
    with ExitStack() as until_written, database.write() as connection:
        changed_tasks(connection, project.id, three[1:2], is_locked=True)
        until_written.enter_context(in_other_transactions(*writers))
    assert labels.progress(project).n_labelled == 3


def test_saving_a_chunk_twice_is_the_same_as_once(labels, project, three):
    for _ in range(2):
        labels.save(project, [weak(1), weak(2)], [prediction(project, 1), prediction(project, 2)])
    progress = labels.progress(project)
    assert (progress.n_labelled, progress.n_to_label) == (2, 1)


def test_an_abstention_is_not_a_label_and_is_counted_by_reason(labels, project, three):
    labels.save(project, [abstained(1, AbstentionReason.NO_TEXT), weak(2)], [])
    progress = labels.progress(project)
    assert progress.abstentions == {"no_text": 1}
    assert progress.n_to_label == 1


def test_only_transient_abstentions_are_reopened(labels, project, three):
    labels.save(
        project,
        [abstained(1, AbstentionReason.NO_TEXT), abstained(2, AbstentionReason.UNREADABLE)],
        [],
    )
    assert labels.reopen(project, older_than_s=60) == 0
    assert labels.reopen(project) == 1
    assert labels.unlabeled_ids(project, 9) == [2, 3]


def test_a_chunk_has_the_unlabeled_tasks_of_its_ids(labels, project, three):
    assert labels.unlabeled_ids(project, 9, after=1) == [2, 3]
    assert [task.id for task in labels.unlabeled(project, Chunk(0, 2))] == [1, 2]
    assert labels.last_unlabeled(project) == 3
    labels.save(project, [weak(3)], [prediction(project, 3)])
    assert labels.unlabeled(project, Chunk(2, 3)) == []
    assert labels.last_unlabeled(project) == 2


def test_stored_predictions_are_those_of_the_present_version_only(
    projects, labels, project, three, publication
):
    labels.save(project, [weak(1)], [prediction(project, 1)])
    assert set(publication.predictions(project, three)) == {1}
    other, _ = projects.save(project.id, label_config=TOPIC)
    assert publication.predictions(other, three) == {}
    assert labels.progress(other).n_to_label == 3


def test_a_refused_prediction_is_not_sent_again_and_is_counted(labels, project, three, publication):
    labels.save(
        project,
        [weak(n) for n in (1, 2, 3)],
        [prediction(project, n) for n in (1, 2, 3)],
    )
    publication.note_refused(project, [1], "it does not fit")
    publication.note_published(project, [2, 3])
    progress = labels.progress(project)
    assert (progress.n_refused, progress.n_published, progress.is_complete) == (1, 2, True)


def test_a_project_that_nobody_has_touched_is_empty_and_complete(projects, labels):
    project, _ = projects.save(ProjectId("9.1"), label_config=TOPIC)
    progress = labels.progress(project)
    assert (progress.n_tasks, progress.is_complete, progress.seconds_left) == (0, True, 0.0)


def test_thousands_of_ids_fit_into_one_call(tasks, labels, project, publication):
    many = [Task(n, {"text": str(n)}) for n in range(2_500)]
    tasks.save(project.id, many)
    labels.save(
        project, [weak(n) for n in range(2_500)], [prediction(project, n) for n in range(2_500)]
    )
    assert len(publication.predictions(project, many)) == 2_500
    publication.note_published(project, range(2_500))
    assert labels.progress(project).n_published == 2_500


LABELS = [
    WeakLabel(
        1,
        "topic",
        "llm:tiny",
        "v2",
        probabilities=(0.25, 0.75),
        label_mass=0.5,
        annotator_posteriors={"similarity": (0.5, 0.5)},
        injection_flag="asks for a label",
        n_tokens_in=5,
    ),
    WeakLabel(2, "who", "llm:tiny", "v2", spans=(Span(0, 4, "PER", 0.9),), confidence=0.8),
    WeakLabel(3, "who", "llm:tiny", "v2", spans=()),
    WeakLabel(4, "why", "llm:tiny", "v2", text="", confidence=0.1, is_truncated=True),
    WeakLabel(5, "why", "llm:tiny", "v2", abstention=Abstention(AbstentionReason.NO_TEXT, "blank")),
]


def test_every_kind_of_weak_label_comes_back_as_it_was_saved(labels, project):
    labels.save(project, LABELS, [])
    assert labels.weak_labels(project) == LABELS


def test_a_project_has_only_its_own_weak_labels(labels, projects, project):
    other = projects.save(ProjectId("4.1795215594"), label_config="<View/>")[0]
    labels.save(project, LABELS, [])
    assert labels.weak_labels(other) == []
