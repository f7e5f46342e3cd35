"""The web server over real connections: slow clients, half requests and no requests at all."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = """
import sys
from backend.web.server import WebServerPlan, serve_application
def application(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
serve_application(application, WebServerPlan("127.0.0.1", int(sys.argv[1]), 2, 2**20, deadline_s=2))
"""
HALVES = (
    b"GET / HT",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"",
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of an application that gives back what it is sent, with two threads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = subprocess.Popen([sys.executable, "-c", CODE, str(port)], cwd=ROOT)
    try:
        while server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        assert server.wait(30) == 0


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def echoed(port: int, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def sent(port: int, request: bytes) -> bytes:
    """Send bytes as they are; return the begin of the answer."""
    with connected(port) as raw:
        raw.sendall(request)
        return raw.recv(65_536)  # it may close before it has read all


def test_two_hundred_half_requests_hold_no_thread(port):
    with ExitStack() as stack:
        for number in range(200):
            half = stack.enter_context(connected(port))
            half.sendall(HALVES[number % len(HALVES)])
        assert echoed(port, b"whole") == b"whole"


def test_a_request_that_trickles_in_is_ended_by_its_deadline(port):
    with connected(port) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        slow.settimeout(0.2)
        is_open = True
        while is_open:
            try:
                slow.sendall(b"x")
                is_open = slow.recv(1) != b""
            except TimeoutError:
                continue
            except OSError:
                is_open = False
    assert echoed(port, b"whole") == b"whole"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nab\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET  / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_request_is_told_so_and_the_next_one_is_answered(port, request_bytes):
    status = sent(port, request_bytes).partition(b"\r\n")[0].split()[1]
    assert 400 <= int(status) < 500
    assert echoed(port, b"whole") == b"whole"
