"""What a labeling platform does, for the fake and for a real Label Studio alike."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from typing import Any, Protocol

import pytest
from label_studio_sdk import LabelStudio

from backend.domain.labels import Region
from backend.domain.ports import LabelingPlatform
from backend.domain.projects import AcceptedLabel, Prediction
from backend.errors import PlatformRejected
from backend.labelstudio.client import LabelStudioPlatform
from tests.fakes import FakePlatform
from tests.label_studio_user import LabelStudioUser

CONFIG = (
    '<View><Text name="text" value="$text"/>'
    '<Choices name="sentiment" toName="text" choice="single">'
    '<Choice value="Positive" alias="pos"/><Choice value="Negative"/></Choices></View>'
)
NOWHERE = 2_000_000_000


class World(Protocol):
    """What people do in Label Studio while this backend looks on."""

    def create_project(self, label_config: str, *, title: str, instruction: str) -> int: ...

    def import_tasks(self, number: int, data: Sequence[Mapping[str, Any]]) -> list[int]: ...

    def delete_task(self, task_id: int) -> None: ...

    def annotate(
        self, task_id: int, result: Sequence[Region], *, was_cancelled: bool = False
    ) -> int: ...

    def delete_annotation(self, annotation_id: int) -> None: ...

    def edit_annotation(self, annotation_id: int, result: Sequence[Region]) -> None: ...


class RealWorld:
    """The same, by way of Label Studio's API."""

    def __init__(self, url: str, token: str) -> None:
        self.platform = LabelStudioPlatform(url, token)
        self._admin = LabelStudioUser(url, token)
        self._sdk = LabelStudio(base_url=url, api_key=token)
        self._projects: list[int] = []

    def create_project(self, label_config: str, *, title: str, instruction: str) -> int:
        self._projects.append(self._admin.create_project(title, label_config, instruction))
        return self._projects[-1]

    def import_tasks(self, number: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
        known = {task.id for task in self.platform.tasks(number)}
        self._admin.import_tasks(number, data)
        return [task.id for task in self.platform.tasks(number) if task.id not in known]

    def delete_task(self, task_id: int) -> None:
        self._sdk.tasks.delete(id=str(task_id))

    def annotate(
        self, task_id: int, result: Sequence[Region], *, was_cancelled: bool = False
    ) -> int:
        return self._admin.annotate(task_id, result, was_cancelled=was_cancelled)

    def delete_annotation(self, annotation_id: int) -> None:
        self._sdk.annotations.delete(id=annotation_id)

    def edit_annotation(self, annotation_id: int, result: Sequence[Region]) -> None:
        self._sdk.annotations.update(id=annotation_id, result=list(result), lead_time=2.5)

    def close(self) -> None:
        for project in self._projects:
            self._admin.delete_project(project)
        self._admin.close()
        self.platform.close()
        self._sdk._client_wrapper.httpx_client.httpx_client.close()


class Stage:
    """A platform, its world, and one project in it."""

    def __init__(self, platform: LabelingPlatform, world: World) -> None:
        self.platform, self.world = platform, world
        self.number = world.create_project(CONFIG, title="contract", instruction="<b>Judge</b> it")

    def import_tasks(self, n_tasks: int) -> list[int]:
        data = [{"text": f"text {index}"} for index in range(n_tasks)]
        return self.world.import_tasks(self.number, data)

    def store(self, *predictions: Prediction) -> int:
        return self.platform.import_predictions(self.number, predictions)

    def listed(self) -> dict[int, Any]:
        return {task.id: task for task in self.platform.tasks(self.number)}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.e2e)])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "fake":
        fake = FakePlatform()
        yield Stage(fake, fake)
        return
    server = request.getfixturevalue("label_studio")
    real = RealWorld(server.url, server.credentials.token)
    try:
        yield Stage(real.platform, real)
    finally:
        real.close()


def prediction(
    task_id: int, label: str = "pos", *, version: str = "v1", score: float = 0.5
) -> Prediction:
    region = {
        "id": "aaaaaaaaaa",
        "from_name": "sentiment",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": [label]},
        "score": score,
        "meta": {"text": ["cut"]},
    }
    return Prediction(task_id, version, (region,), score)


ANSWER = [
    {
        "from_name": "sentiment",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": ["Negative"]},
    }
]


def test_a_project_is_described_with_its_config_and_its_counts(stage: Stage) -> None:
    stage.import_tasks(3)
    info = stage.platform.project(stage.number)
    assert info.platform_id == stage.number
    assert info.id.startswith(f"{stage.number}.")
    assert (info.label_config, info.title) == (CONFIG, "contract")
    assert "Judge" in info.instruction
    assert info.model_version is None
    assert (info.n_tasks, info.n_annotations) == (3, 0)


