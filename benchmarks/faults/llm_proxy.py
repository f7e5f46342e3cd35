"""The LLM server behind a proxy that counts what is asked, and answers each prompt always alike.

vLLM's answers to one prompt differ in the last digits with the prompts beside it. So the first
answer to a prompt is kept and given again: two runs can then be compared to the last digit.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from backend.domain.ports import Decoding
from backend.llm.client.cache import cache_keys

_TIMEOUT_S = 300.0
_S_PER_PROMPT = 0.015
"""How long a kept answer takes: about what a small model on two cores needs."""
_SAVE_EVERY_S = 10.0
_PROMPT_FIELDS = ("prompt", "messages")


class CountingLlm:
    """An OpenAI-compatible server in front of another one.

    `database` is the backend's present one. `upstream` is the base URL of the real server; with
    `is_live` every prompt goes there, also a known one. While `is_down` connections are cut.
    """

    def __init__(self, *, port: int, recording: Path) -> None:
        self.upstream = ""
        self.database: Path | None = None
        self.is_live = self.is_down = False
        self.n_asked = self.n_paid_twice = 0
        self.keys: set[bytes] = set()
        self._recording = recording
        self._known: dict[str, Any] = _read(recording)
        self._saved_at = time.monotonic()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self.answer))
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def base_url(self) -> str:
        """Return the address for LLM_BASE_URL."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def n_known(self) -> int:
        """Return how many answers are kept."""
        return len(self._known)

    def begin(self, database: Path) -> None:
        """Count anew, for a backend with this database."""
        self.database = database
        self.is_live = self.is_down = False
        self.n_asked = self.n_paid_twice = 0
        self.keys = set()

    def close(self) -> None:
        """Stop serving and keep what was learned."""
        self.save()
        self._http.shutdown()
        self._http.server_close()

    def save(self) -> None:
        """Write the recording."""
        with self._lock:
            self._recording.write_text(json.dumps(self._known), encoding="utf-8")
            self._saved_at = time.monotonic()

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes] | None:
        """Return status and content; None: cut the connection."""
        if self.is_down:
            return None
        try:
            if body is not None and path.startswith(("/v1/completions", "/v1/chat/completions")):
                return self._complete(path, body)
            return self._repeat(path, body)
        except requests.RequestException:
            return None

    def _repeat(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """Answer what is no completion: models, tokens."""
        name = _name(path, body, "")
        known = None if self.is_live else self._known.get(name)
        if known is None:
            status, content = self._ask(path, body)
            known = {"status": status, "text": content.decode()}
            if status < 500:
                with self._lock:
                    self._known[name] = known
        return int(known["status"]), str(known["text"]).encode()

    def _complete(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        field = next(name for name in _PROMPT_FIELDS if name in body)
        prompts = _prompts(body[field])
        self._count(path, body, [_text(prompt) for prompt in prompts])
        rest = {key: value for key, value in body.items() if key != field}
        names = [_name(path, rest, json.dumps(prompt)) for prompt in prompts]
        missing = [at for at, name in enumerate(names) if self.is_live or name not in self._known]
        if missing:
            is_list = prompts is body[field]
            asked = [prompts[at] for at in missing] if is_list else body[field]
            status, content = self._ask(path, {**rest, field: asked})
            if status != 200:
                return status, content
            self._keep([names[at] for at in missing], json.loads(content))
        else:
            time.sleep(_S_PER_PROMPT * len(prompts))
        return 200, json.dumps(self._assembled(names)).encode()

    def _keep(self, names: Sequence[str], answer: Mapping[str, Any]) -> None:
        choices = sorted(answer["choices"], key=lambda choice: int(choice.get("index", 0)))
        n_tokens = int(answer.get("usage", {}).get("prompt_tokens", 0)) // max(1, len(names))
        with self._lock:
            for name, choice in zip(names, choices, strict=True):
                self._known.setdefault(name, {"choice": choice, "n_tokens": n_tokens})
            is_time = time.monotonic() > self._saved_at + _SAVE_EVERY_S
        if is_time:
            self.save()

    def _assembled(self, names: Sequence[str]) -> dict[str, Any]:
        rows = [self._known[name] for name in names]
        choices = [{**row["choice"], "index": at} for at, row in enumerate(rows)]
        n_tokens = sum(row["n_tokens"] for row in rows)
        usage = {"prompt_tokens": n_tokens, "completion_tokens": len(rows)}
        return {"object": "text_completion", "choices": choices, "usage": usage}

    def _ask(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        if not self.upstream:
            raise requests.ConnectionError("no LLM server runs")
        url = self.upstream.removesuffix("/v1") + path
        reply = requests.request(
            "GET" if body is None else "POST", url, json=body, timeout=_TIMEOUT_S
        )
        return reply.status_code, reply.content

    def _count(self, path: str, body: Mapping[str, Any], prompts: Sequence[str]) -> None:
        """Count the prompts, and those among them whose answer the backend has in its database."""
        keys = stored_under(path, body, prompts)
        stored = _stored(self.database, keys) if self.database else set()
        with self._lock:
            self.keys |= set(keys)
            self.n_asked += len(prompts)
            self.n_paid_twice += sum(key in stored for key in keys)


def stored_under(path: str, body: Mapping[str, Any], prompts: Sequence[str]) -> list[bytes]:
    """Return the keys under which the backend keeps the answers to a request."""
    token_ids = tuple(body.get("logprob_token_ids", ()))
    is_chat = path.startswith("/v1/chat")
    n_top = body.get("top_logprobs" if is_chat else "logprobs") or 0
    decoding = Decoding(
        max_tokens=int(body.get("max_tokens", body.get("max_completion_tokens", 1))),
        temperature=float(body.get("temperature", 0.0)),
        token_ids=token_ids,
        is_chat=is_chat,
        seed=body.get("seed"),
        stop=tuple(body.get("stop", ())),
        choices=tuple(body.get("structured_outputs", {}).get("choice", ())),
        n_logprobs=0 if token_ids else int(n_top),
    )
    return cache_keys(str(body.get("model", "")), prompts, decoding)


def _stored(database: Path, keys: Sequence[bytes]) -> set[bytes]:
    marks = ",".join("?" * len(keys))
    query = f"SELECT key FROM llm_answers WHERE key IN ({marks})"  # noqa: S608  (marks alone)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
        return {bytes(row[0]) for row in connection.execute(query, list(keys))}


def _prompts(value: Any) -> list[Any]:
    """Return a request's prompts: texts, or conversations."""
    if isinstance(value, list) and not isinstance(value[0], dict):
        return value
    return [value]


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else str(prompt[0]["content"])


def _name(path: str, body: Mapping[str, Any] | None, prompt: str) -> str:
    content = json.dumps([path, body, prompt], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _read(recording: Path) -> dict[str, Any]:
    if not recording.exists():
        return {}
    return dict(json.loads(recording.read_text(encoding="utf-8")))


def _handler(
    answer: Callable[[str, dict[str, Any] | None], tuple[int, bytes] | None],
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any] | None) -> None:
            reply = answer(self.path, body)
            if reply is None:
                self.close_connection = True
                return
            status, content = reply
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                self.wfile.flush()
            except OSError:  # who asked was killed
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
