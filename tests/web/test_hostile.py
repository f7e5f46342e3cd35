"""Requests that no Label Studio sends: each is answered in little time, and leaves all as it was.

Runs on SQLite, and on the PostgreSQL server of TEST_POSTGRESQL_URL. What only a real connection
can carry (half requests, broken chunks) is in test_server.py.
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.domain.projects import ProjectId, Task
from backend.services import Adapters, Services, build_services
from backend.setting_values import Secret
from backend.settings import Settings
from backend.store import tables as t
from backend.web.app import build_app
from model import FreeALBackend
from tests.conftest import SENTIMENT
from tests.fakes import FakeLanguageModel, FakePlatform
from tests.web.conftest import thinks
from tests.web.test_ml_routes import predict_body, recorded, setup_body

REAL = "1.1795215594"
PROPER_IDS = {REAL, "5.1", "7.9999999999"}
"""Projects that can connect: the others of these tests are written in ways that none has."""
FIRST_FREE = 900
"""Hostile requests are about tasks from this number on; the real ones are below."""
MAX_CPU_S = 2.0
MAX_GROWTH = 100 * 1024**2
KEPT = (t.projects, t.model_versions, t.tasks, t.human_labels, t.weak_labels, t.predictions)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


VALUES: list[Any] = [None, True, -1, 0, 1.5, 2**63, 10**400, 1e308, float("nan"), float("inf")]
VALUES += ["", "\u00b2.1", "7.9999999999", "01.1", "x\x00y", "\ud83d", "a" * 300_000, "\u202e\r\nx"]
VALUES += [[], {}, ["x"], {"id": "7"}, [[[]]], nested(60), nested(400)]

PATHS: dict[str, list[tuple[str | int, ...]]] = {
    "/setup": [(), ("project",), ("schema",)],
    "/predict": [(), ("tasks",), ("tasks", 0), ("tasks", 0, "id"), ("tasks", 0, "data")]
    + [("project",), ("label_config",)],
    "/webhook": [(), ("action",), ("project",), ("project", "id"), ("project", "created_at")]
    + [("project", "label_config"), ("annotation",), ("annotation", "id"), ("task", "id")]
    + [("annotation", "result"), ("annotation", "updated_at"), ("task",), ("task", "data")],
}

CONTROLS = [
    '<Choices name="c" toName="text"{0}><Choice value="a"/><Choice value="b"/></Choices>',
    '<Choices name="c" toName="text" choice="\x7f\x85"><Choice value="a"/></Choices>',
    '<Choices name="c" toName="text"><Choice value="&#10;"/><Choice value="&#127;"/></Choices>',
    '<Choices name="c" toName="text"><Choice value="&#1;"/></Choices>',
    '<Choices name="{1}" toName="text"><Choice value="a"/><Choice value="b"/></Choices>',
    '<Rating name="c" toName="text" maxRating="{2}"/>',
    '<Rating name="c" toName="text" maxRating="\u00b2"/>',
    '<Number name="c" toName="text" min="0" max="1e999999" step="1"/>',
    '<Number name="c" toName="text" min="nan" max="inf" step="-0"/>',
    '<Number name="c" toName="text" min="0" max="1" step="1e-999999"/>',
    '<Taxonomy name="c" toName="text">{3}</Taxonomy>',
    "{3}",
    "{4}",
]
FILLS = (
    "".join(f' a{i}="1"' for i in range(100_000)),
    "n" * 300,
    "9" * 5_000,
    "<Choice value='a'>" * 600 + "</Choice>" * 600,
    "".join(f'<Rating name="c{i}" toName="text"/>' for i in range(2_000)),
)


def config(control: str) -> str:
    return f'<View><Text name="text" value="$text"/>{control}</View>'


CONFIGS = [config(_filled) for _filled in (control.format(*FILLS) for control in CONTROLS)]
CONFIGS += [
    '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><View>&d;</View>',
    config(CONTROLS[0].format("")).replace("$text", "$" + "9" * 5_000),
    config("<!-- " + "x" * 5_000_000 + " -->"),
    "<View>" * 50_000,
    "<" * 300_000,
    "&" * 300_000,
    "\ufeff" + SENTIMENT + "\x00",
    SENTIMENT.replace("text", "\ud800"),
]
HTML = ["<a " * 20_000, "<svg>" * 20_000 + "</p>" * 20_000, "<!--" * 20_000, "<![x" * 20_000]
HTML += ["<a b='" * 10_000, "</" * 30_000, "<?" * 30_000, "&" * 60_000, "<script>" * 8_000]
RAW = [b"", b"{", b"[", b"null", b'"x"', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"[" * 100_000]
RAW += [b'{"a":' * 100_000, b'{"project":' + b"9" * 10_000 + b"}", b"{}" * 10_000, b"\x00"]
RAW += [b'{"tasks": [' + b"[" * 990 + b"]" * 990 + b"]}", b"\x1f\x8b\x08\x00", b"NaN"]
ADDRESSES = ["/status/\u00b2", "/status/%00", "/status/..%2f..%2fetc", "/status/9" + "9" * 5_000]
ADDRESSES += ["/status/1%0d%0aX:1", "/status/' OR 1=1 --", "/status/%ff%fe", "/status/1.1.1"]
ADDRESSES += ["/versions?project=%00", "/versions?project=\u00b2.1", "/versions?project[]=1"]
ADDRESSES += ["/versions?project=" + "1" * 5_000, "/versions?project=%ed%a0%80", "/%2e%2e/x", "/x"]
ADDRESSES += ["/metrics?a=" + "b" * 50_000, "/health/../setup", "//evil/setup", "/setup/"]
HEADERS = [{"Authorization": text} for text in ("Basic", "Basic %%%", "Basic " + "A" * 50_000)]
HEADERS += [{"Authorization": "Bearer x"}, {"Authorization": "Digest username=x"}]
HEADERS += [{"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:\x00").decode()}]
HEADERS += [{"Host": host} for host in ("evil", "", "a b", "[::1", "x" * 5_000, "127.0.0.1@evil")]
HEADERS += [{"Origin": origin} for origin in ("null", "http://[", "http://evil", "x" * 5_000)]
HEADERS += [{"Content-Encoding": "gzip"}, {"X-Forwarded-Host": "evil"}, {"Expect": "nonsense"}]
HEADERS += [{"X-HTTP-Method-Override": "DELETE"}, {"Content-Type": "application/json; charset=x"}]
METHODS = ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "POST", "GET"]
ROUTES = ["/", "/health", "/setup", "/predict", "/webhook", "/versions", "/metrics", "/status/1"]


@dataclass(frozen=True)
class Ask:
    """A request: method, path, body and headers."""

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def bodies(route: str) -> list[dict[str, Any]]:
    """Return proper bodies of a route, to be spoiled."""
    if route == "/setup":
        return [setup_body()]
    if route == "/predict":
        return [predict_body("good", first=FIRST_FREE)]
    actions = ("ANNOTATION_CREATED", "TASKS_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED")
    found = [next(b for b in recorded("webhooks") if b["action"] == action) for action in actions]
    for body in found:
        body["project"] |= {"label_config": SENTIMENT, "expert_instruction": ""}
        rows = [row for key in ("task", "annotation") for row in [body.get(key)] if row]
        for row in rows + body.get("tasks", []) + body.get("annotations", []):
            row |= {"id": FIRST_FREE} | ({"task": FIRST_FREE} if "task" in row else {})
    return found


def spoiled(body: dict[str, Any], path: tuple[str | int, ...], value: Any) -> Any:
    """Return a body with one of its parts replaced."""
    if not path:
        return value
    body = copy.deepcopy(body)
    part: Any = body
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return body


def posted(route: str, body: Any) -> Ask:
    return Ask("POST", route, json.dumps(body).encode(), (("Content-Type", "application/json"),))


def spoiled_requests(route: str) -> list[Ask]:
    first, *others = bodies(route)
    asks = [posted(route, spoiled(first, path, v)) for path in PATHS[route] for v in VALUES]
    return asks + [
        posted(route, spoiled(body, ("project",), value)) for body in others for value in VALUES
    ]


def other_requests() -> list[Ask]:
    json_type = (("Content-Type", "application/json"),)
    asks = [Ask("POST", route, raw, json_type) for route in PATHS for raw in RAW]
    asks += [Ask(method, path) for path in ADDRESSES for method in ("GET", "POST")]
    asks += [Ask(method, path) for path in ROUTES for method in METHODS]
    asks += [Ask("POST", "/webhook", b"{}", (*json_type, *headers.items())) for headers in HEADERS]
    return asks + [Ask("GET", "/versions", b"", tuple(headers.items())) for headers in HEADERS]


def config_requests() -> list[Ask]:
    asks = [posted("/setup", setup_body("5.1", schema)) for schema in CONFIGS]
    hyper = SENTIMENT.replace('<Text name="text"', '<HyperText name="text"')
    return asks + [
        posted("/predict", predict_body(h, first=FIRST_FREE, project="5.1", label_config=hyper))
        for h in HTML
    ]


GROUPS = {route: spoiled_requests(route) for route in PATHS}
GROUPS |= {"configs and pages": config_requests(), "all else": other_requests()}


@dataclass
class Stage:
    """The application, open and with a password, over a project that has tasks and labels."""

    services: Services
    open: FlaskClient
    locked: FlaskClient

    def state(self) -> dict[str, Any]:
        """Return what belongs to the real project."""
        state: dict[str, Any] = {}
        with self.services.database.read() as connection:
            for table in KEPT:
                key = table.c.id if table is t.projects else table.c.project_id
                query = sa.select(table).where(key == REAL)
                if "task_id" in table.c or table is t.tasks:
                    query = query.where(
                        (table.c.id if table is t.tasks else table.c.task_id) < FIRST_FREE
                    )
                state[table.name] = sorted(map(str, connection.execute(query).all()))
        return state

    def answered(self, client: FlaskClient, ask: Ask) -> int:
        """Send a request; return its status, after checking how it was answered."""
        started_at = time.thread_time()
        answer = client.open(ask.path, method=ask.method, data=ask.body, headers=list(ask.headers))
        seconds = time.thread_time() - started_at
        shown = (ask.method, ask.path[:80], ask.body[:200], ask.headers, answer.status[:200])
        assert answer.status_code < 500, shown
        assert seconds < MAX_CPU_S, (seconds, shown)
        assert answer.status.isprintable(), shown
        if answer.status_code >= 400 and ask.method not in ("HEAD",):
            assert "Traceback" not in answer.get_data(as_text=True), shown
        return answer.status_code


def resident_bytes() -> int:
    """Return the memory of this process, 0 where the system does not tell it so."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 if statm.exists() else 0


