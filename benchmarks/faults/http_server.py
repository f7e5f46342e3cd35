"""Serve HTTP from a function in a thread, for the proxies between the servers under test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Respond = Callable[[str, str, bytes], tuple[int, bytes] | None]
"""Function of method, path and body; returns status and JSON, or None to cut the connection."""


class HttpServer:
    """Serves `respond` on a local port until it is closed; port 0 takes a free one."""

    def __init__(self, port: int, respond: Respond) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(respond))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _handler(respond: Respond) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            self._reply("GET")

        def do_POST(self) -> None:
            self._reply("POST")

        def do_PATCH(self) -> None:
            self._reply("PATCH")

        def do_DELETE(self) -> None:
            self._reply("DELETE")

        def _reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            response = respond(method, self.path, body)
            if response is None:
                self.close_connection = True
                return
            status, content = response
            try:
                self.send_response(status)
                is_page = content.startswith(b"<")
                self.send_header("Content-Type", "text/html" if is_page else "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()
            except OSError:  # the client is gone: killed, or Label Studio after its one second
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
