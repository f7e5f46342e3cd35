"""The same class under label-studio-ml's own server, 1.0.9, and with the calls that 2.x makes."""

from __future__ import annotations

import time

import pytest
from label_studio_ml.api import init_app

from backend.domain.projects import ProjectId
from model import FreeALBackend
from tests.conftest import SENTIMENT, TOPIC
from tests.web.test_ml_routes import ONE, predict_body, recorded, setup_body


@pytest.fixture
def bare(services, client_for, tmp_path, monkeypatch):
    """label-studio-ml's own Flask application over our class."""
    client_for(services)
    monkeypatch.setenv("FREEAL_HOME", str(tmp_path))
    return init_app(model_class=FreeALBackend, model_dir=str(tmp_path / "jobs")).test_client()


def test_health_setup_and_predict_work_under_init_app(bare):
    assert bare.get("/health").status_code == 200
    assert bare.post("/setup", json=setup_body()).status_code == 200
    answer = bare.post("/predict", json=predict_body("good", "bad", ""))
    results = answer.get_json()["results"]
    assert [bool(result) for result in results] == [True, True, False]
    assert results[0]["result"][0]["value"]["choices"] == ["Positive"]


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
    backend = FreeALBackend(project_id="1", label_config=SENTIMENT)
    backend.set_extra_params({"a": 1})
    backend.set("anything", "kept nowhere")
    assert backend.get("model_version") == backend.model_version == backend.connect()
    assert backend.predict([{"id": 1, "data": {"text": "good"}}], context=None)[0]["result"]


def test_two_dot_x_passes_events_by_position(services, client_for):
    client_for(services)
    body = dict(next(b for b in recorded("webhooks") if b["action"] == "ANNOTATION_CREATED"))
    action = body.pop("action")
    backend = FreeALBackend(project_id="1")
    assert backend.fit(action, body, anything=1) == {"taken": True}
    assert backend.fit((), event=action, data=body) == {"taken": False}


def test_two_projects_keep_apart_under_two_dot_x(services, client_for):
    client_for(services)
    first = FreeALBackend(project_id="1", label_config=SENTIMENT)
    second = FreeALBackend(project_id="2", label_config=TOPIC)
    first.connect()
    second.connect()
    assert [p.label_config for p in services.stores.projects.all()] == [SENTIMENT, TOPIC]
