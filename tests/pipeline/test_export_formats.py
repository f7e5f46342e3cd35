"""Files of labels: what stands in them, what spreadsheets must not run, and stops half-way."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.labels import Abstention, AbstentionReason, Span
from backend.domain.projects import Prediction
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.errors import ExportFailed
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.export_formats import (
    ExportRow,
    _cell,
    as_weak_label,
    export_csv,
    export_jsonl,
    export_label_studio,
)
from tests.conftest import SENTIMENT

READER = LabelConfigReader(lambda *_: Abstention(AbstentionReason.REMOTE_TEXT, "none"))
SCHEMA = READER.read_schema(SENTIMENT)
CHOICE = SCHEMA.questions[0]
POSITIVE, NEGATIVE = (label.value for label in CHOICE.labels)
TOPICS = Question(
    "topics",
    (TextField("text", "text"),),
    QuestionKind.MULTIPLE_CHOICE,
    tuple(LabelDefinition(value, value) for value in "abc"),
)
NAMES = Question(
    "names", (TextField("text", "text"),), QuestionKind.SPANS, (LabelDefinition("PER", "PER"),)
)


def row(task_id=1, **changes):
    given = {"data": {"text": "good"}, "question": CHOICE, "labels": (POSITIVE,)}
    known = {"probability": 0.9, "probabilities": (0.9, 0.1)}
    return ExportRow(task_id, **known | given | changes)


def write(weak_labels, task):
    return READER.write_prediction(SCHEMA, weak_labels, "freeal-1")


def test_each_answer_is_a_line_of_json_with_its_source(tmp_path):
    path = tmp_path / "labels.jsonl"
    rows = [
        row(source="human", probability=1.0, annotators=("1", "2")),
        row(2, question=NAMES, labels=(), spans=(Span(0, 3, "PER", 0.7),)),
    ]
    assert export_jsonl(iter(rows), path) == 2
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first == {
        "task_id": 1,
        "question": CHOICE.name,
        "labels": [POSITIVE],
        "spans": None,
        "text": None,
        "source": "human",
        "probability": 1.0,
        "annotators": ["1", "2"],
        "issues": [],
        "data": {"text": "good"},
    }
    assert second["spans"] == [{"start": 0, "end": 3, "label": "PER", "probability": 0.7}]


def test_any_text_comes_back_from_json_lines_as_it_was(tmp_path):
    path = tmp_path / "labels.jsonl"
    text = 'line\nbreak "quote" \u2028 \U0001f600 \x00 \udc80 ="1+1"'
    export_jsonl([row(data={"text": text})], path)
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["data"]["text"] == text


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_has_a_column_for_each_wanted_value(tmp_path):
    path = tmp_path / "labels.csv"
    rows = [
        row(annotators=("llm", "small model")),
        row(2, question=TOPICS, labels=("a", "c"), data={"text": "x", "extra": {"k": 1}}),
        row(3, question=TOPICS, labels=()),
        row(4, question=NAMES, labels=(), spans=()),
    ]
    export_csv(rows, path, data_keys=["text", "extra"])
    one, two, three, four = read_csv(path)
    assert (one["task_id"], one["label"], one["probability"]) == ("1", POSITIVE, "0.9")
    assert (one["annotators"], one["data.text"], one["data.extra"]) == (
        "llm, small model",
        "good",
        "",
    )
    assert (json.loads(two["label"]), json.loads(two["data.extra"])) == (["a", "c"], {"k": 1})
    assert (three["label"], four["label"], four["spans"]) == ("[]", "", "[]")


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1"]
)
def test_no_cell_of_a_csv_is_a_formula(tmp_path, text):
    path = tmp_path / "labels.csv"
    export_csv([row(data={"text": text})], path, data_keys=["text"])
    assert read_csv(path)[0]["data.text"] == f"'{text}"


@pytest.mark.parametrize("text", ["-1", "+2.5", "3", "a=b", "", "e-mail"])
def test_what_is_no_formula_stays_as_it_is(text):
    assert _cell(text) == text


@settings(deadline=None)
@given(st.text())
def test_a_cell_never_begins_like_a_formula_unless_it_is_a_number(text):
    cell = _cell(text)
    assert cell in (text, f"'{text}")
    if str(cell)[:1] in "=@\t\r" and cell:
        pytest.fail(f"{cell!r} begins like a formula")


def test_label_studio_gets_what_people_said_as_annotations_and_the_rest_as_predictions(tmp_path):
    path = tmp_path / "tasks.json"
    rows = [row(source="human"), row(2, labels=(NEGATIVE,), probabilities=(0.2, 0.8))]
    assert export_label_studio(rows, path, write) == 2
    human, machine = json.loads(path.read_text(encoding="utf-8"))
    assert human["data"] == {"text": "good"}
    assert human["meta"] == {"task_id": 1}
    assert human["annotations"][0]["result"][0]["value"] == {"choices": [POSITIVE]}
    assert "predictions" not in human
    (prediction,) = machine["predictions"]
    assert prediction["result"][0]["value"] == {"choices": [NEGATIVE]}
    assert (prediction["score"], prediction["model_version"]) == (pytest.approx(0.8), "freeal-1")
    given = Prediction(2, "freeal-1", tuple(prediction["result"]), prediction["score"])
    assert READER.errors(SENTIMENT, given) == []


def test_the_answers_about_one_task_stand_on_one_task(tmp_path):
    path = tmp_path / "tasks.json"
    rows = [row(), row(question=TOPICS, labels=("a",)), row(2)]
    assert export_label_studio(rows, path, write) == 2


def test_a_task_without_an_answer_is_exported_bare(tmp_path):
    path = tmp_path / "tasks.json"
    assert export_label_studio([row(labels=("gone",), probabilities=())], path, write) == 1
    (task,) = json.loads(path.read_text(encoding="utf-8"))
    assert set(task) == {"data", "meta"}


def test_nothing_to_export_is_a_valid_file(tmp_path):
    assert export_jsonl([], tmp_path / "a") == 0
    export_csv([], tmp_path / "b", data_keys=[])
    assert read_csv(tmp_path / "b") == []
    assert export_label_studio([], tmp_path / "c", write) == 0
    assert (tmp_path / "a").read_text() == ""
    assert read_csv(tmp_path / "b") == []
    assert json.loads((tmp_path / "c").read_text()) == []


def test_predictions_are_written_from_the_stored_posterior():
    label = as_weak_label(row(probability=0.5, probabilities=(0.6, 0.4)))
    assert (label.probabilities, label.confidence) == ((0.6, 0.4), None)
    spans = (Span(0, 3, "PER"),)
    label = as_weak_label(row(question=NAMES, labels=(), spans=spans))
    assert (label.spans, label.probabilities, label.confidence) == (spans, (), 0.9)
    assert as_weak_label(row(labels=(), text="summary", probability=None)).confidence == 1.0
    assert as_weak_label(row(labels=(), probabilities=())) is None


def broken_off():
    yield row()
    raise ZeroDivisionError


def test_a_stop_half_way_leaves_the_former_file_and_nothing_else(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("former")
    with pytest.raises(ZeroDivisionError):
        export_jsonl(broken_off(), path)
    assert path.read_text() == "former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.jsonl"]


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "labels.csv", tmp_path / "file" / "labels.csv"):
        with pytest.raises(ExportFailed, match="check that its folder exists"):
            export_jsonl([row()], path)
