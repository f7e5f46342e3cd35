"""One HTTP exchange with an OpenAI-compatible server: a JSON object, or an error with its kind."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter

from backend.errors import LanguageModelRejected, LanguageModelUnavailable

_CONNECT_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 256 * 2**20
_MAX_MESSAGE_CHARS = 300
_MODEL_CODES = ("model_not_found", "DeploymentNotFound")
_CONTEXT_LENGTH = re.compile(
    r"context (?:length|size|window)\D{0,40}?(\d[\d,]+)|must be <= (\d+)", re.IGNORECASE
)
_AZURE_HOST = re.compile(r"\.azure(?:-api)?\.(?:com|net|us|cn)(?=[:/]|$)")
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
        "chat_template_kwargs",
        "reasoning_effort",
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
    """The server understood the request and rejected it; `param` is the field that it named.

    `n_context_tokens` is the model's context length, if the prompt was too long for it and the
    server said so; `is_passing` tells that the same text may be answered later.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        param: str | None = None,
        n_context_tokens: int | None = None,
        is_passing: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.n_context_tokens = n_context_tokens
        self.is_passing = is_passing

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
        self.base_url, self._query = split_address(base_url)
        self.root_url = self.base_url.removesuffix("/v1")
        self._session = requests.Session()
        if api_key:
            is_azure = "api-version=" in self._query or bool(_AZURE_HOST.search(self.base_url))
            self._session.auth = _KeyAuth(api_key, is_azure=is_azure)
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=n_connections)
        self._session.mount("http://", pool)
        self._session.mount("https://", pool)

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    def request(self, url: str, body: Mapping[str, Any], *, until: float) -> dict[str, Any]:
        """POST a body and return the JSON object of the answer, until a monotonic time."""
        payload = self.exchange(url, body, until=until)
        if isinstance(payload, dict):
            return payload
        raise ServerError(
            FailureKind.MALFORMED,
            f"{shown(url)} answered, but not with a JSON object; is it an LLM server?",
        )

    def exchange(self, url: str, body: Mapping[str, Any] | None = None, *, until: float) -> Any:
        """GET or POST, and return the answer's JSON object or list.

        `until` is on the monotonic clock; a server that answers drop by drop is cut off there.
        """
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise ServerError(FailureKind.TIMEOUT, f"no time left to ask {shown(url)}")
        try:
            with self._session.request(
                "GET" if body is None else "POST",
                url + self._query,
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
            raise _translated(shown(url), exc, left_s) from exc
        return _payload(shown(url), response, b"".join(chunks))


def split_address(address: str) -> tuple[str, str]:
    """Return a base URL without its query, and the query with its question mark.

    With a query the whole route may stand before it, as Azure shows its addresses.
    """
    base, mark, query = address.strip().partition("?")
    base = base.rstrip("/")
    if query:
        base = re.sub(r"/(?:chat/)?completions$", "", base)
    return base, mark + query if query else ""


class _KeyAuth(requests.auth.AuthBase):
    """Sends the key; also keeps `requests` from putting a password of ~/.netrc in its place."""

    def __init__(self, api_key: str, *, is_azure: bool) -> None:
        self._api_key = api_key
        self._is_azure = is_azure

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        if self._is_azure:  # a resource's key is read from a header of its own
            request.headers["api-key"] = self._api_key
        return request


def shown(url: str) -> str:
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


def _payload(url: str, response: requests.Response, content: bytes) -> Any:
    """Return the response's JSON value; raises ServerError or RequestRejected if it is none."""
    status = response.status_code
    payload = json_or_none(content)
    if status == 200 and isinstance(payload, dict | list):
        return payload
    if status == 200:
        raise ServerError(FailureKind.MALFORMED, f"{url} {_kind_of_answer(response, content)}")
    told = read_error(payload)
    summary = f"{url} answered HTTP {status}" + (f": {told.message}" if told.message else "")
    if status == 402 or (status == 429 and told.code == "insufficient_quota"):
        summary += "; the account behind LLM_API_KEY has nothing left to spend"
        raise RequestRejected(summary, status=status, param=told.param)
    if status in (429, 503):
        raise ServerError(
            FailureKind.BUSY,
            f"the LLM server is busy: {summary}",
            retry_after_s=_seconds(response.headers.get("Retry-After", "")),
        )
    if status == 404 and told.names_model:
        raise ServerError(
            FailureKind.OTHER_MODEL, f"the LLM server serves another model: {summary}"
        )
    if status == 408 or (status >= 500 and status != 501):
        where = "its log, or that of the proxy before it" if payload is None else "its log"
        raise ServerError(FailureKind.BROKEN, f"the LLM server failed: {summary}; see {where}")
    raise RequestRejected(
        summary + _remedy(url, status),
        status=status,
        param=told.param,
        n_context_tokens=told.n_context_tokens,
    )


@dataclass(frozen=True, slots=True)
class ToldError:
    """An error as a server tells it; `n_context_tokens` if the prompt is too long for a model."""

    message: str = ""
    param: str | None = None
    code: str | None = None
    n_context_tokens: int | None = None

    @property
    def names_model(self) -> bool:
        """Whether the model, rather than the address, is what the server does not know."""
        about_model = self.param == "model" or self.code in _MODEL_CODES
        said = self.message.lower()
        is_lost = "does not exist" in said or bool(re.search(r"\bmodel\b.*\bnot found", said))
        return (about_model or is_lost) and "endpoint" not in said


def read_error(payload: object) -> ToldError:
    """Read an error in the usual shapes: nested, flat, a text alone, or a list of details."""
    payload = payload[0] if isinstance(payload, list) and payload else payload
    outer = payload if isinstance(payload, dict) else {}
    error = outer.get("error")
    source: dict[str, Any] = error if isinstance(error, dict) else outer
    param = source.get("param")
    given = next(
        (source[name] for name in ("message", "detail", "error", "errors") if source.get(name)), ""
    )
    if isinstance(given, list) and given and isinstance(given[0], dict):  # FastAPI's details
        where = [part for part in given[0].get("loc", ()) if isinstance(part, str)]
        param = param or (where[-1] if where else None)
        given = f"{given[0].get('msg') or given[0].get('message') or ''} ({'.'.join(where)})"
    message = given.strip() if isinstance(given, str) else ""
    stated = source.get("n_ctx")
    length = _CONTEXT_LENGTH.search(message)
    return ToldError(
        message.split("\n", 1)[0][:_MAX_MESSAGE_CHARS],
        param if isinstance(param, str) else None,
        str(source.get("code") or source.get("type") or "") or None,
        stated if isinstance(stated, int) else _number(length),
    )


def _number(match: re.Match[str] | None) -> int | None:
    return int((match[1] or match[2]).replace(",", "")) if match else None


def _remedy(url: str, status: int) -> str:
    if status in (401, 403):
        return "; set LLM_API_KEY to the server's key"
    if status in (404, 405):
        return (
            f"; LLM_BASE_URL has to be the address of an OpenAI-compatible server, {_advice(url)}"
        )
    return "; set LLM_BASE_URL to the final address" if status < 400 else ""


def _advice(url: str) -> str:
    """Return what is to be set instead of an address that looks like a usual mistake."""
    base = re.sub(r"/(?:models|chat/completions(?:/batch)?|completions|tokenize)$", "", url)
    better = re.sub(r"/(?:chat/)?completions$|/models$", "", base)
    better = re.sub(r"(?:/v1){2,}$", "/v1", better)
    better = better if re.search(r"/v\d|/deployments/", better) else f"{better}/v1"
    return "with /v1" if better == base else f"with /v1: perhaps {better}"


def _kind_of_answer(response: requests.Response, content: bytes) -> str:
    """Return what came instead of JSON, and what to check."""
    kind = response.headers.get("Content-Type", "").split(";")[0]
    if kind == "text/event-stream" or content.lstrip().startswith(b"data:"):
        return "answers with an event stream only; let the gateway answer in one piece"
    if kind == "text/html" or content.lstrip().startswith(b"<"):
        return (
            "answered with a web page, as a login page or a proxy does; LLM_BASE_URL has to lead "
            "to the LLM server itself"
        )
    return "answered, but not with JSON; is it an LLM server? See LLM_BASE_URL"


def _seconds(retry_after: str) -> float | None:
    """Return a Retry-After header's seconds, given as a number or as a date; None for none."""
    text = retry_after.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