@pytest.fixture
def stage(tmp_path, migrated_url, monkeypatch) -> Iterator[Stage]:
    own = Settings(home=tmp_path, database_url=Secret(migrated_url))
    services = build_services(own, Adapters(FakePlatform(), FakeLanguageModel(thinks)))
    project = services.events.connect(ProjectId(REAL), SENTIMENT)
    services.stores.tasks.save(project.id, [Task(n, {"text": f"good {n}"}) for n in range(1, 9)])
    services.prediction.predict(project, services.stores.tasks.get(project.id, range(1, 9)))
    services.stores.projects.note_full_sync(project.id, 1.0, 0)
    monkeypatch.setattr(FreeALBackend, "services", services)
    monkeypatch.setattr(FreeALBackend, "_services_pid", 0)
    password = replace(own, basic_auth_user="me", basic_auth_pass=Secret("right"))
    locked = build_app(replace(services, settings=password), FreeALBackend)
    yield Stage(services, build_app(services, FreeALBackend).test_client(), locked.test_client())
    services.close()


def test_there_are_at_least_four_hundred_requests_over_all_routes():
    asks = [ask for group in GROUPS.values() for ask in group]
    assert len(asks) >= 400
    assert {ask.path for ask in asks} >= set(ROUTES)


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_requests_are_answered_in_little_time_and_change_nothing(stage, group):
    before, memory = stage.state(), resident_bytes()
    for ask in GROUPS[group]:
        stage.answered(stage.open, ask)
    assert stage.state() == before
    assert stage.services.stores.projects.named("1").id == REAL
    assert {project.id for project in stage.services.stores.projects.all()} <= PROPER_IDS
    assert resident_bytes() - memory < MAX_GROWTH
    assert stage.open.post("/predict", json=predict_body("good", first=1)).status_code == 200
    assert stage.open.get("/metrics").status_code == 200
    assert stage.open.get("/status/1").get_json()["project"] == REAL


@pytest.mark.parametrize("group", GROUPS)
def test_without_the_password_the_same_requests_reach_nothing(stage, group):
    before = stage.state()
    codes = {stage.answered(stage.locked, ask) for ask in GROUPS[group] if ask.path != "/health"}
    assert codes <= {401, 403, 404, 429}
    assert stage.state() == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("route", PATHS)
def test_any_json_in_any_place_is_answered_and_changes_nothing(stage, route):
    before = stage.state()

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(PATHS[route]), JSON, st.sampled_from(bodies(route)))
    def send(path: tuple[str | int, ...], value: Any, body: dict[str, Any]) -> None:
        if path and path[0] not in body:
            path = ("project",)
        stage.answered(stage.open, posted(route, spoiled(body, path, value)))

    send()
    assert stage.state() == before
