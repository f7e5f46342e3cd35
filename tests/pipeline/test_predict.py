"""Label tasks and answer /predict: stored, else live, else nothing for that task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.domain.chunks import ALL_TASKS
from backend.domain.definitions import Definitions
from backend.domain.labels import AnnotatorKind, Example, Span, WeakLabel
from backend.domain.projects import Project, ProjectId, Task
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.domain.student import PoolTexts, TrainingSet
from backend.errors import EmbeddedModelError, LanguageModelUnavailable, UnsuitableDefinitions
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Guidelines, GuidelinesReader
from backend.pipeline.predict import Labeler, StudentPredictor
from backend.pipeline.rounds.context import artifacts
from backend.pipeline.rounds.students import ClassifierTrainer, StudentTrainers, TaggerTrainer
from tests.fakes import FakeSmallModel, FakeTagger
from tests.pipeline.annotators import FakeEncoder, FakeSimilarity


def tasks(*texts):
    return [Task(100 + i, {"text": text}) for i, text in enumerate(texts)]


def test_a_stored_prediction_costs_no_call(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    house.annotator.asked.clear()
    project = house.projects.get(project_id)
    remote = house.remote(project_id)
    asked = [Task(task_id, data) for task_id, data in remote.tasks.items()]
    answers = house.prediction.predict(project, asked)
    assert [answer.task_id for answer in answers] == [task.id for task in asked]
    assert house.annotator.asked == []


def test_unknown_tasks_are_labelled_live_up_to_the_limit_and_left_to_the_worker(house):
    project = house.projects.get(house.connected(0))
    answers = house.prediction.predict(project, tasks("good", "bad", "good", "bad", "good"))
    assert [answer is not None for answer in answers] == [True, True, True, False, False]
    assert [request[1] for request in house.jobs.job_requests()] == ["prelabel"]
    assert house.labels.progress(project).n_to_label == 2


def test_a_live_label_is_kept(house):
    project = house.projects.get(house.connected(0))
    house.prediction.predict(project, tasks("good"))
    house.annotator.failure = LanguageModelUnavailable("down")
    assert house.prediction.predict(project, tasks("good"))[0] is not None


def test_a_label_of_a_version_that_was_replaced_meanwhile_is_not_returned(house):
    project = house.projects.get(house.connected(0))
    before = replace(project, model_version="freeal-0-20260101-000000")
    assert house.prediction.predict(before, tasks("good")) == [None]
    assert house.prediction.predict(project, tasks("good"))[0] is not None


def test_without_an_llm_the_answer_is_nothing_and_the_worker_is_asked(house):
    project = house.projects.get(house.connected(0))
    house.annotator.failure = LanguageModelUnavailable("down")
    assert house.prediction.predict(project, tasks("good", "bad")) == [None, None]
    assert house.jobs.problems(project.id)[0].source == "llm"


def test_without_an_embedded_model_the_answer_is_nothing_and_the_worker_is_asked(house):
    project = house.projects.get(house.connected(0))
    house.annotator.failure = EmbeddedModelError("not there yet: the worker fetches it")
    assert house.prediction.predict(project, tasks("good", "bad")) == [None, None]
    assert [request[1] for request in house.jobs.job_requests()] == ["prelabel"]
    assert house.jobs.problems(project.id) == []


def test_one_bad_task_leaves_the_others_alone(house):
    project = house.projects.get(house.connected(0))
    answers = house.prediction.predict(project, tasks("good", "", "bad"))
    assert [answer is not None for answer in answers] == [True, False, True]


def test_an_edited_text_gets_a_label_of_its_own_and_the_old_one_goes(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    project, remote = house.projects.get(project_id), house.remote(project_id)
    first = min(remote.tasks)
    house.platform.edit_task(first, {"text": "good after all"})
    (answer,) = house.prediction.predict(project, [Task(first, {"text": "good after all"})])
    assert answer.result[0]["value"] == {"choices": ["Positive"]}
    house.platform.import_predictions(project.platform_id, [answer])  # Label Studio stores it
    house.prelabel(project_id)
    (row,) = (row for row in remote.predictions.values() if row.task_id == first)
    assert row.result == answer.result
    (again,) = house.prediction.predict(project, [Task(first, {"text": "good after all"})])
    assert again.result == answer.result


def test_a_text_that_changes_while_it_is_labelled_keeps_no_label(house):
    project_id = house.connected(2)
    house.synchronizer.sync(project_id)
    project = house.projects.get(project_id)
    task = house.labels.unlabeled(project, ALL_TASKS)[:1]
    labels, predictions = house._labeler.label(project, task)
    edited = [Task(task[0].id, {"text": "good after all"})]
    house.tasks.save_listing(project_id, edited, datetime.now(UTC))
    house.labels.save(project, labels, predictions, tasks=task)
    assert house.labels.weak_labels(project) == []
    assert house.publication.predictions(project, edited) == {}


def test_a_passing_failure_is_not_kept_as_an_abstention(house):
    project = house.projects.get(house.connected(0))
    house.annotator.unreadable = {100}
    assert house.prediction.predict(project, tasks("good")) == [None]
    assert house.labels.progress(project).n_to_label == 1


class Student:
    """Answers for a question by itself, and counts how often."""

    def __init__(self) -> None:
        self.n_asked = 0

    def weak_labels(self, project, guidelines, examples):
        self.n_asked += len(examples)
        name, kind = "small-model:default", AnnotatorKind.STUDENT
        return [
            WeakLabel(e.id, "sentiment", name, "round 1", (0.7, 0.3), annotator_kind=kind)
            for e in examples
        ]


def with_student(house):
    house._labeler = replace(house._labeler, student=Student())
    house.pre_annotator.labeler = house._labeler
    return house


def test_a_student_answers_new_tasks_at_once_and_the_llm_later(house):
    project = house.projects.get(with_student(house).connected(3))
    remote = house.remote(project.id)
    asked = [Task(task_id, data) for task_id, data in remote.tasks.items()]
    answers = house.prediction.predict(project, asked)
    choices = [answer.result[0]["value"]["choices"] for answer in answers]
    assert choices == [["Positive"]] * 3
    assert house.annotator.asked == []
    assert [request[1] for request in house.jobs.job_requests()] == ["prelabel"]
    assert house.labels.progress(project).n_to_label == 3
    house.prelabel(project.id)
    assert sorted(house.annotator.asked) == sorted(remote.tasks)
    assert house.labels.progress(project).n_to_label == 0


def test_a_student_goes_on_while_the_llm_is_down(house):
    project_id = with_student(house).connected(3)
    house.annotator.failure = LanguageModelUnavailable("down")
    house.prelabel(project_id)
    labels = house.labels.weak_labels(house.projects.get(project_id))
    fused = [label for label in labels if label.annotator == "fused"]
    assert [label.source for label in fused] == ["small-model:default"] * 3
    assert len(house.remote(project_id).predictions) == 3
    reasons = {label.abstention.reason for label in labels if label.annotator == "llm"}
    assert {str(reason) for reason in reasons} == {"unreachable"}


NER = (
    '<View><HyperText name="t" value="$t"/><Labels name="ner" toName="t">'
    '<Label value="Person"/></Labels></View>'
)
PROJECT = Project(ProjectId("3.1795215594"), NER, "Mark people.", "NER", "v1", "v1", True)


@dataclass
class SpanAnnotator:
    """Marks the last three characters; keeps what it was told."""

    told: list[tuple[TaskSchema, str]] = field(default_factory=list)

    def annotate(self, schema, instruction, examples, *, prompt_context=None, deadline_s=None):
        self.told.append((schema, instruction))
        return [
            WeakLabel(
                example.id,
                "ner",
                "llm",
                "p1",
                spans=(Span(len(text := example.texts["t"]) - 3, len(text), "Person"),),
            )
            for example in examples
        ]


@pytest.fixture
def labeler(stores):
    config = LabelConfigReader(lambda url, _: url)

    def make(annotator: SpanAnnotator, definitions: Definitions) -> Labeler:
        given = {3: definitions}
        ensemble = AnnotatorEnsemble(annotator, FakeSimilarity(), FakeEncoder(), stores)
        return Labeler(
            ensemble, GuidelinesReader(config, stores, given.__getitem__), config, stores
        )

    return make


def test_definitions_and_instruction_reach_the_annotator(labeler):
    annotator = SpanAnnotator()
    definitions = Definitions({"ner": {"Person": "a human being"}}, "Whole names only.")
    labeler(annotator, definitions).label(PROJECT, [Task(1, {"t": "Ann"})])
    ((schema, instruction),) = annotator.told
    assert schema.questions[0].labels[0].hint == "a human being"
    assert instruction == "Mark people.\n\nWhole names only."


def test_each_prediction_is_written_with_its_own_task(labeler):
    tasks = [Task(1, {"t": "<p>I met Ann</p>"}), Task(2, {"t": "<b>Bob</b>"})]
    _, predictions = labeler(SpanAnnotator(), Definitions()).label(PROJECT, tasks)
    found = [prediction.result[0]["value"] for prediction in predictions]
    assert [value["text"] for value in found] == ["Ann", "Bob"]
    assert [value["globalOffsets"]["start"] for value in found] == [6, 0]


def test_definitions_that_do_not_fit_are_refused(labeler):
    with pytest.raises(UnsuitableDefinitions, match="'Place'"):
        labeler(SpanAnnotator(), Definitions({"ner": {"Place": "x"}})).label(PROJECT, [])


SERVED_PROJECT = Project(ProjectId("3.1795215594"), "", "", "", "v1", "v1", True)
EXAMPLES = [Example(1, {"t": "good"}), Example(2, {"t": "awful"})]
SERVED = {"labels_from": 2, "model_from": [3, 1], "recipe": "default"}


def guidelines_of(*values: str) -> Guidelines:
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
        return {"learned": {"q": self.made_from}}


def save_student(folder: Path, project_id: ProjectId) -> None:
    pool = PoolTexts((1,), ("good",))
    has = np.array([True])
    data = TrainingSet(pool, ("good", "bad"), np.array([[1.0, 0.0]]), has, ~has)
    model, _ = FakeSmallModel().fit(data)
    question = guidelines_of("good", "bad").schema.questions[0]
    model.save(artifacts(folder / project_id / "3", question).model(1))


def trainers_of(make: Callable[[], FakeSmallModel] = FakeSmallModel) -> StudentTrainers:
    return StudentTrainers(
        ClassifierTrainer(lambda recipe: make()),
        TaggerTrainer(lambda recipe: FakeTagger(), FakeEncoder()),
    )


@pytest.fixture
def labels_of(tmp_path):
    save_student(tmp_path, SERVED_PROJECT.id)

    def votes(releases: Releases, about: Guidelines | None = None):
        student_predictor = StudentPredictor(releases, tmp_path, trainers_of())
        return student_predictor.weak_labels(
            SERVED_PROJECT, about or guidelines_of("good", "bad"), EXAMPLES
        )

    return votes


@pytest.mark.parametrize(("n_projects", "n_loaded"), [(4, 4), (5, 10)])
def test_the_four_students_used_last_stay_loaded(tmp_path, n_projects, n_loaded):
    made: list[FakeSmallModel] = []

    def make() -> FakeSmallModel:
        made.append(FakeSmallModel())
        return made[-1]

    projects = [
        replace(SERVED_PROJECT, id=ProjectId(f"{at}.1795215594")) for at in range(n_projects)
    ]
    for project in projects:
        save_student(tmp_path, project.id)
    predictor = StudentPredictor(Releases(), tmp_path, trainers_of(make))
    for project in projects * 2:
        assert len(predictor.weak_labels(project, guidelines_of("good", "bad"), EXAMPLES)) == 2
    assert len(made) == n_loaded


def test_the_student_of_the_served_labels_labels_each_text(labels_of):
    first, second = labels_of(Releases())
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
def test_no_other_student_labels_texts(labels_of, made_from):
    assert labels_of(Releases(made_from)) == []


def test_a_student_of_other_labels_labels_no_texts(labels_of):
    assert labels_of(Releases(), guidelines_of("good", "bad", "neither")) == []
