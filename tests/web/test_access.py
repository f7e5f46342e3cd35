"""Who may ask: hosts, origins, passwords and content types."""

from __future__ import annotations

import base64

import pytest
from flask import Flask, request

from backend.setting_values import Secret
from backend.settings import Settings
from backend.web.access import AccessRules, FailureLimit
from tests.web.test_ml_routes import setup_body

READS = ("/", "/versions", "/metrics", "/status/1")
WRITES = ("/setup", "/predict", "/webhook")


def basic(password: str, user: str = "me") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("host", ["evil.example", "backend.evil.example", "evil", "localhost.evil"])
@pytest.mark.parametrize("path", READS)
def test_a_host_name_that_is_not_ours_is_refused(client, host, path):
    answer = client.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert "ALLOWED_HOSTS" in answer.get_json()["error"]


@pytest.mark.parametrize(
    "host",
    ["localhost:9090", "127.0.0.1", "[::1]:9090", "192.168.1.5:9090", "backend:9090", "LOCALHOST"]
    + ["host.docker.internal:9090", "labels.example.org", "a.localhost"],
)
def test_addresses_and_names_of_this_machine_and_of_the_settings_are_ours(
    make_services, client_for, host
):
    services = make_services(
        backend_url="http://backend:9090", allowed_hosts=("labels.example.org",)
    )
    assert client_for(services).get("/versions", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:3000",
        "https://localhost",
        "null",
        "http://127.0.0.1",
    ]
    + ["http://localhost.evil.example", "file://", ""],
)
@pytest.mark.parametrize("path", WRITES)
def test_a_page_of_another_site_may_not_send(client, services, origin, path):
    answer = client.post(path, json=setup_body(), headers={"Origin": origin})
    assert answer.status_code == 403
    assert services.stores.projects.all() == []


def test_a_page_of_ours_may_send(make_services, client_for):
    client = client_for(make_services(backend_url="https://labels.example.org"))
    for origin in ("http://localhost", "https://labels.example.org"):
        answer = client.post("/setup", json=setup_body(), headers={"Origin": origin})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    + ["text/plain; a=application/json", "application/jsonp", ""],
)
@pytest.mark.parametrize("path", WRITES)
def test_a_body_that_is_not_json_by_its_type_is_refused(client, services, content_type, path):
    answer = client.post(path, data='{"project": "1.1"}', content_type=content_type)
    assert answer.status_code == 415
    assert services.stores.projects.all() == []


def test_health_needs_no_name_of_ours_and_no_password(make_services, client_for):
    client = client_for(make_services(basic_auth_user="me", basic_auth_pass=Secret("right")))
    assert client.get("/health", headers={"Host": "a-probe"}).status_code == 200
    assert client.get("/").status_code == 401


def test_an_address_with_many_wrong_passwords_has_to_wait_and_others_have_not():
    services = type("Parts", (), {})()
    services.settings = Settings(basic_auth_user="me", basic_auth_pass=Secret("right"))
    now = [1_000.0]
    rules = AccessRules(services, FailureLimit(clock=lambda: now[0]))

    def status(address: str, password: str | None) -> int:
        headers = {} if password is None else basic(password)
        at = {"REMOTE_ADDR": address}
        with Flask("t").test_request_context("/metrics", headers=headers, environ_base=at):
            refusal = rules.refusal(request)
        return 200 if refusal is None else refusal[0]

    assert {status("10.0.0.9", f"guess {n}") for n in range(20)} == {401}
    assert status("10.0.0.9", "right") == 429
    assert status("10.0.0.9", None) == 401
    assert status("10.0.0.8", "right") == 200
    now[0] += 61
    assert status("10.0.0.9", "right") == 200


def test_addresses_without_number_take_no_memory():
    limit = FailureLimit()
    for number in range(3_000):
        limit.note(f"address {number}")
    assert len(limit._failures) == 1_000


def test_only_named_projects_may_connect(make_services, client_for):
    services = make_services(allowed_projects=("7", "12"))
    client = client_for(services)
    assert client.post("/setup", json=setup_body("12.1795215594")).status_code == 200
    answer = client.post("/setup", json=setup_body("8.1795215594"))
    assert answer.status_code == 400
    assert "ALLOWED_PROJECTS" in answer.get_json()["error"]
    assert [project.platform_id for project in services.stores.projects.all()] == [12]


def test_invented_projects_are_limited_and_known_ones_are_not_shut_out(make_services, client_for):
    services = make_services(max_projects=3)
    client = client_for(services)
    codes = [
        client.post("/setup", json=setup_body(f"{number}.1795215594")).status_code
        for number in (1, 2, 3, 4, 5, 1)
    ]
    assert codes == [200, 200, 200, 400, 400, 200]
    services.stores.projects.disconnect(services.stores.projects.find(2).id)
    assert client.post("/setup", json=setup_body("9.1795215594")).status_code == 400
    confirmed = services.stores.projects.find(3)
    services.stores.projects.note_full_sync(confirmed.id, 1.0, 0)
    services.stores.projects.disconnect(confirmed.id)
    assert client.post("/setup", json=setup_body("9.1795215594")).status_code == 200


def test_what_was_asked_for_is_recorded_with_who_asked_and_no_text(client, caplog):
    client.post("/setup", json=setup_body("7.1795215594"))
    lines = [record.getMessage() for record in caplog.records if record.name == "freeal.audit"]
    assert [line.partition(" version=")[0] for line in lines] == [
        "action=connected project=7.1795215594 by=127.0.0.1"
    ]
