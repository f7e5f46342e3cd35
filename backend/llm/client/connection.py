"""One HTTP exchange with an OpenAI-compatible server: a JSON object, or an error with its kind."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from backend.errors import LanguageModelRejected, LanguageModelUnavailable

_CONNECT_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 256 * 2**20
_MAX_MESSAGE_CHARS = 300
_REQUEST_WIDE_PARAMS = frozenset(
    {
        "model",
        "logprobs",
        "top_logprobs",
        "logprob_token_ids",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "structured_outputs",
        "response_format",
        "stop",
        "seed",
    }
)


class FailureKind(StrEnum):
    """What went wrong with a request that may do better later."""

    DOWN = "down"
    SLOW = "slow"
    BUSY = "busy"
    BROKEN = "broken"
    NONSENSE = "nonsense"
    GONE = "gone"


class ServerFailed(LanguageModelUnavailable):
    """The server gave no usable answer; `kind` says in which way.

    `retry_after_s` is what the server asked for, if it did.
    """

    def __init__(
        self, kind: FailureKind, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


class ServerRefused(LanguageModelRejected):
    """The server understood the request and refused it; `param` is the field that it named."""

    def __init__(self, message: str, *, status: int, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    @property
    def blames_content(self) -> bool:
        """Whether the request's content is at fault, not the key, the address or the server."""
        return self.status in (400, 413, 422)

    @property
    def blames_prompts(self) -> bool:
        """Whether one of the prompts may be at fault rather than what all of them share."""
        return self.blames_content and self.param not in _REQUEST_WIDE_PARAMS

    @property
    def lacks_route(self) -> bool:
        """Whether the server does not know the address."""
        return self.status in (404, 405, 501)


@dataclass(frozen=True, slots=True)
class LanguageModelUsage:
    """What was asked of the server since the start of the process; `seconds` adds up requests."""

    n_requests: int = 0
    n_failed_requests: int = 0
    n_tokens_in: int = 0
    n_tokens_out: int = 0
    seconds: float = 0.0


class ServerConnection:
    """A pooled connection to one server. Safe to use from several threads."""

    def __init__(self, base_url: str, *, api_key: str, n_connections: int) -> None:
        self.base_url = base_url.rstrip("/")
        self.root_url = self.base_url.removesuffix("/v1")
        self._session = requests.Session()
        if api_key:
            self._session.auth = _KeyAuth(api_key)
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=n_connections)
        self._session.mount("http://", pool)
        self._session.mount("https://", pool)
        self._usage = LanguageModelUsage()
        self._usage_lock = threading.Lock()

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def usage(self) -> LanguageModelUsage:
        """Return the counters so far."""
        with self._usage_lock:
            return self._usage

    def count_tokens(self, n_tokens_in: int, n_tokens_out: int) -> None:
        """Add to the token counters."""
        self._add(n_tokens_in=n_tokens_in, n_tokens_out=n_tokens_out)

    def get(self, url: str, *, until: float) -> dict[str, Any]:
        """Return the JSON object at `url`; `until` is on the monotonic clock."""
        return self._exchange("GET", url, None, until=until)

    def post(self, url: str, body: Mapping[str, Any], *, until: float) -> dict[str, Any]:
        """Send a JSON body and return the JSON object of the answer."""
        return self._exchange("POST", url, body, until=until)

    def _exchange(
        self, method: str, url: str, body: Mapping[str, Any] | None, *, until: float
    ) -> dict[str, Any]:
        started_at = time.monotonic()
        is_ok = False
        try:
            status, content, retry_after_s = self._send(method, url, body, until=until)
            payload = _payload(_shown(url), status, content, retry_after_s)
            is_ok = True
            return payload
        finally:
            seconds = time.monotonic() - started_at
            self._add(n_requests=1, n_failed_requests=int(not is_ok), seconds=seconds)

    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, *, until: float
    ) -> tuple[int, bytes, float | None]:
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise ServerFailed(FailureKind.SLOW, f"no time left to ask {_shown(url)}")
        try:
            with self._session.request(
                method,
                url,
                json=body,
                stream=True,
                timeout=(min(_CONNECT_TIMEOUT_S, left_s), left_s),
                allow_redirects=False,
            ) as response:
                retry_after_s = _seconds(response.headers.get("Retry-After"))
                return response.status_code, _read(response, until=until), retry_after_s
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise _translated(_shown(url), exc, left_s) from exc

    def _add(self, **more: float) -> None:
        with self._usage_lock:
            totals = {name: getattr(self._usage, name) + value for name, value in more.items()}
            self._usage = replace(self._usage, **totals)


