"""Proxy the backend's calls to Label Studio, and answer them wrongly on demand."""

from __future__ import annotations

import requests

from benchmarks.faults.http_server import HttpServer
from benchmarks.faults.wrong_answers import WrongAnswer, spoiled

_TIMEOUT_S = 120.0


class PlatformProxy:
    """Label Studio's URL for the backend.

    While `wrong` is set, what is read comes spoiled with status 200; `n_spoiled` counts it. What is
    written reaches Label Studio, and its answer is spoiled too.
    """

    def __init__(self, *, port: int) -> None:
        self.upstream, self.token = "", ""
        self.wrong: WrongAnswer | None = None
        self.n_spoiled = 0
        self._http = HttpServer(port, self.respond)

    @property
    def url(self) -> str:
        """Return the URL for LABEL_STUDIO_URL."""
        return self._http.url

    def inject(self, wrong: WrongAnswer | None = None) -> None:
        """Spoil answers in this way from now on, None: no longer."""
        self.wrong, self.n_spoiled = wrong, 0

    def close(self) -> None:
        """Stop serving."""
        self._http.close()

    def respond(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        """Return status and content of the response, None where Label Studio is down."""
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        try:
            reply = requests.request(
                method, self.upstream + path, data=body, headers=headers, timeout=_TIMEOUT_S
            )
        except requests.RequestException:
            return None
        wrong = self.wrong
        if wrong is None or not reply.ok:
            return reply.status_code, reply.content
        self.n_spoiled += 1
        return 200, spoiled(wrong, reply.content)
