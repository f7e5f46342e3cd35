"""Decide who may ask: by host, origin, password and content type."""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Request

if TYPE_CHECKING:
    from backend.services import Services

OPEN_ROUTES = ("/health", "/ready")
"""Asked by supervisors without a password; they tell states, no data."""
PAGE = "/projects/"
"""Where the forms of the page go: they alone are no JSON, and a browser names their origin."""
_FORMS_ONLY = "here the page's own forms are answered, which a browser sends with its origin"
_JSON_ONLY = "requests here have a JSON body and say so: Content-Type: application/json"
_LOCAL_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")
_MAX_FAILURES = 20
_WINDOW_S = 60.0
_MAX_ADDRESSES = 1_000

Refusal = tuple[int, str]


@dataclass
class FailureLimit:
    """Counts wrong passwords by address; after 20 in a minute the address has to wait."""

    clock: Callable[[], float] = time.monotonic
    _failures: dict[str, deque[float]] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def is_reached(self, address: str) -> bool:
        """Return whether an address has failed too often in the last minute."""
        with self._lock:
            times = self._failures.get(address, ())
            return sum(at > self.clock() - _WINDOW_S for at in times) >= _MAX_FAILURES

    def note(self, address: str) -> None:
        """Count a failure; of too many addresses the one that failed first is forgotten."""
        with self._lock:
            times = self._failures.setdefault(address, deque(maxlen=_MAX_FAILURES))
            times.append(self.clock())
            while len(self._failures) > _MAX_ADDRESSES:
                self._failures.pop(next(iter(self._failures)))


class AccessRules:
    """Checks requests before any route sees them.

    A page that a browser shows can send requests to this machine, and can give its own host name
    this machine's address. So the host has to be an address, a name of this machine or one that
    the settings name; a request that a page sends has to come from this backend's own; and bodies
    are JSON by their type, which no foreign page can send without asking first, or forms of our
    own page.
    """

    def __init__(self, services: Services, limit: FailureLimit | None = None) -> None:
        settings = services.settings
        self._user = settings.basic_auth_user
        self._password = settings.basic_auth_pass.reveal()
        self._own = urlsplit(settings.own_url)
        names = (*settings.allowed_hosts, self._own.hostname or "", settings.host)
        self._names = {name.lower() for name in (*_LOCAL_NAMES, socket.gethostname(), *names)}
        self._limit = limit or FailureLimit()

    def refusal(self, request: Request) -> Refusal | None:
        """Return status and reason where a request is refused, None where it may go on."""
        if request.path in OPEN_ROUTES:
            return None
        return (
            self._foreign_host(request)
            or self._foreign_origin(request)
            or self._wrong_password(request)
            or self._wrong_type(request)
        )

    def _foreign_host(self, request: Request) -> Refusal | None:
        name = _host_name(f"//{request.host}")
        if name in self._names or name.endswith(".localhost") or _is_address(name):
            return None
        return 403, (
            "this backend does not go by that host name: set BACKEND_URL to the address by which "
            "Label Studio reaches it, or name it in ALLOWED_HOSTS"
        )

    def _foreign_origin(self, request: Request) -> Refusal | None:
        origin = request.headers.get("Origin")
        own = (f"{request.scheme}://{request.host}", f"{self._own.scheme}://{self._own.netloc}")
        if origin is None or origin.lower() in [one.lower() for one in own]:
            return None
        return 403, "a page of another site may not send requests here"

    def _wrong_password(self, request: Request) -> Refusal | None:
        if not self._user:
            return None
        given, address = request.authorization, request.remote_addr or ""
        if given is None:
            return 401, "basic authentication is required on this route"
        if self._limit.is_reached(address):
            return 429, "too many wrong passwords came from this address; wait a minute"
        if (
            given.type == "basic"
            and hmac.compare_digest((given.username or "").encode(), self._user.encode())
            and hmac.compare_digest((given.password or "").encode(), self._password.encode())
        ):
            return None
        self._limit.note(address)
        return 401, "basic authentication is required on this route"

    @staticmethod
    def _wrong_type(request: Request) -> Refusal | None:
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return None
        if request.path.startswith(PAGE):
            is_form = request.mimetype == "application/x-www-form-urlencoded"
            return None if is_form and "Origin" in request.headers else (415, _FORMS_ONLY)
        return None if request.is_json else (415, _JSON_ONLY)


def _host_name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