class _KeyAuth(requests.auth.AuthBase):
    """Sends the key; also keeps `requests` from putting a password of ~/.netrc in its place."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def _read(response: requests.Response, *, until: float) -> bytes:
    """Return the body; a server that sends it drop by drop is cut off in time."""
    chunks, n_bytes = [], 0
    while chunk := response.raw.read1(2**16, decode_content=True):
        chunks.append(chunk)
        n_bytes += len(chunk)
        if time.monotonic() > until or n_bytes > _MAX_ANSWER_BYTES:
            raise requests.ReadTimeout("the answer did not end in time")
    return b"".join(chunks)


def _shown(url: str) -> str:
    """Return the URL without a user's name and password, for messages."""
    return re.sub(r"//[^/@]*@", "//", url)


def _translated(url: str, exc: Exception, left_s: float) -> ServerFailed | ServerRefused:
    if isinstance(exc, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return ServerRefused(f"{url!r} is not a URL; correct LLM_BASE_URL", status=0)
    is_down = isinstance(exc, requests.ConnectTimeout) or isinstance(
        getattr(exc.args[0] if exc.args else None, "reason", None),
        urllib3.exceptions.NewConnectionError,
    )
    if is_down:
        return ServerFailed(
            FailureKind.DOWN,
            f"no LLM server answers at {url}; start it, or set LLM_BASE_URL to its address",
        )
    if isinstance(exc, requests.Timeout | urllib3.exceptions.TimeoutError):
        return ServerFailed(
            FailureKind.SLOW,
            f"{url} gave no answer within {left_s:.0f} s; a smaller LLM_BATCH_SIZE or a longer "
            "LLM_TIMEOUT_S may help",
        )
    return ServerFailed(
        FailureKind.BROKEN, f"the connection to {url} broke ({type(exc).__name__}); is it up?"
    )


def _seconds(retry_after: str | None) -> float | None:
    """Return a Retry-After header's seconds; its other form, a date, is passed over."""
    value = (retry_after or "").strip()
    return float(value) if value.isdecimal() else None


def _payload(url: str, status: int, content: bytes, retry_after_s: float | None) -> dict[str, Any]:
    payload = _json(content)
    if status == 200 and isinstance(payload, dict):
        return payload
    if status == 200:
        raise ServerFailed(
            FailureKind.NONSENSE,
            f"{url} answered, but not with a JSON object; is it an LLM server?",
        )
    raise _refusal(url, status, payload if isinstance(payload, dict) else {}, retry_after_s)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _refusal(
    url: str, status: int, payload: dict[str, Any], retry_after_s: float | None
) -> ServerFailed | ServerRefused:
    message, param = _message(payload)
    said = f"{url} answered HTTP {status}" + (f": {message}" if message else "")
    if status in (429, 503):
        return ServerFailed(
            FailureKind.BUSY, f"the LLM server is busy: {said}", retry_after_s=retry_after_s
        )
    if status == 404 and (param == "model" or "does not exist" in message):
        return ServerFailed(FailureKind.GONE, f"the LLM server serves another model: {said}")
    if status == 408 or (status >= 500 and status != 501):
        return ServerFailed(FailureKind.BROKEN, f"the LLM server failed: {said}; see its log")
    return ServerRefused(said + _remedy(status), status=status, param=param)


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "; set LLM_API_KEY to the server's key"
    if status in (404, 405):
        return "; LLM_BASE_URL has to be the address of an OpenAI-compatible server, with /v1"
    return "; set LLM_BASE_URL to the final address" if status < 400 else ""


def _message(payload: dict[str, Any]) -> tuple[str, str | None]:
    """Return the server's message and the parameter that it names, in either usual shape."""
    error = payload.get("error")
    source = error if isinstance(error, dict) else payload
    message = source.get("message") or source.get("detail") or ""
    param = source.get("param")
    text = message if isinstance(message, str) else ""
    first_line = text.strip().split("\n", 1)[0]
    return first_line[:_MAX_MESSAGE_CHARS], param if isinstance(param, str) else None
