"""A saved model says what it is."""

from __future__ import annotations

import numpy as np

from backend.domain.student import StudentOutput, StudentPrediction, TrainingReport
from backend.pipeline.rounds.train import model_card, round_section
from tests.self_training.conftest import training_set


def test_a_card_tells_counts_and_labels_and_no_text():
    data = training_set(("secret one", "secret two", "secret three"), np.array([0, 1, 1]))
    data.is_human[0] = True
    data.has_label[2] = False
    nothing = np.zeros((3, 2))
    output = StudentOutput(
        StudentPrediction(nothing, nothing.astype(np.float32)),
        nothing,
        np.zeros(3),
        nothing,
        np.zeros(3, dtype=np.int64),
        TrainingReport("default", {"final": 1.5}, {"held_out_agreement": 0.9}, base="tiny"),
    )
    card = model_card(data, output, question="topic", n_round=2)
    assert card["Data"] == ("3 texts: 1 labelled by people, 1 by an annotator, 1 without a label.")
    assert "- 1: label 1" in card["Labels"]
    assert "`topic`, fine-tuned from `tiny`" in card["What it is"]
    assert "held_out_agreement: 0.9" in card["Figures"]
    assert "secret" not in "".join(card.values())


def test_a_round_s_section_tells_what_it_measured():
    found = {"value": 0.8, "low": 0.71, "high": 0.87}
    section = round_section({"accuracies": {"fused": found}, "gate": {"reason": "promoted: why"}})
    assert "- fused: 0.800 right, 95 % interval 0.710 to 0.870" in section
    assert "- promoted: why" in section
    assert "Nothing was measured." in round_section({})
