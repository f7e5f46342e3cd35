"""The benchmark of accepted labels: both rules by hand, the simulation, and its page."""

from __future__ import annotations

import numpy as np
import pytest

from backend.evaluation.selective_prediction import CheckedLabels
from benchmarks.accept import PROJECTS, RULES, certified, potato, simulate
from benchmarks.accept_page import accept_page


def right(n: int) -> CheckedLabels:
    return CheckedLabels(np.full(n, 0.9), np.ones(n, dtype=bool))


def test_potatos_rule_needs_half_as_many_cert_answers_again_as_could_pass():
    # 69 answers without an error pass a first look at 5 % and 95 %; it starts at 104 of one half
    assert potato(right(206), np.full(1000, 0.9)) is None
    assert potato(right(208), np.full(1000, 0.9)) == 0.9


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_what_is_often_wrong_is_accepted_by_no_rule(rule):
    checked = CheckedLabels(np.full(400, 0.9), np.arange(400) % 5 > 0)
    assert rule(checked, np.full(1000, 0.9)) is None


def test_the_simulation_counts_broken_promises_of_each_rule():
    shares = simulate(PROJECTS["all wrong"], 3)
    assert shares == {"ours": 0, "potato": 0, "ours, looking often": 0, "anything accepted": 0}
    assert simulate(PROJECTS["calibrated"], 15)["anything accepted"] > 0


def test_the_page_tells_what_the_report_holds():
    rng = np.random.default_rng(0)
    confidences = 1 - rng.random(600) / 100
    found = certified(confidences, np.ones(600, dtype=bool), n_draws=2)
    assert found["ours"]["200"] == 400
    assert found["potato"]["200"] == 0
    report = {
        "commit": "abc",
        "parameters": {"n_projects": 3, "n_draws": 2, "n_pool": 600},
        "results": {"simulated all wrong": simulate(PROJECTS["all wrong"], 1), "sms": found},
        "notes": {"sms": {"n_pool": 600, "accuracy": 1.0}},
    }
    page = accept_page(report, "accept.json")
    assert "| all wrong | 0.0 % | 0.0 % | 0.0 % | 0.0 % |" in page
    assert "| sms | 100.0 % | this backend | 0 | 500 | 400 | 200 | 0 % |" in page
