"""Housekeeping: what fails does not stop the rest, and what is in use stays."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa

from backend.domain.projects import ProjectId
from backend.errors import ProjectInUse, StoreUnavailable
from backend.pipeline.retention import Housekeeper, RetentionPlan
from backend.store.tables import llm_answers
from tests.conftest import SENTIMENT

ONE, TWO, UNKNOWN = (ProjectId(f"{n}.1795215594") for n in (1, 2, 3))


@pytest.fixture
def trimmed():
    return []


@pytest.fixture
def housekeeper(stores, tmp_path, trimmed):
    plan = RetentionPlan(grace_days=0)
    for project_id in (ONE, TWO):
        stores.projects.save(project_id, label_config=SENTIMENT)
        (tmp_path / "models" / project_id / "1").mkdir(parents=True)
    return Housekeeper(stores, tmp_path / "models", plan, trimmed.append, lambda _: None)


def folders(housekeeper):
    return sorted(folder.name for folder in housekeeper.models.iterdir())


def test_a_project_that_was_removed_is_deleted_with_its_models(housekeeper, stores, trimmed):
    stores.projects.disconnect(TWO)
    housekeeper.run()
    assert [project.id for project in stores.projects.all()] == [ONE]
    assert folders(housekeeper) == [ONE]
    assert trimmed == [2**30]


def test_a_project_in_use_is_not_deleted(housekeeper, stores):
    with pytest.raises(ProjectInUse, match="connected"):
        housekeeper.purge(ONE)
    assert folders(housekeeper) == [ONE, TWO]


def test_one_failing_project_does_not_keep_the_others_from_being_cleaned(
    housekeeper, stores, monkeypatch, trimmed
):
    prune, seen = stores.retention.prune_releases, []

    def fail_for_one(project, keep, *, even_unwithdrawn):
        seen.append(project.id)
        if project.id == ONE:
            raise StoreUnavailable("locked")
        return prune(project, keep, even_unwithdrawn=even_unwithdrawn)

    monkeypatch.setattr(stores.retention, "prune_releases", fail_for_one)
    housekeeper.run()
    assert seen == [ONE, TWO]
    assert trimmed == [2**30]


def test_folders_of_no_project_go_after_the_grace_and_embedded_models_stay(housekeeper):
    for name in (UNKNOWN, "smollm2-135m", "all-mpnet-base-v2"):
        (housekeeper.models / name).mkdir()
    os.utime(housekeeper.models / UNKNOWN, (0, 0))
    housekeeper.run()
    assert folders(housekeeper) == sorted([ONE, TWO, "all-mpnet-base-v2", "smollm2-135m"])


def test_a_folder_that_no_project_claims_yet_waits(housekeeper):
    folder = housekeeper.models / UNKNOWN
    folder.mkdir()
    os.utime(folder, (2**32, 2**32))
    housekeeper.run()
    assert folder.exists()


def test_cached_answers_beyond_their_size_go_oldest_first(database, stores):
    with database.write() as connection:
        rows = [
            {"key": bytes([day, n]), "answer": "x" * 940, "day": day}
            for day in (1, 2)
            for n in range(100)
        ]
        connection.execute(sa.insert(llm_answers), rows)
    assert stores.llm_cache.trim(1_000_000) == 0
    assert stores.llm_cache.trim(150_000) == 50
    left = database.fetch(sa.select(llm_answers.c.day, sa.func.count()).group_by(llm_answers.c.day))
    assert dict(map(tuple, left)) == {1: 50, 2: 100}


def test_a_purge_of_everything_empties_the_caches(housekeeper, stores, database, trimmed):
    with database.write() as connection:
        row = {"key": b"k", "answer": "{}", "day": 2_500}
        connection.execute(sa.insert(llm_answers).values(row))
    housekeeper.purge_shared(30_000)
    assert database.fetch_value(sa.select(sa.func.count(llm_answers.c.day))) == 1
    housekeeper.purge_shared(0)
    assert database.fetch_value(sa.select(sa.func.count(llm_answers.c.day))) == 0
    assert trimmed == [0]
