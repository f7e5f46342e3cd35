"""The same class under label-studio-ml's own server, 1.0.9, and with the calls that 2.x makes."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from label_studio_ml.api import init_app
from label_studio_ml.exceptions import AnswerException

import model
from backend.domain.projects import ProjectId
from model import FreeALBackend
from tests.conftest import SENTIMENT, TOPIC
from tests.web.test_ml_routes import ONE, predict_body, recorded, setup_body

IS_FIRST = "basic_auth_user" not in inspect.signature(init_app).parameters
"""Whether label-studio-ml is 1.0.9; a checkout of 2.x in PYTHONPATH runs these tests as well."""


@pytest.fixture
def bare(services, client_for, tmp_path, monkeypatch):
    """label-studio-ml's own Flask application over our class."""
    client_for(services)
    monkeypatch.setenv("FREEAL_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", services.settings.database_url.reveal())
    own = {"model_dir": str(tmp_path / "jobs")} if IS_FIRST else {}
    return init_app(model_class=FreeALBackend, **own).test_client()


def test_health_setup_and_predict_work_under_init_app(bare):
    assert bare.get("/health").status_code == 200
    assert bare.post("/setup", json=setup_body()).status_code == 200
    answer = bare.post("/predict", json=predict_body("good", "bad", ""))
    results = answer.get_json()["results"]
    assert [bool(result) for result in results] == [True, True, False]
    assert results[0]["result"][0]["value"]["choices"] == ["Positive"]


def test_the_requests_of_the_packages_own_tests_are_answered(bare, services):
    """What label-studio-ml's own tests send; the bodies are odd, and say so in the answer."""
    project = {"id": 1, "label_config": "<View></View>"}
    setup = {"project": "1.1000000000", "schema": "<View></View>", "extra_params": {}}
    asked = {"tasks": {"id": 1}, "label_config": "<View></View>", "project": "1.1000000000"}
    assert bare.get("/health").get_json()["status"] == "UP"
    assert bare.get("/metrics").status_code == 200
    assert bare.post("/predict", json=asked | {"params": {"context": {}}}).status_code == 200
    if IS_FIRST:  # its /setup looks at no config, and it hands webhooks to a process
        return
    refused = bare.post("/setup", json=setup)
    assert refused.status_code == 400
    assert "asks nothing that this backend can label" in refused.get_data(as_text=True)
    told = bare.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": project})
    assert told.status_code == 201
    assert services.stores.projects.all() == []


def test_a_known_project_is_found_by_the_number_on_its_tasks(bare, services):
    services.events.connect(ProjectId(ONE), SENTIMENT)
    version = services.stores.projects.get(ProjectId(ONE)).model_version
    bare.post("/setup", json=setup_body())
    answer = bare.post("/predict", json=predict_body("good"))
    assert answer.get_json()["results"][0]["model_version"] == version


def test_webhooks_reach_the_store_under_init_app(bare, services):
    bare.post("/setup", json=setup_body())
    body = next(b for b in recorded("webhooks") if b["action"] == "ANNOTATION_CREATED")
    project_id = ProjectId(f"{body['project']['id']}.1795215594")
    assert bare.post("/webhook", json=dict(body)).status_code == 201
    deadline = time.monotonic() + 90  # label-studio-ml hands it to a process of its own
    while not services.stores.tasks.human_labels(project_id) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(services.stores.tasks.human_labels(project_id)) == 1


def test_two_dot_x_finds_the_model_version_and_may_set_parameters(services, client_for):
    client_for(services)
    number = services.platform.create_project(SENTIMENT)
    backend = FreeALBackend(project_id=str(number), label_config=SENTIMENT)
    backend.set_extra_params({"a": 1})
    backend.set("anything", "kept nowhere")
    assert backend.extra_params == backend.get("extra_params") == {"a": 1}
    assert backend.get("model_version") == backend.model_version == backend.connect()
    assert backend.predict([{"id": 1, "data": {"text": "good"}}], context=None)[0]["result"]


