"""A kill anywhere in a round changes nothing of what it ends in."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.domain.projects import ProjectId
from backend.store import Database, Stores
from tests.conftest import SENTIMENT
from tests.fakes import FakePlatform
from tests.pipeline.conftest import LARGE_CHUNK, House, KilledHere, ReplayingSteps
from tests.pipeline.people import N_TEXTS, outcome, people_answer

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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, labelled) -> tuple[dict[str, object], list[str]]:
    """The outcome without a kill, and the names of the steps."""
    with labelled.house(tmp_path_factory.mktemp("undisturbed")) as house:
        steps = ReplayingSteps()
        house.round(labelled.project_id, steps)
        return outcome(house, labelled.project_id), [name for name, _ in steps.recorded]


def kills(steps: list[str]) -> list[int]:
    """Return where to kill, counted from 1: at the first time of each of the round's own steps,

    and at the last time of those that publish.
    """
    begun = steps.index("begin")
    first = {name: at for at, name in reversed(list(enumerate(steps, 1))) if at > begun}
    last = {name: at for at, name in enumerate(steps, 1) if at > begun}
    names = ("train", "select", "refine", "fuse", "draft")
    return sorted({*first.values(), *(last[name] for name in names)})


def outcome_after_kill(
    labelled: Labelled, folder: Path, kill_at: int, *, is_recorded: bool
) -> dict[str, object]:
    folder.mkdir()
    with labelled.house(folder) as house:
        steps = ReplayingSteps(kill_at=kill_at, is_recorded=is_recorded)
        with pytest.raises(KilledHere):
            house.round(labelled.project_id, steps)
        house.round(labelled.project_id, steps.again())
        return outcome(house, labelled.project_id)


def test_a_kill_at_the_end_of_any_step_changes_nothing(tmp_path, labelled, undisturbed):
    expected, names = undisturbed
    for at in kills(names):
        found = outcome_after_kill(labelled, tmp_path / str(at), at, is_recorded=False)
        assert found == expected, names[at - 1]


def test_a_kill_between_two_steps_changes_nothing(tmp_path, labelled, undisturbed):
    expected, names = undisturbed
    for name in ("refine", "fuse", "release"):
        at = names.index(name) + 1
        found = outcome_after_kill(labelled, tmp_path / name, at, is_recorded=True)
        assert found == expected, name
