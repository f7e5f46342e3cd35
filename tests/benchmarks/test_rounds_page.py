"""The page of whole rounds: gains, goals met and missed, sets not measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.rounds_page import gains, grouped, write_rounds_page


def report(name: str, fused: float, *, humans: int = 0, order: str = "queue", covered: float = 1.0):
    return {
        "commit": "abc",
        "parameters": {
            "data": f"{name}.jsonl.gz", "humans": humans, "order": order, "limit": 100,
        },
        "results": {
            "zero_shot_accuracy": 0.5,
            "prelabel_accuracy": 0.55,
            "fused_accuracy": fused,
            "n_human_labels": humans,
            "small_model_accuracy": None,
            "test": {"llm": 0.4, "similarity": 0.6, "fused": 0.7},
            "estimated_accuracy": 0.7,
            "interval": [0.5, 0.9],
            "interval_coverage_100": covered,
            "tokens_in": 1000,
            "tokens_out": 10,
            "seconds": 3.0,
        },
    }  # fmt: skip


def written(folder, reports) -> str:
    (folder / "rounds").mkdir()
    for at, each in enumerate(reports):
        (folder / "rounds" / f"{at}.json").write_text(json.dumps(each))
    (page,) = write_rounds_page(folder)
    return page.read_text()


def test_without_reports_there_is_no_page(tmp_path):
    assert write_rounds_page(tmp_path) == []


def test_gains_are_points_above_the_better_zero_shot_annotator():
    runs = grouped([report("mr", 0.57), report("mr", 0.65, humans=64)])
    assert gains(runs[(0, "queue")])["mr"] == pytest.approx(7)
    assert gains(runs[(64, "queue")])["mr"] == pytest.approx(15)


def test_goals_are_decided_by_averages_and_on_the_worst_set(tmp_path):
    reports = [report("mr", 0.63), report("trec", 0.48, covered=0.86)]
    reports += [report("mr", 0.66, humans=64), report("mr", 0.64, humans=64, order="random")]
    page = written(tmp_path, reports)
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    found = {goal: "**no**" not in line for goal, line in rows.items()}
    assert found["without human labels, 5 points above the better zero-shot annotator on average"]
    assert not found["without human labels, on no set more than a point under it"]
    assert "least: trec -2" in page
    assert found["more than with as many labels of random texts"]
    assert "not measured: sst2, ag_news" in page
    assert "least: trec 0 queue 0.86" in page


def test_the_test_columns_name_the_better_annotator(tmp_path):
    page = written(tmp_path, [report("mr", 0.6)])
    (row,) = [line for line in page.splitlines() if line.startswith("| mr |")]
    assert "| 0.6 | – | 0.7 | 0.70 [0.50, 0.90] |" in row


def test_human_labeled_tasks_are_left_out_of_the_unlabeled_ones(tmp_path):
    page = written(tmp_path, [report("mr", 0.82, humans=64)])
    (row,) = [line for line in page.splitlines() if line.startswith("| mr |")]
    assert "| 0.82 | 0.5 |" in row
