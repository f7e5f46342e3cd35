"""A project is worked for while Label Studio lists this backend in it, and left as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backend.domain.projects import Disconnection, Event
from backend.errors import PlatformRejected, PlatformUnauthorized, PlatformUnavailable
from backend.pipeline import connection
from tests.conftest import SENTIMENT
from tests.fakes import OWN_ADDRESS
from tests.pipeline.people import choice


def number_of(project_id) -> int:
    return int(project_id.split(".")[0])


def labelled(house, n=4):
    project_id = house.connected(n)
    house.prelabel(project_id)
    house.annotator.asked.clear()
    house.platform.calls.clear()
    return project_id


WRITING = {
    "import_predictions",
    "serve_model_version",
    "delete_predictions",
    "delete_model_version",
    "restore_queue",
}


def test_a_project_that_does_not_list_this_backend_is_never_touched(house):
    project_id = house.connected(4)
    house.remote(project_id).backends = ["http://other:9090"]
    house.prelabel(project_id)
    assert house.annotator.asked == []
    assert not WRITING & set(house.platform.calls)
    project = house.projects.get(project_id)
    assert project.disconnection == Disconnection.REMOVED
    assert "http://other:9090" in project.disconnected_why
    assert "BACKEND_URL" in project.disconnected_why


def test_a_removed_backend_stops_says_why_and_puts_the_queue_back(house):
    project_id = labelled(house)
    remote = house.remote(project_id)
    assert remote.info.sampling == "Uncertainty sampling"
    remote.backends.clear()
    assert house.synchronizer.work_due(project_id) is None
    project = house.projects.get(project_id)
    assert (project.is_connected, project.is_followed) == (False, False)
    assert OWN_ADDRESS in project.disconnected_why
    assert remote.info.sampling == "Sequential sampling"
    assert remote.info.model_version is None
    state = house.reporter.project(project)
    assert state["disconnected_why"] == project.disconnected_why
    house.platform.calls.clear()
    house.platform.import_tasks(number_of(project_id), [{"text": "good"}])
    house.prelabel(project_id)
    assert house.platform.calls == []
    assert len(house.labels.weak_labels(project)) > 0


def test_a_queue_that_somebody_has_changed_since_is_left_alone(house):
    project_id = labelled(house)
    house.platform.change_project(number_of(project_id), sampling="Uniform sampling")
    house.remote(project_id).backends.clear()
    house.synchronizer.work_due(project_id)
    assert house.remote(project_id).info.sampling == "Uniform sampling"


def test_adding_it_again_goes_on_where_it_was(house):
    project_id = labelled(house)
    version = house.projects.get(project_id).model_version
    house.remote(project_id).backends.clear()
    house.synchronizer.work_due(project_id)
    house.remote(project_id).backends.append(OWN_ADDRESS)
    assert house.events.connect(project_id, SENTIMENT).model_version == version
    house.prelabel(project_id)
    assert house.annotator.asked == []
    assert house.remote(project_id).info.model_version == version


def test_webhooks_that_outlive_the_backend_do_not_bring_it_back(house):
    project_id = labelled(house)
    house.remote(project_id).backends.clear()
    house.synchronizer.work_due(project_id)
    info = house.platform.project(number_of(project_id))
    house.events.receive(Event("PROJECT_UPDATED", info))
    assert not house.projects.get(project_id).is_connected


def test_a_backend_that_is_just_being_added_is_waited_for(house):
    project_id = house.connected(4)
    house.remote(project_id).backends.clear()
    house.events.connect(project_id, SENTIMENT, address=f"{OWN_ADDRESS}/")
    house.prelabel(project_id)
    assert house.annotator.asked == []
    assert house.projects.get(project_id).is_connected
    house.remote(project_id).backends.append(OWN_ADDRESS)
    house.prelabel(project_id)
    assert len(house.annotator.asked) == 4


@pytest.mark.parametrize(
    "listed",
    ["http://backend:9090", "http://BACKEND:9090/", "https://backend:9090"],
)
def test_the_address_that_label_studio_uses_counts(house, listed):
    project_id = house.connected(2)
    house.remote(project_id).backends = ["http://first:1", listed]
    house.events.connect(project_id, SENTIMENT, address="http://backend:9090/")
    house.prelabel(project_id)
    assert len(house.annotator.asked) == 2


def test_a_deleted_project_is_asked_about_once(house):
    project_id = labelled(house)
    house.platform.delete_project(number_of(project_id))
    house.prelabel(project_id)
    project = house.projects.get(project_id)
    assert project.disconnection == Disconnection.DELETED
    assert house.jobs.problems(project_id) == []
    house.platform.calls.clear()
    assert house.synchronizer.work_due(project_id) is None
    assert house.platform.calls == []


@pytest.mark.parametrize("failure", [PlatformUnauthorized("401"), PlatformRejected("403")])
def test_a_refused_token_stops_the_work_until_it_is_accepted(house, failure):
    project_id = house.connected(4)
    house.platform.failure = failure
    house.prelabel(project_id)
    assert house.annotator.asked == []
    project = house.projects.get(project_id)
    assert (project.is_connected, project.is_followed) == (False, True)
    assert project.disconnected_why == str(failure)
    house.platform.failure = None
    assert house.synchronizer.work_due(project_id) is not None
    house.prelabel(project_id)
    assert len(house.annotator.asked) == 4
    assert house.projects.get(project_id).disconnected_why is None


def test_a_label_studio_that_does_not_answer_changes_no_connection(house):
    project_id = labelled(house)
    house.platform.failure = PlatformUnavailable("down")
    house.synchronizer.work_due(project_id)
    assert house.projects.get(project_id).is_connected


def test_disconnecting_by_hand_lasts_until_it_is_undone(house):
    project_id = labelled(house)
    house.connections.disconnect(house.projects.get(project_id))
    assert house.remote(project_id).info.sampling == "Sequential sampling"
    house.events.connect(project_id, SENTIMENT)
    assert not house.projects.get(project_id).is_connected
    house.projects.reconnect(house.projects.get(project_id))
    house.prelabel(project_id)
    assert house.remote(project_id).info.sampling == "Uncertainty sampling"


def test_two_projects_of_one_label_studio_are_told_apart(house):
    one, two = labelled(house), labelled(house)
    house.remote(one).backends.clear()
    house.synchronizer.work_due(one)
    house.synchronizer.work_due(two)
    assert [house.projects.get(each).is_connected for each in (one, two)] == [False, True]


def test_a_problem_that_is_gone_is_no_longer_shown(house, monkeypatch):
    project_id = labelled(house)
    house.jobs.note_problem(project_id, "publishing", "Label Studio did not answer")
    assert house.synchronizer.work_due(project_id) is None
    later = datetime.now(UTC) + timedelta(minutes=2)
    house.jobs.clear_problems(project_id, before=datetime.now(UTC) - timedelta(minutes=1))
    assert len(house.jobs.problems(project_id)) == 1
    counts = house.synchronizer.clear_problems(project_id, started_at=int(later.timestamp()))
    assert counts == {"n_cleared": 1}
    assert house.jobs.problems(project_id) == []


def test_annotations_made_from_predictions_are_nobodys_answers(house):
    project_id = labelled(house, 6)
    remote = house.remote(project_id)
    for task_id in sorted(remote.tasks):
        house.platform.annotate(task_id, [choice("Positive")], is_copied=True)
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    progress = house.labels.progress(house.projects.get(project_id))
    assert (progress.n_human_labels, progress.n_human_labelled) == (0, 0)
    assert house.synchronizer.work_due(project_id) is None


def test_places_of_addresses_are_compared_without_what_a_proxy_changes():
    assert connection._place("https://Host/x/") == connection._place("http://host/x")
    assert connection._place("http://host:1") != connection._place("http://host:2")
    assert connection._place("http://host:port") == ("host", None, "")
