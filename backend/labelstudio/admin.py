"""Set up projects, ML backends and webhooks in Label Studio, for the demo and the doctor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import httpx
import jwt

from backend.errors import PlatformRejected, PlatformUnavailable
from backend.labelstudio.client import LabelStudioConnection, data_manager_filters
from backend.labelstudio.task_pages import send_request

_RESERVED_ADDRESS = "reserved network address"


class TokenKind(StrEnum):
    """The kinds of API keys, told apart by their form."""

    PERSONAL = "personal access token"
    LEGACY = "legacy token"
    ACCESS = "short-lived access token"


@dataclass(frozen=True, slots=True)
class MlBackend:
    """An ML backend as a project knows it. `error` is what Label Studio shows beside it."""

    id: int
    url: str
    title: str
    state: str
    error: str = ""
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of a project."""

    id: int
    url: str
    is_active: bool
    headers: Mapping[str, str] = field(default_factory=dict)


def read_token(api_key: str) -> tuple[TokenKind, datetime | None]:
    """Return a key's kind and its end, None for a legacy token; its signature is not looked at.

    Only a personal access token or, where the organization allows it, a legacy token is of use to
    a backend: an access token ends after five minutes.
    """
    try:
        claims = jwt.decode(api_key, options={"verify_signature": False, "verify_exp": False})
    except jwt.InvalidTokenError:
        return TokenKind.LEGACY, None
    is_access = claims.get("token_type") == "access"
    ends = claims.get("exp")
    expires_at = datetime.fromtimestamp(ends, UTC) if isinstance(ends, int | float) else None
    return TokenKind.ACCESS if is_access else TokenKind.PERSONAL, expires_at


