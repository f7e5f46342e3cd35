"""Check every part that the backend leans on; one finding each, with what to do about it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.doctor_checks import Finding, language_model_findings
from backend.domain.definitions import read_definitions, with_definitions
from backend.domain.ports import LanguageModel
from backend.domain.projects import UNCERTAINTY_SAMPLING, Project, ProjectInfo
from backend.errors import BackendError, PlatformUnauthorized
from backend.factories import connect_language_model
from backend.labelstudio.admin import (
    LabelStudioAdmin,
    MlBackend,
    TokenKind,
    Webhook,
    read_token,
)
from backend.labelstudio.client import LabelStudioPlatform
from backend.labelstudio.label_config import LabelConfigReader
from backend.labelstudio.remote_text import RemoteTexts
from backend.settings import Settings
from backend.store import Database, JobStore, ProjectStore

_GIGABYTE = 1024**3
_MIN_FREE_GB = 2
_NO_TOKEN = Finding(
    "token",
    "failure",
    "LABEL_STUDIO_API_KEY is not set, so predictions cannot be published",
    "make a personal access token in Label Studio (Account & Settings) and set it",
)
_SSRF_REMEDY = (
    "if adding the backend answers 403 'reserved network address', start Label Studio with "
    "USE_DEFAULT_BANNED_SUBNETS=false"
)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the doctor asks; tests give their own."""

    admin: LabelStudioAdmin
    platform: LabelStudioPlatform
    language_model: LanguageModel


def diagnose(
    settings: Settings, *, fix: bool = False, neighbours: Neighbours | None = None
) -> Iterator[Finding]:
    """Check everything, one thing after the other: a slow LLM server takes minutes to answer.

    With `fix`, write the webhooks' missing Authorization header.
    """
    neighbours = neighbours or _neighbours(settings)
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _disk(settings),
        lambda: language_model_findings(neighbours.language_model),
        lambda: _database(settings),
        lambda: _label_studio(settings, neighbours.admin),
        lambda: _projects(settings, neighbours, fix=fix),
    ]
    for check in checks:
        yield from check()


def _neighbours(settings: Settings) -> Neighbours:
    place = (settings.label_studio_url, settings.label_studio_api_key.reveal())
    model = connect_language_model(settings)
    return Neighbours(LabelStudioAdmin(*place), LabelStudioPlatform(*place), model)


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.home.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / _GIGABYTE
    if free < _MIN_FREE_GB:
        yield Finding(
            "disk",
            "failure",
            f"{free:.1f} GB are free at FREEAL_HOME",
            f"free at least {_MIN_FREE_GB} GB, or set FREEAL_HOME to a larger disk",
        )
    else:
        yield Finding("disk", "ok", f"{free:.0f} GB are free at FREEAL_HOME")


def _database(settings: Settings) -> Iterator[Finding]:
    database = Database(settings.state_url)
    try:
        database.migrate()
        database.check_writable()
        workers = JobStore(database).live_workers()
    except BackendError as exc:
        yield Finding("database", "failure", str(exc), "see DATABASE_URL in docs/operations.md")
        return
    finally:
        database.close()
    yield Finding("database", "ok", "can be written")
    if workers:
        yield Finding("worker", "ok", f"alive: {', '.join(workers)}")
    else:
        yield Finding(
            "worker",
            "warning",
            "no worker gave a sign of life in the last 30 s, so nothing is labelled",
            "start `make serve`, or `python -m backend worker`",
        )


def _label_studio(settings: Settings, admin: LabelStudioAdmin) -> Iterator[Finding]:
    if not admin.is_healthy():
        yield Finding(
            "Label Studio",
            "failure",
            f"does not answer at {settings.label_studio_url}",
            "start it, or set LABEL_STUDIO_URL to yours; `make demo` brings its own",
        )
        if not settings.label_studio_api_key.reveal():
            yield _NO_TOKEN
        return
    try:
        yield Finding("Label Studio", "ok", f"version {admin.version()} answers")
    except BackendError as exc:
        yield Finding("Label Studio", "warning", str(exc))
    yield from _token(settings, admin)


def _token(settings: Settings, admin: LabelStudioAdmin) -> Iterator[Finding]:
    key = settings.label_studio_api_key.reveal()
    if not key:
        yield _NO_TOKEN
        return
    token = read_token(key)
    if token.kind is TokenKind.ACCESS or (
        token.expires_at and token.expires_at < datetime.now(UTC)
    ):
        yield Finding(
            "token",
            "failure",
            f"LABEL_STUDIO_API_KEY is a {token.kind} that ended or ends within minutes",
            "set a personal access token instead",
        )
        return
    try:
        user = admin.user()
    except PlatformUnauthorized as exc:
        remedy = "make a new personal access token (Account & Settings)"
        if token.kind is TokenKind.LEGACY:
            remedy += ", or allow legacy tokens in the organization's settings"
        yield Finding("token", "failure", str(exc), remedy)
    except BackendError as exc:
        yield Finding("token", "failure", str(exc))
    else:
        yield Finding("token", "ok", f"{token.kind} of {user}")


def _projects(settings: Settings, neighbours: Neighbours, *, fix: bool) -> Iterator[Finding]:
    database = Database(settings.state_url)
    try:
        store = ProjectStore(database)
        connected = [project for project in store.all() if project.is_connected]
        served = {project.id: store.served_version(project.id) for project in connected}
    except BackendError:
        return
    finally:
        database.close()
    if not connected:
        yield Finding(
            "projects",
            "warning",
            "no project has connected yet",
            f"add {settings.own_url} in a project's Settings > Model; {_SSRF_REMEDY}",
        )
    for project in connected:
        yield from _project(settings, neighbours, project, served[project.id], fix=fix)


