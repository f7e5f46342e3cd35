"""The page's routes: what browsers and Label Studio get, forms, headers and passwords."""

from __future__ import annotations

import re

import pytest

from backend.setting_values import Secret
from backend.web.page import site
from backend.web.page.part import Part
from tests.web.test_access import basic
from tests.web.test_ml_routes import setup_body

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OWN = {**BROWSER, "Origin": "http://localhost"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def html(client, path: str, status: int = 200) -> str:
    answer = client.get(path, headers=BROWSER)
    assert answer.status_code == status
    assert answer.mimetype == "text/html"
    return answer.get_data(as_text=True)


@pytest.fixture
def connected(client):
    client.post("/setup", json=setup_body())
    return client


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """A part with one action, which notes what its form says."""
    seen: list[str] = []

    def note(visit) -> str:
        seen.append(visit.form["word"])
        return f"Noted {visit.form['word']}."

    part = Part("overview", "Overview", site.PARTS[0].view, {"note": note})
    monkeypatch.setattr(site, "PARTS", (part, *site.PARTS[1:]))
    return seen


def token(client) -> str:
    """Return the token that belongs to the client's cookie, as a form of the page carries it."""
    with client.session_transaction() as session, client.application.test_request_context():
        from flask import g
        from flask import session as current
        from flask_wtf.csrf import generate_csrf

        value = generate_csrf()
        session["csrf_token"] = current["csrf_token"]
        g.pop("csrf_token", None)
    return value


def test_label_studio_gets_json_and_a_browser_gets_the_page(client):
    for accept in ("*/*", "application/json", ""):
        answer = client.get("/", headers={"Accept": accept})
        assert answer.get_json() == {"status": "UP", "model_class": "FreeALBackend"}
    assert "No project is connected yet" in html(client, "/")


@pytest.mark.parametrize("part", site.PARTS, ids=lambda part: part.name)
def test_each_tab_of_a_new_project_is_shown(connected, part):
    text = html(connected, f"/projects/1/{part.name}")
    assert f"<h1>{part.title}</h1>" in text
    assert text.count("No worker is alive") == 1
    assert connected.get("/projects/1/", headers=BROWSER).location.endswith("/projects/1/overview")


@pytest.mark.parametrize(
    "path", ["/projects/7/overview", "/projects/x/overview", "/projects/1/nothing", "/nothing"]
)
def test_an_unknown_address_is_told_in_words(connected, path):
    text = html(connected, path, 404)
    assert "<h1>Not possible</h1>" in text
    if path == "/projects/7/overview":
        assert "never connected to this backend" in text


def test_every_answer_has_a_strict_policy(connected):
    for path in ("/", "/projects/1/overview", "/nothing", "/static/page.js", "/health"):
        with connected.get(path, headers=BROWSER) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_no_template_has_script_or_style_of_its_own(connected):
    for part in site.PARTS:
        text = html(connected, f"/projects/1/{part.name}")
        assert not re.search(r"\son\w+=|style=|<style|javascript:", text)
        assert all("src=" in tag or "json" in tag for tag in re.findall(r"<script[^>]*>", text))
        assert not re.search(r'(src|href)="(https?:)?//', text)


def test_hostile_names_are_shown_as_they_are_written(client, services):
    client.post("/setup", json={**setup_body(), "title": HOSTILE})
    project = services.stores.projects.all()[0]
    services.stores.projects.save(project.id, label_config=project.label_config, title=HOSTILE)
    services.stores.jobs.note_problem(project.id, "llm", HOSTILE)
    for path in ("/", *(f"/projects/1/{part.name}?x={HOSTILE}&name=a" for part in site.PARTS)):
        text = html(client, path)
        assert "<script>alert" not in text
        assert "<img" not in text
    assert "&lt;script&gt;" in text


def test_a_form_with_its_token_is_answered_once_and_the_tab_is_shown_again(connected, done):
    form = {"csrf_token": token(connected), "word": HOSTILE}
    answer = connected.post("/projects/1/overview/note?page=2", data=form, headers=OWN)
    assert answer.status_code == 303
    assert answer.location.endswith("/overview?page=2")
    assert done == [HOSTILE]
    assert "Noted &lt;script&gt;" in html(connected, answer.location)
    assert "Noted" not in html(connected, answer.location)


@pytest.mark.parametrize("given", ["", "wrong", None])
def test_a_form_without_its_token_is_refused(connected, done, given):
    token(connected)
    form = {"word": "x"} if given is None else {"word": "x", "csrf_token": given}
    answer = connected.post("/projects/1/overview/note", data=form, headers=OWN)
    assert answer.status_code == 400
    assert "load it again" in answer.get_data(as_text=True)
    assert done == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:9"}, {}],
)
def test_a_form_of_another_site_is_refused_even_with_a_token(connected, done, headers):
    form = {"csrf_token": token(connected), "word": "x"}
    answer = connected.post("/projects/1/overview/note", data=form, headers=headers)
    assert answer.status_code in (403, 415)
    assert done == []


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_forms_are_taken_nowhere_else(connected, path):
    form = {"csrf_token": token(connected), "project": "1"}
    assert connected.post(path, data=form, headers=OWN).status_code == 415


def test_a_body_that_is_no_form_is_refused_on_the_page(connected, done):
    body = {"csrf_token": token(connected), "word": "x"}
    path = "/projects/1/overview/note"
    assert connected.post(path, json=body, headers=OWN).status_code == 415
    answer = connected.post(path, data=body, headers=OWN, content_type="multipart/form-data")
    assert answer.status_code == 415
    assert done == []


def test_the_page_has_the_password_of_the_rest(make_services, client_for):
    client = client_for(make_services(basic_auth_user="me", basic_auth_pass=Secret("right")))
    for path in ("/", "/projects/1/overview", "/static/page.css", "/static/plotly.min.js"):
        answer = client.get(path, headers=BROWSER)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert client.get("/", headers={**BROWSER, **basic("right")}).status_code == 200


def test_all_web_processes_sign_with_one_key(make_services, client_for):
    keys = {client_for(make_services()).application.config["SECRET_KEY"] for _ in range(2)}
    assert len(keys) == 1
    assert len(keys.pop()) == 64


def test_the_scripts_and_styles_are_served_from_here(client):
    for name in ("page.css", "page.js", "icon.svg", "plotly.min.js"):
        with client.get(f"/static/{name}") as answer:
            assert answer.status_code == 200
            assert len(answer.get_data()) > 100
