"""A database and a models folder that an earlier version wrote are served and continued.

`data/75b660b` was written by the code of that commit: `reviews` has a finished round and a draft,
`topics` has several labels per text, `published` has a round that was stopped half way.
`expected.json` is what that code read from it, `label_studio.json` what Label Studio held.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backend.domain.labels import AnnotatorKind, HumanLabel
from backend.domain.projects import Prediction
from backend.domain.rounds import RoundState
from backend.store import Database, Stores
from tests.fakes import FakePlatform
from tests.pipeline.conftest import House

DATA = Path(__file__).with_name("data") / "75b660b"
EXPECTED = json.loads((DATA / "expected.json").read_text())
PARTS = sorted(EXPECTED)
OLD_WORDS = re.compile(
    r"\"(trust|voters|sharpness|forms?|signal|middle|centre)\"|^(jury|early-votes|unasked)$"
    r"|^(is_audit|suspicion)$|audit slice|pulled to"
)
"""Names of stored things that have another name now."""
REASONS = {"the audit slice": "the random holdout", "pulled to": "pinned to"}


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    database = Database(database_url)
    if not database_url.startswith("sqlite"):
        database.migrate(revision="0005")
        copy_rows(f"sqlite:///{tmp_path / 'freeal.db'}", database)
    database.migrate()
    yield database
    database.close()


def copy_rows(source_url: str, database: Database) -> None:
    """Insert all rows of an SQLite database into the same tables of another one."""
    source, tables = sa.create_engine(source_url), sa.MetaData()
    with source.connect() as reader, database.write() as writer:
        tables.reflect(writer)
        for table in tables.sorted_tables:
            rows = reader.execute(sa.select(table)).mappings().all()
            if rows and table.name != "freeal_version":
                writer.execute(sa.insert(table), [dict(row) for row in rows])
    source.dispose()


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    house = House(
        Stores(database),
        platform=label_studio(),
        folder=tmp_path / "models",
        orders_queue=True,
        chunk=12,
    )
    house.similarity.is_silent = False
    return house


def label_studio() -> FakePlatform:
    """Return the Label Studio that the old code worked with, as it was in the end."""
    platform = FakePlatform()
    for number, held in json.loads((DATA / "label_studio.json").read_text()).items():
        platform._last_id = int(number) - 1
        platform.create_project(
            held["label_config"], title=held["title"], instruction=held["instruction"]
        )
        platform.change_project(
            int(number), model_version=held["model_version"], sampling=held["sampling"]
        )
        project = platform.projects[int(number)]
        project.tasks = {int(task_id): data for task_id, data in held["tasks"].items()}
        project.annotations = {
            row["annotation_id"]: HumanLabel(
                **row
                | {
                    "result": tuple(row["result"]),
                    "updated_at": datetime.fromisoformat(row["updated_at"]),
                }
            )
            for row in held["annotations"]
        }
        platform._last_id = max([*project.tasks, *project.annotations])
        for row in held["predictions"]:
            prediction = Prediction(**row | {"result": tuple(row["result"])})
            project.predictions[platform._new_id()] = prediction
    platform._last_id += 1_000
    return platform


def status_of(house: House, part: str) -> dict[str, Any]:
    return house.reporter.project(house.projects.get(EXPECTED[part]["project_id"]))


def by_question(status: dict[str, Any], question: str) -> dict[str, Any]:
    """Return a status as it is shown since rounds learn every question."""
    rounds = [
        made | {"metrics": {"questions": {question: made["metrics"]}} if made["metrics"] else {}}
        for made in status["rounds"]
    ]
    return status | {"rounds": rounds, "advice": {question: status["advice"]}}


def in_present_words(reason: str) -> str:
    for old, new in REASONS.items():
        reason = reason.replace(old, new)
    return reason


@pytest.mark.parametrize("part", PARTS)
def test_every_task_keeps_its_prediction_and_its_score(house, part):
    expected = EXPECTED[part]
    project = house.projects.get(expected["project_id"])
    assert project.model_version == expected["model_version"]
    tasks = house.tasks.get(project.id, house.tasks.ids(project.id))
    served = house.publication.predictions(project, tasks)
    assert {
        str(task_id): {"result": list(row.result), "score": row.score}
        for task_id, row in served.items()
    } == expected["predictions"]


@pytest.mark.parametrize("part", PARTS)
def test_weak_labels_and_the_queue_are_read_as_they_were(house, part):
    expected = EXPECTED[part]
    project = house.projects.get(expected["project_id"])
    labels = house.labels.weak_labels(project)
    assert sorted([v.example_id, v.annotator, list(v.probabilities)] for v in labels) == [
        [task_id, annotator, probabilities]
        for task_id, annotator, _, probabilities in expected["votes"]
    ]
    assert [
        [place.task_id, place.position, place.reason, place.is_holdout]
        for place in house.releases.places(project)
    ] == [
        [task_id, position, in_present_words(reason), is_holdout]
        for task_id, position, reason, is_holdout in expected["places"]
    ]


def test_annotators_have_their_kind_and_aggregated_labels_their_source(house):
    expected = EXPECTED["reviews"]
    labels = house.labels.weak_labels(house.projects.get(expected["project_id"]))
    assert {label.annotator: label.annotator_kind for label in labels} == {
        "fake": AnnotatorKind.LLM,
        "llm": AnnotatorKind.LLM,
        "fake+shots": AnnotatorKind.LLM_DEMONSTRATIONS,
        "similarity:fake": AnnotatorKind.SIMILARITY,
        "small-model:default": AnnotatorKind.STUDENT,
        "fused": AnnotatorKind.AGGREGATED,
    }
    sources = {(v[0], v[1]): v[2] if v[1] == "fused" else "" for v in expected["votes"]}
    assert {(v.example_id, v.annotator): v.source for v in labels} == sources


NEW = (
    *("disconnected_why", "disconnection", "n_without_label", "unreadable_answers"),
    *("labeled_by", "llm_now", "relabeling", "relabeling_words", "certificate", "acceptance"),
    *("holdout", "labels"),
)


@pytest.mark.parametrize("part", PARTS)
def test_the_status_shows_what_it_showed(house, part):
    shown = json.loads(json.dumps(status_of(house, part), default=str))
    assert all("template plain-" in how for how in shown.pop("prompts").values())  # new since
    (question,) = shown.pop("questions")
    for made in shown["rounds"]:
        assert isinstance(made.pop("llm_usage"), dict)  # new since
    assert set(NEW) <= set(shown)
    shown = {name: value for name, value in shown.items() if name not in NEW}
    expected = EXPECTED[part]["status"] | {"labels_per_s": shown["labels_per_s"]}
    for tokens in ("n_tokens_in", "n_tokens_out"):  # those of rounds and samples count since
        assert shown[tokens] >= expected[tokens]
        expected[tokens] = shown[tokens]
    expected = by_question(expected, question)
    for status in (shown, expected):  # advice on labels is by the queue since, no more by rounds
        for name in ("labels", "are_labels_paying", "figures"):
            status["advice"][question].pop(name)
    assert shown == expected


@pytest.mark.parametrize("part", PARTS)
def test_the_label_model_that_was_fitted_still_answers(house, part):
    project = house.projects.get(EXPECTED[part]["project_id"])
    fitted = house.ensemble.state(project).label_model.values()
    # one of several labels per text is fitted anew: its parameters mean something else now
    n_human = {"reviews": [24], "topics": []}.get(part, [0])
    assert [each["n_human"] for each in fitted] == n_human
    house.aggregator.aggregate(project)
    assert len(house.ensemble.state(project).label_model) == 1


def test_no_name_is_stored_that_has_another_one_now(database):
    with database.read() as connection:
        found = set()
        for table in sa.inspect(connection).get_table_names():
            rows = connection.execute(sa.text(f"SELECT * FROM {table}"))  # noqa: S608
            for text in (*rows.keys(), *(str(value) for row in rows for value in row)):
                found |= {(table, match[0]) for match in OLD_WORDS.finditer(text)}
    assert found == set()


def test_later_tasks_another_round_and_an_export_follow(house, tmp_path):
    project_id = EXPECTED["reviews"]["project_id"]
    platform_id = house.projects.get(project_id).platform_id
    house.platform.import_tasks(platform_id, [{"text": "good once more"}, {"text": "bad again"}])
    house.projects.forget_full_sync(project_id)
    house.round(project_id)
    first, second = house.rounds.history(project_id)
    assert (first.state, second.state) == (RoundState.RELEASED, RoundState.RELEASED)
    exported = house.exporter.export(house.projects.get(project_id), tmp_path / "out")
    assert exported.n_rows == 37
    assert exported.model is not None
    assert status_of(house, "reviews")["n_rounds"] == 2


def test_a_round_that_was_stopped_half_way_goes_on(house):
    project_id = EXPECTED["published"]["project_id"]
    house.round(project_id, is_asked=False)
    (found,) = house.rounds.history(project_id)
    assert found.state in (RoundState.RELEASED, RoundState.REFUSED)
    assert len(house.student.fits) == 1  # the first training is kept from before
