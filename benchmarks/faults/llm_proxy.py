"""Proxy the LLM server: count prompts, and replay the first recorded answer to each.

vLLM's answers to a prompt differ in the last digits with the other prompts of its batch. With
replayed answers two runs can be compared to the last digit.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import requests

from backend.domain.ports import Conversation, Decoding, Prompt
from backend.labelstudio.label_config.reader import LabelConfigReader
from backend.llm.client.cache import cache_keys
from backend.llm.client.json_grammar import compact_grammar
from backend.llm.span_answers import SpanFormat
from benchmarks.faults.http_server import HttpServer
from benchmarks.faults.wrong_answers import WrongAnswer, spoiled

_TIMEOUT_S = 300.0
_S_PER_PROMPT = 0.015
"""Delay of a replayed answer: about the time of a 135M model on two cores."""
_SAVE_EVERY_S = 10.0
_PROMPT_FIELDS = ("prompt", "messages")


class LLMProxy:
    """An OpenAI-compatible proxy in front of a real or scripted server.

    `label_config` is the project's: its questions tell the JSON schemas that the backend holds
    answers to, which it sends as grammars. `database` is the current backend's database, `upstream`
    the server's base URL. With `is_live` recorded prompts go there too; while `is_down` connections
    are cut, and while `wrong` is set answers come spoiled with status 200; `n_spoiled` counts them.
    """

    def __init__(self, *, port: int, recording: Path, label_config: str = "") -> None:
        self.upstream = ""
        self._schemas = _schemas(label_config) if label_config else {}
        self.database: Path | None = None
        self.is_live = self.is_down = False
        self.wrong: WrongAnswer | None = None
        self.n_prompts = self.n_paid_twice = self.n_spoiled = 0
        self.keys: set[bytes] = set()
        self._recording = recording
        self._recorded: dict[str, Any] = _read(recording)
        self._saved_at = time.monotonic()
        self._lock = threading.Lock()
        self._http = HttpServer(port, self._respond)

    @property
    def base_url(self) -> str:
        """Return the URL for LLM_BASE_URL."""
        return f"{self._http.url}/v1"

    def reset(self, database: Path) -> None:
        """Reset the counts, for a backend with this database."""
        self.database = database
        self.is_live = self.is_down = False
        self.wrong = None
        self.n_prompts = self.n_paid_twice = self.n_spoiled = 0
        self.keys = set()

    def close(self) -> None:
        """Write the recording and stop serving."""
        self.save()
        self._http.close()

    def save(self) -> None:
        """Write the recording."""
        with self._lock:
            self._recording.write_text(json.dumps(self._recorded), encoding="utf-8")
            self._saved_at = time.monotonic()

    def _respond(self, method: str, path: str, content: bytes) -> tuple[int, bytes] | None:
        if self.is_down:
            return None
        body = json.loads(content) if method == "POST" else None
        try:
            if body is not None and path.startswith(("/v1/completions", "/v1/chat/completions")):
                return self._spoiled(*self._complete(path, body))
            return self._replay(path, body)
        except requests.RequestException:
            return None

    def _spoiled(self, status: int, content: bytes) -> tuple[int, bytes]:
        wrong = self.wrong
        if wrong is None or status != 200:
            return status, content
        self.n_spoiled += 1
        return status, spoiled(wrong, content)

    def _replay(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        """Answer requests other than completions: models, tokens."""
        name = _name(path, body, "")
        recorded = None if self.is_live else self._recorded.get(name)
        if recorded is None:
            status, content = self._forward(path, body)
            recorded = {"status": status, "text": content.decode()}
            if status < 500:
                with self._lock:
                    self._recorded[name] = recorded
        return int(recorded["status"]), str(recorded["text"]).encode()

    def _complete(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        field = next(name for name in _PROMPT_FIELDS if name in body)
        prompts = _prompts(body[field])
        self._count(path, body, [_prompt(prompt) for prompt in prompts])
        rest = {key: value for key, value in body.items() if key != field}
        route = path.removesuffix("/batch")  # an answer is the same in a list and by itself
        names = [_name(route, rest, json.dumps(prompt)) for prompt in prompts]
        missing = [
            at for at, name in enumerate(names) if self.is_live or name not in self._recorded
        ]
        if missing:
            is_list = prompts is body[field]
            missing_prompts = [prompts[at] for at in missing] if is_list else body[field]
            status, content = self._forward(path, {**rest, field: missing_prompts})
            if status != 200:
                return status, content
            self._record([names[at] for at in missing], json.loads(content))
        else:
            time.sleep(_S_PER_PROMPT * len(prompts))
        return 200, json.dumps(self._completion(names)).encode()

    def _record(self, names: Sequence[str], answer: Mapping[str, Any]) -> None:
        choices = sorted(answer["choices"], key=lambda choice: int(choice.get("index", 0)))
        n_tokens = int(answer.get("usage", {}).get("prompt_tokens", 0)) // max(1, len(names))
        with self._lock:
            for name, choice in zip(names, choices, strict=True):
                self._recorded.setdefault(name, {"choice": choice, "n_tokens": n_tokens})
            is_time = time.monotonic() > self._saved_at + _SAVE_EVERY_S
        if is_time:
            self.save()

    def _completion(self, names: Sequence[str]) -> dict[str, Any]:
        rows = [self._recorded[name] for name in names]
        choices = [{**row["choice"], "index": at} for at, row in enumerate(rows)]
        n_tokens = sum(row["n_tokens"] for row in rows)
        usage = {"prompt_tokens": n_tokens, "completion_tokens": len(rows)}
        return {"object": "text_completion", "choices": choices, "usage": usage}

    def _forward(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        if not self.upstream:
            raise requests.ConnectionError("no LLM server runs")
        url = self.upstream.removesuffix("/v1") + path
        reply = requests.request(
            "GET" if body is None else "POST", url, json=body, timeout=_TIMEOUT_S
        )
        return reply.status_code, reply.content

    def _count(self, path: str, body: Mapping[str, Any], prompts: Sequence[Prompt]) -> None:
        """Count the prompts, and those whose answer is in the backend's database already."""
        keys = _cache_keys(path, body, prompts, self._schemas)
        stored = _stored(self.database, keys) if self.database else set()
        with self._lock:
            self.keys |= set(keys)
            self.n_prompts += len(prompts)
            self.n_paid_twice += sum(key in stored for key in keys)


