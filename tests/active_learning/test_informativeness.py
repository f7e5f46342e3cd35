import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.active_learning.informativeness import (
    LLMInformativenessScorer,
    borda_count,
    draw_names,
    parse_scores,
    position_bias,
    scoring_schema,
    split_half_reliability,
)
from backend.active_learning.strategy_interface import PoolView
from backend.domain.ports import Completion
from backend.errors import LanguageModelUnavailable
from tests.llm.writing_model import WritingModel

ITEM = re.compile(r'^([a-z]{2}): "text (\d+)"$', re.MULTILINE)


def pool(n):
    vectors = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return PoolView(np.arange(n), vectors, read_texts=lambda at: [f"text {i}" for i in at])


def scores_of(model, n=40, **options):
    scorer = LLMInformativenessScorer(model, question="tone", **options)
    return scorer.score(pool(n), np.arange(n), rng=np.random.default_rng(0))


def by_text(prompt):
    return json.dumps({name: int(text) // 10 for name, text in ITEM.findall(prompt)})


def by_position(prompt):
    names = [name for name, _ in ITEM.findall(prompt)]
    return json.dumps({name: 4 - place // 4 for place, name in enumerate(names)})


def answering(writes, **offers):
    model = WritingModel(writes, **offers)
    model.n_context_tokens = 4096
    return model


def test_a_model_that_reads_the_texts_has_weight():
    scored = scores_of(answering(by_text))
    assert scored.weight > 0.8
    assert scored.scores[30:].min() > scored.scores[:10].max()
    assert scored.warnings == ()
    assert scored.n_tokens > 0


def test_a_model_that_looks_at_positions_has_no_weight_and_a_warning():
    scored = scores_of(answering(by_position), n=200)
    assert scored.weight == 0.0
    assert any("does not repeat itself" in warning for warning in scored.warnings)
    assert any("follows the places" in warning for warning in scored.warnings)


def test_an_answer_that_does_not_parse_gives_no_scores():
    scored = scores_of(answering(lambda prompt: "I would rather not"))
    assert scored.weight == 0.0
    assert scored.counts["unreadable"] == 160


def test_one_score_for_all_texts_is_no_judgement():
    same = answering(lambda prompt: json.dumps(dict.fromkeys(dict(ITEM.findall(prompt)), 2)))
    scored = scores_of(same)
    assert scored.reliability is None
    assert scored.weight == 0.0
    assert scored.counts["undecided"] == 160


def test_a_server_that_is_down_does_not_keep_the_queue_from_being_ordered():
    model = answering(by_text)
    model.failure = LanguageModelUnavailable("no answer")
    scored = scores_of(model)
    assert scored.weight == 0.0
    assert "no answer" in scored.warnings[0]


def test_every_text_is_in_exactly_one_group_of_a_pass():
    model = answering(by_text)
    scores_of(model, n=45, n_passes=1)
    seen = [text for prompt in model.prompts for _, text in ITEM.findall(prompt)]
    assert sorted(map(int, seen)) == list(range(45))
    assert max(len(ITEM.findall(prompt)) for prompt in model.prompts) <= 23


def test_the_schema_is_sent_where_the_server_can_hold_to_it():
    model = answering(by_text, constrains_json=True)
    scores_of(model, n=20, n_passes=1)
    schema = json.loads(model.decodings[0].json_schema)
    assert len(schema["required"]) == 20
    assert schema["additionalProperties"] is False


def test_too_few_texts_to_measure_reliability_have_no_weight():
    scored = scores_of(answering(by_text), n=6)
    assert (scored.reliability, scored.weight) == (None, 0.0)


def test_names_differ_and_the_schema_asks_for_each():
    names = draw_names(300, np.random.default_rng(0))
    assert len(set(names)) == 300
    assert json.loads(scoring_schema(["ab"]))["properties"]["ab"]["maximum"] == 4


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
def test_scores_are_parsed_as_far_as_they_can_be(text, scores, counts):
    found, problems = parse_scores(Completion(text=text), ["aa", "bb"])
    assert [None if np.isnan(score) else score for score in found] == scores
    assert problems == counts


NAN = np.nan


def test_ranks_are_averaged_over_the_passes_that_scored_a_text():
    scores = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, NAN]])
    assert borda_count(scores).tolist() == pytest.approx([0.75, 0.25, 0.5])


def test_a_text_without_a_score_is_ranked_in_the_middle():
    assert borda_count(np.array([[NAN, 1.0, 2.0]]))[0] == 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 99))
def test_stretching_the_scores_of_a_pass_changes_nothing(n_passes, n_texts, seed):
    scores = np.random.default_rng(seed).normal(size=(n_passes, n_texts))
    assert borda_count(np.exp(3 * scores)).tolist() == pytest.approx(borda_count(scores).tolist())


def test_passes_that_agree_are_fully_reliable():
    scores = np.tile(np.arange(10.0), (4, 1))
    assert split_half_reliability(scores, np.random.default_rng(0)) == pytest.approx(1.0)


def test_random_passes_have_no_reliability():
    scores = np.random.default_rng(0).normal(size=(4, 400))
    reliability = split_half_reliability(scores, np.random.default_rng(1))
    assert abs(reliability) < 0.2


def test_one_pass_or_few_texts_have_no_reliability():
    rng = np.random.default_rng(0)
    assert split_half_reliability(np.ones((1, 20)), rng) is None
    assert split_half_reliability(np.ones((4, 7)), rng) is None


def test_equal_scores_everywhere_are_no_agreement():
    assert split_half_reliability(np.ones((4, 20)), np.random.default_rng(0)) == 0.0


def test_scores_that_fall_with_the_position_are_measured():
    positions = np.tile(np.arange(10), (2, 1))
    assert position_bias(-positions.astype(float), positions) == pytest.approx(-1.0)
    assert position_bias(np.full((2, 10), NAN), positions) is None
