"""Demonstrations of a project's own texts: people's labels first, then the surest, all labels."""

from __future__ import annotations

from collections import Counter

import numpy as np

from backend.domain.labels import Example
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.llm.prompts.few_shot import (
    demonstration_from_json,
    demonstration_to_json,
    make_demonstrations,
)

LABELS = ("a", "b", "c")
QUESTION = Question(
    "q",
    (TextField("text", "text"),),
    QuestionKind.SINGLE_CHOICE,
    tuple(LabelDefinition(name, name) for name in LABELS),
)
TRUTH = np.arange(60) % 3
EXAMPLES = [Example(n, {"text": f"text {n}"}) for n in range(60)]
NOBODY = np.full(60, -1)


def log_posteriors() -> np.ndarray:
    confidence = np.linspace(0.5, 0.98, 60)
    posterior = np.tile(((1 - confidence) / 2)[:, None], 3)
    posterior[np.arange(60), TRUTH] = confidence
    return np.log(posterior)


def make(human=NOBODY, n_shots=6, rows=None):
    rows = [log_posteriors()] if rows is None else rows
    return make_demonstrations(QUESTION, EXAMPLES, rows, human, n_shots=n_shots, seed=0)


def test_every_label_has_its_share():
    labels = Counter(one.answer.labels[0] for one in make())
    assert labels == {"a": 2, "b": 2, "c": 2}
    assert len(make(n_shots=1)) == 3


def test_the_surest_texts_are_shown_with_the_label_that_they_have():
    for one in make():
        assert one.answer.labels == (LABELS[TRUTH[one.example_id]],)
        assert one.example_id >= 45
        assert one.source == "weak"


def test_peoples_labels_come_first_and_overrule():
    human = NOBODY.copy()
    human[[0, 1]] = 2
    shown = {one.example_id: one for one in make(human)}
    assert shown[0].answer.labels == shown[1].answer.labels == ("c",)
    assert shown[0].source == "human"


def test_an_annotator_that_abstained_does_not_count():
    silent = np.full((60, 3), np.nan)
    assert make(rows=[log_posteriors(), silent]) == make()


def test_a_label_without_any_text_has_no_demonstration():
    never = log_posteriors()
    never[:, 2] = -20.0
    assert {one.answer.labels[0] for one in make(rows=[never])} == {"a", "b"}


def test_demonstrations_survive_their_json():
    for one in make():
        assert demonstration_from_json(demonstration_to_json(one)) == one