def _cache_keys(
    path: str, body: Mapping[str, Any], prompts: Sequence[Prompt], schemas: Mapping[str, str]
) -> list[bytes]:
    """Return the backend's cache keys of a request's prompts; `schemas` are from `_schemas`."""
    held = body.get("structured_outputs", {})
    token_ids = tuple(body.get("logprob_token_ids", ()))
    is_chat = path.startswith("/v1/chat")
    n_top = body.get("top_logprobs" if is_chat else "logprobs") or 0
    decoding = Decoding(
        max_tokens=int(body.get("max_tokens", body.get("max_completion_tokens", 1))),
        temperature=float(body.get("temperature", 0.0)),
        token_ids=token_ids,
        seed=body.get("seed"),
        stop=tuple(body.get("stop", ())),
        choices=tuple(held.get("choice", ())),
        json_schema=schemas.get(held.get("grammar") or json.dumps(held.get("json"))),
        n_logprobs=0 if token_ids else int(n_top),
    )
    return cache_keys(str(body.get("model", "")), prompts, decoding)


def _schemas(label_config: str) -> dict[str, str]:
    """Return the JSON schemas of answers about a config's spans, by themselves and as grammars."""
    schema = LabelConfigReader(lambda url, _: url).read_schema(label_config)
    texts = [SpanFormat(q).json_schema() for q in schema.questions if q.kind.has_spans]
    grammars = {compact_grammar(json.loads(text)) or text: text for text in texts}
    return grammars | {text: text for text in texts}


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


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    system = "".join(message["content"] for message in value if message["role"] == "system")
    turns = tuple(message["content"] for message in value if message["role"] != "system")
    return Conversation(system, turns)


def _name(path: str, body: Mapping[str, Any] | None, prompt: str) -> str:
    content = json.dumps([path, body, prompt], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _read(recording: Path) -> dict[str, Any]:
    if not recording.exists():
        return {}
    return dict(json.loads(recording.read_text(encoding="utf-8")))
