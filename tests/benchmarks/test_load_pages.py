"""The pages of `scale` and `load` say what was measured, and what limits it."""

from __future__ import annotations

import pytest

from benchmarks.load_pages import load_page, scale_page


def report(name, results, **notes):
    return {
        "benchmark": name,
        "commit": "abc",
        "machine": {"cores": 2, "processor": "x86_64"},
        "parameters": {"latency_s": 1.0},
        "results": results,
        "notes": notes,
    }


def scaled(ratio, machine, n_doubled=0):
    row = {"worker_mb": 300, "worker_ms_per_label": 1.5, "n_doubled": 0}
    rows = [
        {**row, "n_workers": 1, "labels_per_s": 500.0, "ratio": 1.0}
        | {"processor_shares": {"worker_0": 0.7, "machine": 0.9}},
        {**row, "n_workers": 4, "labels_per_s": 500.0 * ratio, "ratio": ratio}
        | {"processor_shares": {"worker_0": 0.4, "machine": machine}},
    ]
    mistakes = {"n_doubled": n_doubled, "n_lost": 0, "n_paid_twice": 0}
    sizes = {"tasks": 800, "weak_labels": 1200}
    return report("scale", {"rows": rows, **mistakes, "worker_mb": 300, "bytes_per_task": sizes})


@pytest.mark.parametrize(("ratio", "met"), [(3.6, "yes"), (2.1, "**no**")])
def test_the_ratio_of_four_workers_is_held_against_its_goal(ratio, met):
    page = scale_page(scaled(ratio, 1.2), "scale.json")
    assert f"| `ratio of 4 workers` | {ratio} | at least 3.5 | {met} |" in page


def test_busy_processors_are_named_as_the_limit():
    assert "they are the limit here" in scale_page(scaled(2.1, 1.95), "scale.json")
    assert "the LLM's latency is the limit" in scale_page(scaled(3.6, 1.2), "scale.json")


def test_a_doubled_prediction_is_no_goal_met():
    assert "| `n_doubled` | 1 | 0 | **no** |" in scale_page(scaled(3.6, 1.2, 1), "scale.json")


def test_ten_million_tasks_are_reckoned_from_what_one_takes():
    assert "Ten million tasks take 19 GB." in scale_page(scaled(3.6, 1.2), "scale.json")


def test_each_figure_of_the_load_has_a_meaning_and_its_goal():
    results = {"webhook_50_max_ms": 1200.0, "first_labels_max_s": 40.0, "webhooks_lost": 0}
    page = load_page(report("load", results, webhooks_sent=1_800), "load.json")
    assert "| 1200.0 | under 1,000 | **no** |" in page
    assert "| 40.0 | at most 60 | yes |" in page
    assert "| `webhooks_sent` | 1800 |" in page
