"""The routes, asked as Label Studio asks them, and as it never should."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from backend.domain.projects import Prediction, ProjectId, Task
from backend.errors import LanguageModelUnavailable
from backend.setting_values import Secret
from tests.conftest import SENTIMENT, TOPIC

ONE, TWO = "1.1795215594", "2.1795215595"
RECORDINGS = Path(__file__).parent.parent / "recordings"


def recorded(name):
    lines = (RECORDINGS / f"label_studio_1.23.2_{name}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def setup_body(project=ONE, schema=SENTIMENT, **more):
    return {
        "project": project,
        "schema": schema,
        "hostname": "http://localhost:8080",
        "access_token": "0123456789abcdef0123456789abcdef01234567",
        "extra_params": None,
    } | more


def predict_body(*texts, project=ONE, label_config=SENTIMENT, first=1):
    tasks = [
        {"id": first + i, "data": {"text": text}, "project": 1} for i, text in enumerate(texts)
    ]
    return {
        "tasks": tasks,
        "project": project,
        "label_config": label_config,
        "params": {"login": None, "password": None, "context": None},
    }


def choices(answer):
    return [
        result["result"][0]["value"]["choices"][0] if result else None
        for result in answer.get_json()["results"]
    ]


@pytest.mark.parametrize("extra", [None, {"a": 1}, '{"a": 1}', "text", [1]])
def test_setup_answers_with_the_version_that_predictions_carry(client, extra):
    version = client.post("/setup", json=setup_body(extra_params=extra)).get_json()["model_version"]
    (result,) = client.post("/predict", json=predict_body("good")).get_json()["results"]
    assert result["model_version"] == version


def test_setup_does_not_ask_the_llm(client, language_model):
    language_model.failure = LanguageModelUnavailable("down")
    assert client.post("/setup", json=setup_body()).status_code == 200
    assert language_model.calls == []


@pytest.mark.parametrize("schema", ["<View/>", "<View", "", "no xml", "<!DOCTYPE a []><View/>"])
def test_a_config_that_cannot_be_labelled_is_refused_in_the_status_line_too(client, schema):
    answer = client.post("/setup", json=setup_body(schema=schema))
    assert answer.status_code == 400
    assert "label config" in answer.status
    assert "Traceback" not in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/setup", "{"),
        ("/setup", "[]"),
        ("/setup", '"text"'),
        ("/setup", "{}"),
        ("/setup", json.dumps(setup_body(project="x"))),
        ("/setup", json.dumps(setup_body(project=1))),
        ("/setup", json.dumps(setup_body(schema=None))),
        ("/predict", "not json"),
        ("/predict", "{}"),
        ("/predict", json.dumps(predict_body() | {"tasks": "all"})),
        ("/predict", json.dumps(predict_body() | {"tasks": None})),
        ("/predict", json.dumps(predict_body() | {"label_config": 3})),
        ("/webhook", ""),
        ("/webhook", "{}"),
        ("/webhook", '{"action": 3}'),
        ("/webhook", '{"action": "ANNOTATION_CREATED", "project": "x"}'),
    ],
)
def test_what_label_studio_never_sends_is_refused_with_one_sentence(client, route, body):
    answer = client.post(route, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert len(answer.get_json()["error"]) > 10


def test_a_webhook_of_a_project_that_never_connected_leaves_nothing(client, services):
    for body in recorded("webhooks"):
        assert client.post("/webhook", json=body).get_json() == {"taken": False}
    assert services.stores.projects.all() == []
    assert services.stores.tasks.ids(ProjectId(ONE)) == []
    assert services.stores.jobs.job_requests() == []


def test_unknown_routes_and_methods_are_refused_in_json(client):
    assert client.get("/nothing").status_code == 404
    assert client.get("/predict").status_code == 405
    assert "error" in client.get("/nothing").get_json()


def test_a_body_over_the_limit_gets_413(make_services, client_for):
    client = client_for(make_services(max_request_mb=1))
    answer = client.post("/predict", json=predict_body("x" * 1_100_000))
    assert answer.status_code == 413


def test_predictions_come_in_order_with_their_confidence(client):
    client.post("/setup", json=setup_body())
    answer = client.post("/predict", json=predict_body("good", "bad", "good"))
    assert choices(answer) == ["Positive", "Negative", "Positive"]
    for result in answer.get_json()["results"]:
        assert 0.5 < result["score"] == result["result"][0]["score"] < 1


def test_a_task_without_an_id_is_labelled_and_leaves_nothing_behind(client, services):
    body = predict_body("good", "bad")
    del body["tasks"][1]["id"]
    results = client.post("/predict", json=body).get_json()["results"]
    labels = [result["result"][0]["value"]["choices"][0] for result in results]
    assert labels == ["Positive", "Negative"]
    assert len(services.stores.tasks.ids(ProjectId(ONE))) == 1


def test_a_text_sent_by_hand_is_told_why_it_has_no_label(client, language_model):
    body = predict_body("good")
    del body["tasks"][0]["id"]
    language_model.failure = LanguageModelUnavailable("the LLM server does not answer")
    (result,) = client.post("/predict", json=body).get_json()["results"]
    assert result == {"error": "the LLM server does not answer"}
    language_model.failure = None
    body["tasks"][0]["data"] = {"text": "  "}
    (result,) = client.post("/predict", json=body).get_json()["results"]
    assert "is empty" in result["error"]


@pytest.mark.parametrize(
    "bad",
    [
        {"id": 2, "data": {}},
        {"id": 2, "data": {"text": None}},
        {"id": 2, "data": {"text": "   "}},
        {"id": 2, "data": {"text": ["a"]}},
        {"id": 2, "data": "text"},
        {"id": "two", "data": {"text": "good"}},
        "task",
        None,
        [],
    ],
)
def test_a_task_without_a_usable_text_gets_nothing_and_the_others_are_unaffected(client, bad):
    client.post("/setup", json=setup_body())
    body = predict_body("good", "bad", "bad")
    body["tasks"][1] = bad
    assert choices(client.post("/predict", json=body)) == ["Positive", None, "Negative"]


@pytest.mark.parametrize(
    "text",
    ["good \x00 text", "good \ud800", "\u202egood", "good " * 10_000, "good " * 250_000],
    ids=["null byte", "lone surrogate", "right to left", "10,000 words", "1 MB"],
)
def test_strange_and_long_texts_get_a_valid_label(client, services, text):
    client.post("/setup", json=setup_body())
    answer = client.post("/predict", json=predict_body(text, "bad"))
    assert choices(answer) == ["Positive", "Negative"]
    stored = services.stores.publication.predictions(
        services.stores.projects.get(ProjectId(ONE)), []
    )
    assert stored == {}


def test_a_text_that_was_cut_says_so(client):
    client.post("/setup", json=setup_body())
    answer = client.post("/predict", json=predict_body("good " * 10_000))
    (region,) = answer.get_json()["results"][0]["result"]
    assert "too long for the model" in region["meta"]["text"][0]


def test_no_tasks_is_no_results(client):
    client.post("/setup", json=setup_body())
    assert client.post("/predict", json=predict_body()).get_json() == {"results": []}


def test_without_an_llm_every_task_gets_nothing(client, language_model):
    client.post("/setup", json=setup_body())
    language_model.failure = LanguageModelUnavailable("down")
    answer = client.post("/predict", json=predict_body("good", "bad"))
    assert answer.status_code == 200
    assert answer.get_json() == {"results": [{}, {}]}


def test_fifteen_hundred_stored_predictions_come_without_the_llm(client, services, language_model):
    client.post("/setup", json=setup_body())
    texts = [f"good {i}" for i in range(1_500)]
    (first,) = client.post("/predict", json=predict_body(texts[0])).get_json()["results"]
    (project,) = services.stores.projects.all()
    tasks = [Task(1 + i, {"text": text}) for i, text in enumerate(texts)]
    services.stores.tasks.save(project.id, tasks)
    result, version = tuple(first["result"]), first["model_version"]
    stored = [Prediction(task.id, version, result, first["score"]) for task in tasks]
    services.stores.labels.save(project, [], stored, tasks=tasks)
    language_model.calls.clear()
    answer = client.post("/predict", json=predict_body(*texts))
    assert choices(answer) == ["Positive"] * 1_500
    assert language_model.calls == []


def test_two_projects_never_see_each_other(client, services):
    first = client.post("/setup", json=setup_body()).get_json()["model_version"]
    second = client.post("/setup", json=setup_body(TWO, TOPIC)).get_json()["model_version"]
    client.post("/predict", json=predict_body("good"))
    other = client.post("/predict", json=predict_body("good", project=TWO, label_config=TOPIC))
    (result,) = other.get_json()["results"]
    assert result == {} or result["result"][0]["from_name"] == "topic"
    assert client.get(f"/versions?project={ONE}").get_json() == {"versions": [first]}
    assert client.get(f"/versions?project={TWO}").get_json() == {"versions": [second]}
    assert client.get("/versions").get_json() == {"versions": []}


def test_versions_of_the_only_project_need_no_name(client):
    version = client.post("/setup", json=setup_body()).get_json()["model_version"]
    assert client.get("/versions").get_json() == {"versions": [version]}


def test_every_call_that_label_studio_really_made_is_answered(client):
    for call in recorded("requests"):
        arguments = {} if call["body"] is None else {"json": call["body"]}
        answer = client.open(call["path"], method=call["method"], **arguments)
        assert answer.status_code == 200, (call["path"], answer.get_data(as_text=True))
        if call["path"] == "/predict":
            assert len(answer.get_json()["results"]) == len(call["body"]["tasks"])


def test_every_webhook_that_label_studio_really_sent_is_taken(client):
    for body in recorded("webhooks"):
        assert client.post("/webhook", json=body).status_code == 201


def test_recorded_annotations_are_kept_and_the_skipped_one_is_no_label(client, services):
    client.post("/setup", json=setup_body())
    bodies = recorded("webhooks")
    for body in bodies:
        client.post("/webhook", json=body)
    project_id = f"{bodies[0]['project']['id']}.1795215594"
    kept = {
        label.annotation_id for label in services.stores.tasks.human_labels(ProjectId(project_id))
    }
    deleted = {
        annotation["id"]
        for body in bodies
        if body["action"] == "ANNOTATIONS_DELETED"
        for annotation in body["annotations"]
    }
    skipped = {
        body["annotation"]["id"]
        for body in bodies
        if body["action"] == "ANNOTATION_CREATED" and body["annotation"]["was_cancelled"]
    }
    assert kept
    assert deleted
    assert skipped
    assert not kept & (deleted | skipped)


def test_basic_auth_guards_every_route_but_health(make_services, client_for):
    settings = {"basic_auth_user": "ann", "basic_auth_pass": Secret("pass wörd")}
    client = client_for(make_services(**settings))
    assert client.get("/health").status_code == 200
    for route in ("/setup", "/predict", "/webhook"):
        assert client.post(route, json={}).status_code == 401
    for route in ("/", "/metrics", "/versions", "/nothing"):
        assert client.get(route).status_code == 401
    right = base64.b64encode("ann:pass wörd".encode()).decode()
    wrong = base64.b64encode(b"ann:pass").decode()
    assert client.get("/metrics", headers={"Authorization": f"Basic {right}"}).status_code == 200
    assert client.get("/metrics", headers={"Authorization": f"Basic {wrong}"}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 401


def test_an_unexpected_error_shows_no_traceback_and_no_text(client, services, monkeypatch, caplog):
    client.post("/setup", json=setup_body())

    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(services.stores.publication, "predictions", fail)
    answer = client.post("/predict", json=predict_body("a secret text"))
    assert answer.status_code == 500
    assert "Traceback" not in answer.get_data(as_text=True)
    assert "secret text" not in answer.get_data(as_text=True) + caplog.text


def test_metrics_count_what_is_in_the_database(client, services):
    client.post("/setup", json=setup_body())
    client.post("/predict", json=predict_body("good", "bad"))
    services.stores.jobs.record_heartbeat("worker-a")
    text = client.get("/metrics").get_data(as_text=True)
    assert f'freeal_labelled{{project="{ONE}"}} 2.0' in text
    assert "freeal_workers 1.0" in text
    assert 'freeal_http_request_seconds_count{route="/predict",status="200"} 1.0' in text


def test_the_status_of_a_project_is_there_for_programs(client, services):
    project = connected(services)
    answer = client.get(f"/status/{project.platform_id}")
    assert answer.status_code == 200
    assert answer.get_json()["project"] == project.id
    assert answer.get_json()["rounds"] == []
    assert client.get("/status/99").status_code == 404


def connected(services):
    number = services.platform.create_project(SENTIMENT)
    return services.events.connect(services.platform.projects[number].info.id, SENTIMENT)
