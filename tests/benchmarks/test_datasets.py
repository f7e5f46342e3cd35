"""Data sets as tasks with gold labels, for every kind of question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.domain.labels import Span
from backend.domain.questions import QuestionKind
from benchmarks.datasets import load, row_in_split, spans_of


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(number: int, split: str, **values: object) -> dict[str, object]:
    return {"split": split, "i": number, "text": f"text {number}", **values}


def test_classes_keep_their_order_and_are_indices(tmp_path):
    rows = [row(n, "test", label="b c" if n % 2 else "a") for n in range(6)]
    data = load(write(tmp_path, rows), limit=None, n_train=5, seed=0)
    assert (data.kind, data.labels, data.split) == (
        QuestionKind.SINGLE_CHOICE,
        ("a", "b c"),
        "test",
    )
    assert [each.gold for each in data.evaluated] == [0, 1, 0, 1, 0, 1]
    assert data.evaluated[0].task.data == {"text": "text 0"}
    assert 'choice="single"' in data.label_config


def test_several_labels_are_a_set(tmp_path):
    rows = [row(1, "test", labels=["x", "y"]), row(2, "test", labels=[])]
    data = load(write(tmp_path, rows), limit=None, n_train=5, seed=0)
    assert data.kind is QuestionKind.MULTIPLE_CHOICE
    assert [each.gold for each in data.evaluated] == [frozenset({0, 1}), frozenset()]


def test_a_pair_has_two_texts(tmp_path):
    rows = [{"split": "dev", "i": 1, "text_a": "one", "text_b": "two", "label": "same"}]
    data = load(write(tmp_path, rows), limit=None, n_train=5, seed=0)
    assert data.evaluated[0].task.data == {"text_a": "one", "text_b": "two"}
    assert data.label_config.count("<Text ") == 2
    assert data.split == "dev"


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        (["O", "B-LOC", "I-LOC", "O"], [Span(3, 11, "LOC")]),
        (["B-LOC", "B-LOC", "O", "O"], [Span(0, 2, "LOC"), Span(3, 6, "LOC")]),
        (
            ["I-LOC", "O", "I-PER", "I-LOC"],
            [Span(0, 2, "LOC"), Span(7, 11, "PER"), Span(12, 16, "LOC")],
        ),
        (["O", "O", "O", "O"], []),
    ],
)
def test_tags_become_spans_of_the_text(tags, spans):
    text, found = spans_of(["in", "New", "York", "City"], tags)
    assert text == "in New York City"
    assert list(found) == spans
    assert all(text[span.start : span.end].strip() for span in found)


def test_the_same_seed_draws_the_same_rows_and_no_text_twice(tmp_path):
    rows = [row(n, "test", label="a") for n in range(50)]
    rows += [row(n, "train", label="b") for n in range(25, 75)]
    path = write(tmp_path, rows)
    first, again = (load(path, limit=30, n_train=20, seed=3) for _ in range(2))
    assert first == again
    assert len(first.evaluated) == 30
    texts = {each.task.data["text"] for each in first.evaluated}
    assert not texts & {each.task.data["text"] for each in first.train}
    assert len({each.task.id for each in (*first.evaluated, *first.train)}) == 50


def test_a_drawn_training_row_is_known_by_its_row_in_the_split(tmp_path):
    rows = [row(0, "test", label="a"), *(row(n, "train", label="a") for n in range(1, 9))]
    data = load(write(tmp_path, rows), limit=None, n_train=3, seed=0)
    assert [f"text {row_in_split(each) + 1}" for each in data.train] == [
        each.task.data["text"] for each in data.train
    ]
