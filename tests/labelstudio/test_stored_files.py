"""Texts that Label Studio stores itself, read from a server that plays Label Studio."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.projects import Task
from backend.labelstudio.label_config import LabelConfigReader
from backend.labelstudio.remote_text import RemoteTexts
from backend.labelstudio.stored_files import StoredFiles

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "head.claims.signature"
CONFIG = (
    '<View><Text name="text" value="$doc" valueType="url"/><Choices name="topic" toName="text">'
    '<Choice value="Sport"/><Choice value="Politics"/></Choices></View>'
)


class LabelStudio(BaseHTTPRequestHandler):
    """Serves files as Label Studio 1.23 does, to a legacy token or a short-lived one."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = self.path == "/api/token/refresh/" and body == {"refresh": PERSONAL}
        self.server.n_refreshed += 1  # type: ignore[attr-defined]
        self.answer(b'{"access": "short-lived"}' if is_known else b"{}", 200 if is_known else 401)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        who = self.headers.get("Authorization")
        self.server.asked.append((self.path, who))  # type: ignore[attr-defined]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/bucket/object":
            self.answer(b"from the cloud")
        elif who not in (f"Token {LEGACY}", "Bearer short-lived"):
            self.send_response(302)
            self.send_header("Location", "/user/login/?next=/")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif parts.path == "/data/upload/3/5f0c-letter.txt":
            self.answer("für dich".encode())
        elif parts.path == "/data/local-files/" and query == {"d": "letters/0001.txt"}:
            self.answer(b"from the disk")
        elif parts.path == "/tasks/7/resolve/":
            self.resolve(base64.urlsafe_b64decode(query["fileuri"]).decode())
        elif parts.path == "/data/upload/3/secret.txt":
            self.answer(b"", 403)
        else:
            self.answer(b"<html>no such page</html>", 404)

    def resolve(self, uri: str) -> None:
        if uri == "s3://corpus/a b/0001.txt":
            port = self.server.server_address[1]
            self.send_response(303)
            self.send_header("Location", f"http://localhost:{port}/bucket/object?signature=x")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif uri == "gs://corpus/0001.txt":
            self.answer(b"through Label Studio")
        else:
            self.answer(b"", 404)

    def answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), LabelStudio)
    server.asked, server.n_refreshed = [], 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def url_of(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def read(server: ThreadingHTTPServer, link: str, key: str = LEGACY) -> str | Abstention:
    texts = RemoteTexts([], stored_files=StoredFiles(url_of(server), key))
    reader = LabelConfigReader(texts)
    example = reader.read_example(reader.read_schema(CONFIG), Task(7, {"doc": link}))
    return example.texts.get("text") or example.missing["text"]


def refusal(answer: str | Abstention) -> str:
    assert isinstance(answer, Abstention)
    assert answer.reason is AbstentionReason.REMOTE_TEXT
    return answer.detail


@pytest.mark.parametrize("key", [LEGACY, PERSONAL])
@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("/data/upload/3/5f0c-letter.txt", "für dich"),
        ("/data/local-files/?d=letters/0001.txt", "from the disk"),
        ("s3://corpus/a b/0001.txt", "from the cloud"),
        ("gs://corpus/0001.txt", "through Label Studio"),
        ("/tasks/7/resolve/?fileuri=Z3M6Ly9jb3JwdXMvMDAwMS50eHQ=", "through Label Studio"),
    ],
)
def test_every_link_that_label_studio_writes_is_read(server, link: str, text: str, key: str):
    assert read(server, link, key) == text


def test_a_whole_address_in_label_studio_is_read(server):
    assert read(server, f"{url_of(server)}/data/upload/3/5f0c-letter.txt") == "für dich"


def test_the_token_goes_to_label_studio_alone(server):
    read(server, "s3://corpus/a b/0001.txt")
    assert [who for _, who in server.asked] == [f"Token {LEGACY}", None]


def test_a_personal_token_is_exchanged_once(server):
    texts = RemoteTexts([], stored_files=StoredFiles(url_of(server), PERSONAL))
    assert [texts("gs://corpus/0001.txt", 7) for _ in range(3)] == ["through Label Studio"] * 3
    assert server.n_refreshed == 1


@pytest.mark.parametrize(
    ("link", "key", "why"),
    [
        ("/data/upload/3/5f0c-letter.txt", "", "set LABEL_STUDIO_API_KEY"),
        ("/data/upload/3/5f0c-letter.txt", "wrong", "set LABEL_STUDIO_API_KEY"),
        ("/data/upload/3/5f0c-letter.txt", "not.this.one", "set LABEL_STUDIO_API_KEY"),
        ("/data/upload/3/secret.txt", LEGACY, "HTTP 403.*set LABEL_STUDIO_API_KEY"),
        ("/data/upload/3/gone.txt", LEGACY, "cloud storage settings"),
        ("azure-blob://corpus/0001.txt", LEGACY, "cloud storage settings"),
        ("azure://corpus/0001.txt", LEGACY, "cloud storage settings"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(server, link: str, key: str, why: str):
    assert re.search(why, refusal(read(server, link, key)))


@pytest.mark.parametrize(
    "link",
    [
        "/api/projects/1/",
        "/tasks/1/resolve/?fileuri=czM6Ly94",
        "/data/upload/../../api/token",
        "/data/upload/3/%2e%2e/%2e%2e/api/token",
        "/data/local-files/?d=../../etc/passwd",
        "/data/upload/3/a.txt?next=/api/",
        "//data/upload/3/a.txt",
        "/user/logout",
    ],
)
def test_no_other_page_of_label_studio_is_asked_for(server, link: str):
    refusal(read(server, link))
    refusal(read(server, url_of(server) + link))
    assert server.asked == []


def test_without_a_task_a_link_into_a_cloud_is_not_followed(server):
    texts = RemoteTexts([], stored_files=StoredFiles(url_of(server), LEGACY))
    assert "file that Label Studio stores" in refusal(texts("s3://corpus/a.txt"))
    assert server.asked == []
