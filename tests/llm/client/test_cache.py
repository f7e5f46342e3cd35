"""An answer is requested once: across calls, processes, projects and crashes."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.domain.llm_usage import Prices, Usage, UsageScope, track_usage
from backend.domain.ports import Completion, Conversation, Decoding
from backend.errors import LanguageModelUnavailable, StoreUnavailable
from backend.llm.client.cache import CachedLanguageModel, cache_keys
from backend.store import Database, LLMCache
from backend.store import tables as t
from tests.fakes import FakeLanguageModel

GREEDY = Decoding(token_ids=(1, 2))
DRAWN = Decoding(max_tokens=5, temperature=0.8)


class BrokenStore:
    """A store whose database is gone."""

    def find(self, keys):
        raise StoreUnavailable("gone")

    def keep(self, answers, usage):
        raise StoreUnavailable("gone")

    def discard(self, keys):
        raise StoreUnavailable("gone")


@pytest.fixture
def store(database: Database) -> LLMCache:
    return LLMCache(database)


def fake() -> FakeLanguageModel:
    return FakeLanguageModel(lambda prompt: {"yes": 0.5, "no": len(prompt) / 1000})


def test_a_second_run_asks_nothing_and_gets_the_same(store):
    first, second = fake(), fake()
    before = CachedLanguageModel(first, store).complete(["one", "two two"], GREEDY)
    after = CachedLanguageModel(second, store).complete(["two two", "one"], GREEDY)
    assert second.prompts == []
    assert [answer.logprobs for answer in after] == [a.logprobs for a in reversed(before)]
    assert [answer.text for answer in after] == [answer.text for answer in before]
    assert not any(answer.is_from_cache for answer in before)
    assert all(answer.is_from_cache and answer.n_tokens_in == 0 for answer in after)


def test_a_discarded_answer_is_asked_for_again_and_the_others_are_not(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    good, bad = cached.complete(["good", "bad"], GREEDY)
    cached.discard([bad, Completion("never stored")])
    again = cached.complete(["good", "bad"], GREEDY)
    assert model.prompts == ["good", "bad", "bad"]
    assert [answer.is_from_cache for answer in again] == [True, False]
    CachedLanguageModel(model, BrokenStore()).discard([good])


def test_the_misses_of_a_call_go_out_together_and_in_order(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    cached.complete(["b"], GREEDY)
    answers = cached.complete(["a", "b", "c", "a"], GREEDY)
    assert [prompts for call, prompts in model.calls if call == "complete"] == [["b"], ["a", "c"]]
    assert [answer.is_from_cache for answer in answers] == [False, True, False, True]
    assert answers[0].logprobs == answers[3].logprobs


@pytest.mark.parametrize(
    "other",
    [
        Decoding(token_ids=(1, 3)),
        Decoding(token_ids=(1, 2), max_tokens=2),
        Decoding(token_ids=(1, 2), stop=("x",)),
        Decoding(token_ids=(1, 2), choices=("x",)),
        Decoding(token_ids=(1, 2), json_schema="{}"),
        Decoding(token_ids=(1, 2), n_logprobs=1),
    ],
)
def test_another_decoding_is_another_question(store, other):
    model = fake()
    cached = CachedLanguageModel(model, store)
    cached.complete(["one"], GREEDY)
    cached.complete(["one"], other)
    assert model.prompts == ["one", "one"]


def test_a_conversation_is_another_question_than_its_text(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    asked = [
        "be brief\n\none",
        Conversation("", ("be brief\n\none",)),
        Conversation("be brief", ("one",)),
        Conversation("be brief", ("one", "two", "three")),
        Conversation("", ("be brief", "one", "two")),
    ]
    for prompt in [*asked, *asked]:
        cached.complete([prompt], GREEDY)
    assert model.asked == asked


def test_the_keys_of_texts_stay_as_they_are():
    """Stored answers would be lost, and paid for again, if they changed."""
    decoding = Decoding(token_ids=(1, 2), model="m")
    (key,) = cache_keys("m", ["one"], decoding)
    assert key.hex() == "ac1e9be92706c56e844c159bd5607171"


def test_another_model_is_asked_anew(store):
    small, big = fake(), fake()
    big.name = "big"
    CachedLanguageModel(small, store).complete(["one"], GREEDY)
    CachedLanguageModel(big, store).complete(["one"], GREEDY)
    assert big.prompts == ["one"]


def test_naming_the_model_or_not_is_the_same_question(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    cached.complete(["one"], Decoding(token_ids=(1, 2), model="fake"))
    cached.complete(["one"], GREEDY)
    assert model.prompts == ["one"]


def test_sampled_answers_are_told_apart_by_their_place_or_seed(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    cached.complete(["one", "one", "one"], DRAWN)
    assert model.prompts == ["one"] * 3
    cached.complete(["one", "one", "one"], DRAWN)
    assert model.prompts == ["one"] * 3
    for seed in (1, 2, 1):
        cached.complete(["one"], Decoding(max_tokens=5, temperature=0.8, seed=seed))
    assert model.prompts == ["one"] * 5


def test_failures_are_asked_again(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    model.loses = lambda prompt: "lost" if prompt == "b" else None
    model.refuses = lambda prompt: "too rude" if prompt == "c" else None
    failures = [answer.failure for answer in cached.complete(["a", "b", "c"], GREEDY)]
    assert failures == [None, "lost", "too rude"]
    model.loses = model.refuses = lambda prompt: None
    again = cached.complete(["a", "b", "c"], GREEDY)
    assert [answer.failure for answer in again] == [None] * 3
    assert model.prompts == ["a", "b", "c", "b", "c"]


def test_a_broken_store_costs_tokens_and_no_answer():
    model = fake()
    (answer,) = CachedLanguageModel(model, BrokenStore()).complete(["a"], GREEDY)
    assert answer.failure is None


def test_known_answers_come_even_when_the_server_is_down(store):
    model = fake()
    cached = CachedLanguageModel(model, store)
    decoding = Decoding(token_ids=(1, 2), model="fake")
    cached.complete(["a"], decoding)
    model.failure = LanguageModelUnavailable("down")
    assert cached.complete(["a"], decoding)[0].failure is None
    with pytest.raises(LanguageModelUnavailable):
        cached.complete(["b"], decoding)


def test_usage_is_charged_to_whom_it_is_for(store):
    cached = CachedLanguageModel(fake(), store)
    with track_usage("7.1", "annotate"):
        cached.complete(["a a", "b"], GREEDY)
        with track_usage("7.1", "round 2"):
            cached.complete(["a a", "c"], GREEDY)
        cached.complete(["a a"], GREEDY)
    annotate, second = store.usage("7.1")
    assert annotate.scope == UsageScope("7.1", "annotate")
    counters = (annotate.n_calls, annotate.n_prompts, annotate.n_cache_hits)
    assert counters == (1, 3, 1)
    assert (annotate.n_tokens_in, annotate.n_tokens_out) == (3, 2)
    assert (second.n_calls, second.n_prompts, second.n_cache_hits) == (1, 2, 1)
    assert store.usage("8.1") == []


def test_costs_follow_the_prices():
    usage = Usage(n_tokens_in=2_000_000, n_tokens_out=500_000)
    assert Prices(0.15, 0.6).cost(usage) == pytest.approx(0.6)
    assert Prices().cost(usage) == 0.0


def test_old_answers_are_forgotten(store):
    CachedLanguageModel(fake(), store).complete(["a", "b"], GREEDY)
    assert store.forget(older_than_days=1) == 0
    with store._db.write() as connection:
        connection.execute(sa.update(t.llm_answers).values(day=t.llm_answers.c.day - 31))
    assert store.forget(older_than_days=30) == 2


def test_more_answers_are_found_than_fit_one_query(store):
    prompts = [f"text {number}" for number in range(2_000)]
    model = fake()
    cached = CachedLanguageModel(model, store)
    cached.complete(prompts, GREEDY)
    cached.complete(prompts, GREEDY)
    assert len(model.prompts) == len(prompts)


@given(
    answer=st.builds(
        Completion,
        text=st.text(),
        logprobs=st.none()
        | st.dictionaries(st.integers(0, 2**40), st.floats(-9999, 0).map(lambda x: round(x, 6))),
        mean_logprob=st.none() | st.floats(-99, 0).map(lambda x: round(x, 6)),
        finish_reason=st.sampled_from([None, "stop", "length"]),
    )
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_answer_comes_back_as_it_was_stored(store, answer):
    key = str(hash(answer.text)).encode()[:16]
    with store._db.write() as connection:
        connection.execute(sa.delete(t.llm_answers))
    store.keep({key: answer}, Usage())
    found = store.find([key])[key]
    assert (found.text, found.logprobs) == (answer.text, answer.logprobs)
    assert (found.mean_logprob, found.finish_reason) == (answer.mean_logprob, answer.finish_reason)
