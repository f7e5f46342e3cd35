"""Projects, their versions and their measured state."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.store import StateStore
from backend.store import tables as t
from tests.conftest import SENTIMENT, TOPIC

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ONE, TWO = ProjectId("1.1795215594"), ProjectId("2.1795215595")


def test_saving_the_same_config_again_keeps_the_version(projects):
    first, is_new = projects.save(ONE, label_config=SENTIMENT)
    again, is_new_again = projects.save(ONE, label_config=SENTIMENT, title="Reviews")
    assert (is_new, is_new_again) == (True, False)
    assert again.model_version == first.model_version
    assert again.title == "Reviews"


def test_another_config_or_instruction_starts_another_version(projects):
    first, _ = projects.save(ONE, label_config=SENTIMENT)
    second, is_new = projects.save(ONE, label_config=TOPIC)
    third, is_new_again = projects.save(ONE, label_config=TOPIC, instruction="Judge the topic.")
    assert is_new and is_new_again
    names = [first.model_version, second.model_version, third.model_version]
    assert projects.versions(ONE) == names[::-1]
    assert projects.superseded_versions(ONE) == names[:2]


def test_none_leaves_title_and_instruction_as_they_are(projects):
    projects.save(ONE, label_config=SENTIMENT, title="Reviews", instruction="Be fair.")
    again, is_new = projects.save(ONE, label_config=SENTIMENT)
    assert (again.title, again.instruction, is_new) == ("Reviews", "Be fair.", False)


def test_projects_never_see_each_other(projects, jobs):
    projects.save(ONE, label_config=SENTIMENT)
    projects.save(TWO, label_config=TOPIC)
    jobs.note_problem(ONE, "llm", "down")
    assert projects.get(TWO).label_config == TOPIC
    assert projects.versions(ONE) == [projects.get(ONE).model_version]
    assert jobs.problems(TWO) == []


def test_a_number_that_label_studio_uses_again_is_another_project(projects):
    projects.save(ONE, label_config=SENTIMENT)
    newer, _ = projects.save(ProjectId("1.1900000000"), label_config=TOPIC)
    assert projects.get(ONE).label_config == SENTIMENT
    assert projects.find(1) == newer
    assert projects.find(7) is None


def test_state_is_kept_by_project_and_name(database):
    store = StateStore(database)
    assert store.get(ONE, "label_model") is None
    store.put(ONE, "label_model", {"llm": 0.8})
    store.put(ONE, "label_model", {"llm": 0.7, "similarity": [1, 2]})
    store.put(ONE, "templates", None)
    assert StateStore(database).get(ONE, "label_model") == {"llm": 0.7, "similarity": [1, 2]}
    assert store.get(ONE, "templates") is None
    assert store.get(ProjectId("9.9"), "label_model") is None


def test_a_value_that_was_replaced_meanwhile_is_not_dropped(database):
    store = StateStore(database)
    old, new = {"why": "old", "at": [1, 0.5]}, {"why": "new", "at": [1, 0.5]}
    store.put(ONE, "outdated", new)
    store.drop(ONE, "outdated", old)
    assert store.get(ONE, "outdated") == new
    store.drop(ONE, "outdated", new)
    assert store.get(ONE, "outdated") is None


@pytest.mark.parametrize("old", [None, {"state": "asked", "share": 0.1}], ids=["none", "one"])
def test_of_many_who_replace_the_same_value_one_is_first(database, old):
    store = StateStore(database)
    if old is not None:
        store.put(ONE, "asked", old)
    read = store.get(ONE, "asked")
    with ThreadPoolExecutor(8) as threads:
        swapped = list(threads.map(lambda n: store.swap(ONE, "asked", read, {"by": n}), range(8)))
    assert swapped.count(True) == 1
    assert store.get(ONE, "asked") == {"by": swapped.index(True)}
    assert not store.swap(ONE, "asked", read, {"by": 9})
    assert store.swap(ONE, "asked", store.get(ONE, "asked"), None)
    assert store.swap(ONE, "asked", None, read)


def test_a_stored_project_without_a_proper_id_is_passed_over(projects, database):
    good = projects.save(ONE, label_config=SENTIMENT)[0]
    for strange in ("\u00b2.1", "seven.1", "7.1e9"):
        row = {"id": strange, "label_config": SENTIMENT, "model_version": "v", "created_at": START}
        database.execute(sa.insert(t.projects).values({**row, "question_version": "v"}))
    assert projects.all() == [good]
    assert projects.find(7) is None
    assert projects.get(ProjectId("\u00b2.1")) is None


def test_an_invented_creation_time_does_not_stand_in_for_a_confirmed_project(projects):
    real = projects.save(ProjectId("7.1795215594"), label_config=SENTIMENT)[0]
    projects.note_full_sync(real.id, 1.0, 0)
    projects.save(ProjectId("7.9999999999"), label_config=SENTIMENT)
    assert projects.find(7) == projects.named("7") == real
    assert projects.named("7.9999999999").id == "7.9999999999"


def test_a_project_that_label_studio_uses_comes_before_one_that_is_gone(projects):
    gone = projects.save(ProjectId("7.1795215594"), label_config=SENTIMENT)[0]
    projects.note_full_sync(gone.id, 1.0, 0)
    projects.disconnect(gone.id)
    new = projects.save(ProjectId("7.1795215600"), label_config=SENTIMENT)[0]
    assert projects.find(7) == new


def test_a_number_finds_no_other_number_that_begins_alike(projects):
    projects.save(ProjectId("17.1795215594"), label_config=SENTIMENT)
    projects.save(ProjectId("70.1795215594"), label_config=SENTIMENT)
    assert projects.find(7) is None
    assert [projects.named(name) for name in ("7", "%", "07", "", "\u00b2", "7.1")] == [None] * 6
