"""At most one round of a project runs, and a closed one stays as it was."""

from __future__ import annotations

import pytest

from backend.domain.rounds import RoundState
from backend.store import RoundStore
from tests.conftest import TOPIC


@pytest.fixture
def rounds(database) -> RoundStore:
    return RoundStore(database)


def opened(rounds, project):
    return rounds.open(project, recipe="default", reason="asked for", n_human=3)


def test_opening_twice_gives_the_same_round(rounds, project):
    first = opened(rounds, project)
    assert opened(rounds, project) == first
    assert rounds.running(project.id) == first
    assert (first.number, first.n_human, first.seconds) == (1, 3, None)


def test_rounds_are_numbered_and_keep_what_came_of_them(rounds, project):
    first = opened(rounds, project)
    assert rounds.note(first, step="train 1", progress={"epoch": 2})
    assert rounds.finish(first, RoundState.RELEASED, metrics={"n_human": 3}, model_version="v2")
    second = opened(rounds, project)
    kept, running = rounds.history(project.id)
    assert (kept.state, kept.step, kept.progress) == (RoundState.RELEASED, "train 1", {"epoch": 2})
    assert (kept.metrics, kept.model_version) == ({"n_human": 3}, "v2")
    assert kept.seconds >= 0
    assert running == second
    assert second.number == 2


def test_a_closed_round_cannot_be_changed(rounds, project):
    found = opened(rounds, project)
    assert rounds.finish(found, RoundState.CANCELLED)
    assert not rounds.note(found, step="fuse", progress={})
    assert not rounds.finish(found, RoundState.RELEASED)
    assert rounds.history(project.id)[0].state is RoundState.CANCELLED


def test_a_round_that_began_with_other_models_gives_its_place_to_the_next(rounds, project):
    def open_with(**models):
        news = {"recipe": "default", "reason": "news", "n_human": 5}
        return rounds.open(project, **news, models=models)

    old = open_with(ENCODER_MODEL="one", STUDENT_MODEL="one")
    assert open_with(ENCODER_MODEL="one", STUDENT_MODEL="one") == old
    assert opened(rounds, project) == old  # nobody says with what
    new = open_with(ENCODER_MODEL="two", STUDENT_MODEL="one")
    kept, running = rounds.history(project.id)
    assert kept.state is RoundState.CANCELLED
    assert kept.error.startswith("ENCODER_MODEL was one and is two since it began")
    assert running == new
    assert (new.number, new.reason, new.models["ENCODER_MODEL"]) == (2, "news", "two")


def test_a_round_of_an_earlier_question_is_cancelled_by_the_next(rounds, projects, project):
    old = opened(rounds, project)
    asking, _ = projects.save(project.id, label_config=TOPIC)
    new = opened(rounds, asking)
    assert new.number == old.number + 1
    assert rounds.history(project.id)[0].state is RoundState.CANCELLED
    assert rounds.running(project.id) == new
