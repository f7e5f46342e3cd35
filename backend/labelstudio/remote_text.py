"""Fetch task texts that are URLs, from allowed hosts only."""

from __future__ import annotations

import time
from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from backend.domain.labels import Abstention, AbstentionReason

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_REDIRECTS = 3
_BLOCK = 65_536
_HEADERS = {"Accept": "text/plain, text/*;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}


class _Refused(Exception):
    """Why a text is not read, for people."""


class RemoteTexts:
    """Fetches the text behind a URL, or an abstention with the reason. Safe between threads.

    Task data is written by strangers, so URLs with credentials and redirects to other hosts are
    refused as well.

    Args:
        allowed_hosts: matched exactly; "files.example.com" is port 80 for http and 443 for https,
            any other has to be named ("files.example.com:8443"). None at all: nothing is fetched.
        timeout_s: limit of each wait and of the reading as a whole, in seconds.
        max_bytes: a longer text is refused.
    """

    def __init__(
        self, allowed_hosts: Iterable[str], *, timeout_s: float = 10.0, max_bytes: int = 4_000_000
    ) -> None:
        self._allowed = frozenset(host.strip().lower() for host in allowed_hosts if host.strip())
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    def __call__(self, url: str) -> str | Abstention:
        """Return the text, decoded as UTF-8 with a replacement for what is not."""
        try:
            return self._fetch(url).decode("utf-8-sig", "replace")
        except _Refused as exc:
            return Abstention(AbstentionReason.REMOTE_TEXT, str(exc))
        except (requests.RequestException, HTTPError) as exc:
            reason = f"the text's host did not answer ({type(exc).__name__})"
            return Abstention(AbstentionReason.REMOTE_TEXT, reason)

    def _fetch(self, url: str) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        with requests.Session() as session:
            for _ in range(_MAX_REDIRECTS + 1):
                request = self._checked(url)
                response = session.send(
                    request, stream=True, allow_redirects=False, timeout=self._timeout_s
                )
                with response:
                    if not response.is_redirect:
                        return self._read(response, deadline)
                    url = urljoin(str(request.url), response.headers["location"])
        raise _Refused(f"more than {_MAX_REDIRECTS} redirects")

    def _checked(self, url: str) -> requests.PreparedRequest:
        """Return the request for a URL; what is checked is what will be contacted."""
        if not url.lower().startswith(("http://", "https://")):
            raise _Refused("the text is not an http or https URL")
        if "\\" in url:
            raise _Refused("the text's URL has a backslash in it")
        try:
            request = requests.Request("GET", url, headers=_HEADERS).prepare()
            parts = urlsplit(str(request.url))
            port = parts.port
        except ValueError as exc:
            raise _Refused("the text is not a usable URL") from exc
        if parts.username is not None or "@" in parts.netloc or "Authorization" in request.headers:
            raise _Refused("the text's URL has a user name or password in it")
        host, default = (parts.hostname or "").lower(), _DEFAULT_PORTS.get(parts.scheme)
        is_default = port in (None, default)
        written = f"[{host}]" if ":" in host else host
        names = {f"{written}:{port or default}"} | ({written} if is_default else set())
        if names.isdisjoint(self._allowed):
            shown = host if is_default else f"{host}:{port}"
            raise _Refused(f"host {shown!r} is not in ALLOWED_DATA_HOSTS")
        return request

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        if response.status_code != 200:
            raise _Refused(f"the text's host answered HTTP {response.status_code}")
        body = bytearray()
        while block := response.raw.read1(_BLOCK, decode_content=True):
            body += block
            if len(body) > self._max_bytes:
                raise _Refused(f"the text is larger than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise _Refused(f"the text took longer than {self._timeout_s:g} s")
        return bytes(body)
