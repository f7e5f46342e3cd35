"""Check every part that the backend depends on; one finding each, with its remedy."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from backend.domain.definitions import read_definitions, with_definitions
from backend.domain.ports import Decoding, LanguageModel, LanguageModelInfo
from backend.domain.projects import UNCERTAINTY_SAMPLING, Project, ProjectInfo
from backend.errors import BackendError, PlatformUnauthorized
from backend.factories import connect_language_model
from backend.files import folder_sizes
from backend.labelstudio.admin import LabelStudioAdmin, MlBackend, TokenKind, Webhook, read_token
from backend.labelstudio.client import LabelStudioPlatform
from backend.labelstudio.label_config import LabelConfigReader
from backend.labelstudio.remote_text import RemoteTexts
from backend.launcher.embedded_models import ENCODERS, LANGUAGE_MODELS
from backend.launcher.machine import free_disk
from backend.pipeline.origins import labeled_by, noted_annotators
from backend.settings import Settings
from backend.store import Database, JobStore, RetentionStore, Stores

_GIGABYTE = 1024**3
_MIN_FREE_GB = 2
_N_LARGEST = 5
_MAX_FAST_S = 5.0
_MAX_WAIT_S = 60.0
_SSRF_REMEDY = (
    "if adding the backend answers 403 'reserved network address', start Label Studio with "
    "USE_DEFAULT_BANNED_SUBNETS=false"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, with a remedy unless all is well."""

    subject: str
    state: Literal["ok", "warning", "failure"]
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Servers:
    """The clients of the servers to check; tests give their own."""

    admin: LabelStudioAdmin
    platform: LabelStudioPlatform
    language_model: LanguageModel


def diagnose(
    settings: Settings, *, fix: bool = False, servers: Servers | None = None
) -> Iterator[Finding]:
    """Yield each finding as soon as it is known: a slow LLM server takes minutes to answer.

    With `fix`, write the webhooks' missing Authorization header.
    """
    if servers is None:
        address = (settings.label_studio_url, settings.label_studio_api_key.reveal())
        model = connect_language_model(settings)
        servers = Servers(LabelStudioAdmin(*address), LabelStudioPlatform(*address), model)
    yield _check_disk(settings)
    yield _check_space(settings)
    yield from _check_embedded_models(settings)
    yield from _check_language_model(servers.language_model)
    yield from _check_database(settings)
    yield from _check_label_studio(settings, servers.admin)
    yield from _check_projects(settings, servers, fix=fix)


def _check_disk(settings: Settings) -> Finding:
    free = free_disk(settings.home) / _GIGABYTE
    if free >= _MIN_FREE_GB:
        return Finding("disk", "ok", f"{free:.0f} GB are free at FREEAL_HOME")
    remedy = f"free at least {_MIN_FREE_GB} GB, or set FREEAL_HOME to a larger disk"
    return Finding("disk", "failure", f"{free:.1f} GB are free at FREEAL_HOME", remedy)


def _check_space(settings: Settings) -> Finding:
    """Say what takes the space at FREEAL_HOME, and which tables of the database do."""
    sizes = folder_sizes(settings.home)
    parts = [f"FREEAL_HOME has {_megabytes(sum(sizes.values()))}: {_largest(sizes)}"]
    try:
        with closing(Database(settings.state_url)) as database:
            tables = RetentionStore(database).table_sizes() if database.revision() else {}
    except BackendError:
        tables = {}
    if tables:
        parts.append(f"the database has {_megabytes(sum(tables.values()))}: {_largest(tables)}")
    return Finding("space", "ok", "; ".join(parts))


def _largest(sizes: Mapping[str, int]) -> str:
    """Return the largest parts in words, the largest first."""
    found = sorted(sizes.items(), key=lambda item: -item[1])[:_N_LARGEST]
    return ", ".join(f"{name} {_megabytes(size)}" for name, size in found) or "nothing"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MB"


def _check_embedded_models(settings: Settings) -> Iterator[Finding]:
    """Say of each embedded model whether it is there, and if not, whether it can be."""
    for setting, models in (("LLM_MODEL", LANGUAGE_MODELS), ("ENCODER_MODEL", ENCODERS)):
        for model in models:
            needs = model.needs(settings.home)
            fits = "fits this machine" if needs.are_met else "does not fit this machine now"
            there = "is there and " if model.is_there(settings.home) else ""
            message = f"{setting}={model.name} {there}{fits}: {needs}"
            yield Finding("embedded model", "ok", message)


