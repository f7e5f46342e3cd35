import json
import re

import numpy as np
import pytest

from backend.active_learning.informativeness import (
    InformativenessSettings,
    LLMInformativenessScorer,
    draw_names,
    judging_schema,
    read_scores,
)
from backend.active_learning.ordering import PoolView
from backend.domain.ports import Completion
from backend.errors import LanguageModelUnavailable
from tests.llm.writing_model import WritingModel

ITEM = re.compile(r'^([a-z]{2}): "text (\d+)"$', re.MULTILINE)


def pool(n):
    vectors = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return PoolView(np.arange(n), vectors, read_texts=lambda at: [f"text {i}" for i in at])


def judged(model, n=40, **settings):
    scorer = LLMInformativenessScorer(
        model, question="tone", settings=InformativenessSettings(**settings)
    )
    return scorer.scorer(pool(n), np.arange(n), rng=np.random.default_rng(0))


def by_text(prompt):
    return json.dumps({name: int(text) // 10 for name, text in ITEM.findall(prompt)})


def by_place(prompt):
    names = [name for name, _ in ITEM.findall(prompt)]
    return json.dumps({name: 4 - place // 4 for place, name in enumerate(names)})


def speaking(writes, **offers):
    model = WritingModel(writes, **offers)
    model.n_context_tokens = 4096
    return model


def test_a_model_that_reads_the_texts_is_believed():
    scored = judged(speaking(by_text))
    assert scored.weight > 0.8
    assert scored.scores[30:].min() > scored.scores[:10].max()
    assert scored.warnings == ()
    assert scored.n_tokens > 0


def test_a_model_that_looks_at_places_weighs_nothing_and_it_is_said():
    scored = judged(speaking(by_place), n=200)
    assert scored.weight == 0.0
    assert any("does not repeat itself" in warning for warning in scored.warnings)
    assert any("follows the places" in warning for warning in scored.warnings)


def test_no_answer_is_no_judgement():
    scored = judged(speaking(lambda prompt: "I would rather not"))
    assert scored.weight == 0.0
    assert scored.counts["unreadable"] == 160


def test_a_server_that_is_down_does_not_keep_the_queue_from_being_ordered():
    model = speaking(by_text)
    model.failure = LanguageModelUnavailable("no answer")
    scored = judged(model)
    assert scored.weight == 0.0
    assert "no answer" in scored.warnings[0]


def test_every_text_is_in_exactly_one_group_of_a_round():
    model = speaking(by_text)
    judged(model, n=45, n_rounds=1)
    seen = [text for prompt in model.prompts for _, text in ITEM.findall(prompt)]
    assert sorted(map(int, seen)) == list(range(45))
    assert max(len(ITEM.findall(prompt)) for prompt in model.prompts) <= 23


def test_the_schema_is_sent_where_the_server_can_hold_to_it():
    model = speaking(by_text, constrains_json=True)
    judged(model, n=20, n_rounds=1)
    schema = json.loads(model.decodings[0].json_schema)
    assert len(schema["required"]) == 20
    assert schema["additionalProperties"] is False


def test_names_differ_and_the_schema_asks_for_each():
    names = draw_names(300, np.random.default_rng(0))
    assert len(set(names)) == 300
    assert json.loads(judging_schema(["ab"]))["properties"]["ab"]["maximum"] == 4


@pytest.mark.parametrize(
    ("text", "scores", "counts"),
    [
        ('{"aa": 3, "bb": 0}', [3, 0], {}),
        ('Sure: {"aa": 3}', [3, None], {"missing": 1}),
        (
            '{"aa": 9, "bb": true, "cc": 1}',
            [None, None],
            {"out_of_range": 1, "missing": 1, "invented": 1},
        ),
        ("[1, 2]", [None, None], {"unreadable": 2}),
        ("", [None, None], {"unreadable": 2}),
    ],
)
def test_answers_are_read_as_far_as_they_can_be(text, scores, counts):
    found, problems = read_scores(Completion(text=text), ["aa", "bb"])
    assert [None if np.isnan(score) else score for score in found] == scores
    assert problems == counts
