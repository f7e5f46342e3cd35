"""An export holds what people said, what models think of the rest, and the champion model."""

from __future__ import annotations

import csv
import json

import pytest

from tests.pipeline.conftest import House
from tests.pipeline.people import N_TEXTS, people_answer


@pytest.fixture
def house(stores, tmp_path) -> House:
    house = House(stores, folder=tmp_path / "models", orders_queue=True)
    house.similarity.is_silent = False
    return house


def test_everything_is_written_with_its_source(house, tmp_path):
    project_id = house.labeled(N_TEXTS)
    answered = people_answer(house, project_id, 12)
    house.round(project_id)
    exported = house.exporter.export(house.projects.get(project_id), tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/labels.jsonl").read_text().splitlines()]
    assert len(rows) == exported.n_rows == N_TEXTS
    assert [row["task_id"] for row in rows if row["source"] == "human"] == answered
    assert all("similarity:fake" in row["annotators"] for row in rows if row["source"] != "human")
    with (tmp_path / "out/labels.csv").open() as file:
        assert len(list(csv.DictReader(file))) == N_TEXTS
    tasks = json.loads((tmp_path / "out/label_studio.json").read_text())
    assert sum("annotations" in task for task in tasks) == 12
    assert (exported.model / "fake.json").exists()
    card = (exported.model / "README.md").read_text()
    assert "`sentiment`" in card
    assert f"{N_TEXTS} texts: " in card
    assert "## In its project" in card


def test_before_the_first_round_there_is_no_model(house, tmp_path):
    project_id = house.labeled(N_TEXTS)
    exported = house.exporter.export(house.projects.get(project_id), tmp_path / "out")
    assert (exported.n_rows, exported.model) == (N_TEXTS, None)
