"""A saved model says what it is, and can be taken along."""

from __future__ import annotations

import numpy as np
import pytest

from backend.core.small_model import SmallModelOutput, SmallModelPrediction, TrainingReport
from backend.errors import InvalidRequest
from backend.slm.card import Provenance, export_model, model_card
from tests.slm.conftest import training_set


def test_a_card_tells_counts_and_labels_and_no_text():
    data = training_set(("secret one", "secret two", "secret three"), np.array([0, 1, 1]))
    data.is_human[0] = True
    data.has_label[2] = False
    nothing = np.zeros((3, 2))
    output = SmallModelOutput(
        SmallModelPrediction(nothing, nothing.astype(np.float32)),
        nothing,
        np.zeros(3),
        nothing,
        np.zeros(3, dtype=np.int64),
        TrainingReport("default", {"final": 1.5}, {"held_out_agreement": 0.9}),
    )
    card = model_card(data, output, Provenance("tiny", "topic", 2, "2026-01-01"))
    assert card["Data"] == ("3 texts: 1 labelled by people, 1 by an annotator, 1 without a label.")
    assert "- 1: label 1" in card["Labels"]
    assert "held_out_agreement: 0.9" in card["Figures"]
    assert "secret" not in "".join(card.values())


def test_an_export_is_a_copy_and_never_overwrites(tmp_path):
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    export_model(source, tmp_path / "out/taken")
    assert (tmp_path / "out/taken/config.json").read_text() == "{}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["taken"]
    with pytest.raises(InvalidRequest, match="there already"):
        export_model(source, tmp_path / "out/taken")


def test_there_is_nothing_to_export_before_a_round(tmp_path):
    with pytest.raises(InvalidRequest, match="run a round first"):
        export_model(tmp_path / "none", tmp_path / "out")