def test_counts_equal_a_full_listing_with_skipped_and_deleted_annotations(stage: Stage) -> None:
    first, second, third = stage.import_tasks(3)
    stage.world.annotate(first, ANSWER)
    stage.world.annotate(first, ANSWER)
    stage.world.annotate(second, [], was_cancelled=True)
    gone = stage.world.annotate(third, ANSWER)
    stage.world.delete_annotation(gone)
    info = stage.platform.project(stage.number)
    listed = stage.listed()
    assert info.n_tasks == len(listed) == 3
    assert info.n_annotations == sum(len(task.annotations) for task in listed.values()) == 3


def test_tasks_are_listed_in_order_with_their_data(stage: Stage) -> None:
    ids = stage.import_tasks(5)
    tasks = list(stage.platform.tasks(stage.number))
    assert [task.id for task in tasks] == sorted(ids)
    assert [task.data for task in tasks] == [{"text": f"text {index}"} for index in range(5)]
    assert all(task.annotations == () and task.prediction_ids == {} for task in tasks)


def test_a_project_without_tasks_lists_nothing(stage: Stage) -> None:
    assert list(stage.platform.tasks(stage.number)) == []


def test_annotations_are_listed_as_they_were_made(stage: Stage) -> None:
    labelled, skipped = stage.import_tasks(2)
    annotation_id = stage.world.annotate(labelled, ANSWER)
    stage.world.annotate(skipped, [], was_cancelled=True)
    listed = stage.listed()
    (human_label,) = listed[labelled].annotations
    assert (human_label.annotation_id, human_label.task_id) == (annotation_id, labelled)
    assert human_label.result[0]["value"] == {"choices": ["Negative"]}
    assert not human_label.was_cancelled
    assert isinstance(human_label.annotator_id, int)
    assert human_label.updated_at.tzinfo is not None
    assert human_label.updated_at.astimezone(UTC).year >= 2026
    (skip,) = listed[skipped].annotations
    assert (skip.was_cancelled, skip.result) == (True, ())


def test_a_task_that_is_deleted_during_a_listing_hides_no_other(stage: Stage) -> None:
    ids = stage.import_tasks(520)
    listing = stage.platform.tasks(stage.number)
    seen = [next(listing).id]
    stage.world.delete_task(ids[0])
    stage.world.delete_task(ids[-1])
    (added,) = stage.import_tasks(1)
    seen += [task.id for task in listing]
    assert seen in (ids[:-1], [*ids[:-1], added])


def test_predictions_are_stored_and_listed_by_their_version(stage: Stage) -> None:
    first, second = stage.import_tasks(2)
    n_stored = stage.store(
        prediction(first), prediction(first, version="v2"), prediction(second, "Negative")
    )
    assert n_stored == 3
    listed = stage.listed()
    assert set(listed[first].prediction_ids) == {"v1", "v2"}
    assert set(listed[second].prediction_ids) == {"v1"}
    assert all(len(ids) == 1 for task in listed.values() for ids in task.prediction_ids.values())


def test_a_prediction_that_is_stored_twice_is_there_twice(stage: Stage) -> None:
    (task_id,) = stage.import_tasks(1)
    stage.store(prediction(task_id))
    stage.store(prediction(task_id))
    assert len(stage.listed()[task_id].prediction_ids["v1"]) == 2
    assert stage.platform.predicted_task_ids(stage.number, [task_id], "v1") == {task_id}


def test_what_does_not_fit_the_label_config_is_left_out_and_not_counted(stage: Stage) -> None:
    first, second, third = stage.import_tasks(3)
    n_stored = stage.store(
        prediction(first), prediction(second, "Positive"), prediction(third, "Nothing")
    )
    assert n_stored == 1  # "Positive" is called by its alias
    assert stage.platform.predicted_task_ids(stage.number, [first, second, third], "v1") == {first}


def test_predictions_for_tasks_that_are_gone_sink_no_others(stage: Stage) -> None:
    first, second = stage.import_tasks(2)
    stage.world.delete_task(first)
    assert stage.store(prediction(first), prediction(second)) == 1
    assert stage.store(prediction(first)) == 0
    assert stage.platform.predicted_task_ids(stage.number, [first, second], "v1") == {second}


def test_storing_nothing_stores_nothing(stage: Stage) -> None:
    assert stage.store() == 0


def test_predicted_tasks_are_found_by_the_whole_name_of_the_version(stage: Stage) -> None:
    first, second, third = stage.import_tasks(3)
    stage.store(prediction(first), prediction(second, version="v10"), prediction(third))
    look_up = stage.platform.predicted_task_ids
    assert look_up(stage.number, [first, second, NOWHERE], "v1") == {first}
    assert look_up(stage.number, [first, second, third], "v10") == {second}
    assert look_up(stage.number, [first, second, third], "v") == set()
    assert look_up(stage.number, [], "v1") == set()


def accepted(task_id: int, **changes: Any) -> AcceptedLabel:
    result = prediction(task_id).result
    return AcceptedLabel(task_id, str(uuid.uuid4()), result, "v1", 0.9, **changes)


