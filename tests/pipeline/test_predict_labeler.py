"""Labeler: what users define reaches the annotator, and spans know their task."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from backend.domain.definitions import Definitions
from backend.domain.labels import Span, WeakLabel
from backend.domain.projects import Project, ProjectId, Task
from backend.domain.questions import TaskSchema
from backend.errors import UnsuitableDefinitions
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import GuidelinesReader
from backend.pipeline.predict import Labeler
from tests.pipeline.conftest import FakeEncoder, FakeSimilarity

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
    config = LabelConfigReader(lambda url: url)

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
