"""The benchmark of prompt templates, over a fake model that has one good template."""

from __future__ import annotations

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from backend.llm.prompts.templates import TEMPLATES
from backend.self_training.similarity import SimilarityAnnotator
from benchmarks.template_selection import figures, measure
from tests.fakes import FakeLanguageModel
from tests.pipeline.annotators import FakeEncoder


@pytest.fixture
def data(tmp_path):
    rows = [{"split": "test", "text": "a test text", "label": "good"}]
    for number in range(60):
        label = "bad" if number % 3 else "good"
        rows.append({"split": "train", "text": f"text {number}, {label} film", "label": label})
    file = tmp_path / "films.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def thinks(prompt: str) -> dict[str, float]:
    """Read the text unless told to choose."""
    if "Choose the" in prompt:
        return {"good": 0.4, "bad": 0.3}
    is_good = "good film" in prompt
    return {"good": 0.4 if is_good else 0.1, "bad": 0.1 if is_good else 0.2}


def test_templates_are_trial_and_the_selection_avoids_the_bad_one(data):
    model = FakeLanguageModel(thinks, n_context_tokens=2048, has_chat=True)
    similarity = SimilarityAnnotator(FakeEncoder())
    trial = measure(model, similarity, data, limit=60, console=Console(file=StringIO()))
    assert "a test text" not in "".join(model.prompts)
    found = figures(trial, 5, np.random.default_rng(0))
    assert list(trial.posteriors) == [name for name in TEMPLATES if name != "plain-hints"]
    assert found["accuracy_raw plain-options"] == 1.0
    assert found["accuracy_raw chat-choose"] < 1.0
    assert found["accuracy_selected human=0"] == found["accuracy_best"] == 1.0
    assert sum(found["selected human=30"].values()) == 5
    assert "chat-choose" not in found["selected human=0"]