def test_an_accepted_prediction_is_an_annotation_that_is_nobodys_answer(stage: Stage) -> None:
    first, second = stage.import_tasks(2)
    stage.store(prediction(first), prediction(second))
    made = stage.platform.accept_predictions(stage.number, [accepted(first), accepted(second)])
    assert set(made) == {first, second}
    (copy,) = stage.listed()[first].annotations
    assert (copy.annotation_id, copy.is_copied) == (made[first], True)
    assert copy.result[0]["value"] == {"choices": ["pos"]}
    assert not copy.is_ground_truth and not copy.was_cancelled


def test_what_somebody_did_and_what_is_gone_is_not_accepted(stage: Stage) -> None:
    answered, skipped, unpredicted, gone = stage.import_tasks(4)
    stage.store(prediction(answered), prediction(skipped), prediction(gone))
    stage.world.annotate(answered, ANSWER)
    stage.world.annotate(skipped, [], was_cancelled=True)
    stage.world.delete_task(gone)
    labels = [accepted(task_id) for task_id in (answered, skipped, unpredicted, gone)]
    assert stage.platform.accept_predictions(stage.number, labels) == {}
    assert [len(task.annotations) for task in stage.listed().values()] == [1, 1, 0]


def test_a_label_that_was_sent_before_is_found_and_not_made_again(stage: Stage) -> None:
    (task_id,) = stage.import_tasks(1)
    stage.store(prediction(task_id))
    label = accepted(task_id)
    made = stage.platform.accept_predictions(stage.number, [label])
    again = [replace(label, is_sent=True)]
    assert stage.platform.accept_predictions(stage.number, again) == made
    assert len(stage.listed()[task_id].annotations) == 1


def test_taking_back_leaves_what_people_edited(stage: Stage) -> None:
    kept, gone, edited = stage.import_tasks(3)
    stage.store(*(prediction(task_id) for task_id in (kept, gone, edited)))
    labels = [accepted(task_id) for task_id in (kept, gone, edited)]
    made = stage.platform.accept_predictions(stage.number, labels)
    stage.world.delete_annotation(made[gone])
    stage.world.edit_annotation(made[edited], ANSWER)
    labels = [replace(label, annotation_id=made[label.task_id]) for label in labels]
    assert stage.platform.take_back(labels) == {edited}
    (left,) = [one for task in stage.listed().values() for one in task.annotations]
    assert (left.annotation_id, left.is_copied) == (made[edited], False)


def test_deleting_predictions_passes_over_those_already_gone(stage: Stage) -> None:
    first, second = stage.import_tasks(2)
    stage.store(prediction(first), prediction(second))
    ids = stage.listed()[first].prediction_ids["v1"]
    stage.platform.delete_predictions(ids)
    stage.platform.delete_predictions([*ids, NOWHERE])
    listed = stage.listed()
    assert not listed[first].prediction_ids
    assert listed[second].prediction_ids


def test_serving_a_version_sets_the_queue_up_for_it(stage: Stage) -> None:
    (task_id,) = stage.import_tasks(1)
    stage.store(prediction(task_id))
    stage.platform.serve_model_version(stage.number, "v1")
    info = stage.platform.project(stage.number)
    assert (info.model_version, info.sampling) == ("v1", "Uncertainty sampling")


def test_a_version_without_predictions_cannot_be_served(stage: Stage) -> None:
    (task_id,) = stage.import_tasks(1)
    stage.store(prediction(task_id))
    with pytest.raises(PlatformRejected):
        stage.platform.serve_model_version(stage.number, "v2")


def test_deleting_a_version_leaves_the_others_and_the_one_that_is_served(stage: Stage) -> None:
    (task_id,) = stage.import_tasks(1)
    stage.store(prediction(task_id), prediction(task_id, version="v2"))
    stage.platform.serve_model_version(stage.number, "v2")
    stage.platform.delete_model_version(stage.number, "v1")
    stage.platform.delete_model_version(stage.number, "v1")
    assert set(stage.listed()[task_id].prediction_ids) == {"v2"}
    assert stage.platform.project(stage.number).model_version == "v2"


def test_deleting_the_version_that_is_served_leaves_none_served(stage: Stage) -> None:
    (task_id,) = stage.import_tasks(1)
    stage.store(prediction(task_id))
    stage.platform.serve_model_version(stage.number, "v1")
    stage.platform.delete_model_version(stage.number, "v1")
    assert stage.platform.project(stage.number).model_version is None


CALLS: dict[str, Callable[[LabelingPlatform], object]] = {
    "project": lambda platform: platform.project(NOWHERE),
    "tasks": lambda platform: list(platform.tasks(NOWHERE)),
    "import_predictions": lambda platform: platform.import_predictions(NOWHERE, [prediction(1)]),
    "predicted_task_ids": lambda platform: platform.predicted_task_ids(NOWHERE, [1], "v1"),
    "delete_model_version": lambda platform: platform.delete_model_version(NOWHERE, "v1"),
    "serve_model_version": lambda platform: platform.serve_model_version(NOWHERE, "v1"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_project_that_is_not_there_is_rejected(
    stage: Stage, call: Callable[[LabelingPlatform], object]
) -> None:
    with pytest.raises(PlatformRejected):
        call(stage.platform)
