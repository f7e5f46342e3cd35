"""A finished round leaves what stored releases are made of, a running one all that it needs."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.rounds import RoundState
from backend.pipeline.release import LABELS_FROM, LEARNED, MODEL_FROM
from backend.pipeline.rounds.context import FINAL, RoundArtifacts, artifacts
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


def released(house, project_id, **source):
    """Serve a release that is made of these files."""
    project = house.projects.get(project_id)
    provenance = {LEARNED: {"sentiment": source}}
    house.releases.promote(house.releases.draft(project, [], [], provenance))


def test_a_round_ends_with_its_last_model_alone(house):
    project_id = house.labeled(N_TEXTS)
    steps = house.round(project_id)
    (made,) = house.rounds.history(project_id)
    assert steps.ran.count("clean") == 1
    folder = folder_of(house, project_id, 1)
    assert models(folder) == [f"model-{made.figures['sentiment']['n_cycles']}"]
    assert (folder / "train-0.npz").exists()
    house.round_steps.cleaner.clean(project_id, is_thorough=True)
    assert not (folder / "train-0.npz").exists()


@pytest.mark.parametrize("state", [state for state in RoundState if state != RoundState.RUNNING])
def test_nothing_stays_of_a_round_without_a_release_however_it_ended(house, state):
    project_id = house.connected(4)
    folder = folder_of(house, project_id, opened(house, project_id, state))
    fill(folder, 0, 2, 10)
    RoundArtifacts(folder).write(FINAL, ids=np.arange(3))
    house.round_steps.cleaner.clean(project_id)
    assert [path.name for path in folder.iterdir()] == ["final.npz"]
    house.round_steps.cleaner.clean(project_id, is_thorough=True)
    assert list(folder.iterdir()) == []


def test_a_round_that_runs_keeps_all_that_it_needs_to_go_on(house):
    project_id = house.connected(4)
    folder = folder_of(house, project_id, opened(house, project_id))
    fill(folder, 0, 1)
    assert house.round_steps.cleaner.clean(project_id) == {"n_deleted": 0}
    assert models(folder) == ["model-0", "model-1"]


def test_student_and_labels_of_every_stored_release_stay(house):
    project_id = house.connected(4)
    for _ in range(3):
        folder = folder_of(house, project_id, opened(house, project_id, RoundState.RELEASED))
        fill(folder, 1, 10)
        for name in ("train-0", "fused-1", FINAL):
            RoundArtifacts(folder).write(name, ids=np.arange(3))
    released(house, project_id, **{LABELS_FROM: 1, MODEL_FROM: [1, 10]})
    released(house, project_id, **{LABELS_FROM: 1, MODEL_FROM: [2, 1]})
    house.round_steps.cleaner.clean(project_id, is_thorough=True)
    left = [sorted(p.name for p in folder_of(house, project_id, n).iterdir()) for n in (1, 2, 3)]
    assert left == [["final.npz", "model-10"], ["model-1"], []]
    served = house.projects.get(project_id)
    house.stores.retention.prune_releases(served, 1, even_unwithdrawn=True)
    house.round_steps.cleaner.clean(project_id, is_thorough=True)
    left = [sorted(p.name for p in folder_of(house, project_id, n).iterdir()) for n in (1, 2, 3)]
    assert left == [["final.npz"], ["model-1"], []]
