"""Texts behind URLs, from a server of the test's own: what is fetched, and what never is."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backend.domain.labels import Abstention, AbstentionReason
from backend.labelstudio.remote_text import RemoteTexts


class Texts(BaseHTTPRequestHandler):
    """Answers by path and writes down what was asked."""

    asked: list[str]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        getattr(self, "get_" + self.path.strip("/").split("/")[0], self.get_missing)()

    def answer(self, body: bytes, *, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def get_text(self) -> None:
        self.answer("Grüße".encode())

    def get_latin(self) -> None:
        self.answer("Grüße".encode("latin-1"))

    def get_bom(self) -> None:
        self.answer(b"\xef\xbb\xbfHello")

    def get_utf16(self) -> None:
        self.answer("Grüße".encode("utf-16"))

    def get_picture(self) -> None:
        self.answer(b"x", Content_Type="image/png; name=a")

    def get_binary(self) -> None:
        self.answer(b"PK\x03\x04\x00\x00")

    def get_zipped(self) -> None:
        self.answer(gzip.compress(b"x" * 100_000), Content_Encoding="gzip")

    def get_large(self) -> None:
        self.answer(b"x" * 2_000)

    def get_missing(self) -> None:
        self.answer(b"nothing here", status=404)

    def get_here(self) -> None:
        self.answer(b"", status=302, Location="/text")

    def get_elsewhere(self) -> None:
        port = self.server.server_address[1]
        self.answer(b"", status=302, Location=f"http://localhost:{port}/text")

    def get_file(self) -> None:
        self.answer(b"", status=302, Location="file:///etc/hostname")

    def get_round(self) -> None:
        self.answer(b"", status=302, Location="/round")

    def get_short(self) -> None:
        self.answer(b"half", Content_Length="100")
        self.close_connection = True

    def get_slow(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Texts)
    server.asked = []  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def host(server: ThreadingHTTPServer) -> str:
    return f"127.0.0.1:{server.server_address[1]}"


def fetched(host: str, path: str, **limits: float) -> str | Abstention:
    return RemoteTexts([host], **limits)(f"http://{host}/{path}")  # type: ignore[arg-type]


def refusal(answer: str | Abstention) -> str:
    assert isinstance(answer, Abstention)
    assert answer.reason is AbstentionReason.REMOTE_TEXT
    return answer.detail


@pytest.mark.parametrize(
    ("path", "text"),
    [("text", "Grüße"), ("bom", "Hello"), ("latin", "Gr\ufffd\ufffde"), ("zipped", "x" * 100_000)],
)
def test_a_text_is_fetched_and_decoded(host: str, path: str, text: str):
    assert fetched(host, path) == text


def test_a_redirect_on_the_same_host_is_followed(host: str):
    assert fetched(host, "here") == "Grüße"


def test_a_redirect_to_another_host_is_refused_and_not_followed(server, host: str):
    assert "ALLOWED_DATA_HOSTS" in refusal(fetched(host, "elsewhere"))
    assert server.asked == ["/elsewhere"]


def test_a_redirect_to_a_file_is_refused(host: str):
    assert "http" in refusal(fetched(host, "file"))


def test_redirects_come_to_an_end(server, host: str):
    assert "redirects" in refusal(fetched(host, "round"))
    assert len(server.asked) == 4


def test_a_text_that_is_too_large_is_refused(host: str):
    assert "larger than 1000 bytes" in refusal(fetched(host, "large", max_bytes=1000))
    assert "larger than" in refusal(fetched(host, "zipped", max_bytes=99_999))
    assert isinstance(fetched(host, "large", max_bytes=2000), str)


def test_an_error_page_is_no_text(host: str):
    assert "HTTP 404" in refusal(fetched(host, "nothing"))


def test_half_a_text_is_no_text(host: str):
    assert "did not answer" in refusal(fetched(host, "short"))


def test_a_trickle_is_given_up_after_the_time_for_the_whole_text(host: str):
    started = time.monotonic()
    assert "longer than 0.3 s" in refusal(fetched(host, "slow", timeout_s=0.3))
    assert time.monotonic() - started < 1.5


def test_a_host_that_does_not_answer_is_named_by_its_failure():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        assert "ConnectionError" in refusal(fetched(host, "text", timeout_s=0.5))


def test_without_allowed_hosts_nothing_is_fetched(server, host: str):
    assert "ALLOWED_DATA_HOSTS" in refusal(RemoteTexts([])(f"http://{host}/text"))
    assert "ALLOWED_DATA_HOSTS" in refusal(RemoteTexts(["", " "])(f"http://{host}/text"))
    assert server.asked == []


def test_a_host_without_a_port_stands_for_the_usual_ports_only(server, host: str):
    assert host in refusal(RemoteTexts(["127.0.0.1"])(f"http://{host}/text"))
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "text",
        "/data/upload/1/text.txt",
        "file:///etc/hostname",
        "ftp://ok.test/text",
        "s3://bucket/text",
        "http://",
        "http:///text",
        "http://[::1",
        "http://ok.test:99999/",
        "http://ok.test:81/",
        "http://ok.test.evil.test/",
        "http://evil.test/ok.test",
        "http://evil.test#ok.test",
        "http://user@ok.test/",
        "http://user:secret@ok.test/",
        "http://ok.test@evil.test/",
        "http://evil.test\\@ok.test/",
        "http://ok.test\\@evil.test/",
        "http://ok.test%2eevil.test/",
        "http://ok.test\n.evil.test/",
        "http://127.0.0.1/",
        "http://\u2147vil.test/",
        "http://" + "a" * 300 + ".test/",
    ],
)
def test_no_other_url_leads_anywhere(url: str, monkeypatch: pytest.MonkeyPatch):
    def no_connection(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"connected to {args}")

    monkeypatch.setattr(socket, "create_connection", no_connection)
    monkeypatch.setattr(socket, "getaddrinfo", no_connection)
    assert "secret" not in refusal(RemoteTexts(["ok.test"])(url))


def test_a_text_in_utf_16_is_read_by_its_mark(host: str):
    assert fetched(host, "utf16") == "Grüße"


@pytest.mark.parametrize(
    ("path", "why"), [("picture", "leads to image/png"), ("binary", "a file that is no text")]
)
def test_what_is_no_text_is_not_read(host: str, path: str, why: str):
    assert why in refusal(fetched(host, path))
