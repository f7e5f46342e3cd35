"""Demonstrations that make the LLM's answers worse are found out and left out."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.rounds import RoundState
from backend.pipeline.rounds.trial import DemonstrationTrial, try_demonstrations
from tests.pipeline.conftest import House
from tests.pipeline.rounds.several_labels import KINDS, pool_of_several_labels
from tests.pipeline.steps import KilledHere, PlainSteps, ReplayingSteps

N = 120


@pytest.fixture
def house(stores, tmp_path) -> House:
    house = House(stores, folder=tmp_path, chunk=N)
    house.similarity.is_silent = False
    return house


def pool_with(house, shares, *, n_asked=N):
    """Return a pool whose annotators err by themselves, with these shares of right answers."""
    project_id = house.labeled(N)
    pool = house.aggregator.pool(house.projects.get(project_id))
    (question,) = pool.questions
    rng, truth = np.random.default_rng(3), np.arange(N) % 2
    matrix = pool.matrices[question.name]
    for name, share in shares.items():
        labels = np.where(rng.random(N) < share, truth, 1 - truth)
        given = np.where(np.eye(2)[labels] == 1, 0.85, 0.15)
        if name.endswith("+shots"):
            given[n_asked:] = np.nan
        matrix = matrix.with_annotator(name, given, KINDS[name], "1")
    return pool.with_matrix(question, matrix), question


@pytest.mark.parametrize(("with_demonstrations", "is_harmful"), [(0.4, True), (0.95, False)])
def test_several_labels_are_compared_by_the_one_that_stands_out(
    house, with_demonstrations, is_harmful
):
    shares = {"fake": 0.9, "fake+shots": with_demonstrations, "similarity:fake": 0.8}
    trial = try_demonstrations(house.ensemble, *pool_of_several_labels(house, N, shares))
    assert trial.n_texts == N
    assert trial.is_harmful is is_harmful


def test_demonstrations_that_mislead_are_harmful(house):
    shares = {"fake": 0.9, "fake+shots": 0.6, "similarity:fake": 0.85}
    trial = try_demonstrations(house.ensemble, *pool_with(house, shares))
    assert trial.n_texts == N
    assert trial.without > trial.with_demonstrations
    assert trial.is_harmful
    assert str(trial) == (
        "answers with demonstrations are left out: they agree with similarity in "
        f"{trial.with_demonstrations:.0%} of {N} texts, those without in {trial.without:.0%}"
    )


def test_demonstrations_that_help_or_change_little_are_kept(house):
    shares = {"fake": 0.8, "fake+shots": 0.9, "similarity:fake": 0.85}
    assert not try_demonstrations(house.ensemble, *pool_with(house, shares)).is_harmful
    assert not DemonstrationTrial(0.78, 0.80, 0.04, 200).is_harmful


def test_few_texts_prove_nothing(house):
    shares = {"fake": 0.95, "fake+shots": 0.5, "similarity:fake": 0.9}
    trial = try_demonstrations(house.ensemble, *pool_with(house, shares, n_asked=30))
    assert trial.n_texts == 30
    assert not trial.is_harmful


def test_without_similarity_there_is_nothing_to_compare_with(house):
    house.similarity.is_silent = True
    shares = {"fake": 0.9, "fake+shots": 0.6}
    assert try_demonstrations(house.ensemble, *pool_with(house, shares)) is None


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_round_whose_demonstrations_mislead_ends_with_what_it_learned_before(house, is_killed):
    project_id = house.labeled(N)
    house.annotator.is_misled = True
    steps = ReplayingSteps()
    if is_killed:
        steps.kill_after = ("refine", 1)
        with pytest.raises(KilledHere):
            house.round(project_id, steps)
        steps = steps.again()
    house.round(project_id, steps)
    ran = [name for name, _ in steps.recorded]
    assert "refine" in ran
    assert "fuse" not in ran
    (made,) = house.rounds.history(project_id)
    assert made.state is RoundState.RELEASED
    reason = made.figures["sentiment"]["gate"]["reason"]
    assert "answers with demonstrations are left out: they agree with similarity in" in reason
    assert len(house.student.fits) == 1


def test_demonstrations_that_do_not_mislead_are_learned_from(house):
    project_id = house.labeled(N)
    steps = house.round(project_id, PlainSteps())
    assert "fuse" in steps.ran
    assert len(house.student.fits) > 1
