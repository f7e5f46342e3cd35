"""Events and listings of Label Studio: applied once, in any order, with the same result."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.domain.chunks import ALL_TASKS
from backend.domain.labels import HumanLabel, WeakLabel
from backend.domain.projects import Event, ProjectId, Task
from backend.store import Database, TaskStore
from backend.store import tables as t

ONE, TWO = ProjectId("1.1795215594"), ProjectId("2.1795215595")
START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def annotation(number, *, task=1, minute=0, choice="Positive", was_cancelled=False):
    result = ({"from_name": "sentiment", "value": {"choices": [choice]}},)
    return HumanLabel(
        annotation_id=number,
        task_id=task,
        annotator_id=1,
        result=() if was_cancelled else result,
        was_cancelled=was_cancelled,
        is_ground_truth=False,
        updated_at=START + timedelta(minutes=minute),
    )


def created(*labels):
    return Event("ANNOTATION_CREATED", annotations=labels)


def deleted(*ids):
    return Event("ANNOTATIONS_DELETED", deleted_annotation_ids=ids)


def test_the_same_event_twice_is_new_once(tasks):
    event = created(annotation(1))
    assert tasks.apply(ONE, event, None) is True
    assert tasks.apply(ONE, event, None) is False
    assert len(tasks.human_labels(ONE)) == 1


def test_a_later_update_wins_whatever_comes_first(tasks):
    old, new = annotation(1, minute=0), annotation(1, minute=5, choice="Negative")
    tasks.apply(ONE, Event("ANNOTATION_UPDATED", annotations=(new,)), None)
    tasks.apply(ONE, created(old), None)
    assert tasks.human_labels(ONE) == [new]


def test_a_deletion_that_overtakes_its_creation_still_counts(tasks):
    tasks.apply(ONE, deleted(1), None)
    tasks.apply(ONE, created(annotation(1)), None)
    assert tasks.human_labels(ONE) == []


def test_deleting_an_unknown_annotation_changes_nothing_else(tasks):
    tasks.apply(ONE, created(annotation(1)), None)
    tasks.apply(ONE, deleted(99), None)
    assert [label.annotation_id for label in tasks.human_labels(ONE)] == [1]


def test_a_skipped_task_is_known_but_is_not_a_label(tasks):
    tasks.apply(ONE, created(annotation(1, was_cancelled=True)), None)
    assert tasks.human_labels(ONE) == []
    assert tasks.counts(ONE) == (0, 1)


def test_deleting_a_task_takes_its_labels_with_it(tasks, labels, project):
    tasks.apply(ONE, Event("TASKS_CREATED", tasks=(Task(1, {"text": "a"}),)), None)
    tasks.apply(ONE, created(annotation(1, task=1)), None)
    weak = WeakLabel(1, "sentiment", "llm", "v1", (0.5, 0.5))
    labels.save(project, [weak], [])
    tasks.apply(ONE, Event("TASKS_DELETED", deleted_task_ids=(1,)), None)
    assert tasks.counts(ONE) == (0, 0)
    assert labels.progress(project).n_tasks == 0


def test_events_of_one_project_leave_the_other_alone(tasks):
    tasks.apply(ONE, created(annotation(1)), None)
    tasks.apply(TWO, deleted(1), None)
    assert len(tasks.human_labels(ONE)) == 1


def test_an_event_and_the_job_that_it_requires_are_stored_together(tasks, jobs):
    event = Event("TASKS_CREATED", tasks=(Task(1, {"text": "a"}),))
    tasks.apply(ONE, event, ("prelabel", "TASKS_CREATED"))
    tasks.apply(ONE, event, ("prelabel", "TASKS_CREATED"))
    assert [request[:2] for request in jobs.job_requests()] == [(ONE, "prelabel")]
    assert tasks.events(ONE) == {"TASKS_CREATED": 1}


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\u202eabc", "x" * 1_000_000, ""])
def test_any_text_comes_back_as_it_was(tasks, labels, project, text):
    tasks.save(project.id, [Task(1, {"text": text})])
    assert labels.unlabeled(project, ALL_TASKS)[0].data == {"text": text}


def test_a_listing_repairs_what_webhooks_lost(tasks):
    tasks.apply(ONE, created(annotation(1), annotation(2, task=2)), None)
    moment = datetime.now(UTC)
    listed = Task(3, {"text": "c"}, annotations=(annotation(3, task=3),))
    tasks.save_listing(ONE, [listed], moment)
    assert tasks.close_listing(ONE, moment, {3}, {3}) == (0, 2)
    assert [label.annotation_id for label in tasks.human_labels(ONE)] == [3]


def test_a_listing_leaves_alone_what_came_after_its_start(tasks):
    moment = datetime.now(UTC)
    newer = annotation(1)
    newer = HumanLabel(1, 1, 1, newer.result, False, False, moment + timedelta(seconds=1))
    tasks.apply(ONE, Event("TASKS_CREATED", tasks=(Task(1, {"text": "a"}),)), None)
    tasks.apply(ONE, created(newer), None)
    assert tasks.close_listing(ONE, moment, set(), set()) == (0, 0)


def test_a_listing_shows_what_was_wrongly_taken_as_deleted(tasks):
    tasks.apply(ONE, created(annotation(1)), None)
    tasks.apply(ONE, deleted(1), None)
    listed = Task(1, {"text": "a"}, annotations=(annotation(1),))
    tasks.save_listing(ONE, [listed], datetime.now(UTC) + timedelta(seconds=1))
    assert len(tasks.human_labels(ONE)) == 1


def test_a_task_whose_text_has_changed_loses_its_weak_label(tasks, labels, project):
    tasks.save(project.id, [Task(1, {"text": "a"}), Task(2, {"text": "b"})])
    weak = [WeakLabel(n, "sentiment", "llm", "v1", (0.5, 0.5)) for n in (1, 2)]
    labels.save(project, weak, [])
    listed = [Task(1, {"text": "changed"}, annotations=()), Task(2, {"text": "b"}, annotations=())]
    assert tasks.save_listing(project.id, listed, datetime.now(UTC)) == [1]
    assert labels.unlabeled_ids(project, 9) == [1]


STORY = [
    created(annotation(1, minute=0)),
    Event("ANNOTATION_UPDATED", annotations=(annotation(1, minute=2, choice="Negative"),)),
    created(annotation(2, task=2, minute=1)),
    deleted(2),
    Event("TASKS_CREATED", tasks=(Task(1, {"text": "a"}), Task(2, {"text": "b"}))),
    Event("TASKS_DELETED", deleted_task_ids=(3,)),
]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.permutations([*range(len(STORY)), *range(len(STORY))]))
def test_events_in_any_order_and_twice_end_in_the_same_state(
    tmp_path_factory, migrated_file, order
):
    path = shutil.copy(migrated_file, tmp_path_factory.mktemp("story"))
    database = Database(f"sqlite:///{path}")
    store = TaskStore(database)
    for index in order:
        store.apply(ONE, STORY[index], None)
    (label,) = store.human_labels(ONE)
    assert label == annotation(1, minute=2, choice="Negative")
    assert store.counts(ONE) == (2, 1)
    assert sum(store.events(ONE).values()) == len(set(itertools.chain(order)))
    database.close()


def test_whether_an_annotation_was_copied_from_a_prediction_is_kept(tasks):
    tasks.apply(ONE, created(replace(annotation(1), is_copied=True)), None)
    assert [label.is_copied for label in tasks.human_labels(ONE)] == [True]
    tasks.apply(ONE, created(annotation(1, minute=1)), None)  # a person has corrected it
    assert [label.is_copied for label in tasks.human_labels(ONE)] == [False]


def test_copies_of_predictions_are_no_answers_that_took_somebody_time(tasks):
    own = annotation(1, minute=3)
    tasks.apply(ONE, created(own), None)
    tasks.apply(ONE, created(replace(annotation(2), is_copied=True)), None)
    tasks.apply(ONE, created(annotation(3, was_cancelled=True)), None)
    assert tasks.answer_times(ONE, 9) == [(own.annotator_id, own.updated_at)]


def test_the_last_answers_come_first_and_no_more_than_asked_for(tasks):
    minutes = {1: 5, 2: 9, 3: 7}
    answers = [replace(annotation(n, minute=at), annotator_id=n) for n, at in minutes.items()]
    tasks.apply(ONE, created(*answers), None)
    assert [who for who, _ in tasks.answer_times(ONE, 2)] == [2, 3]


def test_a_label_from_a_clock_that_is_wrong_by_years_can_be_changed_and_closed(tasks):
    far = datetime(9999, 12, 31, tzinfo=UTC)
    tasks.apply(ONE, created(replace(annotation(1), updated_at=far)), None)
    listed_at = datetime.now(UTC) + timedelta(seconds=1)
    tasks.save_listing(
        ONE,
        [Task(1, {}, (replace(annotation(1, choice="Negative"), updated_at=listed_at),))],
        listed_at,
    )
    (label,) = tasks.human_labels(ONE)
    assert label.result[0]["value"] == {"choices": ["Negative"]}
    tasks.close_listing(ONE, listed_at + timedelta(seconds=1), {1}, set())
    assert tasks.human_labels(ONE) == []


def test_a_label_that_an_earlier_release_stored_from_the_far_future_is_replaced(tasks, database):
    tasks.apply(ONE, created(annotation(1)), None)
    table = t.human_labels
    database.execute(sa.update(table).values(updated_at=datetime(9999, 1, 1, tzinfo=UTC)))
    tasks.apply(ONE, created(annotation(1, minute=1, choice="Negative")), None)
    (label,) = tasks.human_labels(ONE)
    assert label.result[0]["value"] == {"choices": ["Negative"]}