def _check_language_model(model: LanguageModel) -> Iterator[Finding]:
    """Check that the LLM answers, its capabilities and its latency."""
    try:
        info = model.describe()
    except BackendError as exc:
        remedy = (
            "start it (`make llm`), or set LLM_BASE_URL (and LLM_MODEL, LLM_API_KEY) to yours; one "
            "that is up may still be loading, or busy. docs/troubleshooting.md has a row for each "
            "kind of server"
        )
        yield Finding("LLM", "failure", str(exc), remedy)
        return
    yield _check_context(info)
    if info.thinks:
        thinks = "this model thinks before it answers, and no field that we know turns it off"
        remedy = (
            "answers take long and have no probabilities: use its variant without thinking, or "
            "switch thinking off where it is served"
        )
        yield Finding("LLM", "warning", thinks, remedy)
    if info.reads_token_ids:
        yield Finding("LLM", "ok", "tells the probability of every label")
    elif info.n_top_logprobs:
        by = "" if info.names_token_ids else " by their text"
        top = f"gives the {info.n_top_logprobs} likeliest tokens{by}: rare labels get a floor"
        remedy = "vLLM 0.32 or newer gives every label's probability"
        yield Finding("LLM", "warning", top, remedy)
    else:
        none = "gives no probabilities: what it writes counts as 80 % sure until people say better"
        remedy = "a server with `logprobs`, such as vLLM, says how sure each label is"
        yield Finding("LLM", "warning", none, remedy)
    capabilities = {
        "plain prompts": info.has_plain,
        "chats": info.has_chat,
        "answers held to choices": info.constrains_choices,
        "answers held to a JSON schema": info.constrains_json,
    }
    present = ", ".join(name for name, is_there in capabilities.items() if is_there)
    missing = ", ".join(name for name, is_there in capabilities.items() if not is_there)
    yield Finding("LLM", "ok", f"takes {present}" + (f"; not {missing}" if missing else ""))
    yield _check_latency(model)


def _check_context(info: LanguageModelInfo) -> Finding:
    if info.tells_context:
        message = f"{info.name} with a context of {info.n_context_tokens:,} tokens"
        return Finding("LLM", "ok", message)
    guessed = f"{info.name} does not tell its context; {info.n_context_tokens:,} tokens are assumed"
    remedy = "set LLM_CONTEXT_TOKENS to the length that it is served with; longer texts are cut"
    return Finding("LLM", "warning", guessed, remedy)


def _check_latency(model: LanguageModel) -> Finding:
    """Time the completion of one token."""
    started_at = time.monotonic()
    (answer,) = model.complete(["Hello"], Decoding(), deadline_s=_MAX_WAIT_S)
    seconds = time.monotonic() - started_at
    if answer.failure is None and seconds <= _MAX_FAST_S:
        return Finding("LLM", "ok", f"answers a short prompt in {seconds:.1f} s")
    took = f"took {seconds:.0f} s over one token" if answer.failure is None else answer.failure
    remedy = "leave it the machine, or use a GPU or a smaller model"
    return Finding("LLM", "warning", f"is slow: {took}; labels come, but not soon", remedy)


def _check_database(settings: Settings) -> Iterator[Finding]:
    try:
        with closing(Database(settings.state_url)) as database:
            database.migrate()
            database.check_writable()
            workers = JobStore(database).live_workers()
    except BackendError as exc:
        yield Finding("database", "failure", str(exc), "see DATABASE_URL in docs/operations.md")
        return
    yield Finding("database", "ok", "can be written")
    if workers:
        yield Finding("worker", "ok", f"alive: {', '.join(workers)}")
    else:
        message = "no worker gave a sign of life in the last 30 s, so nothing is labelled"
        remedy = "start `make serve`, or `python -m backend worker`"
        yield Finding("worker", "warning", message, remedy)


