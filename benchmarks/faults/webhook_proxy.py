"""Proxy the calls of Label Studio to the backend: lose, double or delay webhooks."""

from __future__ import annotations

import json
import threading
from typing import Literal

import requests

from benchmarks.faults.http_server import HttpServer

WebhookFault = Literal["pass", "lose", "double", "hold"]
_TIMEOUT_S = 120.0


class WebhookProxy:
    """The backend's URL in Label Studio.

    `fault`: webhooks pass, are lost, come twice, or are held until `release` sends them in reverse
    order. It affects `actions`, all if there are none; `n_affected` counts the webhooks.
    """

    def __init__(self, *, port: int, web_url: str) -> None:
        self.web_url = web_url
        self.fault: WebhookFault = "pass"
        self.actions: frozenset[str] = frozenset()
        self.n_affected = 0
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._http = HttpServer(port, self.respond)

    @property
    def url(self) -> str:
        """Return the URL for BACKEND_URL."""
        return self._http.url

    def inject(self, fault: WebhookFault = "pass", *actions: str) -> None:
        """Apply this fault to webhooks from now on, and reset the count."""
        with self._lock:
            self.fault, self.actions, self.n_affected = fault, frozenset(actions), 0
            self._held = []

    def release(self) -> None:
        """Send the held webhooks, the latest first, and let later ones pass."""
        with self._lock:
            held, self._held, self.fault = self._held[::-1], [], "pass"
        for body in held:
            self._forward("POST", "/webhook", body).raise_for_status()

    def close(self) -> None:
        """Stop serving."""
        self._http.close()

    def respond(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and content of the response to Label Studio."""
        fault = self._fault_of(path, body)
        if fault == "hold":
            with self._lock:
                self._held.append(body)
            return 201, b"{}"
        if fault == "lose":
            return 201, b"{}"
        try:
            if fault == "double":
                self._forward(method, path, body)
            reply = self._forward(method, path, body)
        except requests.RequestException:
            return 502, b"{}"
        return reply.status_code, reply.content

    def _fault_of(self, path: str, body: bytes) -> WebhookFault:
        with self._lock:
            if self.fault == "pass" or not path.endswith("/webhook"):
                return "pass"
            if self.actions and json.loads(body).get("action") not in self.actions:
                return "pass"
            self.n_affected += 1
            return self.fault

    def _forward(self, method: str, path: str, body: bytes) -> requests.Response:
        return requests.request(
            method,
            self.web_url + path,
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=_TIMEOUT_S,
        )