def _project(
    settings: Settings,
    neighbours: Neighbours,
    project: Project,
    served: str | None,
    *,
    fix: bool,
) -> Iterator[Finding]:
    subject = f"project {project.platform_id}"
    admin = neighbours.admin
    try:
        info = neighbours.platform.project(project.platform_id)
        backends = admin.backends(project.platform_id)
        webhooks = admin.webhooks(project.platform_id)
    except BackendError as exc:
        yield Finding(subject, "failure", str(exc))
        return
    yield from _config(settings, subject, info)
    yield from _connection(settings, subject, backends)
    yield from _webhooks(settings, subject, (backends, webhooks), admin, fix=fix)
    yield from _queue(settings, subject, info, project, served)


def _config(settings: Settings, subject: str, info: ProjectInfo) -> Iterator[Finding]:
    try:
        schema = LabelConfigReader(RemoteTexts(())).read_schema(info.label_config)
    except BackendError as exc:
        yield Finding(subject, "failure", str(exc), "see docs/label-configs.md")
        return
    names = ", ".join(question.name for question in schema.questions)
    yield Finding(subject, "ok", f"label config read: {names}")
    if schema.unsupported:
        yield Finding(
            subject,
            "warning",
            f"these tags are left alone: {', '.join(schema.unsupported)}",
            "see docs/label-configs.md for what can be labelled",
        )
    try:
        definitions = read_definitions(settings.definitions_folder, info.platform_id)
        with_definitions(schema, definitions.labels)
    except BackendError as exc:
        yield Finding(subject, "failure", str(exc), "nothing is labelled until this is corrected")


def _connection(settings: Settings, subject: str, backends: list[MlBackend]) -> Iterator[Finding]:
    ours = [backend for backend in backends if _is_ours(settings, backend.url)]
    if not ours:
        yield Finding(
            subject,
            "failure",
            f"no backend at {settings.own_url} is connected",
            f"add it in Settings > Model, or set BACKEND_URL; {_SSRF_REMEDY}",
        )
    elif backends[0] is not ours[0]:
        yield Finding(
            subject,
            "warning",
            "another ML backend comes first, and Label Studio asks only the first one",
            "remove the other one in Settings > Model",
        )
    elif ours[0].error:
        yield Finding(subject, "failure", f"Label Studio says: {ours[0].error}")
    else:
        yield Finding(subject, "ok", f"connected, state {ours[0].state!r}")


def _webhooks(
    settings: Settings,
    subject: str,
    found: tuple[list[MlBackend], list[Webhook]],
    admin: LabelStudioAdmin,
    *,
    fix: bool,
) -> Iterator[Finding]:
    backends, webhooks = found
    ours = [hook for hook in webhooks if _is_ours(settings, hook.url)]
    if not any(hook.is_active for hook in ours):
        yield Finding(
            subject,
            "warning",
            "its webhook is missing, so news arrives by the periodic sync only",
            "remove the backend in Settings > Model and add it again",
        )
    known = tuple(backend.url.rstrip("/") for backend in backends)
    for hook in webhooks:
        if hook.url.endswith("/webhook") and hook.url.removesuffix("/webhook") not in known:
            yield Finding(
                subject,
                "warning",
                f"webhook {hook.id} to {hook.url} is left over from a removed backend",
                "delete it in Settings > Webhooks",
            )
    if settings.basic_auth_user:
        yield from _webhook_headers(settings, subject, ours, admin, fix=fix)


def _webhook_headers(
    settings: Settings,
    subject: str,
    ours: list[Webhook],
    admin: LabelStudioAdmin,
    *,
    fix: bool,
) -> Iterator[Finding]:
    """Label Studio sends basic authentication with every call but its webhooks."""
    pair = f"{settings.basic_auth_user}:{settings.basic_auth_pass.reveal()}"
    header = "Basic " + base64.b64encode(pair.encode()).decode()
    for hook in ours:
        headers = {name.lower(): value for name, value in hook.headers.items()}
        if headers.get("authorization") == header:
            yield Finding(subject, "ok", f"webhook {hook.id} carries the basic authentication")
        elif fix:
            admin.set_webhook_headers(hook.id, {**hook.headers, "Authorization": header})
            yield Finding(subject, "ok", f"webhook {hook.id} carries the basic authentication now")
        else:
            yield Finding(
                subject,
                "failure",
                f"webhook {hook.id} lacks the Authorization header, so its news is refused",
                "run `python -m backend doctor --fix`",
            )


def _queue(
    settings: Settings, subject: str, info: ProjectInfo, project: Project, served: str | None
) -> Iterator[Finding]:
    present = f"model_version={info.model_version!r}, sampling={info.sampling!r}"
    if not settings.manage_queue:
        change = f"{project.model_version!r} and {UNCERTAINTY_SAMPLING!r}"
        yield Finding(
            subject,
            "ok",
            f"MANAGE_QUEUE=false: the queue is left to you ({present}); "
            f"MANAGE_QUEUE=true would set these two to {change} and nothing else",
        )
        return
    is_set = info.model_version == project.model_version == served
    if is_set and info.sampling == UNCERTAINTY_SAMPLING:
        yield Finding(
            subject,
            "ok",
            f"the queue follows model version {served}; MANAGE_QUEUE=true keeps the project's "
            "model_version and sampling so, and nothing else",
        )
        return
    yield Finding(
        subject,
        "warning",
        f"the queue is not ordered yet: {present}",
        "the worker sets both once the first predictions are published (MANAGE_QUEUE=true)",
    )


def _is_ours(settings: Settings, url: str) -> bool:
    return url.rstrip("/").removesuffix("/webhook").rstrip("/") == settings.own_url
