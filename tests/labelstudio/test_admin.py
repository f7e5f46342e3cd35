"""Tokens, and setting projects up in a real Label Studio."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest

from backend.domain.projects import Prediction
from backend.errors import PlatformRejected, PlatformUnauthorized, PlatformUnavailable
from backend.labelstudio.admin import TokenKind, read_token
from backend.labelstudio.client import LabelStudioPlatform
from backend.launcher.label_studio_server import LabelStudioServer
from tests.label_studio_user import LabelStudioUser

CONFIG = (
    '<View><Text name="text" value="$text"/><Choices name="sentiment" toName="text">'
    '<Choice value="Positive"/><Choice value="Negative"/></Choices></View>'
)


def web_token(**claims: object) -> str:
    return jwt.encode(claims, "k" * 40, algorithm="HS256")


@pytest.mark.parametrize(
    ("key", "token"),
    [
        (
            web_token(token_type="refresh", exp=4_000_000_000),
            (TokenKind.PERSONAL, datetime(2096, 10, 2, 7, 6, 40, tzinfo=UTC)),
        ),
        (
            web_token(token_type="access", exp=5),
            (TokenKind.ACCESS, datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)),
        ),
        (web_token(token_type="refresh"), (TokenKind.PERSONAL, None)),
        ("0123456789abcdef0123456789abcdef01234567", (TokenKind.LEGACY, None)),
        ("", (TokenKind.LEGACY, None)),
        ("a.b.c", (TokenKind.LEGACY, None)),
    ],
)
def test_a_key_is_known_by_its_looks(key: str, token: tuple[TokenKind, datetime | None]):
    assert read_token(key) == token


def test_a_server_that_is_down_is_not_healthy():
    admin = LabelStudioUser("http://127.0.0.1:9", "key", timeout_s=1)
    assert not admin.is_healthy()
    with pytest.raises(PlatformUnavailable):
        admin.version()


class Backend(BaseHTTPRequestHandler):
    """The least that Label Studio takes for an ML backend; keeps its webhooks."""

    def do_GET(self) -> None:
        self.answer({"status": "UP"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/webhook":
            self.server.webhooks.append((dict(self.headers), body))  # type: ignore[attr-defined]
        self.answer({"model_version": "rec-v1"})

    def answer(self, payload: object) -> None:
        content = json.dumps(payload).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.webhooks = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def admin(label_studio: LabelStudioServer) -> Iterator[LabelStudioUser]:
    admin = LabelStudioUser(label_studio.url, label_studio.credentials.token)
    yield admin
    admin.close()


@pytest.fixture
def number(admin: LabelStudioUser) -> Iterator[int]:
    number = admin.create_project("admin", CONFIG, "<p>Judge it.</p>")
    yield number
    admin.delete_project(number)


@pytest.mark.e2e
def test_label_studio_is_up_and_takes_the_token(admin: LabelStudioUser):
    assert admin.is_healthy()
    assert admin.version().startswith("1.")
    assert "@" in admin.user()


@pytest.mark.e2e
def test_another_token_is_not_taken(label_studio: LabelStudioServer):
    other = LabelStudioUser(label_studio.url, "0" * 40)
    with pytest.raises(PlatformUnauthorized):
        other.user()
    other.close()


@pytest.mark.e2e
def test_a_broken_label_config_is_refused_with_the_reason(admin: LabelStudioUser):
    with pytest.raises(PlatformRejected, match="line 1"):
        admin.create_project("broken", "<View>")


@pytest.mark.e2e
def test_an_annotator_works_through_the_queue(admin: LabelStudioUser, number: int):
    assert admin.next_task(number) is None
    assert admin.import_tasks(number, [{"text": "a"}, {"text": "b"}]) == 2
    first = admin.next_task(number)
    assert first is not None
    assert admin.annotate(first, [], was_cancelled=True) > 0
    second = admin.next_task(number)
    assert second not in (None, first)
    region = {"from_name": "sentiment", "to_name": "text", "type": "choices"}
    assert admin.annotate(int(second or 0), [{**region, "value": {"choices": ["Positive"]}}]) > 0
    assert admin.next_task(number) is None


@pytest.mark.e2e
def test_a_project_is_found_by_its_whole_title(admin: LabelStudioUser):
    title = f"title {os.getpid()}"
    assert admin.find_project(title) is None
    longer = admin.create_project(f"{title} and more", CONFIG)
    number = admin.create_project(title, CONFIG)
    assert admin.find_project(title) == number
    for project in (longer, number):
        admin.delete_project(project)


@pytest.mark.e2e
def test_predictions_are_counted_and_their_choices_read(
    admin: LabelStudioUser, number: int, label_studio: LabelStudioServer
):
    admin.import_tasks(number, [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    assert (admin.count_predicted(number), admin.predicted_choices(number)) == (0, [None] * 3)
    platform = LabelStudioPlatform(label_studio.url, label_studio.credentials.token)
    region = {"from_name": "sentiment", "to_name": "text", "type": "choices"}
    first, _, third = (task.id for task in platform.tasks(number))
    for task_id, choice in ((first, "Negative"), (first, "Positive"), (third, "Negative")):
        result = ({**region, "value": {"choices": [choice]}},)
        assert platform.import_predictions(number, [Prediction(task_id, "v1", result, 0.5)]) == 1
    platform.close()
    assert admin.count_predicted(number) == 2
    assert admin.predicted_choices(number) == ["Positive", None, "Negative"]


@pytest.mark.e2e
def test_a_backend_is_connected_with_its_webhook(
    admin: LabelStudioUser, number: int, backend: ThreadingHTTPServer
):
    url = f"http://127.0.0.1:{backend.server_address[1]}"
    connected = admin.connect_backend(number, url, "FreeAL", basic_auth=("user", "password"))
    assert (connected.url, connected.title, connected.state) == (url, "FreeAL", "Connected")
    assert [b.id for b in admin.backends(number)] == [connected.id]
    (webhook,) = admin.webhooks(number)
    assert (webhook.url, webhook.is_active, webhook.headers) == (f"{url}/webhook", True, {})

    admin.set_webhook_headers(webhook.id, {"Authorization": "Basic eDp5"})
    admin.start_training(connected.id)
    admin.import_tasks(number, [{"text": "a"}])
    received = {body["action"]: headers for headers, body in backend.webhooks}  # type: ignore[attr-defined]
    assert set(received) == {"START_TRAINING", "TASKS_CREATED"}
    assert received["TASKS_CREATED"]["Authorization"] == "Basic eDp5"

    admin.delete_webhook(webhook.id)
    assert admin.webhooks(number) == []


@pytest.mark.e2e
def test_a_backend_that_is_down_is_refused(admin: LabelStudioUser, number: int):
    with pytest.raises(PlatformRejected, match="health check failed"):
        admin.connect_backend(number, "http://127.0.0.1:9", "FreeAL")
    assert admin.backends(number) == []
