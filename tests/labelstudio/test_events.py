"""Webhooks that a real Label Studio sent, and shapes that it never sends."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.projects import Event, Task
from backend.errors import InvalidRequest
from backend.labelstudio.events import plain_text, read_event, read_project

RECORDING = Path(__file__).parent.parent / "recordings" / "label_studio_1.23.2_webhooks.jsonl"
BODIES = [json.loads(line) for line in RECORDING.read_text(encoding="utf-8").splitlines()]


def recorded(action: str, *, was_cancelled: bool = False) -> dict[str, Any]:
    return next(
        copy.deepcopy(body)
        for body in BODIES
        if body["action"] == action
        and (action != "ANNOTATION_CREATED" or body["annotation"]["was_cancelled"] == was_cancelled)
    )


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body["action"])
def test_every_event_says_which_project_it_is_about(body: dict[str, Any]):
    event = read_event(body)
    assert event.action == body["action"]
    assert event.project is not None
    assert event.project.platform_id == body["project"]["id"]
    assert event.project.label_config == body["project"]["label_config"]
    assert event.project.n_tasks == body["project"]["task_number"]


def test_a_project_is_known_for_good_by_its_creation_time():
    event = read_event(recorded("START_TRAINING"))
    assert event.project is not None
    assert event.project.id == "1.1795215594"  # what the same server sent to /setup
    assert event.project.sampling == "Sequential sampling"
    assert event.project.model_version == "rec"


def test_a_projects_annotations_are_counted_with_the_skipped_ones():
    project = recorded("START_TRAINING")["project"]
    project |= {"total_annotations_number": 4, "skipped_annotations_number": 3}
    assert read_project(project).n_annotations == 7
    del project["skipped_annotations_number"]
    assert read_project(project).n_annotations is None


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED"])
def test_an_annotation_comes_with_its_task(action: str):
    body = recorded(action)
    event = read_event(body)
    (human_label,) = event.annotations
    assert human_label.annotation_id == body["annotation"]["id"]
    assert human_label.task_id == body["task"]["id"]
    assert human_label.annotator_id == 1
    assert list(human_label.result) == body["annotation"]["result"]
    assert not human_label.was_cancelled
    assert human_label.updated_at.tzinfo is not None
    assert event.tasks == (Task(body["task"]["id"], body["task"]["data"]),)
    assert event.tasks[0].annotations is None


def test_a_skip_is_a_cancelled_annotation_without_a_result():
    (human_label,) = read_event(recorded("ANNOTATION_CREATED", was_cancelled=True)).annotations
    assert (human_label.was_cancelled, human_label.result) == (True, ())


def test_annotations_made_from_predictions_come_in_lists():
    event = read_event(recorded("ANNOTATIONS_CREATED"))
    assert len(event.annotations) == 2
    assert [label.task_id for label in event.annotations] == [task.id for task in event.tasks]


def test_a_task_with_two_annotations_in_one_event_is_there_once():
    body = recorded("ANNOTATIONS_CREATED")
    body["task"] = [body["task"][0]] * 2
    assert len(read_event(body).tasks) == 1


def test_new_tasks_come_with_their_data():
    event = read_event(recorded("TASKS_CREATED"))
    assert [task.data for task in event.tasks] == [{"text": "n1"}, {"text": "n2"}]


def test_deletions_are_ids_only():
    event = read_event(recorded("ANNOTATIONS_DELETED"))
    assert (event.deleted_annotation_ids, event.annotations) == ((2,), ())
    event = read_event(recorded("TASKS_DELETED"))
    assert (event.deleted_task_ids, event.tasks) == ((30,), ())


@pytest.mark.parametrize("action", ["LABEL_LINK_CREATED", "PROJECT_DELETED", "something new"])
def test_an_unknown_action_is_an_event_with_its_name_only(action: str):
    assert read_event({"action": action, "project": {"id": 1}, "tasks": 5}) == Event(action)


def test_a_webhook_without_a_payload_is_an_event_without_content():
    assert read_event({"action": "ANNOTATION_CREATED"}) == Event("ANNOTATION_CREATED")


@pytest.mark.parametrize("payload", [None, 5, "ANNOTATION_CREATED", [], {}, {"action": None}])
def test_a_body_that_names_no_action_is_refused(payload: object):
    with pytest.raises(InvalidRequest):
        read_event(payload)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["project"], "1"),
        (["project", "id"], None),
        (["project", "id"], True),
        (["project", "id"], -1),
        (["project", "id"], 2**70),
        (["project", "created_at"], None),
        (["project", "created_at"], "yesterday"),
        (["project", "label_config"], {"a": 1}),
        (["annotation"], "x"),
        (["annotation", "id"], "2"),
        (["annotation", "task"], None),
        (["annotation", "result"], "x"),
        (["annotation", "result"], ["x"]),
        (["annotation", "updated_at"], 5),
        (["task"], 5),
        (["task", "id"], 1.5),
        (["task", "data"], None),
        (["task", "data"], ["text"]),
    ],
)
def test_a_malformed_webhook_is_refused_in_one_sentence(path: list[str], value: object):
    body = recorded("ANNOTATION_CREATED")
    part = body
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(InvalidRequest) as caught:
        read_event(body)
    assert "\n" not in str(caught.value)
    assert "text 0" not in str(caught.value)


@pytest.mark.parametrize(
    ("annotator", "annotator_id"), [(5, 5), ({"id": 5}, 5), (None, None), ("a", None), ({}, None)]
)
def test_whoever_annotated_is_known_by_a_number_or_not_at_all(annotator, annotator_id):
    body = recorded("ANNOTATION_CREATED")
    body["annotation"]["completed_by"] = annotator
    assert read_event(body).annotations[0].annotator_id == annotator_id


def test_an_annotation_without_a_result_or_a_change_is_read_all_the_same():
    body = recorded("ANNOTATION_CREATED")
    body["annotation"] |= {"result": None, "updated_at": None, "created_at": "2026-11-20T23:01:06"}
    (human_label,) = read_event(body).annotations
    assert human_label.result == ()
    assert human_label.updated_at == datetime(2026, 11, 20, 23, 1, 6, tzinfo=UTC)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(BODIES), st.data())
def test_any_part_can_be_anything_and_is_read_or_refused(body: dict[str, Any], data: st.DataObject):
    body = copy.deepcopy(body)
    part: Any = body
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [value for value in (part.values() if isinstance(part, dict) else part)]
        inner = [value for value in inner if isinstance(value, dict | list) and value]
        if not inner:
            break
        part = data.draw(st.sampled_from(inner))
    keys = list(part) if isinstance(part, dict) else list(range(len(part)))
    part[data.draw(st.sampled_from(keys))] = data.draw(JSON)
    with suppress(InvalidRequest):
        assert isinstance(read_event(body), Event)


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ("", ""),
        ("Plain words,  1 < 2", "Plain words, 1 < 2"),
        ("<p>Do <b>this</b> &amp; that.</p><p>Then rest.</p>", "Do this & that.\nThen rest."),
        ("<ul><li>one</li><li>two</li></ul>a<br/>b<!-- c -->", "one\ntwo\na\nb"),
        ("<a href='x'>link<!-- open", "link"),
    ],
)
def test_an_instruction_is_read_as_its_words(html: str, words: str):
    assert plain_text(html) == words


def test_a_hostile_instruction_takes_no_time():
    assert len(plain_text("<!--" * 1_000_000)) <= 20_000
    assert len(plain_text("<a" * 1_000_000)) <= 20_000


def test_an_annotation_copied_from_a_prediction_in_bulk_is_nobodys_opinion():
    copies = read_event(recorded("ANNOTATIONS_CREATED")).annotations
    assert [label.is_copied for label in copies] == [True, True]
    (by_hand,) = read_event(recorded("ANNOTATION_CREATED")).annotations
    assert not by_hand.is_copied


def test_a_prediction_that_a_person_submits_in_the_editor_is_their_opinion():
    body = recorded("ANNOTATION_CREATED")
    body["annotation"] |= {"parent_prediction": 4003, "lead_time": 2.5}
    (accepted,) = read_event(body).annotations
    assert not accepted.is_copied


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "bad", [None, 5, {"id": 2**63, "data": {}}, {"id": 2, "data": {"text": nested(960)}}]
)
def test_one_bad_task_costs_itself(bad: Any):
    body = recorded("TASKS_CREATED")
    good = body["tasks"][0]
    body["tasks"] = [bad, good]
    assert read_event(body).tasks == (Task(good["id"], good["data"]),)
    body["tasks"] = [bad]
    with pytest.raises(InvalidRequest):
        read_event(body)


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1969-12-31T00:00:00Z"]
)
def test_a_date_that_no_calendar_of_ours_holds_is_refused(time: str):
    body = recorded("ANNOTATION_CREATED")
    body["annotation"]["updated_at"] = time
    with pytest.raises(InvalidRequest, match="updated_at"):
        read_event(body)
    body = recorded("START_TRAINING")
    body["project"]["created_at"] = time
    with pytest.raises(InvalidRequest, match="created_at"):
        read_event(body)


def test_a_title_is_stored_as_every_database_can():
    body = recorded("START_TRAINING")
    body["project"]["title"] = "a\0b\ud83d"
    event = read_event(body)
    assert event.project is not None
    assert event.project.title == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
