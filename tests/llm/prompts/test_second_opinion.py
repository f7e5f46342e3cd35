"""Second answers: who gets one, and what two answers are worth together."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from backend.domain.labels import Abstention, AbstentionReason, WeakLabel
from backend.llm.prompts.second_opinion import SecondOpinion


def noisy_posteriors(seed: int, truth: np.ndarray, bias: float, noise: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = 2.0 * np.eye(2)[truth] + noise * rng.normal(size=(len(truth), 2)) + [bias, 0.0]
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


TRUTH = np.random.default_rng(0).integers(0, 2, 4000)
FIRST, SECOND = noisy_posteriors(1, TRUTH, 1.5, 1.5), noisy_posteriors(2, TRUTH, -2.0, 1.5)


def weak(posterior: np.ndarray) -> WeakLabel:
    return WeakLabel(
        1, "q", "llm", "choice/a/1", probabilities=tuple(posterior.tolist()), n_tokens_in=10
    )


def test_the_asked_share_of_the_texts_is_unsure():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=0.3)
    assert opinion is not None
    unsure = opinion.is_unsure(FIRST)
    assert unsure.mean() == pytest.approx(0.3, abs=0.01)
    centered = np.log(FIRST[:, 0] / FIRST[:, 1])
    margins = np.abs(centered - centered.mean())
    assert margins[unsure].max() <= margins[~unsure].min() + 1e-9


def test_two_answers_that_err_independently_are_right_more_often_than_one():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=1.0)
    assert opinion is not None
    joined = opinion.join([weak(row) for row in FIRST], [weak(row) for row in SECOND])
    own = opinion.first.transform(FIRST).argmax(axis=1)
    both = np.array([label.probabilities for label in joined])
    both_labels = opinion.first.transform(both).argmax(axis=1)
    assert (both_labels == TRUTH).mean() > (own == TRUTH).mean() + 0.03


def test_the_same_answer_twice_changes_nothing():
    opinion = SecondOpinion.fit("b", FIRST, FIRST, share=1.0)
    assert opinion is not None
    (joined,) = opinion.join([weak(FIRST[0])], [weak(FIRST[0])])
    assert joined.probabilities == pytest.approx(tuple(FIRST[0]), abs=1e-6)


def test_a_joined_label_says_so_and_counts_both_prompts():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=1.0)
    assert opinion is not None
    (joined,) = opinion.join([weak(FIRST[0])], [weak(SECOND[0])])
    assert joined.prompt_version == "choice/a/1+b"
    assert joined.n_tokens_in == 20
    assert math.isclose(sum(joined.probabilities), 1.0)


def test_a_second_answer_that_cannot_be_read_leaves_the_first():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=1.0)
    assert opinion is not None
    none = WeakLabel(1, "q", "llm", abstention=Abstention(AbstentionReason.UNREADABLE))
    assert opinion.join([weak(FIRST[0])], [none]) == [weak(FIRST[0])]


def test_nothing_is_asked_twice_without_a_share_or_texts():
    assert SecondOpinion.fit("b", FIRST, SECOND, share=0.0) is None
    assert SecondOpinion.fit("b", FIRST[:1], SECOND[:1], share=1.0) is None


def test_abstentions_are_not_unsure():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=1.0)
    assert opinion is not None
    assert opinion.is_unsure(np.full((3, 2), np.nan)).tolist() == [False] * 3


def test_it_survives_its_json():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=0.3)
    assert opinion is not None
    again = SecondOpinion.from_json(json.loads(json.dumps(opinion.to_json())))
    assert again.is_unsure(FIRST).tolist() == opinion.is_unsure(FIRST).tolist()
    assert again.join([weak(FIRST[0])], [weak(SECOND[0])]) == opinion.join(
        [weak(FIRST[0])], [weak(SECOND[0])]
    )


def test_only_unsure_texts_are_asked_about_again():
    opinion = SecondOpinion.fit("b", FIRST, SECOND, share=0.3)
    assert opinion is not None
    asked: list[int] = []

    def ask_again(rows):
        asked.extend(rows)
        return [weak(SECOND[row]) for row in rows]

    labels = opinion.complete([weak(row) for row in FIRST], FIRST, ask_again)
    assert asked == np.flatnonzero(opinion.is_unsure(FIRST)).tolist()
    assert [at for at, one in enumerate(labels) if one.prompt_version.endswith("+b")] == asked
