import re

import numpy as np
import pytest

from backend.active_learning.activellm_paper import (
    PaperActiveLLM,
    PaperSettings,
    parse_picks,
    selection_prompt,
)
from backend.active_learning.baselines import complete_order
from backend.active_learning.strategy_interface import PoolView
from backend.errors import LanguageModelUnavailable
from tests.llm.writing_model import WritingModel

LISTED = re.compile(r"^(\d+)\. text (\d+)$", re.MULTILINE)


def pool(n, **fields):
    vectors = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    read = lambda at: [f"text {i}" for i in at]  # noqa: E731
    return PoolView(np.arange(n), vectors, read_texts=read, **fields)


def ordered(writes, n=60, *, then=None, pool_fields=None, **settings):
    model = WritingModel(writes)
    model.n_context_tokens = 4096
    strategy = PaperActiveLLM(model, settings=PaperSettings(**settings), then=then)
    the_pool = pool(n, **(pool_fields or {}))
    return model, strategy.order(the_pool, rng=np.random.default_rng(0))


def highest_texts(prompt):
    best = sorted(LISTED.findall(prompt), key=lambda item: -int(item[1]))
    return "I would take: " + ", ".join(number for number, _ in best[:3])


def test_the_texts_that_the_llm_names_come_first():
    _, ordering = ordered(highest_texts, n_picks=3)
    assert ordering.positions[:3].tolist() == [59, 58, 57]
    assert ordering.reasons[0] == "picked from a list by the LLM"
    assert sorted(ordering.positions) == list(range(60))


def test_labeled_texts_are_not_shown():
    model, ordering = ordered(highest_texts, n_picks=3, pool_fields={"labeled": {59: 0}})
    assert ordering.positions[0] == 58
    assert "text 59" not in model.prompts[0]


def test_the_head_of_the_list_is_found_out():
    _, ordering = ordered(lambda prompt: ", ".join(map(str, range(32))))
    assert ordering.diagnostics.counts["ascending"] == 1
    assert any("looked at places" in warning for warning in ordering.diagnostics.warnings)


class ListOrder:
    name = "list"

    def order(self, pool, *, rng):
        return complete_order(pool, pool.open_positions.tolist(), "next", rng)


def test_another_strategy_orders_the_rest():
    _, ordering = ordered(highest_texts, n_picks=3, then=ListOrder())
    assert ordering.positions.tolist() == [59, 58, 57, *range(57)]


def test_each_iteration_recalls_what_was_chosen_and_shows_more():
    model, ordering = ordered(highest_texts, n_picks=3, n_texts=10, n_iterations=2)
    assert "Already labelled" not in model.prompts[0]
    assert "Already labelled" in model.prompts[1]
    assert len(LISTED.findall(model.prompts[0])) == 10
    assert len(LISTED.findall(model.prompts[1])) > 10
    assert ordering.diagnostics.counts["already_taken"] > 0


def test_a_full_context_shows_fewer_texts():
    model = WritingModel(highest_texts)
    model.n_context_tokens = 600
    strategy = PaperActiveLLM(model, settings=PaperSettings(n_picks=3))
    strategy.order(pool(200), rng=np.random.default_rng(0))
    assert 0 < len(LISTED.findall(model.prompts[0])) < 200


def test_without_a_server_the_order_is_random_and_says_so():
    model = WritingModel(highest_texts)
    model.failure = LanguageModelUnavailable("no answer")
    ordering = PaperActiveLLM(model).order(pool(9), rng=np.random.default_rng(0))
    assert sorted(ordering.positions) == list(range(9))
    assert any("no answer" in warning for warning in ordering.diagnostics.warnings)


@pytest.mark.parametrize(
    ("text", "picks", "wrong"),
    [
        ("3, 1, 2", [3, 1, 2], {}),
        ("Step 1: look at 200 texts.\nMy list: 4, 0, 7, 2", [4, 0, 7], {"surplus": 1}),
        ("1, 1, 5", [1, 5], {"duplicate": 1, "missing": 1}),
        ("8, 12, 99999999999", [8], {"out_of_range": 2, "missing": 2}),
        ("0, 6, 9", [0, 9], {"already_taken": 1, "missing": 1}),
        ("none of them", [], {"unreadable": 1, "missing": 3}),
        ("I would need 5 more texts.", [], {"unreadable": 1, "missing": 3}),
        ("", [], {"unreadable": 1, "missing": 3}),
    ],
)
def test_picks_are_parsed_whatever_an_answer_holds(text, picks, wrong):
    found, counts = parse_picks(text, 10, n_picks=3, taken=[6])
    assert found == picks
    relevant = {k: v for k, v in counts.items() if v and k not in ("named", "ascending")}
    assert relevant == wrong


def test_ascending_answers_are_counted():
    assert parse_picks("0, 1, 2", 10, n_picks=3)[1]["ascending"] == 1
    assert parse_picks("2, 1, 0", 10, n_picks=3)[1]["ascending"] == 0


def test_the_variants_of_the_prompt_differ_as_named():
    best = selection_prompt(["a"], PaperSettings())
    assert "step by step" in best
    assert "representative" not in best
    advised = selection_prompt(["a"], PaperSettings(has_advice=True, answer="explain"))
    assert "representative" in advised
    assert "text by text" in advised
    assert "by these" in selection_prompt(["a"], PaperSettings(guidelines="Spam sells."))
