"""One HTTP exchange with an OpenAI-compatible server: a JSON object, or an error with its kind."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
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
    """Kinds of failures of requests that may succeed later."""

    DOWN = "down"
    TIMEOUT = "timeout"
    BUSY = "busy"
    BROKEN = "broken"
    MALFORMED = "malformed"
    OTHER_MODEL = "other_model"


class ServerError(LanguageModelUnavailable):
    """The server gave no usable response; `retry_after_s` is the wait that it asked for, if any."""

    def __init__(
        self, kind: FailureKind, message: str, *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_s = retry_after_s


class RequestRejected(LanguageModelRejected):
    """The server understood the request and rejected it; `param` is the field that it named."""

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
        """Whether one of the prompts may be at fault rather than a field that all share."""
        return self.blames_content and self.param not in _REQUEST_WIDE_PARAMS

    @property
    def lacks_route(self) -> bool:
        """Whether the server does not know the address."""
        return self.status in (404, 405, 501)


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

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def request(
        self, url: str, body: Mapping[str, Any] | None = None, *, until: float
    ) -> dict[str, Any]:
        """GET a JSON object, or POST a body and return that of the answer.

        `until` is on the monotonic clock; a server that answers drop by drop is cut off there.
        """
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise ServerError(FailureKind.TIMEOUT, f"no time left to ask {_shown(url)}")
        try:
            with self._session.request(
                "GET" if body is None else "POST",
                url,
                json=body,
                stream=True,
                timeout=(min(_CONNECT_TIMEOUT_S, left_s), left_s),
                allow_redirects=False,
            ) as response:
                chunks, n_bytes = [], 0
                while chunk := response.raw.read1(2**16, decode_content=True):
                    chunks.append(chunk)
                    n_bytes += len(chunk)
                    if time.monotonic() > until or n_bytes > _MAX_ANSWER_BYTES:
                        raise requests.ReadTimeout("the answer did not end in time")
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
            raise _translated(_shown(url), exc, left_s) from exc
        return _json_object(_shown(url), response, b"".join(chunks))


class _KeyAuth(requests.auth.AuthBase):
    """Sends the key; also keeps `requests` from putting a password of ~/.netrc in its place."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request


def _shown(url: str) -> str:
    """Return the URL without a user's name and password, for messages."""
    return re.sub(r"//[^/@]*@", "//", url)


def _translated(url: str, exc: Exception, left_s: float) -> ServerError | RequestRejected:
    if isinstance(exc, requests.exceptions.InvalidURL | requests.exceptions.MissingSchema):
        return RequestRejected(f"{url!r} is not a URL; correct LLM_BASE_URL", status=0)
    is_down = isinstance(exc, requests.ConnectTimeout) or isinstance(
        getattr(exc.args[0] if exc.args else None, "reason", None),
        urllib3.exceptions.NewConnectionError,
    )
    if is_down:
        return ServerError(
            FailureKind.DOWN,
            f"no LLM server answers at {url}; start it, or set LLM_BASE_URL to its address",
        )
    if isinstance(exc, requests.Timeout | urllib3.exceptions.TimeoutError):
        return ServerError(
            FailureKind.TIMEOUT,
            f"{url} gave no answer within {left_s:.0f} s; a smaller LLM_BATCH_SIZE or a longer "
            "LLM_TIMEOUT_S may help",
        )
    return ServerError(
        FailureKind.BROKEN, f"the connection to {url} broke ({type(exc).__name__}); is it up?"
    )


def json_or_none(text: str | bytes) -> Any:
    """Return the value of a JSON text, None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_object(url: str, response: requests.Response, content: bytes) -> dict[str, Any]:
    """Return the response's JSON object; raises ServerError or RequestRejected if it is none."""
    status = response.status_code
    payload = json_or_none(content)
    if status == 200:
        if isinstance(payload, dict):
            return payload
        raise ServerError(
            FailureKind.MALFORMED,
            f"{url} answered, but not with a JSON object; is it an LLM server?",
        )
    payload = payload if isinstance(payload, dict) else {}
    error = payload.get("error")  # the usual shapes: nested, or flat
    source = error if isinstance(error, dict) else payload
    given = source.get("message") or source.get("detail")
    message = given.strip().split("\n", 1)[0][:_MAX_MESSAGE_CHARS] if isinstance(given, str) else ""
    param = source.get("param") if isinstance(source.get("param"), str) else None
    summary = f"{url} answered HTTP {status}" + (f": {message}" if message else "")
    if status in (429, 503):
        retry_after = response.headers.get("Retry-After", "").strip()
        raise ServerError(
            FailureKind.BUSY,
            f"the LLM server is busy: {summary}",
            retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
        )
    if status == 404 and (param == "model" or "does not exist" in message):
        raise ServerError(
            FailureKind.OTHER_MODEL, f"the LLM server serves another model: {summary}"
        )
    if status == 408 or (status >= 500 and status != 501):
        raise ServerError(FailureKind.BROKEN, f"the LLM server failed: {summary}; see its log")
    if status in (401, 403):
        summary += "; set LLM_API_KEY to the server's key"
    elif status in (404, 405):
        summary += "; LLM_BASE_URL has to be the address of an OpenAI-compatible server, with /v1"
    elif status < 400:
        summary += "; set LLM_BASE_URL to the final address"
    raise RequestRejected(summary, status=status, param=param)
