"""What the sample that ships with the project promises to whoever tries it out."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

DEMO = Path(__file__).resolve().parents[2] / "backend/launcher/sample"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (DEMO / "reviews.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_the_sample_has_at_least_300_rows(rows):
    assert len(rows) >= 300


def test_each_class_holds_between_45_and_55_percent_of_the_rows(rows):
    counts = Counter(row["label"] for row in rows)
    assert len(counts) == 2
    for label, count in counts.items():
        assert 0.45 <= count / len(rows) <= 0.55, label


def test_every_row_has_exactly_a_text_and_a_label(rows):
    for row in rows:
        assert set(row) == {"text", "label"}
        assert isinstance(row["text"], str) and row["text"].strip()
        assert isinstance(row["label"], str)


def test_no_two_texts_are_the_same_but_for_case_and_whitespace(rows):
    seen = Counter(" ".join(row["text"].lower().split()) for row in rows)
    assert [text for text, times in seen.items() if times > 1] == []


def test_no_two_texts_share_more_than_60_percent_of_their_words(rows):
    bags = [set(re.findall(r"\w+", row["text"].lower())) for row in rows]
    alike = [
        (rows[i]["text"], rows[j]["text"])
        for (i, one), (j, other) in combinations(enumerate(bags), 2)
        if len(one & other) / len(one | other) > 0.6
    ]
    assert alike == []


def test_every_label_is_a_choice_of_the_label_config(rows):
    config = ElementTree.parse(DEMO / "reviews.xml")  # noqa: S314
    choices = {choice.get("value") for choice in config.iter("Choice")}
    assert {row["label"] for row in rows} <= choices