def _check_label_studio(settings: Settings, admin: LabelStudioAdmin) -> Iterator[Finding]:
    is_up = admin.is_healthy()
    if is_up:
        try:
            yield Finding("Label Studio", "ok", f"version {admin.version()} answers")
        except BackendError as exc:
            yield Finding("Label Studio", "warning", str(exc))
    else:
        message = f"does not answer at {settings.label_studio_url}"
        remedy = "start it, or set LABEL_STUDIO_URL to yours; `make demo` brings its own"
        yield Finding("Label Studio", "failure", message, remedy)
    if not settings.label_studio_api_key:
        message = "LABEL_STUDIO_API_KEY is not set, so predictions cannot be published"
        remedy = "make a personal access token in Label Studio (Account & Settings) and set it"
        yield Finding("token", "failure", message, remedy)
    elif is_up:
        yield _check_token(settings.label_studio_api_key.reveal(), admin)


def _check_token(key: str, admin: LabelStudioAdmin) -> Finding:
    kind, expires_at = read_token(key)
    has_ended = expires_at is not None and expires_at < datetime.now(UTC)
    if kind is TokenKind.ACCESS or has_ended:
        ended = f"LABEL_STUDIO_API_KEY is a {kind} that ended or ends within minutes"
        return Finding("token", "failure", ended, "set a personal access token instead")
    try:
        user = admin.user()
    except PlatformUnauthorized as exc:
        remedy = "make a new personal access token (Account & Settings)"
        if kind is TokenKind.LEGACY:
            remedy += ", or allow legacy tokens in the organization's settings"
        return Finding("token", "failure", str(exc), remedy)
    except BackendError as exc:
        return Finding("token", "failure", str(exc))
    return Finding("token", "ok", f"{kind} of {user}")


def _check_projects(settings: Settings, servers: Servers, *, fix: bool) -> Iterator[Finding]:
    try:
        with closing(Database(settings.state_url)) as database:
            stores = Stores(database)
            connected = [project for project in stores.projects.all() if project.is_connected]
            served = {p.id: stores.projects.served_version(p.id) for p in connected}
            labeled = {p.id: _labeled_by(stores, p) for p in connected}
    except BackendError:
        return
    if not connected:
        remedy = f"add {settings.own_url} in a project's Settings > Model; {_SSRF_REMEDY}"
        yield Finding("projects", "warning", "no project has connected yet", remedy)
    for project in connected:
        subject = f"project {project.platform_id}"
        try:
            info = servers.platform.project(project.platform_id)
            backends = servers.admin.backends(project.platform_id)
            webhooks = servers.admin.webhooks(project.platform_id)
        except BackendError as exc:
            yield Finding(subject, "failure", str(exc))
            continue
        checks = _ProjectChecks(subject, settings, servers.admin, fix)
        yield from checks.label_config(info)
        yield checks.connection(backends)
        yield from checks.webhooks(backends, webhooks)
        yield checks.queue(info, project, served[project.id])
        n_tasks, changes = labeled[project.id]
        if n_tasks:
            yield checks.labeled_by(n_tasks, changes)


def _labeled_by(stores: Stores, project: Project) -> tuple[dict[str, int], list[str]]:
    """Return how many tasks each annotator has labeled, and what has changed since."""
    present = noted_annotators(stores, project)
    origins = stores.labels.origins(project)
    return labeled_by(origins), present.changes(present.outdated(origins))


