"""Serve an application: requests are read in full, by a deadline, before a thread sees them."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import create_server

_BACKLOG = 1_024
_MAX_CONNECTIONS = 1_000
_FILES_PER_CONNECTION = 3
_CLEANUP_INTERVAL_S = 5
_MAX_HEADERS = 65_536  # bytes

WebApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class WebServerPlan:
    """Where to listen, how many requests to answer side by side, and the largest body in bytes.

    `shares_port`: several processes listen on one port, and the system spreads the connections.
    `deadline_s`: seconds for a whole request, and for a connection on which none comes.
    """

    host: str
    port: int
    n_threads: int
    max_body: int
    shares_port: bool = False
    deadline_s: int = 60


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection on which a request that trickles in counts as idle since it began."""

    last_activity: float
    request: Any

    def handle_read(self) -> None:
        began_at = None if self.request is None else self.last_activity
        super().handle_read()
        if began_at is not None and self.request is not None:
            self.last_activity = began_at


def serve_application(application: WebApplication, plan: WebServerPlan) -> None:
    """Answer requests until SIGTERM or Ctrl-C.

    One thread reads all connections and holds what has arrived, so a client that is slow or never
    finishes its request costs a connection and no thread.

    Raises:
        OSError: the port is taken, or may not be listened on.
    """
    _allow_files(_FILES_PER_CONNECTION * _MAX_CONNECTIONS)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # waiting in turn is no problem
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    listening = socket.create_server(
        (plan.host, plan.port), family=family, backlog=_BACKLOG, reuse_port=plan.shares_port
    )
    server = create_server(
        application,
        sockets=[listening],
        threads=plan.n_threads,
        backlog=_BACKLOG,
        connection_limit=_MAX_CONNECTIONS,
        channel_timeout=plan.deadline_s,
        cleanup_interval=min(_CLEANUP_INTERVAL_S, plan.deadline_s),
        max_request_body_size=plan.max_body,
        max_request_header_size=_MAX_HEADERS,
        asyncore_use_poll=True,  # select() knows 1,024 files
        ident=None,
    )
    server.channel_class = _Channel
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.run()


def _allow_files(n_files: int) -> None:
    """Raise this process's limit of open files as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n_files if hard == resource.RLIM_INFINITY else min(n_files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
