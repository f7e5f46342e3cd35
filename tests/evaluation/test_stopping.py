"""When rounds have converged and when labels stop paying."""

from __future__ import annotations

import pytest

from backend.evaluation.stopping import (
    ExpectedAnswers,
    advise_on_labels,
    advise_on_rounds,
    seconds_per_answer,
)


def test_rounds_converge_when_labels_stand_still_twice():
    assert not advise_on_rounds([0.2, 0.01]).is_converged
    advice = advise_on_rounds([0.2, 0.01, 0.015])
    assert advice.is_converged
    assert "1.0% and 1.5%" in advice.sentence
    assert not advise_on_rounds([0.01, 0.2, 0.01]).is_converged


def test_rounds_end_at_their_limit():
    assert not advise_on_rounds([0.3] * 4).is_converged
    advice = advise_on_rounds([0.3] * 5)
    assert advice.is_converged
    assert "limit of 6" in advice.sentence


def test_one_round_cannot_tell():
    advice = advise_on_rounds([])
    assert not advice.is_converged
    assert "changed" not in advice.figures


def advise(gain, *, width=0.05, changed=0.0, hours=None):
    return advise_on_labels(ExpectedAnswers(50, gain, hours), width=width, changed_share=changed)


def test_labels_that_many_answers_correct_advise_to_go_on():
    advice = advise(0.031, hours=0.4)
    assert advice.is_paying
    assert advice.sentence == (
        "The next 50 answers are expected to add 3.1 points in 24 minutes at the measured pace: "
        "go on."
    )
    assert advice.figures["hours"] == 0.4


@pytest.mark.parametrize(
    ("hours", "words"), [(2.26, "2.3 hours"), (0.0, "1 minute"), (0.5, "30 minutes")]
)
def test_peoples_time_is_in_hours_and_under_one_in_minutes(hours, words):
    assert f" in {words} at the measured pace" in str(ExpectedAnswers(50, 0.1, hours))


def test_right_labels_that_are_stable_and_well_measured_advise_to_stop():
    advice = advise(0.001)
    assert advice.is_paying is False
    assert "hours" not in advice.sentence
    assert "not expected to pay" in advice.sentence


def test_labels_that_still_change_advise_to_go_on():
    advice = advise(0.001, changed=0.08)
    assert advice.is_paying
    assert "8.0%" in advice.sentence


@pytest.mark.parametrize(("width", "shown"), [(0.2, "20.0 points"), (None, "unknown")])
def test_an_accuracy_that_is_badly_known_advises_to_go_on(width, shown):
    advice = advise(0.001, width=width, changed=None)
    assert advice.is_paying
    assert shown in advice.sentence


def test_there_is_no_advice_before_the_queue_has_an_order_of_labels():
    advice = advise_on_labels(None, width=None, changed_share=None)
    assert advice.is_paying is None
    assert "Too early" in advice.sentence


def test_the_pace_is_the_median_of_each_persons_gaps_without_pauses():
    anna, ben = [0.0, 20.0, 40.0, 4000.0, 4030.0], [5.0, 15.0, 25.0]
    assert seconds_per_answer({1: anna, 2: ben}) == 20.0
    assert seconds_per_answer({1: anna[:3]}) is None
    assert seconds_per_answer({}) is None
