"""What every language model keeps: the fake of the tests and the client of a real server."""

from __future__ import annotations

import math
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from backend.domain.ports import Completion, Decoding, LanguageModel
from backend.errors import LanguageModelUnavailable
from backend.llm.client.cache import CachedLanguageModel
from backend.llm.client.concurrency import RequestLimits
from backend.llm.client.server import LLMClient
from backend.store import Database, LLMCache
from tests.fakes import FakeLanguageModel
from tests.llm_server import (
    LLAMA_CPP,
    OLLAMA,
    OPENAI_CHAT,
    VLLM,
    Dialect,
    Reply,
    ScriptedLlmServer,
)

PROMPTS = ["first of all", "a second prompt", "and finally the third"]
N_CONTEXT_TOKENS = 64


class FakeCase:
    """The fake, and how to make it slow or dead."""

    def __init__(self) -> None:
        self.model = FakeLanguageModel(
            lambda prompt: {"yes": 0.5, "no": len(prompt) / 1000}, n_context_tokens=N_CONTEXT_TOKENS
        )

    def hang(self) -> None:
        self.model.seconds_per_prompt = 60.0

    def go_down(self) -> None:
        self.model.failure = LanguageModelUnavailable("down")

    def close(self) -> None:
        pass


class ServerCase:
    """The client over a scripted server, which knows how to be slow or dead."""

    def __init__(self, dialect: Dialect = VLLM) -> None:
        self.server = ScriptedLlmServer(
            model="fake", n_context_tokens=N_CONTEXT_TOKENS, dialect=dialect
        )
        self.model = LLMClient(
            self.server.url,
            limits=RequestLimits(timeout_s=5.0, batch_size=2, first_backoff_s=0.001),
        )

    def hang(self) -> None:
        self.model.describe()
        self.server.rule = lambda path, body: Reply(hang_s=30.0)

    def go_down(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        self.model = LLMClient(
            f"http://127.0.0.1:{port}/v1", limits=RequestLimits(first_backoff_s=0.001)
        )

    def close(self) -> None:
        self.model.close()
        self.server.close()


class CachedCase:
    """Any case with the store of answers in front of it."""

    def __init__(self, inner: FakeCase | ServerCase, migrated_file: Path) -> None:
        self._inner = inner
        self._folder = TemporaryDirectory()
        file = shutil.copy(migrated_file, self._folder.name)
        self._database = Database(f"sqlite:///{file}")

    @property
    def model(self) -> CachedLanguageModel:
        return CachedLanguageModel(self._inner.model, LLMCache(self._database))

    def hang(self) -> None:
        self._inner.hang()

    def go_down(self) -> None:
        self._inner.go_down()

    def close(self) -> None:
        self._inner.close()
        self._database.close()
        self._folder.cleanup()


CASES = {
    "fake": FakeCase,
    "vLLM": ServerCase,
    "OpenAI": partial(ServerCase, OPENAI_CHAT),
    "llama.cpp": partial(ServerCase, LLAMA_CPP),
    "Ollama": partial(ServerCase, OLLAMA),
}


@pytest.fixture(params=[*CASES, "kept fake", "kept vLLM"])
def case(
    request: pytest.FixtureRequest, migrated_file: Path
) -> Iterator[FakeCase | ServerCase | CachedCase]:
    name = request.param.removeprefix("kept ")
    case = CASES[name]()
    if name != request.param:
        case = CachedCase(case, migrated_file)
    yield case
    case.close()


def asked(model: LanguageModel) -> Decoding:
    """The decoding that reads probabilities: by the tokens' ids, or by their texts."""
    info = model.describe()
    if not info.names_token_ids:
        return Decoding(n_logprobs=info.n_top_logprobs)
    ids = tuple(model.tokenize(" " + word)[0] for word in ("yes", "no"))
    return Decoding(token_ids=ids)


def logprobs(completion: Completion) -> Mapping[int | str, float]:
    return completion.logprobs or completion.text_logprobs or {}


def test_a_description_stays_the_same(case):
    info = case.model.describe()
    assert info == case.model.describe(deadline_s=5.0)
    assert info.name == "fake"
    assert info.n_context_tokens > 0
    assert info.reads_token_ids or info.n_top_logprobs
    assert info.has_plain or info.has_chat


def test_a_text_always_has_the_same_tokens_and_no_special_ones(case):
    assert case.model.tokenize("") == ()
    assert case.model.tokenize("a text") == case.model.tokenize("a text")
    assert len(case.model.tokenize(" word")) == 1
    if case.model.describe().names_token_ids:
        assert case.model.tokenize(" yes") != case.model.tokenize(" no")


@pytest.mark.parametrize("n_tokens", [0, 1, 5, 8])
@pytest.mark.parametrize(
    "text", ["", "one", "one two  three, four. Five six seven\n", "\u00e9" * 20]
)
def test_a_truncated_text_is_a_beginning_that_fits(case, text, n_tokens):
    cut = case.model.truncate(text, n_tokens)
    assert text.startswith(cut)
    assert len(case.model.tokenize(cut)) <= n_tokens


def test_a_text_that_fits_is_left_whole(case):
    assert case.model.truncate("one two three", 3) == "one two three"


def test_answers_come_in_the_order_of_the_prompts(case):
    decoding = asked(case.model)
    together = case.model.complete(PROMPTS, decoding)
    alone = [case.model.complete([prompt], decoding)[0] for prompt in PROMPTS]
    assert list(map(logprobs, together)) == list(map(logprobs, alone))
    assert len({tuple(logprobs(one).values()) for one in together}) == len(PROMPTS)


def test_every_asked_token_has_a_log_probability(case):
    decoding = asked(case.model)
    for completion in case.model.complete(PROMPTS, decoding):
        assert completion.failure is None
        assert set(decoding.token_ids) <= logprobs(completion).keys()
        assert all(math.isfinite(value) and value <= 0 for value in logprobs(completion).values())
        assert completion.n_tokens_in > 0


def test_no_prompts_have_no_answers(case):
    assert case.model.complete([], asked(case.model)) == []


def test_a_prompt_that_is_too_long_fails_alone_and_is_not_repeated(case):
    """It is to be asked again only if nobody had told how long it may be."""
    is_told = case.model.describe().tells_context
    prompts = [PROMPTS[0], "secret word " * 100, PROMPTS[2]]
    first, failed, last = case.model.complete(prompts, asked(case.model))
    assert (first.failure, last.failure) == (None, None)
    assert failed.was_refused is is_told
    assert failed.logprobs is None
    assert "secret" not in failed.failure


def test_strange_characters_do_no_harm(case):
    strange = "lone \ud800 surrogate, \0 null and \U0001f600"
    assert case.model.truncate(strange, 60) == strange
    (completion,) = case.model.complete([strange], asked(case.model))
    assert completion.failure is None


def test_a_deadline_turns_what_is_late_into_failures(case):
    decoding = asked(case.model)
    case.hang()
    completions = case.model.complete(PROMPTS, decoding, deadline_s=0.1)
    assert len(completions) == len(PROMPTS)
    assert all(completion.failure.startswith("no answer within 0.") for completion in completions)
    assert not any(completion.was_refused for completion in completions)


def test_another_model_than_the_wanted_one_does_not_answer(case):
    with pytest.raises(LanguageModelUnavailable):
        case.model.complete(PROMPTS, Decoding(token_ids=(1, 2), model="some other"))


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.describe(),
        lambda model: model.tokenize("x"),
        lambda model: model.truncate("x", 1),
        lambda model: model.complete(["x"], Decoding()),
    ],
    ids=["describe", "tokenize", "truncate", "complete"],
)
def test_a_server_that_is_down_is_unavailable(case, call: Callable[[LanguageModel], object]):
    case.go_down()
    with pytest.raises(LanguageModelUnavailable):
        call(case.model)
