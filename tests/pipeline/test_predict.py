"""/predict: from the store, else live, else nothing for that task, always one answer a task."""

from __future__ import annotations

from backend.domain.projects import Task
from backend.errors import LanguageModelUnavailable


def tasks(*texts):
    return [Task(100 + i, {"text": text}) for i, text in enumerate(texts)]


def test_a_stored_prediction_costs_no_call(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    house.annotator.asked.clear()
    project = house.projects.get(project_id)
    remote = house.remote(project_id)
    asked = [Task(task_id, data) for task_id, data in remote.tasks.items()]
    answers = house.prediction.predict(project, asked)
    assert [answer.task_id for answer in answers] == [task.id for task in asked]
    assert house.annotator.asked == []


def test_unknown_tasks_are_labelled_live_up_to_the_limit_and_left_to_the_worker(house):
    project = house.projects.get(house.connected(0))
    answers = house.prediction.predict(project, tasks("good", "bad", "good", "bad", "good"))
    assert [answer is not None for answer in answers] == [True, True, True, False, False]
    assert [request[1] for request in house.jobs.job_requests()] == ["prelabel"]
    assert house.labels.progress(project).n_to_label == 2


def test_a_live_label_is_kept(house):
    project = house.projects.get(house.connected(0))
    house.prediction.predict(project, tasks("good"))
    house.annotator.failure = LanguageModelUnavailable("down")
    assert house.prediction.predict(project, tasks("good"))[0] is not None


def test_without_an_llm_the_answer_is_nothing_and_the_worker_is_asked(house):
    project = house.projects.get(house.connected(0))
    house.annotator.failure = LanguageModelUnavailable("down")
    assert house.prediction.predict(project, tasks("good", "bad")) == [None, None]
    assert house.jobs.problems(project.id)[0].source == "llm"


def test_one_bad_task_leaves_the_others_alone(house):
    project = house.projects.get(house.connected(0))
    answers = house.prediction.predict(project, tasks("good", "", "bad"))
    assert [answer is not None for answer in answers] == [True, False, True]


def test_a_passing_failure_is_not_kept_as_an_abstention(house):
    project = house.projects.get(house.connected(0))
    house.annotator.unreadable = {100}
    assert house.prediction.predict(project, tasks("good")) == [None]
    assert house.labels.progress(project).n_to_label == 1
