"""What a change of labels gains is estimated from annotators alone, and says how surely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.evaluation.expected_gain import (
    ChangedDecisions,
    expected_gain,
    supported_changes,
)


def alike(found, served, n_decisions, n_referees=4):
    """Return decisions about which all referees say the same."""
    return ChangedDecisions(
        np.tile(np.asarray(found, dtype=float), (n_referees, 1)),
        np.tile(np.asarray(served, dtype=float), (n_referees, 1)),
        np.arange(len(found)),
        n_decisions,
    )


def test_the_gain_is_what_changed_texts_win_less_what_they_lose():
    gain = expected_gain(alike([0.9, 0.6], [0.1, 0.2], 10))
    assert gain.value == pytest.approx((0.8 + 0.4) / 10)
    assert (gain.n_changed, gain.n_decisions) == (2, 10)


def test_the_interval_is_that_of_drawn_texts_and_of_shared_errors():
    gain = expected_gain(alike([0.9] * 50, [0.1] * 50, 100))
    drawn = 50 - 40**2 / 100  # all of 50 have an outcome, 40 points are expected
    reach = 1.645 * (drawn + (0.3 * 50) ** 2) ** 0.5 / 100
    assert gain.low == pytest.approx(0.4 - reach)
    assert gain.high == pytest.approx(0.4 + 2 * reach)


def test_a_change_that_rests_on_one_annotator_gains_less_and_less_surely():
    without_it = ChangedDecisions(
        np.array([[0.9] * 20, [0.9] * 20, [0.9] * 20, [0.1] * 20]),
        np.array([[0.1] * 20, [0.1] * 20, [0.1] * 20, [0.9] * 20]),
        np.arange(20),
        100,
    )
    gain, agreed = expected_gain(without_it), expected_gain(alike([0.9] * 20, [0.1] * 20, 100))
    assert gain.value == pytest.approx(0.2 * (0.8 + (0.8 + 0.8 - 0.8) / 3) / 2)
    assert gain.value - gain.low > agreed.value - agreed.low
    assert gain.high > agreed.high  # the annotators may be independent after all


def test_where_all_are_needed_no_change_rests_on_one_annotator():
    found = np.array([[0.9] * 40, [0.9] * 40, [0.9] * 40, [0.9] * 40, [0.2] * 40])
    by_mean = ChangedDecisions(found, 1 - found, np.arange(40), 100)
    assert supported_changes(by_mean)[0].is_supported
    gain, rows = supported_changes(replace(by_mean, needs_all=True))
    assert rows.tolist() == []
    assert gain.value == pytest.approx(0.4 * (0.8 - 0.6) / 2)
    agreed = replace(alike([0.9] * 40, [0.1] * 40, 100), needs_all=True)
    assert len(supported_changes(agreed)[1]) == 40


def test_no_change_gains_nothing_for_sure():
    gain = expected_gain(alike([], [], 30))
    assert (gain.value, gain.low, gain.high, gain.is_supported) == (0.0, 0.0, 0.0, False)


def test_clear_changes_are_made_and_doubtful_ones_left_out():
    changed = alike([0.95] * 30 + [0.5] * 60, [0.05] * 30 + [0.5] * 60, 300)
    gain, rows = supported_changes(changed)
    assert rows.tolist() == list(range(30))
    assert gain.value == pytest.approx(0.9 * 30 / 300)
    assert gain.min_lead > 0
    assert gain.low > 0


def test_changes_that_are_all_clear_are_all_made():
    gain, rows = supported_changes(alike([0.8] * 80, [0.1] * 80, 400))
    assert len(rows) == 80
    assert gain.min_lead == 0.0


def test_doubtful_changes_are_not_made_however_many():
    gain, rows = supported_changes(alike([0.55] * 500, [0.4] * 500, 1000))
    assert rows.tolist() == []
    assert gain.low < 0 < gain.value
    assert gain.n_changed == 500


def test_two_annotators_are_too_few_to_tell_common_errors_apart():
    clear = alike([0.99] * 200, [0.01] * 200, 400, n_referees=3)
    _, rows = supported_changes(clear)
    assert rows.tolist() == []


def test_a_text_changes_as_a_whole_by_the_mean_lead_of_its_decisions():
    sure, doubtful = [0.98] * 40, [0.98, 0.02] * 60
    changed = alike(sure + doubtful, [1 - p for p in sure + doubtful], 400)
    changed = ChangedDecisions(
        changed.found, changed.served, np.repeat(np.arange(80), 2), changed.n_decisions
    )
    assert changed.leads_of_texts[:40] == pytest.approx([0.96] * 40)
    assert changed.leads_of_texts[40:] == pytest.approx([0.0] * 120)
    _, texts = supported_changes(changed)
    assert texts.tolist() == list(range(20))


def test_a_gain_is_told_in_points():
    gain = expected_gain(alike([0.9] * 50, [0.1] * 50, 1000))
    assert str(gain) == f"+4.0 points [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"
    assert gain.to_json()["n_changed"] == 50


def test_versions_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="found shapes"):
        ChangedDecisions(np.ones((4, 2)), np.ones((4, 3)), np.arange(2), 9)
