"""A kill anywhere in a round changes nothing of what it ends in."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from backend.domain.ports import Step
from backend.domain.projects import ProjectId
from backend.store import Database, Stores
from backend.store.snapshot import copy_sqlite
from tests.conftest import SENTIMENT
from tests.fakes import FakePlatform
from tests.pipeline.conftest import LARGE_CHUNK, House
from tests.pipeline.people import N_TEXTS, outcome, people_answer
from tests.pipeline.steps import ReplayingSteps

LEARNING = ("train", "select", "refine", "fuse")
OTHERS = ("release", "plan", "serve", "promote", "publish", "tabs", "clean")
NAMES = '<Labels name="names" toName="text"><Label value="Person"/></Labels>'


@dataclass(frozen=True)
class Labelled:
    """A project of 30 texts, labelled once, with 12 answers by people that nobody has seen.

    One asks a choice, one a choice and spans.
    """

    file: Path
    platform: FakePlatform
    project_id: ProjectId

    @contextmanager
    def house(self, folder: Path) -> Iterator[House]:
        """Give a house of its own that goes on from here."""
        shutil.copy(self.file, folder)
        with opened(folder, copy.deepcopy(self.platform)) as house:
            yield house


def text_of(number: int) -> str:
    name = "Ada" if number % 3 else "nobody"
    return f"{'good' if number % 2 else 'bad'} says {name} {number}"


@contextmanager
def opened(folder: Path, platform: FakePlatform) -> Iterator[House]:
    database = Database(f"sqlite:///{folder / 'freeal.db'}")
    house = House(
        Stores(database),
        platform=platform,
        folder=folder,
        orders_queue=True,
        chunk=LARGE_CHUNK,
    )
    house.similarity.is_silent = False
    yield house
    database.close()


ONE_KIND = pytest.param("", id="choice", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[ONE_KIND, pytest.param(NAMES, id="choice-and-spans")])
def labelled(tmp_path_factory, migrated_file, request) -> Labelled:
    folder = tmp_path_factory.mktemp("labelled")
    shutil.copy(migrated_file, folder)
    with opened(folder, FakePlatform()) as house:
        config = SENTIMENT.replace("</View>", f"{request.param}</View>")
        project_id = house.connected(N_TEXTS, config, text_of=text_of)
        house.prelabel(project_id)
        people_answer(house, project_id, 12)
    return Labelled(folder / "freeal.db", house.platform, project_id)


@dataclass(frozen=True)
class Killed:
    """What a kill at the end of a step leaves; the runner may have recorded its result, or not."""

    folder: Path
    platform: FakePlatform
    recorded: tuple[tuple[str, dict[str, int]], ...]
    result: tuple[str, dict[str, int]]

    def outcome(self, folder: Path, project_id: ProjectId, *, is_recorded: bool) -> dict[str, Any]:
        """Let another worker go on from here."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        steps = ReplayingSteps([*self.recorded, *([self.result] if is_recorded else [])])
        with opened(folder, copy.deepcopy(self.platform)) as house:
            house.round(project_id, steps)
            return outcome(house, project_id)


class SavedSteps(ReplayingSteps):
    """Keeps what a kill in a round would leave, at the first and the last time of each step."""

    def __init__(self, house: House, folder: Path) -> None:
        super().__init__()
        self.killed: dict[tuple[str, str], Killed] = {}
        self._house, self._folder = house, folder

    def run(self, name: str, step: Step, project_id: ProjectId) -> dict[str, int]:
        if not any(recorded == "begin" for recorded, _ in self.recorded):
            return super().run(name, step, project_id)

        def saved(project_id: ProjectId) -> dict[str, int]:
            counts = step(project_id)
            for time in ("last",) if (name, "first") in self.killed else ("first", "last"):
                self.killed[name, time] = self._save(f"{name}-{time}", (name, counts))
            return counts

        return super().run(name, saved, project_id)

    def _save(self, name: str, result: tuple[str, dict[str, int]]) -> Killed:
        files, kept = self._house.folder, self._folder / name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(files, kept, ignore=shutil.ignore_patterns("freeal.db*"))
        copy_sqlite(files / "freeal.db", kept / "freeal.db")
        return Killed(kept, copy.deepcopy(self._house.platform), (*self.recorded,), result)


@dataclass(frozen=True)
class Undisturbed:
    """A round that nothing disturbed, and what kills in it would have left."""

    outcome: dict[str, Any]
    killed: dict[tuple[str, str], Killed]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, labelled) -> Undisturbed:
    with labelled.house(tmp_path_factory.mktemp("undisturbed")) as house:
        steps = SavedSteps(house, tmp_path_factory.mktemp("killed"))
        house.round(labelled.project_id, steps)
        return Undisturbed(outcome(house, labelled.project_id), steps.killed)


def test_each_of_the_rounds_own_steps_has_a_kill(undisturbed):
    assert {name for name, _ in undisturbed.killed} == {*LEARNING, "draft", *OTHERS}


@pytest.mark.parametrize(
    ("name", "time"),
    [*product((*LEARNING, "draft"), ("first", "last")), *product(OTHERS, ("first",))],
)
def test_a_kill_at_the_end_of_any_step_changes_nothing(tmp_path, labelled, undisturbed, name, time):
    killed = undisturbed.killed[name, time]
    found = killed.outcome(tmp_path, labelled.project_id, is_recorded=False)
    assert found == undisturbed.outcome


@pytest.mark.parametrize("name", ["refine", "fuse", "release"])
def test_a_kill_between_two_steps_changes_nothing(tmp_path, labelled, undisturbed, name):
    killed = undisturbed.killed[name, "first"]
    found = killed.outcome(tmp_path, labelled.project_id, is_recorded=True)
    assert found == undisturbed.outcome
