"""The page of whole rounds: by LLM and set, over seeds; goals met and missed, or not measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.rounds_page import grouped, write_rounds_page

LARGE, SMALL = "llm:qwen2.5-coder-1.5b", "llm:smollm2-135m-instruct"
GAIN = {"value": 0.02, "low": 0.0, "high": 0.05, "n_decisions": 100}


def report(name: str, after: float, *, model: str = LARGE, seed: int = 0, **results):
    test = {"llm": 0.4, "similarity": 0.6, "small_model": 0.63, "fused": 0.7, "student_ms": 12}
    return {
        "commit": "abc",
        "parameters": {
            "data": f"{name}.jsonl.gz", "humans": 0, "order": "queue", "limit": 100, "seed": seed,
        },
        "notes": {"model": model},
        "results": {
            "zero_shot_accuracy": 0.5,
            "prelabel_accuracy": 0.55,
            "fused_accuracy": after,
            "test": test,
            "expected_gain": GAIN,
            "true_gain": 0.03,
            "interval_coverage_100": 0.9,
            "tokens_in": 1000,
            "tokens_out": 10,
            "seconds": 3.0,
            "round_mb": 90.0,
        } | results,
    }  # fmt: skip


def written(folder, reports) -> str:
    (folder / "rounds").mkdir()
    for at, each in enumerate(reports):
        (folder / "rounds" / f"{at}.json").write_text(json.dumps(each))
    (page,) = write_rounds_page(folder)
    return page.read_text()


def goals(page: str) -> dict[str, list[str]]:
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_without_reports_there_is_no_page(tmp_path):
    assert write_rounds_page(tmp_path) == []


def test_a_run_with_cached_answers_tells_no_cost(tmp_path):
    cached = report("trec", 0.6)
    cached["notes"]["has_cached_answers"] = True
    page = written(tmp_path, [report("mr", 0.57), cached])
    costs = {
        line.split(" | ")[0]: line.split(" | ")[-5:-1]
        for line in page.splitlines()
        if line.endswith("`abc` |")
    }
    assert costs == {"| mr": ["1,010", "12", "90", "3"], "| trec": ["–", "12", "90", "–"]}


def test_a_run_without_a_server_is_marked_at_its_commit(tmp_path):
    local = report("trec", 0.6)
    local["notes"]["llm_runs_in"] = "transformers"
    page = written(tmp_path, [report("mr", 0.57), local])
    (marked,) = [line for line in page.splitlines() if line.endswith("`abc` (transformers) |")]
    assert marked.startswith("| trec |")


def test_seeds_of_a_set_are_one_row_and_models_have_a_table_each(tmp_path):
    runs = grouped([report("mr", 0.57), report("mr", 0.61, seed=1), report("mr", 0.5, model=SMALL)])
    large = runs[("qwen2.5-coder-1.5b", 0, "queue")]["mr"]
    assert large.points("fused_accuracy", "prelabel_accuracy") == pytest.approx(4)
    assert large.test_points == pytest.approx(10)
    assert ("smollm2-135m", 0, "queue") in runs
    page = written(tmp_path, [report("mr", 0.57), report("mr", 0.61, seed=1)])
    assert "| mr | 100 | 2 | 0.500 | 0.550 | 0.590 |" in page


def test_goals_are_decided_by_the_average_and_by_the_worst_set(tmp_path):
    reports = [report("mr", 0.65), report("trec", 0.54), report("mr", 0.52, model=SMALL)]
    found = goals(written(tmp_path, reports))
    name = "qwen2.5-coder-1.5b: served labels 2 points above those before, on average"
    assert found[name][0] == "yes"
    assert found[name][1].startswith("+4.5 points over 2 sets; not measured: sst2, ag_news")
    worst = found["qwen2.5-coder-1.5b: on no set more than 0.5 points under those before"]
    assert worst == ["**no**", "least: trec -1.0"]
    assert found["smollm2-135m: on no set more than 1 points under those before"][0] == "**no**"


def test_a_goal_without_a_run_is_not_measured(tmp_path):
    found = goals(written(tmp_path, [report("mr", 0.65)]))
    spans = [row for goal, row in found.items() if "spans of" in goal]
    assert spans == [["not measured", ""]] * 2


def test_intervals_are_counted_over_all_runs(tmp_path):
    reports = [report("mr", 0.6, true_gain=at) for at in (0.01, 0.02, 0.04, 0.06)]
    found = goals(written(tmp_path, [*reports, report("trec", 0.6, true_gain=None)]))
    goal = "the true change is in the stated 90 % interval in 80 % of the runs"
    assert found[goal] == ["**no**", "3 of 4 runs"]


def test_the_largest_round_decides_on_the_disk(tmp_path):
    found = goals(written(tmp_path, [report("mr", 0.6), report("bc5cdr", 0.6, round_mb=151)]))
    assert found["a round leaves at most 150 MB"] == [
        "**no**", "most: bc5cdr qwen2.5-coder-1.5b 151 MB"
    ]  # fmt: skip


def test_labels_that_were_found_and_not_served_are_marked(tmp_path):
    page = written(tmp_path, [report("mr", 0.55, true_gain=-0.01)])
    assert "| +2.0 [0.0, 5.0] | -1.0 (not served) |" in page
