"""Between Label Studio and web: passes every call on, and does to webhooks what networks do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import requests

Manner = Literal["pass", "lose", "double", "hold"]
_TIMEOUT_S = 120.0


class WebhookRelay:
    """The address under which Label Studio knows the backend.

    `manner`: webhooks pass, get lost, come twice, or are held until `release` sends them in
    reverse order. Only `actions` are touched, all if there are none. `n_touched` were.
    """

    def __init__(self, *, port: int, web_url: str) -> None:
        self.web_url = web_url
        self.manner: Manner = "pass"
        self.actions: frozenset[str] = frozenset()
        self.n_touched = 0
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self.answer))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Return the address for BACKEND_URL."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def begin(self, manner: Manner = "pass", *actions: str) -> None:
        """Treat webhooks in this manner from now on, and count anew."""
        with self._lock:
            self.manner, self.actions, self.n_touched = manner, frozenset(actions), 0
            self._held = []

    def release(self) -> None:
        """Send what was held, the latest first, and let the rest pass."""
        with self._lock:
            held, self._held, self.manner = self._held[::-1], [], "pass"
        for body in held:
            self._forward("POST", "/webhook", body).raise_for_status()

    def close(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return what Label Studio is told."""
        manner = self._manner(path, body)
        if manner == "hold":
            with self._lock:
                self._held.append(body)
            return 201, b"{}"
        if manner == "lose":
            return 201, b"{}"
        try:
            if manner == "double":
                self._forward(method, path, body)
            reply = self._forward(method, path, body)
        except requests.RequestException:
            return 502, b"{}"
        return reply.status_code, reply.content

    def _manner(self, path: str, body: bytes) -> Manner:
        with self._lock:
            if self.manner == "pass" or not path.endswith("/webhook"):
                return "pass"
            if self.actions and json.loads(body).get("action") not in self.actions:
                return "pass"
            self.n_touched += 1
            return self.manner

    def _forward(self, method: str, path: str, body: bytes) -> requests.Response:
        return requests.request(
            method,
            self.web_url + path,
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=_TIMEOUT_S,
        )


def _handler(
    answer: Callable[[str, str, bytes], tuple[int, bytes]],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            self._reply("GET")

        def do_POST(self) -> None:
            self._reply("POST")

        def _reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = answer(method, self.path, body)
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()
            except OSError:  # Label Studio gives a webhook one second
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