def test_two_dot_x_cuts_the_creation_time_off_and_the_project_is_the_real_one(services, client_for):
    client_for(services)
    number = services.platform.create_project(SENTIMENT)
    FreeALBackend(project_id=str(number), label_config=SENTIMENT).get("model_version")
    assert [p.id for p in services.stores.projects.all()] == [f"{number}.1795215594"]


def test_attributes_of_two_dot_x_that_people_use_are_there(services, client_for):
    client_for(services)
    backend = FreeALBackend(project_id="1", label_config=SENTIMENT)
    found = backend.label_interface.get_first_tag_occurence("Choices", "Text")
    assert found == ("sentiment", "text", "text")
    assert backend.parsed_label_config["sentiment"]["type"] == "Choices"
    assert backend.has("label_config") and not backend.has("anything")
    backend.use_label_config(TOPIC)
    assert "topic" in backend.parsed_label_config


def test_a_config_that_cannot_be_labelled_is_refused_in_words(bare, services):
    number = services.platform.create_project(SENTIMENT)
    backend = FreeALBackend(project_id=str(number), label_config="<View/>")
    with bare.application.test_request_context(), pytest.raises(AnswerException) as refused:
        backend.get("model_version")
    assert refused.value.status == 400
    assert "asks nothing that this backend can label" in refused.value.msg


def test_a_task_without_an_id_is_labelled_and_not_stored(services, client_for):
    client_for(services)
    number = services.platform.create_project(SENTIMENT)
    backend = FreeALBackend(project_id=str(number), label_config=SENTIMENT)
    good, bad = backend.predict([{"data": {"text": "good"}}, {"data": {"text": "bad"}}], context={})
    assert good["result"][0]["value"] == {"choices": ["Positive"]}
    assert bad["result"][0]["value"] == {"choices": ["Negative"]}
    assert services.stores.tasks.ids(services.stores.projects.find(number).id) == []


def test_a_copy_without_the_package_says_what_is_missing(tmp_path):
    shutil.copy(Path(model.__file__), tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", "import model"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert "start it from the checkout" in ended.stderr


def test_two_dot_x_passes_events_by_position(services, client_for):
    client_for(services)
    body = dict(next(b for b in recorded("webhooks") if b["action"] == "ANNOTATION_CREATED"))
    action = body.pop("action")
    backend = FreeALBackend(project_id="1")
    assert backend.fit(action, body, anything=1) == {"taken": True}
    assert backend.fit((), event=action, data=body) == {"taken": False}


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "START_TRAINING"])
def test_two_dot_x_hears_why_an_event_is_not_taken(services, client_for, action):
    client_for(services)
    data = {"project": {"id": 1, "label_config": SENTIMENT}}  # its own tests send no more
    taken = FreeALBackend("1", label_config=SENTIMENT).fit(action, data)
    assert not taken["taken"]
    assert "the project's 'created_at' is not a time" in taken["error"]


def test_what_the_base_class_of_two_dot_x_reads_of_itself_is_there():
    assert FreeALBackend(project_id="1")._label_studio_client is None


def test_the_calls_of_two_dot_x_to_predict_are_answered(services, client_for):
    client_for(services)
    number = services.platform.create_project(SENTIMENT)
    backend = FreeALBackend(project_id=str(number), label_config=SENTIMENT)
    task = {"id": 1, "data": {"text": "good"}}
    for params in ({}, {"login": "a", "password": "b"}):
        assert backend.predict([task], context={}, **params)[0]["result"]
    assert backend.predict({"id": 1}, context={}) == [{}]  # a dict in place of a list: no task


def test_two_projects_keep_apart_under_two_dot_x(services, client_for):
    client_for(services)
    configs = [SENTIMENT, TOPIC]
    for config in configs:
        number = services.platform.create_project(config)
        FreeALBackend(project_id=str(number), label_config=config).connect()
    assert [p.label_config for p in services.stores.projects.all()] == configs
