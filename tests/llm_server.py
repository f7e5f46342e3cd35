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

from backend.llm.client.route_checks import CHECK_PROMPTS

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


def chat(
    content: Any, *, top: dict[str, float] | None = None, finish: str = "stop", **message: Any
) -> Reply:
    """One chat answer in OpenAI's shape; `top` is the first position's log-probabilities."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish,
    }
    if top:
        listed = [{"token": token, "logprob": value} for token, value in top.items()]
        best = max(top, key=lambda token: top[token])
        first = {"token": best, "logprob": top[best], "top_logprobs": listed}
        choice["logprobs"] = {"content": [first]}
    return Reply(body={"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 2}})


@dataclass(frozen=True)
class Dialect:
    """How a kind of server differs from vLLM 0.32, as its documentation says or it was seen to.

    `prompts`: "lists", "arrays" (an array of answers for a list: llama.cpp) or "single" (a list is
    refused: Ollama). `chat_lists`: the /batch route. `ids` is how tokens are named: "asked" (by
    return_tokens_as_token_ids), "beside" (an "id" of their own: llama.cpp), "never". `tokenizer`
    is the field of /tokenize that holds the text. `constraints` are the fields that bind an answer
    on each route; others are ignored, or refused where `is_strict`.
    """

    has_plain: bool = True
    has_chat: bool = True
    prompts: str = "lists"
    chat_lists: bool = True
    ids: str = "asked"
    tokenizer: str | None = "prompt"
    reads_token_ids: bool = True
    n_top_logprobs: dict[str, int] = field(default_factory=lambda: {"plain": 20, "chat": 20})
    constraints: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"plain": ("structured_outputs",), "chat": ("structured_outputs",)}
    )
    limit_field: str = "max_tokens"
    tells_context: bool = True
    is_strict: bool = False


VLLM = Dialect()
OPENAI_CHAT = Dialect(
    has_plain=False,
    chat_lists=False,
    ids="never",
    tokenizer=None,
    reads_token_ids=False,
    constraints={"chat": ("response_format",)},
    limit_field="max_completion_tokens",
    tells_context=False,
    is_strict=True,
)
LLAMA_CPP = Dialect(
    prompts="arrays",
    chat_lists=False,
    ids="beside",
    tokenizer="content",
    reads_token_ids=False,
    constraints={"plain": ("json_schema",), "chat": ("json_schema", "response_format")},
    tells_context=False,
)
OLLAMA = Dialect(
    prompts="single",
    chat_lists=False,
    ids="never",
    tokenizer=None,
    reads_token_ids=False,
    n_top_logprobs={"plain": 0, "chat": 20},
    constraints={"plain": (), "chat": ("response_format",)},
    tells_context=False,
)
KNOWN_FIELDS = frozenset(
    {
        *("model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature"),
        *("logprobs", "top_logprobs", "seed", "stop", "response_format"),
    }
)


class _Listener(ThreadingHTTPServer):
    """Lets many connections wait: one that finds the queue of 5 full tries again after 1 s."""

    request_queue_size = 64


def prompts_in(body: dict[str, Any]) -> list[str]:
    """The prompts of a request to either route."""
    if "prompt" in body:
        return [body["prompt"]] if isinstance(body["prompt"], str) else list(body["prompt"])
    return ["\n\n".join(message["content"] for message in one) for one in _conversations(body)]


def _conversations(body: dict[str, Any]) -> list[list[dict[str, Any]]]:
    messages = body["messages"]
    return [messages] if isinstance(messages[0], dict) else messages


def is_work(path: str, body: dict[str, Any]) -> bool:
    """Whether a request completes prompts and is no probe."""
    if not body or not path.startswith(("/v1/completions", "/v1/chat")):
        return False
    if "prompt" in body:
        return not set(prompts_in(body)) <= set(CHECK_PROMPTS)
    return not {one[-1]["content"] for one in _conversations(body)} <= set(CHECK_PROMPTS)


def _example(rule: dict[str, Any]) -> Any:
    return rule["enum"][-1] if "enum" in rule else False


class ScriptedLlmServer:
    """Answers like vLLM 0.32 or in another dialect, except where `script` or `rule` say otherwise.

    `script` holds replies to the next completions requests, None for an honest one; `rule` sees
    every request's path and body and may return a reply. `requests` is what was asked.
    """

    def __init__(
        self,
        *,
        model: str = "tiny",
        n_context_tokens: int = 256,
        dialect: Dialect = VLLM,
        port: int = 0,
    ) -> None:
        self.model = model
        self.dialect = dialect
        self.n_context_tokens: int | None = n_context_tokens
        self.reads_token_ids = dialect.reads_token_ids
        self.n_top_logprobs: int | None = None
        self.names_tokens_by_id = True
        self.words: tuple[str, ...] = (" yes", " no")
        self.script: deque[Reply | None] = deque()
        self.rule: Callable[[str, dict[str, Any]], Reply | None] = lambda path, body: None
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.n_in_flight = self.most_in_flight = 0
        self._ids: dict[str, int] = {f"<{number}>": number for number in range(200)}
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._http = _Listener(("127.0.0.1", port), self._handler())
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
        return [prompts_in(body) for path, body in self.requests if is_work(path, body)]

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
        if is_work(path, body) and self.script:
            scripted = self.script.popleft()
            if scripted is not None:
                return scripted
        return self.rule(path, body) or self.honest(path, body)

    def honest(self, path: str, body: dict[str, Any]) -> Reply:
        if body.get("model", self.model) != self.model:
            message = f"The model `{body['model']}` does not exist. Valid aliases: {self.model}."
            return error(404, message, "model")
        if path == "/v1/models":
            row: dict[str, Any] = {"id": self.model, "object": "model"}
            if self.dialect.tells_context:
                row["max_model_len"] = self.n_context_tokens
            return Reply(body={"object": "list", "data": [row]})
        if path == "/props" and self.dialect is LLAMA_CPP:
            return Reply(body={"default_generation_settings": {"n_ctx": self.n_context_tokens}})
        if path in ("/tokenize", "/detokenize") and self.dialect.tokenizer is not None:
            return self.tokenizer(path, body)
        if path == "/v1/completions" and self.dialect.has_plain:
            return self.completions("plain", body)
        if path == "/v1/chat/completions" and self.dialect.has_chat:
            return self.completions("chat", body)
        if path == "/v1/chat/completions/batch" and self.dialect.chat_lists:
            return self.completions("chat", body)
        return Reply(404, {"detail": "Not Found"})

    def tokenizer(self, path: str, body: dict[str, Any]) -> Reply:
        field_name = self.dialect.tokenizer or ""
        if path == "/detokenize":
            return Reply(body={field_name: self.text(body["tokens"])})
        if field_name == "prompt" and "prompt" not in body:
            return error(400, "1 validation error")
        tokens = self.tokens(body.get(field_name, ""))
        return Reply(body={"count": len(tokens), "tokens": tokens})

    def completions(self, route: str, body: dict[str, Any]) -> Reply:
        refusal = self.refusal(route, body)
        if refusal is not None:
            return refusal
        prompts = prompts_in(body)
        counts = [len(self.tokens(prompt)) for prompt in prompts]
        if self.n_context_tokens and max(counts) >= self.n_context_tokens:
            message = f"This model's maximum context length is {self.n_context_tokens} tokens."
            return error(400, message, "input_tokens")
        if min(counts) == 0:
            return error(400, "The decoder prompt cannot be empty")
        choices = [self.choice(route, body, index) for index in range(len(counts))]
        usage = {"prompt_tokens": sum(counts), "completion_tokens": len(counts)}
        answer = {"object": "text_completion", "choices": choices, "usage": usage}
        if isinstance(body.get("prompt"), list) and self.dialect.prompts == "arrays":
            return Reply(body=[answer])
        return Reply(body=answer)

    def refusal(self, route: str, body: dict[str, Any]) -> Reply | None:
        if isinstance(body.get("prompt"), list) and self.dialect.prompts == "single":
            return error(400, "cannot unmarshal array into field prompt of type string")
        if self.dialect.limit_field not in body and self.dialect.is_strict:
            return error(400, f"use '{self.dialect.limit_field}' instead", "max_tokens")
        unknown = body.keys() - KNOWN_FIELDS
        if unknown and self.dialect.is_strict:
            return error(400, f"Unrecognized request argument supplied: {min(unknown)}")
        return None

    def choice(self, route: str, body: dict[str, Any], index: int) -> dict[str, Any]:
        prompt = prompts_in(body)[index]
        held = self.held_to(route, body)
        text = " yes" if held is None else held
        top = self.top(route, body)
        shown = {token: self.logprob(prompt, token) for token in top}
        choice: dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": "length"}
        choice |= {"text": text} if route == "plain" else {"message": {"content": text}}
        if top and route == "plain" and self.dialect.ids != "beside":
            choice["logprobs"] = {
                "tokens": [self.key(7, body)],
                "token_logprobs": [self.logprob(prompt, 7)],
                "top_logprobs": [{self.key(t, body): value for t, value in shown.items()}],
            }
        elif top:
            first = {"token": self.key(7, body), "logprob": self.logprob(prompt, 7)}
            first["top_logprobs"] = [self.entry(t, value, body) for t, value in shown.items()]
            choice["logprobs"] = {"content": [first]}
        return choice

    def held_to(self, route: str, body: dict[str, Any]) -> str | None:
        """The least likely answer that a constraint allows, where this server knows its field."""
        for name in self.dialect.constraints[route]:
            value = body.get(name)
            if value is None:
                continue
            if "choice" in value:
                return str(value["choice"][-1])
            named = value.get("json_schema", {}).get("schema")
            schema = value.get("json") or named or value
            properties = schema.get("properties", {})
            return json.dumps({key: _example(rule) for key, rule in properties.items()})
        return None

    def top(self, route: str, body: dict[str, Any]) -> list[int]:
        """The tokens whose log-probabilities are shown."""
        most = self.dialect.n_top_logprobs.get(route, 0)
        most = most if self.n_top_logprobs is None else self.n_top_logprobs
        wanted = body.get("logprobs")
        if wanted is None or wanted is False or most == 0:
            return []
        asked = body.get("logprob_token_ids", []) if self.reads_token_ids else []
        if asked:
            return [7, *asked]
        n_wanted = body.get("top_logprobs", 0) if route == "chat" else wanted
        words = [self.tokens(word)[0] for word in self.words] if self.dialect is not VLLM else []
        return [*words, *range(7, 7 + max(1, min(int(n_wanted), most) - len(words)))]

    def entry(self, token: int, logprob: float, body: dict[str, Any]) -> dict[str, Any]:
        entry: dict[str, Any] = {"token": self.key(token, body), "logprob": logprob}
        return entry | ({"id": token} if self.dialect.ids == "beside" else {})

    def key(self, token: int, body: dict[str, Any]) -> str:
        is_id = self.dialect.ids == "asked" and body.get("return_tokens_as_token_ids")
        if is_id and self.names_tokens_by_id:
            return f"token_id:{token}"
        return self.text([token])

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
                    reply = server.reply(self.path, body)
                finally:
                    with server._lock:  # before the client can know and send the next
                        server.n_in_flight -= 1
                try:
                    self.send(reply)
                except OSError:
                    self.close_connection = True

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
