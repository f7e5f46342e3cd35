"""A finished round leaves its arrays, and the weights and cards of the models that are kept."""

from __future__ import annotations

import pytest

from backend.domain.rounds import RoundState
from backend.pipeline.rounds.context import artifacts
from tests.pipeline.conftest import LARGE_CHUNK, House
from tests.pipeline.people import N_TEXTS


@pytest.fixture
def house(stores, tmp_path) -> House:
    house = House(stores, folder=tmp_path, orders_queue=True, chunk=LARGE_CHUNK)
    house.similarity.is_silent = False
    return house


def folder_of(house, project_id, number):
    """Return the folder of a round's files on the one question."""
    context = house.round_steps.cleaner.context
    schema = house.guidelines.read(house.projects.get(project_id)).schema
    return artifacts(context.folder / project_id / str(number), schema.questions[0]).folder


def fill(folder, *cycles):
    """Write what a training leaves: a checkpoint, and a model per cycle."""
    for cycle in cycles:
        checkpoints = folder / "checkpoints" / f"train-{cycle}"
        checkpoints.mkdir(parents=True)
        (checkpoints / "final.safetensors").write_bytes(b"optimizer state")
        model = folder / f"model-{cycle}"
        model.mkdir(exist_ok=True)
        (model / "model.safetensors").write_bytes(b"weights")


def models(folder):
    return sorted(path.name for path in folder.glob("model-*"))


def opened(house, project_id, state=None):
    """Open a round of the project, and close it in a state if there is one."""
    project = house.projects.get(project_id)
    made = house.rounds.open(project, recipe="default", reason="test", n_human=0)
    if state is not None:
        house.rounds.finish(made, state)
    return made.number


def test_a_round_ends_with_its_last_model_alone(house):
    project_id = house.connected(N_TEXTS)
    house.prelabel(project_id)
    steps = house.round(project_id)
    (made,) = house.rounds.history(project_id)
    assert steps.ran.count("clean") == 1
    folder = folder_of(house, project_id, 1)
    assert models(folder) == [f"model-{made.figures['sentiment']['n_cycles']}"]
    assert (folder / "final.npz").exists()


@pytest.mark.parametrize(
    ("state", "left"),
    [
        (RoundState.RELEASED, ["model-10"]),
        (RoundState.REFUSED, ["model-10"]),
        (RoundState.FAILED, []),
        (RoundState.CANCELLED, []),
    ],
)
def test_checkpoints_go_however_the_round_ended(house, state, left):
    project_id = house.connected(4)
    number = opened(house, project_id, state)
    folder = folder_of(house, project_id, number)
    fill(folder, 0, 2, 10)  # the tenth cycle is after the second
    house.round_steps.cleaner.clean_all()
    assert models(folder) == left
    assert not (folder / "checkpoints").exists()


def test_a_round_that_runs_keeps_all_that_it_needs_to_go_on(house):
    project_id = house.connected(4)
    folder = folder_of(house, project_id, opened(house, project_id))
    fill(folder, 0, 1)
    assert house.round_steps.cleaner.clean(project_id) == {"n_deleted": 0}
    assert models(folder) == ["model-0", "model-1"]


def test_the_models_of_the_last_three_rounds_and_the_served_one_stay(house):
    project_id = house.connected(N_TEXTS)
    house.prelabel(project_id)
    house.round(project_id)  # serves round 1
    for _ in range(5):
        fill(folder_of(house, project_id, opened(house, project_id, RoundState.REFUSED)), 0, 1)
    house.round_steps.cleaner.clean(project_id)
    kept = [n for n in range(1, 7) if models(folder_of(house, project_id, n))]
    assert kept == [1, 4, 5, 6]
