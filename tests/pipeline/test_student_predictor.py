"""The small model's voice: whose labels are served is heard, everybody else is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from backend.domain.labels import Example
from backend.domain.projects import Project, ProjectId
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.domain.student import PoolTexts, TrainingSet
from backend.pipeline.pool import Guidelines
from backend.pipeline.predict import StudentPredictor
from backend.pipeline.rounds.context import RoundArtifacts
from tests.fakes import FakeSmallModel

PROJECT = Project(ProjectId("3.1795215594"), "", "", "", "v1", "v1", True)
EXAMPLES = [Example(1, {"t": "good"}), Example(2, {"t": "awful"})]
SERVED = {"labels_from": 2, "model_from": [3, 1], "recipe": "default"}


def guidelines(*values: str) -> Guidelines:
    labels = tuple(LabelDefinition(value, value) for value in values)
    question = Question("q", (TextField("t", "t"),), QuestionKind.SINGLE_CHOICE, labels)
    return Guidelines(TaskSchema((question,)), "")


@dataclass
class Releases:
    """Stores whose releases are made from what a test says."""

    made_from: dict[str, Any] = field(default_factory=lambda: dict(SERVED))

    @property
    def releases(self) -> Releases:
        return self

    def provenance(self, project_id: ProjectId, version: str) -> dict[str, Any]:
        return self.made_from


@pytest.fixture
def speak(tmp_path):
    pool = PoolTexts((1,), ("good",))
    has = np.array([True])
    data = TrainingSet(pool, ("good", "bad"), np.array([[1.0, 0.0]]), has, ~has)
    model, _ = FakeSmallModel().fit(data)
    model.save(RoundArtifacts(tmp_path / PROJECT.id / "3").model(1))

    def votes(releases: Releases, about: Guidelines | None = None):
        student_predictor = StudentPredictor(releases, tmp_path, lambda recipe: FakeSmallModel())
        return student_predictor.weak_labels(PROJECT, about or guidelines("good", "bad"), EXAMPLES)

    return votes


def test_the_model_of_the_served_labels_votes_on_each_text(speak):
    first, second = speak(Releases())
    assert (first.example_id, first.annotator, first.prompt_version) == (
        1,
        "small-model:default",
        "round 3",
    )
    np.testing.assert_allclose(
        [first.probabilities, second.probabilities], [[0.8, 0.2], [0.2, 0.8]]
    )


@pytest.mark.parametrize(
    "made_from",
    [
        {},
        {"model_from": [3, 1], "recipe": "default"},
        {**SERVED, "recipe": "paper"},
        {**SERVED, "model_from": [4, 1]},
    ],
    ids=["no-round", "labels-of-no-round", "as-published", "files-are-gone"],
)
def test_nobody_else_is_heard(speak, made_from):
    assert speak(Releases(made_from)) == []


def test_a_model_of_other_labels_is_not_heard(speak):
    assert speak(Releases(), guidelines("good", "bad", "neither")) == []
