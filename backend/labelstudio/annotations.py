"""Make predictions annotations in Label Studio, and delete those that nobody has touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from label_studio_sdk.core.api_error import ApiError

from backend.domain.labels import region_values
from backend.domain.projects import AcceptedLabel
from backend.labelstudio.events import read_annotation
from backend.labelstudio.task_pages import prediction_ids, send_request

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

_GONE, _IS_THERE = 404, 409


def accept_prediction(
    client: LabelStudio, label: AcceptedLabel, row: Mapping[str, Any]
) -> int | None:
    """Make a task's prediction an annotation; return its id, None where that must not be.

    It names the prediction and has no lead time, as those that Label Studio makes of predictions
    itself: `read_annotation` takes it for nobody's answer until a person edits it. Label Studio
    refuses a second one with the same unique id.

    Args:
        client: the SDK's.
        label: what is accepted.
        row: the task as Label Studio lists it now. Nothing is made where somebody has annotated,
            skipped or begun it.
    """
    annotations = row.get("annotations") or ()
    if label.is_sent:
        own = [one["id"] for one in annotations if _is_untouched(label, one)]
        if own:
            return int(own[0])
    predictions = prediction_ids(row).get(label.model_version, ())
    if annotations or row.get("drafts") or not predictions:
        return None
    try:
        created = client.annotations.create(
            id=label.task_id,
            result=list(label.result),
            parent_prediction=max(predictions),
            unique_id=label.unique_id,
        )
    except ApiError as exc:
        if exc.status_code in (_GONE, _IS_THERE):
            return None
        raise
    if not isinstance(created.id, int):
        raise ValueError("the answer does not say which annotation was made")
    return created.id


def delete_untouched(client: LabelStudio, label: AcceptedLabel) -> bool:
    """Delete an annotation; return False where somebody has edited it, so that it stays."""
    path = f"api/annotations/{label.annotation_id}/"
    try:
        if not _is_untouched(label, send_request(client, path, method="GET")):
            return False
        send_request(client, path, method="DELETE")
    except ApiError as exc:
        if exc.status_code != _GONE:
            raise
    return True


def _is_untouched(label: AcceptedLabel, annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation is an untouched copy of the label's prediction."""
    read = read_annotation(annotation)
    return read.is_copied and region_values(read.result) == region_values(label.result)
