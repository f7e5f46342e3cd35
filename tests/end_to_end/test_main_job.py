"""The main job, with every part real: a project gets its pre-annotations, and keeps them right."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.launcher.environments import PROJECT_FOLDER
from tests.end_to_end.data import Review, reviews
from tests.end_to_end.stack import LiveProject, Stack, wait_for

pytestmark = pytest.mark.e2e

N_ROWS = 200
SENTIMENT = """
<View>
  <Header value="What does the reviewer think of the film?"/>
  <Text name="text" value="$text"/>
  <Choices name="sentiment" toName="text" choice="single">
    <Choice value="Positive"/>
    <Choice value="Negative"/>
  </Choices>
</View>
"""
VERDICT = """
<View>
  <Text name="body" value="$message"/>
  <Choices name="verdict" toName="body" choice="single-radio">
    <Choice value="Good film" alias="good"/>
    <Choice value="Bad film" alias="bad"/>
    <Choice value="No opinion" alias="none"/>
  </Choices>
</View>
"""


def texts(rows: list[Review]) -> list[dict[str, str]]:
    return [{"text": row.text} for row in rows]


def the_prediction(task: dict[str, Any]) -> dict[str, Any]:
    (prediction,) = task["predictions"]
    return prediction


def the_choice(prediction: dict[str, Any]) -> str:
    (region,) = prediction["result"]
    (choice,) = region["value"]["choices"]
    return choice


def assert_predicted_once(project: LiveProject, *, n_tasks: int, version: str) -> None:
    tasks = project.tasks()
    assert len(tasks) == n_tasks
    assert [len(task["predictions"]) for task in tasks] == [1] * n_tasks
    assert {the_prediction(task)["model_version"] for task in tasks} == {version}


def answer(choice: str) -> list[dict[str, Any]]:
    return [
        {
            "from_name": "sentiment",
            "to_name": "text",
            "type": "choices",
            "value": {"choices": [choice]},
        }
    ]


@pytest.fixture(scope="module")
def films(stack: Stack) -> LiveProject:
    """A project of 200 film reviews, labelled."""
    project = stack.new_project("Films", SENTIMENT, texts(reviews(N_ROWS)))
    project.wait_until_labelled(N_ROWS)
    return project


def test_every_task_has_one_valid_prediction_of_the_version_from_setup(films, stack):
    (backend,) = stack.admin.backends(films.number)
    assert backend.model_version == films.state()["model_version"]
    assert_predicted_once(films, n_tasks=N_ROWS, version=backend.model_version)
    interface = LabelInterface(SENTIMENT)
    for task in films.tasks():
        prediction = the_prediction(task)
        assert interface.validate_prediction(prediction, return_errors=True) == []
        (region,) = prediction["result"]
        assert 0.5 <= region["score"] <= 1.0


def test_each_prediction_carries_its_place_in_the_queue_as_its_score(films):
    scores = sorted(the_prediction(task)["score"] for task in films.tasks())
    assert scores == pytest.approx([(place + 0.5) / N_ROWS for place in range(N_ROWS)])


def test_predictions_are_far_better_than_chance(films):
    gold = {row.text: row.label for row in reviews(N_ROWS)}
    n_right = sum(
        the_choice(the_prediction(task)) == gold[task["data"]["text"]] for task in films.tasks()
    )
    sys.stdout.write(f"accuracy on {N_ROWS} reviews: {n_right / N_ROWS:.3f}\n")
    assert n_right / N_ROWS > 0.6


def test_the_project_serves_the_version_in_the_order_of_its_scores(films):
    described = films.described()
    assert described["model_version"] == films.state()["model_version"]
    assert described["sampling"] == "Uncertainty sampling"


def test_the_backend_is_shown_as_connected(films, stack):
    (backend,) = stack.admin.backends(films.number)
    assert (backend.state, backend.error) == ("Connected", "")
    assert [hook.url for hook in stack.admin.webhooks(films.number)] == [
        f"{stack.settings.own_url}/webhook"
    ]


def test_the_queue_gives_the_first_places_first(films, stack):
    open_tasks = [task for task in films.tasks() if not task["total_annotations"]]
    expected = sorted(the_prediction(task)["score"] for task in open_tasks)[:5]
    by_id = {task["id"]: the_prediction(task) for task in open_tasks}
    served = []
    for _ in expected:
        task_id = stack.admin.next_task(films.number)
        served.append(by_id[task_id]["score"])
        stack.admin.annotate(task_id, by_id[task_id]["result"])
    assert served == pytest.approx(expected)


def test_what_people_do_is_recorded(films, stack):
    first, second, third = films.tasks()[:3]

    def recorded() -> dict[int, str]:
        labels = stack.services.stores.tasks.human_labels(films.id())
        return {label.annotation_id: label.result[0]["value"]["choices"][0] for label in labels}

    before = recorded()
    updated = stack.admin.annotate(first["id"], answer("Positive"))
    deleted = stack.admin.annotate(second["id"], answer("Positive"))
    skipped = stack.admin.annotate(third["id"], [], was_cancelled=True)
    wait_for(
        lambda: recorded() == {**before, updated: "Positive", deleted: "Positive"},
        what="two new labels and no skip among them",
        found=recorded,
        within_s=30,
    )
    stack.call("PATCH", f"/api/annotations/{updated}/", json={"result": answer("Negative")})
    stack.call("DELETE", f"/api/annotations/{deleted}/")
    wait_for(
        lambda: recorded() == {**before, updated: "Negative"},
        what="the update and the deletion",
        found=recorded,
        within_s=30,
    )
    assert skipped not in recorded()
    events = films.state()["events"]
    assert {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"} <= set(events)


def test_the_command_line_tells_the_state(films, stack):
    done = subprocess.run(
        [sys.executable, "-m", "backend", "status", "--json", str(films.number)],
        cwd=PROJECT_FOLDER,
        env={"PATH": "", **stack.settings.to_env()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["workers"]) == 1
    (project,) = told["projects"]
    assert project["title"] == "Films"
    assert project["n_published"] >= N_ROWS
    assert project["problems"] == []


def test_tasks_that_are_imported_later_are_labelled_too(stack):
    rows = reviews(12, start=1000)
    project = stack.new_project("Later", SENTIMENT, texts(rows[:8]))
    project.wait_until_labelled(8)
    stack.admin.import_tasks(project.number, texts(rows[8:]))
    version = project.wait_until_labelled(12)["model_version"]
    assert_predicted_once(project, n_tasks=12, version=version)


def test_retrieving_predictions_makes_no_doubles(stack):
    project = stack.new_project("Retrieved", SENTIMENT, texts(reviews(30, start=1100)))
    retrieve = {"id": "retrieve_tasks_predictions", "project": project.number}
    everything = {"selectedItems": {"all": True, "excluded": []}}
    stack.call("POST", "/api/dm/actions", params=retrieve, json=everything)  # while it works
    version = project.wait_until_labelled(30)["model_version"]
    stack.call("POST", "/api/dm/actions", params=retrieve, json=everything)
    assert_predicted_once(project, n_tasks=30, version=version)


def test_two_projects_at_once_keep_to_their_own_configs(stack):
    rows = reviews(40, start=1200)
    sentiment = stack.new_project("Sentiment", SENTIMENT, texts(rows))
    label_out = stack.new_project(
        "Verdict",
        VERDICT,
        [{"message": row.text} for row in rows],
        instruction="<p>Does the writer recommend the film?</p>",
    )
    for project, config, choices in (
        (sentiment, SENTIMENT, {"Positive", "Negative"}),
        (label_out, VERDICT, {"good", "bad", "none"}),
    ):
        state = project.wait_until_labelled(40)
        assert_predicted_once(project, n_tasks=40, version=state["model_version"])
        predictions = [the_prediction(task) for task in project.tasks()]
        assert {the_choice(prediction) for prediction in predictions} <= choices
        interface = LabelInterface(config)
        assert all(interface.validate_prediction(prediction) for prediction in predictions)
        (backend,) = stack.admin.backends(project.number)
        assert backend.model_version == state["model_version"]


def test_another_label_config_replaces_the_predictions(stack):
    project = stack.new_project("Changed", SENTIMENT, texts(reviews(40, start=1300)))
    before = project.wait_until_labelled(40)["model_version"]
    config = SENTIMENT.replace("Positive", "Recommended").replace("Negative", "Discouraged")
    stack.call("PATCH", f"/api/projects/{project.number}/", json={"label_config": config})
    after = project.wait_until_labelled(40, not_under=before)["model_version"]
    wait_for(
        lambda: all(
            prediction["model_version"] == after
            for task in project.tasks()
            for prediction in task["predictions"]
        ),
        what="the old version's predictions to go away",
        within_s=60,
    )
    assert_predicted_once(project, n_tasks=40, version=after)
    choices = {the_choice(the_prediction(task)) for task in project.tasks()}
    assert choices <= {"Recommended", "Discouraged"}
    assert project.described()["model_version"] == after


def test_a_killed_worker_goes_on_where_it_was(stack):
    n_rows = 400
    project = stack.new_project("Killed", SENTIMENT, texts(reviews(n_rows, start=2000)))
    wait_for(
        lambda: 0 < project.state()["n_labelled"] < n_rows,
        what="the worker to be in the middle of its work",
        found=project.state,
    )
    stack.kill_worker()
    n_labelled = project.state()["n_labelled"]
    assert 0 < n_labelled < n_rows
    stack.start_worker()
    version = project.wait_until_labelled(n_rows)["model_version"]
    assert_predicted_once(project, n_tasks=n_rows, version=version)