class LabelStudioAdmin:
    """Creates and reads what surrounds labeling: projects, ML backends, webhooks.

    Every method raises PlatformUnavailable, PlatformUnauthorized or PlatformRejected.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 60.0) -> None:
        self._connection = LabelStudioConnection(url, api_key, timeout_s=timeout_s)
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Close the connections that are open; the next call opens new ones."""
        self._connection.close()

    def is_healthy(self) -> bool:
        """Return whether Label Studio answers; needs no token and never raises."""
        try:
            return self._public("/health").is_success
        except PlatformUnavailable:
            return False

    def version(self) -> str:
        """Return Label Studio's release, such as "1.23.2"; needs no token."""
        try:
            return str(self._public("/api/version").json()["release"])
        except (ValueError, KeyError, TypeError) as exc:
            raise PlatformRejected(
                f"what answers at {self._connection.url} is not Label Studio; "
                "check LABEL_STUDIO_URL"
            ) from exc

    def _public(self, path: str) -> httpx.Response:
        url = self._connection.url
        try:
            return httpx.get(url + path, timeout=self._timeout_s, follow_redirects=True)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise PlatformUnavailable(
                f"Label Studio at {url} does not answer ({type(exc).__name__}); "
                "check that it runs and that LABEL_STUDIO_URL is right"
            ) from exc

    def user(self) -> str:
        """Return the e-mail address of the token's user, which shows that the token works."""
        with self._connection.calling("use the token") as client:
            return str(client.users.whoami().email)

    def create_project(self, title: str, label_config: str, instruction: str = "") -> int:
        """Create a project and return its number; the instruction can be HTML."""
        with self._connection.calling("create a project", shows_details=True) as client:
            project = client.projects.create(
                title=title,
                label_config=label_config,
                expert_instruction=instruction,
                show_instruction=bool(instruction),
            )
        return int(project.id or 0)

    def find_project(self, title: str) -> int | None:
        """Return the oldest project of this very title, or None when there is none."""
        with self._connection.calling("look for a project") as client:
            projects: Iterable[Any] = client.projects.list(title=title)
            ids = [int(project.id) for project in projects if project.title == title]
        return min(ids, default=None)

    def import_tasks(self, project: int, data: Sequence[Mapping[str, Any]]) -> int:
        """Create one task per element in a single request; return how many there are now more."""
        request: list[Any] = [{"data": dict(item)} for item in data]
        with self._connection.calling(f"import {len(request)} tasks") as client:
            return int(client.projects.import_tasks(id=project, request=request).task_count or 0)

    def open_data_manager(self, project: int) -> None:
        """Give a project its first tab, as Label Studio's page does when it is opened first."""
        path, titled = "api/dm/views/", {"project": project, "data": {"title": "Default"}}
        with self._connection.calling(f"open the Data Manager of project {project}") as client:
            found = send_request(client, path, method="GET", params={"project": project})
            if not found:
                send_request(client, path, method="POST", json=titled)

    def ensure_user(self, email: str, name: str) -> int:
        """Return the id of the organization's member with this address, added if there is none."""
        with self._connection.calling(f"add the user {email}") as client:
            for user in client.users.list():
                if user.email == email:
                    return int(user.id)
            first, last = name.split(maxsplit=1)
            added = client.users.create(
                username=email, email=email, first_name=first, last_name=last
            )
            return int(added.id)

    def annotate_as(self, user: int, task: int, result: Sequence[Mapping[str, Any]]) -> None:
        """Submit an annotation in a member's name."""
        with self._connection.calling(f"annotate task {task}") as client:
            regions = [dict(region) for region in result]
            client.annotations.create(id=task, result=regions, completed_by=user)

    def count_predicted(self, project: int) -> int:
        """Return how many of the project's tasks carry a prediction of any version."""
        filters = data_manager_filters("total_predictions", "greater", "Number", 0)
        with self._connection.calling(f"count the predictions of project {project}") as client:
            page: Any = client.tasks.list(
                project=project,
                query=json.dumps({"filters": filters}),
                fields="task_only",
                page_size=1,
                resolve_uri=False,
            )
            return int(page.response.total)

    def predicted_choices(self, project: int) -> list[str | None]:
        """Return the first choice of each task's newest prediction, in the order of the tasks."""
        with self._connection.calling(f"list the predictions of project {project}") as client:
            tasks: Iterable[Any] = client.tasks.list(
                project=project, page_size=500, resolve_uri=False
            )
            labels: list[str | None] = []
            for task in tasks:
                newest = max(task.predictions or (), key=lambda each: each.id, default=None)
                values = (region.get("value", {}) for region in newest.result) if newest else ()
                choices = (value["choices"] for value in values if value.get("choices"))
                labels.append(next((str(chosen[0]) for chosen in choices), None))
            return labels

    def connect_backend(
        self, project: int, url: str, title: str, *, basic_auth: tuple[str, str] | None = None
    ) -> MlBackend:
        """Add an ML backend, which makes Label Studio call it at once.

        With `basic_auth` (user, password) its webhooks still come without: see
        `set_webhook_headers`.
        """
        access: dict[str, Any] = {}
        if basic_auth is not None:
            access = {"auth_method": "BASIC_AUTH"}
            access["basic_auth_user"], access["basic_auth_pass"] = basic_auth
        purpose = f"connect the ML backend at {url}"
        try:
            with self._connection.calling(purpose, shows_details=True) as client:
                created = client.ml.create(project=project, url=url, title=title, **access)
        except PlatformRejected as exc:
            if _RESERVED_ADDRESS not in str(exc):
                raise
            raise PlatformRejected(
                f"Label Studio refuses to connect {url}, because it is in a private network; start "
                "Label Studio again with the environment variable "
                "USE_DEFAULT_BANNED_SUBNETS=false, then connect the backend again"
            ) from exc
        return _ml_backend(created)

    def backends(self, project: int) -> list[MlBackend]:
        """Return the project's ML backends; Label Studio calls each of them to find its state."""
        with self._connection.calling(f"list the backends of project {project}") as client:
            return [_ml_backend(backend) for backend in client.ml.list(project=project)]

    def webhooks(self, project: int) -> list[Webhook]:
        """Return the project's webhooks; they outlive the ML backend that they came with."""
        with self._connection.calling(f"list the webhooks of project {project}") as client:
            return [
                Webhook(int(hook.id), hook.url, bool(hook.is_active), dict(hook.headers or {}))
                for hook in client.webhooks.list(project=str(project))
            ]

    def set_webhook_headers(self, webhook_id: int, headers: Mapping[str, str]) -> None:
        """Make Label Studio send these headers with a webhook, such as Authorization."""
        with self._connection.calling(f"change webhook {webhook_id}") as client:
            client.webhooks.update(id=webhook_id, headers=dict(headers))


def _ml_backend(backend: Any) -> MlBackend:
    return MlBackend(
        id=int(backend.id),
        url=backend.url,
        title=backend.title or "",
        state=backend.readable_state or "",
        error=backend.error_message or "",
        model_version=backend.model_version or "",
    )
