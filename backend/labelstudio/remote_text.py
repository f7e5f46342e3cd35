"""Fetch task texts that are links: from allowed hosts, and from Label Studio's own storage."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterable
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from backend.domain.labels import Abstention, AbstentionReason
from backend.labelstudio.stored_files import StoredFiles

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_REDIRECTS = 3
_BLOCK = 65_536
_NO_TEXTS = ("image/", "audio/", "video/", "font/", "application/pdf", "application/zip")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOGIN_PATH = "/user/login"
_KEY_REMEDY = (
    "set LABEL_STUDIO_API_KEY to a personal access token of somebody who can open the project"
)
_HEADERS = {"Accept": "text/plain, text/*;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}


class _Refused(Exception):
    """Why a text is not read, for people."""


class RemoteTexts:
    """Fetches the text behind a link, or an abstention with the reason. Safe between threads.

    Task data is written by strangers, so URLs with credentials and redirects to other hosts are
    refused as well. Files that Label Studio stores (`/data/upload/...`, `/data/local-files/...`,
    `s3://...`) are read through it with the backend's token, which goes nowhere else.

    Args:
        allowed_hosts: matched exactly; "files.example.com" is port 80 for http and 443 for https,
            any other has to be named ("files.example.com:8443"). None at all: nothing is fetched.
        stored_files: Label Studio's own files; None: they are not read.
        timeout_s: limit of each wait and of the reading as a whole, in seconds.
        max_bytes: a longer text is refused.
    """

    def __init__(
        self,
        allowed_hosts: Iterable[str],
        *,
        stored_files: StoredFiles | None = None,
        timeout_s: float = 10.0,
        max_bytes: int = 4_000_000,
    ) -> None:
        self._allowed = frozenset(host.strip().lower() for host in allowed_hosts if host.strip())
        self._stored_files = stored_files
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    def __call__(self, url: str, task_id: int | None = None) -> str | Abstention:
        """Return the text, read as UTF-8 or, by its mark, UTF-16; what is neither is replaced."""
        stored = self._stored_files and self._stored_files.address(url, task_id)
        try:
            body = self._fetch_stored(stored) if stored else self._fetch(url)
        except _Refused as exc:
            return Abstention(AbstentionReason.REMOTE_TEXT, str(exc))
        except (requests.RequestException, HTTPError) as exc:
            who = "Label Studio" if stored else "the text's host"
            reason = f"{who} did not answer ({type(exc).__name__})"
            return Abstention(AbstentionReason.REMOTE_TEXT, reason)
        encoding = "utf-16" if body.startswith(_UTF16_MARKS) else "utf-8-sig"
        return body.decode(encoding, "replace")

    def _fetch(self, url: str) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        with requests.Session() as session:
            for _ in range(_MAX_REDIRECTS + 1):
                request = self._allowed_request(url)
                with self._sent(session, request) as response:
                    if not response.is_redirect:
                        return self._read(response, deadline)
                    url = urljoin(str(request.url), response.headers["location"])
        raise _Refused(f"more than {_MAX_REDIRECTS} redirects")

    def _fetch_stored(self, url: str) -> bytes:
        """Return a file that Label Studio stores; it may redirect to its cloud storage."""
        files, deadline = self._stored_files, time.monotonic() + self._timeout_s
        if files is None or not files.has_key:
            raise _Refused(f"the text is a file in Label Studio: {_KEY_REMEDY}")
        with requests.Session() as session:
            for _ in range(_MAX_REDIRECTS + 1):
                request = _request(url)
                if files.is_own(url):
                    request.headers["Authorization"] = self._authorization(files)
                with self._sent(session, request) as response:
                    if response.status_code in (401, 403) and files.is_own(url):
                        raise _Refused(
                            f"Label Studio refuses to show the text's file (HTTP "
                            f"{response.status_code}): {_KEY_REMEDY}"
                        )
                    if response.status_code == 404 and files.is_own(url):
                        raise _Refused(
                            "Label Studio has no such file (HTTP 404): check the project's cloud "
                            "storage settings and that the file is still there"
                        )
                    if not response.is_redirect:
                        return self._read(response, deadline)
                    url = urljoin(str(request.url), response.headers["location"])
                if files.is_own(url) and urlsplit(url).path.startswith(_LOGIN_PATH):
                    raise _Refused(f"Label Studio asks to log in for the file: {_KEY_REMEDY}")
        raise _Refused(f"more than {_MAX_REDIRECTS} redirects")

    def _authorization(self, files: StoredFiles) -> str:
        try:
            return files.authorization()
        except requests.HTTPError as exc:
            raise _Refused(f"Label Studio refuses the token: {_KEY_REMEDY}") from exc

    def _sent(
        self, session: requests.Session, request: requests.PreparedRequest
    ) -> requests.Response:
        return session.send(request, stream=True, allow_redirects=False, timeout=self._timeout_s)

    def _allowed_request(self, url: str) -> requests.PreparedRequest:
        """Return the request for a URL on an allowed host."""
        request = _request(url)
        parts = urlsplit(str(request.url))
        host, default = (parts.hostname or "").lower(), _DEFAULT_PORTS.get(parts.scheme)
        is_default = parts.port in (None, default)
        written = f"[{host}]" if ":" in host else host
        names = {f"{written}:{parts.port or default}"} | ({written} if is_default else set())
        if names.isdisjoint(self._allowed):
            shown = host if is_default else f"{host}:{parts.port}"
            raise _Refused(f"host {shown!r} is not in ALLOWED_DATA_HOSTS")
        return request

    def _read(self, response: requests.Response, deadline: float) -> bytes:
        if response.status_code != 200:
            raise _Refused(f"the text's host answered HTTP {response.status_code}")
        content_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if content_type.startswith(_NO_TEXTS):
            raise _Refused(f"the link leads to {content_type}, not to a text")
        body = bytearray()
        while block := response.raw.read1(_BLOCK, decode_content=True):
            body += block
            if b"\0" in block and not body.startswith(_UTF16_MARKS):
                raise _Refused("the link leads to a file that is no text")
            if len(body) > self._max_bytes:
                raise _Refused(f"the text is larger than {self._max_bytes} bytes")
            if time.monotonic() > deadline:
                raise _Refused(f"the text took longer than {self._timeout_s:g} s")
        return bytes(body)


def _request(url: str) -> requests.PreparedRequest:
    """Return the request for a URL; what is checked is what will be contacted."""
    if not url.lower().startswith(("http://", "https://")):
        raise _Refused("the text is not an http or https URL, nor a file that Label Studio stores")
    if "\\" in url:
        raise _Refused("the text's URL has a backslash in it")
    try:
        request = requests.Request("GET", url, headers=_HEADERS).prepare()
        parts = urlsplit(str(request.url))
        _ = parts.port
    except ValueError as exc:
        raise _Refused("the text is not a usable URL") from exc
    if parts.username is not None or "@" in parts.netloc or "Authorization" in request.headers:
        raise _Refused("the text's URL has a user name or password in it")
    return request
