"""Ask Label Studio for pages of tasks, and read only answers that are such pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from label_studio_sdk.core.api_error import ApiError

from backend.domain.labels import HumanLabel
from backend.domain.projects import Task, is_row_id
from backend.errors import InvalidRequest
from backend.labelstudio.events import read_annotation, read_task

if TYPE_CHECKING:  # the SDK's client brings pandas (90 MB, 0.8 s)
    from label_studio_sdk import LabelStudio
    from label_studio_sdk.core.request_options import RequestOptions

PAGE_SIZE = 500  # the rate does not depend on it (100 to 2,000 tried); one page took 1 to 5 s

_LOG = logging.getLogger(__name__)
_READING: RequestOptions = {"max_retries": 2}


def page_of_tasks(
    client: LabelStudio, platform_id: int, query: dict[str, Any], *, fields: str = "all"
) -> tuple[list[Mapping[str, Any]], int]:
    """Return a page's rows, and how many rows there are from its first one on.

    Raises ValueError where the answer is no page of this project's tasks. It is read here, not by
    the SDK, which takes any answer for a page and fails on data that are nested deep.
    """
    params = {
        "project": platform_id,
        "query": json.dumps(query, separators=(",", ":")),
        "fields": fields,
        "page_size": PAGE_SIZE,
        "resolve_uri": False,
    }
    page = send_request(client, "api/tasks/", method="GET", params=params, request_options=_READING)
    rows, n_rows = page.get("tasks"), page.get("total")
    if not isinstance(rows, list) or not isinstance(n_rows, int) or n_rows < len(rows):
        raise ValueError("the answer is no page of tasks")
    if n_rows > 0 and not rows:
        raise ValueError("the listing ends too early")
    for row in rows:
        if not is_row_id(row.get("id")) or row.get("project", platform_id) != platform_id:
            raise ValueError("the answer lists what is no task of this project")
    return rows, n_rows


def send_request(client: LabelStudio, path: str, **arguments: Any) -> Any:
    """Send a request that the SDK has no method for; return the answer's JSON, {} for none."""
    response = client._client_wrapper.httpx_client.request(path, **arguments)
    if response.status_code >= 400:
        is_json = "json" in response.headers.get("content-type", "")
        body = response.json() if is_json else response.text
        raise ApiError(status_code=response.status_code, body=body)
    return _parsed(response.text) if response.content else {}


def _parsed(text: str) -> Any:
    """Parse JSON; what is nested deep is parsed where the whole stack is left for it."""
    try:
        return json.loads(text)
    except RecursionError:
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(json.loads, text).result()


def task_of(row: Mapping[str, Any]) -> Task:
    try:
        data = read_task(row).data
    except InvalidRequest as exc:
        _LOG.warning("task=%d has no readable data: %s", row["id"], exc)
        data = {}
    return Task(row["id"], data, tuple(_annotations(row)), prediction_ids(row))


def _annotations(row: Mapping[str, Any]) -> Iterator[HumanLabel]:
    for annotation in row.get("annotations") or ():
        try:
            yield read_annotation(annotation)
        except InvalidRequest as exc:
            _LOG.warning("task=%d an annotation is left out: %s", row["id"], exc)


def prediction_ids(row: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the ids of a task's predictions by model version."""
    by_version: dict[str, tuple[int, ...]] = {}
    for prediction in row.get("predictions") or ():
        version = prediction.get("model_version") or ""
        by_version[version] = (*by_version.get(version, ()), prediction["id"])
    return by_version
