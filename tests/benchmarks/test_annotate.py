"""The annotators' benchmark against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from benchmarks import label_aggregation
from benchmarks.__main__ import app
from benchmarks.annotate_page import annotate_page
from tests.llm_server import ScriptedLlmServer


@pytest.fixture
def server() -> Iterator[ScriptedLlmServer]:
    server = ScriptedLlmServer()
    yield server
    server.close()


def test_every_figure_of_a_classification_is_measured(server, tmp_path, monkeypatch):
    data, report = tmp_path / "reviews.jsonl", tmp_path / "report.json"
    rows = [
        {"split": split, "i": n, "text": f"{split} {n}", "label": ("bad", "good")[n % 2]}
        for split in ("train", "test")
        for n in range(30)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setenv("LLM_BASE_URL", server.url)
    monkeypatch.setattr(label_aggregation, "N_DRAWS", 1)
    command = ["annotate", "--data", str(data), "--limit", "24", "--json", str(report)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    results = json.loads(report.read_text(encoding="utf-8"))["results"]
    assert 0 <= results["accuracy_raw"] <= 1
    for name in ("accuracy_embedding", "accuracy_combined", "accuracy_calibrated"):
        assert 0 <= results[name] <= 1
    assert 0 <= results["ece_raw"] <= 1
    assert 0 <= results["ece_calibrated"] <= 1
    assert (results["n_abstentions"], results["n_invalid"]) == (0, 0)
    assert min(results["labels_per_s"], results["sequential_labels_per_s"]) > 0
    assert results["ratio"] > 0
    assert results["tokens_out"] == 24
    written = json.loads(report.read_text(encoding="utf-8"))
    page = annotate_page([written])
    assert f"| reviews | {written['notes']['model']} | 24 |" in page
    assert results["accuracy_picked"] - results["accuracy_best_template"] == pytest.approx(
        results["picked_over_best"], abs=1e-3
    )
    assert written["notes"]["selection"]["chosen"] == written["notes"]["form"]


def reported(server, tmp_path, monkeypatch, rows, *options):
    """Run the benchmark on 30 training and 30 test rows; return its report."""
    data, report = tmp_path / "things.jsonl", tmp_path / "report.json"
    every = [
        {"split": split, "i": n, **rows(split, n)} for split in ("train", "test") for n in range(30)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in every), encoding="utf-8")
    monkeypatch.setenv("LLM_BASE_URL", server.url)
    monkeypatch.setattr(label_aggregation, "N_DRAWS", 1)
    command = ["annotate", "--data", str(data), "--limit", "12", "--json", str(report), *options]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(report.read_text(encoding="utf-8"))


def test_several_labels_are_aggregated_with_and_without_human_labels(server, tmp_path, monkeypatch):
    def rows(split, n):
        return {"text": f"{split} {n}", "labels": ["red", "round", "big"][: 1 + n % 3]}

    report = reported(server, tmp_path, monkeypatch, rows)
    for name in ("accuracy_raw", "accuracy_embedding", "accuracy_combined"):
        assert 0 <= report["results"][name] <= 1
    assert 0 <= report["notes"]["accuracy_combined_20"] <= 1
    assert report["notes"]["labels_per_text"] == pytest.approx(2, abs=0.5)
    assert 0 <= report["notes"]["labels_per_text_combined"] <= 2.2  # its answers tell nothing
    assert report["results"]["tokens_out"] == 12 * 3


def test_demonstrations_are_for_spans_alone(server, tmp_path, monkeypatch):
    def rows(split, n):
        return {"text": f"{split} {n}", "label": ("red", "round")[n % 2]}

    with pytest.raises(ValueError, match="--shots is for spans"):
        reported(server, tmp_path, monkeypatch, rows, "--shots", "2")


def test_spans_are_asked_even_of_a_small_context(server, tmp_path, monkeypatch):
    def rows(split, n):
        return {"tokens": [split, f"Ann{n}"], "tags": ["O", "B-person"]}

    report = reported(server, tmp_path, monkeypatch, rows)
    assert report["results"]["accuracy_raw"] == 0  # the scripted server writes no list
    assert report["results"]["n_abstentions"] == 12
    assert report["results"]["labels_per_s"] > 0


def test_training_texts_with_their_spans_are_shown(server, tmp_path, monkeypatch):
    def rows(split, n):
        return {"tokens": [split, f"Ann{n}"], "tags": ["O", "B-person"]}

    server.n_context_tokens = 2000
    report = reported(server, tmp_path, monkeypatch, rows, "--shots", "2")
    assert (report["notes"]["n_shots"], report["notes"]["precision"]) == (2, 0.0)
    evaluated = [
        prompt for prompts in server.lists() for prompt in prompts if "test Ann1" in prompt
    ]
    assert all(prompt.count('"train Ann') == 2 for prompt in evaluated)
    assert all(prompt.count('{"person":["Ann') == 2 for prompt in evaluated)


def test_pairs_are_measured(server, tmp_path, monkeypatch):
    def rows(split, n):
        return {"text_a": f"{split} {n}", "text_b": f"{n}", "label": ("no", "yes")[n % 2]}

    report = reported(server, tmp_path, monkeypatch, rows)
    assert report["notes"]["accuracy_combined_20"] >= 0


def test_when_the_llm_was_not_asked_the_reason_is_told(server, tmp_path, monkeypatch):
    server.n_context_tokens = 40

    def rows(split, n):
        return {"tokens": [split, f"Ann{n}"], "tags": ["O", "B-person"]}

    with pytest.raises(RuntimeError, match="not asked about any text: the prompt alone fills"):
        reported(server, tmp_path, monkeypatch, rows)


def measured(name, *, shots=0, **figures):
    results = {"labels_per_s": 60.0, "sequential_labels_per_s": 10.0, "n_invalid": 0} | figures
    return {
        "parameters": {"data": f"{name}.jsonl.gz", "shots": shots},
        "results": results,
        "notes": {"n_texts": 500, "model": "tiny", "accuracy_combined_20": 0.84},
        "machine": {"cores": 2, "processor": "cpu"},
    }


def test_the_page_says_by_model_which_goals_are_missed_and_where():
    alone = {"accuracy_raw": 0.7, "accuracy_embedding": 0.8, "accuracy_calibrated": 0.76}
    first = measured("mr", ratio=1.0, accuracy_combined=0.795, picked_over_best=-0.02, **alone)
    second = measured("trec", ratio=0.9, accuracy_combined=0.75, picked_over_best=0.01, **alone)
    large = measured("trec", ratio=1.0, accuracy_combined=0.9, picked_over_best=-0.05, **alone)
    large["notes"]["model"] = "large"
    page = annotate_page([first, second, large])
    assert "| goal | large | tiny |" in page
    assert "own rate at least .95 | yes: +1.000 | **no**: trec +0.900 |" in page
    assert "best template on average | **no**: -0.050 over 1 | yes: -0.005 over 2 |" in page
    assert "under the better annotator | yes: +0.100 | **no**: trec -0.050 |" in page
    assert "| trec | large | 500 |" in page


def test_demonstrations_are_compared_with_zero_shot_and_spans_by_their_own_limits():
    shown = {"accuracy_with_demonstrations": 0.82, "accuracy_zero_shot": 0.85}
    spans = measured("bc5cdr", accuracy_raw=0.55, n_abstentions=20)
    spans["notes"]["precision"] = 0.5
    page = annotate_page([measured("mr", **shown), spans])
    assert "over .01 under zero-shot | **no**: mr -0.030 |" in page
    assert "| bc5cdr: F1 at least .50 | yes: +0.550 |" in page
    assert "| wnut17: F1 at least .20 | – |" in page
    assert "abstentions under 2 % | **no**: bc5cdr +0.040 |" in page


def test_several_labels_meet_goals_without_the_figures_that_they_do_not_have():
    figures = {"accuracy_raw": 0.2, "accuracy_embedding": 0.43, "accuracy_combined": 0.4}
    page = annotate_page([measured("intents", **figures)])
    assert "under the better annotator | **no**: intents -0.030 |" in page
    assert "with 20 labels .05 above on average | yes: +0.410 over 1 |" in page
