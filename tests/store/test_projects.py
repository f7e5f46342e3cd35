"""Projects, versions, requests and problems."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backend.domain.projects import ProjectId
from tests.conftest import SENTIMENT, TOPIC

ONE, TWO = ProjectId("1.1795215594"), ProjectId("2.1795215595")


def test_saving_the_same_config_again_keeps_the_version(projects):
    first, is_new = projects.save(ONE, label_config=SENTIMENT)
    again, is_new_again = projects.save(ONE, label_config=SENTIMENT, title="Reviews")
    assert (is_new, is_new_again) == (True, False)
    assert again.model_version == first.model_version
    assert again.title == "Reviews"


def test_another_config_or_instruction_starts_another_version(projects):
    first, _ = projects.save(ONE, label_config=SENTIMENT)
    second, is_new = projects.save(ONE, label_config=TOPIC)
    third, is_new_again = projects.save(ONE, label_config=TOPIC, instruction="Judge the topic.")
    assert is_new and is_new_again
    names = [first.model_version, second.model_version, third.model_version]
    assert projects.versions(ONE) == names[::-1]
    assert projects.superseded_versions(ONE) == names[:2]


def test_none_leaves_title_and_instruction_as_they_are(projects):
    projects.save(ONE, label_config=SENTIMENT, title="Reviews", instruction="Be fair.")
    again, is_new = projects.save(ONE, label_config=SENTIMENT)
    assert (again.title, again.instruction, is_new) == ("Reviews", "Be fair.", False)


def test_projects_never_see_each_other(projects, work):
    projects.save(ONE, label_config=SENTIMENT)
    projects.save(TWO, label_config=TOPIC)
    work.note_problem(ONE, "llm", "down")
    assert projects.get(TWO).label_config == TOPIC
    assert projects.versions(ONE) == [projects.get(ONE).model_version]
    assert work.problems(TWO) == []


def test_a_number_that_label_studio_uses_again_is_another_project(projects):
    projects.save(ONE, label_config=SENTIMENT)
    newer, _ = projects.save(ProjectId("1.1900000000"), label_config=TOPIC)
    assert projects.get(ONE).label_config == SENTIMENT
    assert projects.find(1) == newer
    assert projects.find(7) is None


def test_requests_of_one_kind_are_one_request_and_a_newer_one_is_not_dropped(work):
    work.request_job(ONE, "prelabel", "connected")
    (_, _, asked_at) = work.job_requests()[0]
    work.request_job(ONE, "prelabel", "TASKS_CREATED")
    assert len(work.job_requests()) == 1
    work.drop_request(ONE, "prelabel", asked_at - timedelta(seconds=1))
    assert len(work.job_requests()) == 1
    work.drop_request(ONE, "prelabel", datetime.now(UTC))
    assert work.job_requests() == []


def test_a_problem_keeps_its_beginning_and_counts(work):
    work.note_problem(ONE, "llm", "connection refused")
    work.note_problem(ONE, "llm", "503")
    (problem,) = work.problems(ONE)
    assert (problem.message, problem.n_times) == ("503", 2)
    assert problem.first_seen_at <= problem.last_seen_at
    work.clear_problem(ONE, "llm")
    assert work.problems(ONE) == []


def test_a_worker_that_beats_is_alive(work):
    work.record_heartbeat("worker-a")
    work.record_heartbeat("worker-a")
    assert work.live_workers() == ["worker-a"]
