"""A person in a real Label Studio: annotates, takes tasks from the queue, and cleans up."""

from __future__ import annotations

from collections.abc import Sequence

from label_studio_sdk.core.api_error import ApiError

from backend.domain.labels import Region
from backend.labelstudio.admin import LabelStudioAdmin


class LabelStudioUser(LabelStudioAdmin):
    """An administrator who annotates as well."""

    def annotate(self, task: int, result: Sequence[Region], *, was_cancelled: bool = False) -> int:
        """Submit an annotation, or skip the task; return the annotation's number."""
        with self._connection.calling(f"annotate task {task}") as client:
            annotation = client.annotations.create(
                id=task, result=[dict(region) for region in result], was_cancelled=was_cancelled
            )
            return int(annotation.id)

    def next_task(self, project: int) -> int | None:
        """Return the task that the queue gives to the token's user, locked; None at its end."""
        with self._connection.calling(f"get the next task of project {project}") as client:
            response = client._client_wrapper.httpx_client.request(  # no method of the SDK's
                f"api/projects/{project}/next/", method="GET"
            )
            body = response.json()
            if response.status_code == 404 and "There are no tasks" in str(body):
                return None
            if response.status_code >= 400:
                raise ApiError(status_code=response.status_code, body=body)
            return int(body["id"])

    def delete_project(self, project: int) -> None:
        """Delete a project with all that is in it."""
        with self._connection.calling(f"delete project {project}") as client:
            client.projects.delete(id=project)

    def delete_webhook(self, webhook_id: int) -> None:
        with self._connection.calling(f"delete webhook {webhook_id}") as client:
            client.webhooks.delete(id=webhook_id)

    def start_training(self, backend: int) -> None:
        """Press a backend's "Start Training"; returns when the backend has answered."""
        with self._connection.calling(f"start training of backend {backend}") as client:
            client.ml.train(id=backend)
