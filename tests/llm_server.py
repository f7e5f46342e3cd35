"""A real HTTP server with vLLM's answer shapes whose misbehaviour a test can script."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_WORDS = re.compile(r" ?\w+|\s|[^\w\s]")


@dataclass
class Reply:
    """What to answer instead of the truth; `hang_s` waits before, `drip_s` between the bytes."""

    status: int = 200
    body: Any = None
    raw: bytes | None = None
    hang_s: float = 0.0
    drip_s: float = 0.0
    n_bytes_missing: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return self.raw if self.raw is not None else json.dumps(self.body).encode()


def error(status: int, message: str = "", param: str | None = None) -> Reply:
    """An error in vLLM's shape."""
    body = {"error": {"message": message, "type": "Error", "param": param, "code": status}}
    return Reply(status, body)


class ScriptedLlmServer:
    """Answers like vLLM 0.32, except where `script` or `rule` say otherwise.

    `script` holds replies to the next completions requests, None for an honest one; `rule` sees
    every request's path and body and may return a reply. `requests` is what was asked.
    """

    def __init__(self, *, model: str = "tiny", n_context_tokens: int = 256) -> None:
        self.model = model
        self.n_context_tokens: int | None = n_context_tokens
        self.reads_token_ids = True
        self.n_top_logprobs = 20
        self.names_tokens_by_id = True
        self.script: deque[Reply | None] = deque()
        self.rule: Callable[[str, dict[str, Any]], Reply | None] = lambda path, body: None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.n_in_flight = self.most_in_flight = 0
        self._ids: dict[str, int] = {f"<{number}>": number for number in range(200)}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def lists(self) -> list[list[str]]:
        """The lists of prompts that were asked, without the probes."""
        return [
            body["prompt"]
            for path, body in self.requests
            if path == "/v1/completions" and body["prompt"] != ["Hello"]
        ]

    def tokens(self, text: str) -> list[int]:
        with self._lock:
            return [self._ids.setdefault(word, len(self._ids)) for word in _WORDS.findall(text)]

    def text(self, tokens: list[int]) -> str:
        with self._lock:
            words = list(self._ids)
            return "".join(words[token] for token in tokens)

    def reply(self, path: str, body: dict[str, Any]) -> Reply:
        with self._lock:
            self.requests.append((path, body))
        if path == "/v1/completions" and body["prompt"] != ["Hello"] and self.script:
            scripted = self.script.popleft()
            if scripted is not None:
                return scripted
        return self.rule(path, body) or self.honest(path, body)

    def honest(self, path: str, body: dict[str, Any]) -> Reply:
        if body.get("model", self.model) != self.model:
            message = f"The model `{body['model']}` does not exist. Valid aliases: {self.model}."
            return error(404, message, "model")
        if path == "/v1/models":
            row = {"id": self.model, "object": "model", "max_model_len": self.n_context_tokens}
            return Reply(body={"object": "list", "data": [row]})
        if path == "/tokenize":
            tokens = self.tokens(body["prompt"])
            return Reply(body={"count": len(tokens), "tokens": tokens, "token_strs": None})
        if path == "/detokenize":
            return Reply(body={"prompt": self.text(body["tokens"])})
        if path == "/v1/completions":
            return self.completions(body)
        return Reply(404, {"detail": "Not Found"})

    def completions(self, body: dict[str, Any]) -> Reply:
        counts = [len(self.tokens(prompt)) for prompt in body["prompt"]]
        if self.n_context_tokens and max(counts) >= self.n_context_tokens:
            message = f"This model's maximum context length is {self.n_context_tokens} tokens."
            return error(400, message, "input_tokens")
        if min(counts) == 0:
            return error(400, "The decoder prompt cannot be empty")
        choices = [self.choice(body, index) for index in range(len(counts))]
        usage = {"prompt_tokens": sum(counts), "completion_tokens": len(counts)}
        return Reply(body={"object": "text_completion", "choices": choices, "usage": usage})

    def choice(self, body: dict[str, Any], index: int) -> dict[str, Any]:
        n_wanted = body.get("logprobs")
        asked = body.get("logprob_token_ids", []) if self.reads_token_ids else []
        top = [7, *asked] if asked else list(range(7, 7 + min(n_wanted or 0, self.n_top_logprobs)))
        prompt = body["prompt"][index]
        keys = {token: self.key(token) for token in top}
        logprobs = {
            "tokens": [self.key(7)],
            "top_logprobs": [{keys[token]: self.logprob(prompt, token) for token in top}],
        }
        has_logprobs = n_wanted is not None and self.n_top_logprobs > 0
        return {"index": index, "text": " yes", "logprobs": logprobs if has_logprobs else None}

    def key(self, token: int) -> str:
        return f"token_id:{token}" if self.names_tokens_by_id else f"<{token}>"

    @staticmethod
    def logprob(prompt: str, token: int) -> float:
        """A number that tells which prompt and which token it belongs to."""
        return -(1 + len(prompt) % 97 / 100 + token / 10_000)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet per answer: two wait for each other's receipt, 40 ms

            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                with server._lock:
                    server.headers.append(dict(self.headers))
                    server.n_in_flight += 1
                    server.most_in_flight = max(server.most_in_flight, server.n_in_flight)
                try:
                    self.send(server.reply(self.path, body))
                except OSError:
                    self.close_connection = True
                finally:
                    with server._lock:
                        server.n_in_flight -= 1

            def send(self, reply: Reply) -> None:
                if reply.hang_s and server.closing.wait(reply.hang_s):
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                end = len(reply.content) - reply.n_bytes_missing
                step = 1 if reply.drip_s else max(1, end)
                for start in range(0, end, step):
                    self.wfile.write(reply.content[start : min(end, start + step)])
                    self.wfile.flush()
                    if reply.drip_s and server.closing.wait(reply.drip_s):
                        break
                if reply.n_bytes_missing:
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        return Handler
