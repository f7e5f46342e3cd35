"""Call Label Studio through its SDK for the use cases, and translate its failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from label_studio_sdk.core.api_error import ApiError

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.projects import (
    UNCERTAINTY_SAMPLING,
    AcceptedLabel,
    Prediction,
    ProjectInfo,
    Task,
)
from backend.errors import (
    InvalidRequest,
    PlatformError,
    PlatformNotFound,
    PlatformRejected,
    PlatformUnauthorized,
    PlatformUnavailable,
)
from backend.labelstudio.annotations import accept_prediction, delete_untouched
from backend.labelstudio.events import plain_text, read_project
from backend.labelstudio.label_config import LabelConfigReader
from backend.labelstudio.task_pages import (
    PAGE_SIZE,
    page_of_tasks,
    prediction_ids,
    send_request,
    task_of,
)

if TYPE_CHECKING:  # loaded at the first call: the SDK's client brings pandas (90 MB, 0.8 s)
    import httpx
    from label_studio_sdk import LabelStudio

_USUAL_SAMPLING = "Sequential sampling"
_DELETE_TIMEOUT_S = 600.0  # 80 to 2,000 rows a second were seen; a version can have 100,000
# What the SDK, whose models are unchecked, and we raise on answers that are not Label Studio's.
_UNEXPECTED = (ValueError, TypeError, AttributeError, KeyError, RecursionError, InvalidRequest)
_NOT_FETCHED = Abstention(AbstentionReason.REMOTE_TEXT, "no text is needed here")
_REMEDY = (
    "make a personal access token in Label Studio (Account & Settings, Personal Access Token) "
    "and set LABEL_STUDIO_API_KEY to it"
)


class LabelStudioConnection:
    """Holds the SDK's client, made at the first use and shared by all threads.

    Writes are never retried here: an import that was lost on its way back would be stored twice.
    Neither task texts nor the token get into a message.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key.strip()
        self._timeout_s = timeout_s
        self._client: LabelStudio | None = None
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that are open; the next call opens new ones."""
        with self._lock:
            if self._http is not None:
                self._http.close()
            self._client = self._http = None

    @contextmanager
    def calling(self, purpose: str, *, shows_details: bool = False) -> Iterator[LabelStudio]:
        """Yield the client, and translate every failure of the calls made with it.

        Args:
            purpose: what the calls do, as it follows "cannot" in a message.
            shows_details: put Label Studio's list of mistakes into the message. It repeats what was
                sent, so only for calls that send no task data.
        """
        import httpx

        try:
            yield self._connected()
        except ApiError as exc:
            raise self._translated(purpose, exc, shows_details=shows_details) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise PlatformUnavailable(
                f"Label Studio at {self.url} does not answer ({type(exc).__name__}): cannot "
                f"{purpose}; check that it runs and that LABEL_STUDIO_URL is right"
            ) from exc
        except _UNEXPECTED as exc:
            raise self._unexpected(purpose) from exc

    def _connected(self) -> LabelStudio:
        with self._lock:
            if self._client is None:
                if not self._api_key:
                    raise PlatformUnauthorized(
                        f"no token for Label Studio is configured: {_REMEDY}"
                    )
                if not (self._api_key.isascii() and self._api_key.isprintable()):
                    raise PlatformUnauthorized(
                        f"LABEL_STUDIO_API_KEY holds characters that no token has: {_REMEDY}"
                    )
                import httpx
                from label_studio_sdk import LabelStudio

                self._http = httpx.Client(timeout=self._timeout_s, follow_redirects=True)
                self._client = LabelStudio(  # type: ignore[no-untyped-call]
                    base_url=f"{self.url}/",
                    api_key=self._api_key,
                    timeout=self._timeout_s,
                    max_retries=0,
                    httpx_client=self._http,
                )
            return self._client

    def _translated(self, purpose: str, exc: ApiError, *, shows_details: bool) -> PlatformError:
        status, reason = exc.status_code, _reason(exc.body, shows_details=shows_details)
        exc.headers, exc.body = None, reason  # they hold cookies and what was sent
        if status == 401:
            return PlatformUnauthorized(
                f"Label Studio at {self.url} refuses the token ({reason or status}): {_REMEDY}"
            )
        if status is not None and (status >= 500 or status in (408, 429)):
            return PlatformUnavailable(
                f"Label Studio at {self.url} failed (HTTP {status}): cannot {purpose}"
                + (f": {reason}" if reason else "")
            )
        if reason is None:
            return self._unexpected(purpose)
        kind = PlatformNotFound if status == 404 else PlatformRejected
        return kind(f"Label Studio at {self.url} refuses to {purpose} (HTTP {status}): {reason}")

    def _unexpected(self, purpose: str) -> PlatformRejected:
        return PlatformRejected(
            f"what answers at {self.url} does not speak as Label Studio does: cannot {purpose}; "
            "check LABEL_STUDIO_URL"
        )


class LabelStudioPlatform:
    """Implements the `LabelingPlatform` port for Label Studio 1.23. Safe between threads."""

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 60.0) -> None:
        self._connection = LabelStudioConnection(url, api_key, timeout_s=timeout_s)
        self._reader = LabelConfigReader(lambda *_: _NOT_FETCHED)

    def close(self) -> None:
        """Close the connections that are open; the next call opens new ones."""
        self._connection.close()

    def project(self, platform_id: int) -> ProjectInfo:
        """Return the project's present description; see `read_project` for its counts."""
        with self._connection.calling(f"read project {platform_id}") as client:
            info = read_project(client.projects.get(id=platform_id).model_dump())
            if info.platform_id != platform_id:
                raise ValueError("the answer is about another project")
            return info

    def backends(self, platform_id: int) -> list[str]:
        """Return the addresses of the project's ML backends; Label Studio calls each of them."""
        with self._connection.calling(f"list the backends of project {platform_id}") as client:
            return [str(backend.url) for backend in client.ml.list(project=platform_id)]

    def tasks(self, platform_id: int, *, updated_since: datetime | None = None) -> Iterator[Task]:
        """Yield every task in the order of ids, with its annotations and its predictions' ids.

        With `updated_since` only those that were edited or annotated from then on.

        Pages go by id, not by number, so tasks that are deleted meanwhile make it miss no others.
        The data is as it was imported and as webhooks give it: links into cloud storages are not
        resolved, because a resolved one differs at each call. Cost: 2 to 10 s per 1,000 tasks.

        Data and annotations that cannot be read are left out, their task is listed. Raises
        PlatformRejected where the answer is no listing of this project, or ends too early.
        """
        last_id, n_left = 0, 1
        while n_left > 0:
            with self._connection.calling(f"list the tasks of project {platform_id}") as client:
                filters = data_manager_filters("id", "greater", "Number", last_id)
                if updated_since is not None:
                    since = updated_since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
                    is_new = data_manager_filters("updated_at", "greater", "Datetime", since)
                    filters["items"] += is_new["items"]
                query = {"filters": filters, "ordering": ["tasks:id"]}
                rows, n_listed = page_of_tasks(client, platform_id, query)
                tasks = [task_of(row) for row in rows]
                n_left = n_listed - len(tasks)
            yield from tasks
            last_id = max((task.id for task in tasks), default=last_id)

    def import_predictions(self, platform_id: int, predictions: Sequence[Prediction]) -> int:
        """Store predictions in bulk; return how many were stored, which can be fewer.

        Label Studio leaves out what does not fit the label config, without a word. It refuses all
        when one task is gone: then those of the tasks that are still there are sent again.
        """
        if not predictions:
            return 0
        try:
            return self._import(platform_id, predictions)
        except PlatformRejected:
            ids = [prediction.task_id for prediction in predictions]
            existing = {task["id"] for task in self._select(platform_id, ids, {})}
            left = [p for p in predictions if p.task_id in existing]
            if len(left) == len(predictions):
                raise
            return self._import(platform_id, left) if left else 0

    def predicted_task_ids(
        self, platform_id: int, task_ids: Sequence[int], model_version: str
    ) -> set[int]:
        """Return which of the tasks carry a prediction of this model version.

        Label Studio filters by a part of the version's name, the rest is done here. Cost: 0.2 s
        per 500 ids that have none, 1 to 5 s per 500 that have one.
        """
        column = "predictions_model_versions"
        query = {"filters": data_manager_filters(column, "contains", "List", [model_version])}
        return {
            task["id"]
            for task in self._select(platform_id, task_ids, query, fields="all")
            if model_version in prediction_ids(task)
        }

    def accept_predictions(
        self, platform_id: int, labels: Sequence[AcceptedLabel]
    ) -> dict[int, int]:
        """Make predictions annotations that name them; return the annotations' ids by task.

        Cost: 0.1 to 0.2 s each.
        """
        ids = [label.task_id for label in labels]
        rows = {row["id"]: row for row in self._select(platform_id, ids, {}, fields="all")}
        made: dict[int, int] = {}
        for label in labels:
            purpose = f"annotate task {label.task_id}"
            with self._connection.calling(purpose) as client:
                row = rows.get(label.task_id)
                annotation_id = accept_prediction(client, label, row) if row else None
            if annotation_id is not None:
                made[label.task_id] = annotation_id
        return made

    def take_back(self, labels: Sequence[AcceptedLabel]) -> set[int]:
        """Delete annotations made of predictions; return the tasks whose one was edited and stays.

        Cost: 0.2 s each.
        """
        kept: set[int] = set()
        for label in labels:
            with self._connection.calling(f"take back annotation {label.annotation_id}") as client:
                if not delete_untouched(client, label):
                    kept.add(label.task_id)
        return kept

    def delete_predictions(self, prediction_ids: Sequence[int]) -> None:
        """Delete single predictions; those already gone are passed over. Cost: 0.1 s each."""
        for prediction_id in prediction_ids:
            with self._connection.calling(f"delete prediction {prediction_id}") as client:
                try:
                    client.predictions.delete(id=prediction_id)
                except ApiError as exc:
                    if exc.status_code != 404:
                        raise

    def delete_model_version(self, platform_id: int, model_version: str) -> None:
        """Delete every prediction of a model version.

        Label Studio then serves no version at all, also when it served another one by the name of
        an ML backend; that one is set again.
        """
        served = self.project(platform_id).model_version
        purpose = f"delete the predictions of model version {model_version!r}"
        with self._connection.calling(purpose, shows_details=True) as client:
            send_request(
                client,
                f"api/projects/{platform_id}/model-versions/",
                method="DELETE",
                json={"model_version": model_version},
                request_options={"timeout": _DELETE_TIMEOUT_S},
            )
        if served in (None, model_version) or self.project(platform_id).model_version == served:
            return
        with self._connection.calling(f"serve {served!r} again", shows_details=True) as client:
            client.projects.update(id=platform_id, model_version=served)

    def serve_model_version(self, platform_id: int, model_version: str) -> None:
        """Make Label Studio show this version's predictions and order its queue by their score.

        Raises PlatformRejected when the project has no prediction of this version.
        """
        purpose = f"serve model version {model_version!r}"
        with self._connection.calling(purpose, shows_details=True) as client:
            client.projects.update(
                id=platform_id, model_version=model_version, sampling=UNCERTAINTY_SAMPLING
            )

    def restore_queue(
        self, platform_id: int, *, model_version: str | None, sampling: str | None
    ) -> None:
        """Set what `serve_model_version` changes; a version that is not there becomes none."""
        with self._connection.calling("put the queue back", shows_details=True) as client:
            update = partial(
                client.projects.update, id=platform_id, sampling=sampling or _USUAL_SAMPLING
            )
            try:
                update(model_version=model_version or "")
            except ApiError as exc:
                if exc.status_code != 400:
                    raise
                update(model_version="")

    def _import(self, platform_id: int, predictions: Sequence[Prediction]) -> int:
        """Import in bulk, and one by one what Label Studio drops and its editor shows all the same.

        That are nested choices, choices that come with a task, and tags in lower case (0.1 s each).
        """
        request: list[Any] = [_row(prediction) for prediction in predictions]
        with self._connection.calling(f"store {len(request)} predictions") as client:
            imported = client.projects.import_predictions(id=platform_id, request=request)
            if not isinstance(imported.created, int):
                raise ValueError("the answer does not say how many were stored")
            n_created = imported.created
        if n_created >= len(predictions):
            return n_created
        ids = [prediction.task_id for prediction in predictions]
        present = self.predicted_task_ids(platform_id, ids, predictions[0].model_version)
        config = self.project(platform_id).label_config
        for prediction in predictions:
            if prediction.task_id in present or self._reader.errors(config, prediction):
                continue
            purpose = f"store a prediction of task {prediction.task_id}"
            with self._connection.calling(purpose) as client:
                try:
                    client.predictions.create(**_row(prediction))
                    n_created += 1
                except ApiError as exc:
                    if exc.status_code not in (400, 404):  # those where its task is gone
                        raise
        return n_created

    def _select(
        self,
        platform_id: int,
        task_ids: Sequence[int],
        query: dict[str, Any],
        *,
        fields: str = "task_only",
    ) -> Iterator[Mapping[str, Any]]:
        """Yield those of the tasks that are there and meet the query."""
        for start in range(0, len(task_ids), PAGE_SIZE):
            chosen = {"all": False, "included": list(task_ids[start : start + PAGE_SIZE])}
            with self._connection.calling(f"look up tasks of project {platform_id}") as client:
                rows, _ = page_of_tasks(
                    client, platform_id, {**query, "selectedItems": chosen}, fields=fields
                )
            yield from rows


def data_manager_filters(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    """Return the data manager's filters with one condition; `kind` is the value's type there."""
    item = {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
    return {"conjunction": "and", "items": [item]}


def _row(prediction: Prediction) -> dict[str, Any]:
    return {
        "task": prediction.task_id,
        "result": list(prediction.result),
        "score": prediction.score,
        "model_version": prediction.model_version,
    }


def _reason(body: Any, *, shows_details: bool) -> str | None:
    """Return Label Studio's message of a refusal; None when the body is not Label Studio's."""
    if not isinstance(body, dict) or "detail" not in body:
        return None
    mistakes = body.get("validation_errors") if shows_details else None
    text = str(body["detail"])
    if isinstance(mistakes, dict) and mistakes:
        lists = (m if isinstance(m, list) else [m] for m in mistakes.values())
        text = " ".join(str(mistake) for items in lists for mistake in items)
    return " ".join(plain_text(text).split())[:300]
