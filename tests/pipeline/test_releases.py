"""A new release reaches Label Studio whole, or not at all."""

from __future__ import annotations

import pytest

from backend.domain.projects import Prediction, QueuePlace
from tests.pipeline.conftest import KilledHere, PlainSteps


def draft(house, project_id, score: float = 0.25):
    project = house.projects.get(project_id)
    tasks = sorted(house.remote(project_id).tasks)
    old = house.remote(project_id).predictions.values()
    result = next(iter(old)).result
    predictions = [Prediction(task_id, "", result, score) for task_id in tasks]
    places = [QueuePlace(task_id, n, "because") for n, task_id in enumerate(tasks)]
    return house.releases.draft(project, predictions, places, {})


def shown(house, project_id) -> dict[int, list[tuple[str, float]]]:
    rows: dict[int, list[tuple[str, float]]] = {}
    for row in house.remote(project_id).predictions.values():
        rows.setdefault(row.task_id, []).append((row.model_version, row.score))
    return rows


def test_a_release_replaces_the_old_one_everywhere(house):
    project_id = house.connected()
    house.prelabel(project_id)
    release = draft(house, project_id)
    house.prelabel(project_id)
    version = release.model_version
    assert house.remote(project_id).info.model_version == version
    assert all(rows == [(version, 0.25)] for rows in shown(house, project_id).values())
    assert house.labels.progress(house.projects.get(project_id)).is_complete


@pytest.mark.parametrize("step", ["draft", "serve", "publish"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_kill_at_any_step_leaves_one_whole_release_and_the_next_run_finishes(house, step, number):
    project_id = house.connected()
    house.prelabel(project_id)
    old = house.projects.get(project_id).model_version
    release = draft(house, project_id)
    steps = PlainSteps()
    steps.kill_after = (step, number)
    with pytest.raises(KilledHere):
        house.prelabel(project_id, steps)
    served = house.remote(project_id).info.model_version
    assert served in (old, release.model_version)
    assert all(
        served in [version for version, _ in rows] for rows in shown(house, project_id).values()
    )
    house.prelabel(project_id)
    version = release.model_version
    assert all(rows == [(version, 0.25)] for rows in shown(house, project_id).values())


def test_a_listing_during_a_release_finds_nothing_odd(house):
    project_id = house.connected()
    house.prelabel(project_id)
    draft(house, project_id)
    house.publisher.publish_draft(project_id)
    assert house.synchronizer.work_due(project_id) == "a release waits to be published"
    house.projects.forget_full_sync(project_id)
    house.synchronizer.sync(project_id)
    assert house.synchronizer.work_due(project_id) == "a release waits to be published"
    house.prelabel(project_id)
    assert house.synchronizer.work_due(project_id) is None


def test_a_restored_release_is_shown_again_with_its_own_predictions(house):
    project_id = house.connected()
    house.prelabel(project_id)
    before = shown(house, project_id)
    first = house.projects.get(project_id)
    draft(house, project_id)
    house.prelabel(project_id)
    house.releases.restore(house.projects.get(project_id), first.model_version)
    house.prelabel(project_id)
    assert shown(house, project_id) == before
    assert house.remote(project_id).info.model_version == first.model_version