@dataclass(frozen=True, slots=True)
class _ProjectChecks:
    """The checks of one connected project."""

    subject: str
    settings: Settings
    admin: LabelStudioAdmin
    fix: bool

    def label_config(self, info: ProjectInfo) -> Iterator[Finding]:
        try:
            reader = LabelConfigReader(RemoteTexts(()), skip=self.settings.skip_controls)
            schema = reader.read_schema(info.label_config)
        except BackendError as exc:
            yield Finding(self.subject, "failure", str(exc), "see docs/label-configs.md")
            return
        names = ", ".join(question.name for question in schema.questions)
        yield Finding(self.subject, "ok", f"label config read: {names}")
        if schema.unsupported:
            message = f"these tags are left alone: {', '.join(schema.unsupported)}"
            remedy = "see docs/label-configs.md for what can be labelled"
            yield Finding(self.subject, "warning", message, remedy)
        try:
            definitions = read_definitions(self.settings.definitions_folder, info.platform_id)
            with_definitions(schema, definitions.labels)
        except BackendError as exc:
            remedy = "nothing is labelled until this is corrected"
            yield Finding(self.subject, "failure", str(exc), remedy)

    def connection(self, backends: list[MlBackend]) -> Finding:
        ours = [backend for backend in backends if self._is_ours(backend.url)]
        if not ours:
            message = f"no backend at {self.settings.own_url} is connected"
            remedy = f"add it in Settings > Model, or set BACKEND_URL; {_SSRF_REMEDY}"
            return Finding(self.subject, "failure", message, remedy)
        if backends[0] is not ours[0]:
            message = "another ML backend comes first, and Label Studio asks only the first one"
            remedy = "remove the other one in Settings > Model"
            return Finding(self.subject, "warning", message, remedy)
        if ours[0].error:
            return Finding(self.subject, "failure", f"Label Studio says: {ours[0].error}")
        return Finding(self.subject, "ok", f"connected, state {ours[0].state!r}")

    def webhooks(self, backends: list[MlBackend], webhooks: list[Webhook]) -> Iterator[Finding]:
        ours = [hook for hook in webhooks if self._is_ours(hook.url)]
        if not any(hook.is_active for hook in ours):
            message = "its webhook is missing, so news arrives by the periodic sync only"
            remedy = "remove the backend in Settings > Model and add it again"
            yield Finding(self.subject, "warning", message, remedy)
        known = [backend.url.rstrip("/") for backend in backends]
        for hook in webhooks:
            if hook.url.endswith("/webhook") and hook.url.removesuffix("/webhook") not in known:
                message = f"webhook {hook.id} to {hook.url} is left over from a removed backend"
                remedy = "delete it in Settings > Webhooks"
                yield Finding(self.subject, "warning", message, remedy)
        if self.settings.basic_auth_user:
            yield from map(self._authorization, ours)

    def _authorization(self, hook: Webhook) -> Finding:
        """Label Studio sends basic authentication with every call but its webhooks."""
        pair = f"{self.settings.basic_auth_user}:{self.settings.basic_auth_pass.reveal()}"
        header = "Basic " + base64.b64encode(pair.encode()).decode()
        headers = {name.lower(): value for name, value in hook.headers.items()}
        carries = f"webhook {hook.id} carries the basic authentication"
        if headers.get("authorization") == header:
            return Finding(self.subject, "ok", carries)
        if self.fix:
            self.admin.set_webhook_headers(hook.id, {**hook.headers, "Authorization": header})
            return Finding(self.subject, "ok", f"{carries} now")
        message = f"webhook {hook.id} lacks the Authorization header, so its news is refused"
        return Finding(self.subject, "failure", message, "run `python -m backend doctor --fix`")

    def queue(self, info: ProjectInfo, project: Project, served: str | None) -> Finding:
        present = f"model_version={info.model_version!r}, sampling={info.sampling!r}"
        if not self.settings.manage_queue:
            change = f"{project.model_version!r} and {UNCERTAINTY_SAMPLING!r}"
            message = (
                f"MANAGE_QUEUE=false: the queue is left to you ({present}); "
                f"MANAGE_QUEUE=true would set these two to {change} and nothing else"
            )
            return Finding(self.subject, "ok", message)
        is_set = info.model_version == project.model_version == served
        if is_set and info.sampling == UNCERTAINTY_SAMPLING:
            message = (
                f"the queue follows model version {served}; MANAGE_QUEUE=true keeps the project's "
                "model_version and sampling so, and nothing else"
            )
            return Finding(self.subject, "ok", message)
        message = f"the queue is not ordered yet: {present}"
        remedy = "the worker sets both once the first predictions are published (MANAGE_QUEUE=true)"
        return Finding(self.subject, "warning", message, remedy)

    def labeled_by(self, n_tasks: Mapping[str, int], changes: Sequence[str]) -> Finding:
        message = "labelled: " + ", ".join(f"{n:,} tasks by {name}" for name, n in n_tasks.items())
        if not changes:
            return Finding(self.subject, "ok", message)
        number = self.subject.rpartition(" ")[2]
        remedy = f"`python -m backend relabel {number}` tries it on a sample, and says if it pays"
        return Finding(self.subject, "warning", "; ".join([message, *changes]), remedy)

    def _is_ours(self, url: str) -> bool:
        url = url.rstrip("/").removesuffix("/webhook").rstrip("/")
        return url == self.settings.own_url
