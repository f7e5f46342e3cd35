"""Several servers as one."""

from __future__ import annotations

import pytest

from backend.domain.ports import Decoding
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.client.load_balancer import Replicas
from tests.fakes import FakeLanguageModel

PROMPTS = [f"prompt {number}" for number in range(9)]
ASKED = Decoding(max_tokens=1)


def fakes(n: int) -> list[FakeLanguageModel]:
    return [FakeLanguageModel(lambda prompt: {prompt[-1]: 1.0}) for _ in range(n)]


def texts(completions):
    return [completion.text for completion in completions]


def test_each_server_gets_a_block_and_the_order_stays():
    models = fakes(3)
    assert texts(Replicas(models).complete(PROMPTS, ASKED)) == list("012345678")
    assert [model.prompts for model in models] == [PROMPTS[:3], PROMPTS[3:6], PROMPTS[6:]]


def test_a_server_that_is_down_leaves_its_work_to_the_others():
    models = fakes(3)
    models[1].failure = LanguageModelUnavailable("down")
    replicas = Replicas(models)
    assert texts(replicas.complete(PROMPTS, ASKED)) == list("012345678")
    models[1].failure = None
    models[1].calls.clear()
    replicas.complete(PROMPTS, ASKED)
    assert models[1].prompts == []


def test_a_lost_answer_is_asked_of_another_server():
    models = fakes(2)
    models[0].loses = lambda prompt: "lost" if prompt == PROMPTS[2] else None
    assert texts(Replicas(models).complete(PROMPTS, ASKED)) == list("012345678")


def test_a_refused_prompt_is_not_asked_again():
    models = fakes(2)
    for model in models:
        model.refuses = lambda prompt: "too long" if prompt == PROMPTS[2] else None
    completions = Replicas(models).complete(PROMPTS, ASKED)
    assert completions[2].was_refused
    assert sum(model.prompts.count(PROMPTS[2]) for model in models) == 1


def test_when_all_are_down_it_is_unavailable():
    models = fakes(2)
    for model in models:
        model.failure = LanguageModelUnavailable("down")
    for call in (
        lambda replicas: replicas.complete(PROMPTS, ASKED),
        lambda replicas: replicas.describe(),
        lambda replicas: replicas.tokenize("x"),
    ):
        with pytest.raises(LanguageModelUnavailable):
            call(Replicas(models))


def test_a_refused_key_is_not_taken_to_another_server():
    models = fakes(2)
    models[0].failure = LanguageModelRejected("wrong key")
    with pytest.raises(LanguageModelRejected):
        Replicas(models).complete(PROMPTS, ASKED)


def test_a_server_with_another_model_does_not_answer():
    models = fakes(2)
    models[1].name = "other"
    assert texts(Replicas(models).complete(PROMPTS, ASKED)) == list("012345678")
    assert len(models[0].prompts) == len(PROMPTS)
