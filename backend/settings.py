"""Every setting, read from the environment once; the only module that reads `os.environ`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.setting_values import Secret, as_text, parse

_MAY_BE_ZERO = ("round_every",)


def _setting(env: str, default: Any, unit: str, reason: str) -> Any:
    metadata = {"env": env, "unit": unit, "reason": reason}
    if isinstance(default, Secret):
        return field(default_factory=lambda: Secret(default.reveal()), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. `from_env` reads them; each field's metadata says env name, unit, reason."""

    home: Path = _setting(
        "FREEAL_HOME",
        Path(".freeal"),
        "folder",
        "everything made at run time: database, models, environments, logs",
    )
    database_url: Secret = _setting(
        "DATABASE_URL",
        Secret(""),
        "URL",
        "empty: SQLite files in FREEAL_HOME; postgresql://... for several machines",
    )
    host: str = _setting("HOST", "127.0.0.1", "address", "0.0.0.0 only behind a firewall or proxy")
    port: int = _setting("PORT", 9090, "port", "what Label Studio's ML backends use by habit")
    web_processes: int = _setting(
        "WEB_PROCESSES",
        1,
        "processes",
        "a stored prediction takes milliseconds, so one is enough for most",
    )
    web_threads: int = _setting(
        "WEB_THREADS", 8, "threads", "a live label holds its thread for up to PREDICT_DEADLINE_S"
    )
    backend_url: str = _setting(
        "BACKEND_URL",
        "",
        "URL",
        "this backend as Label Studio reaches it; empty: http://127.0.0.1:PORT",
    )
    label_studio_url: str = _setting(
        "LABEL_STUDIO_URL", "http://localhost:8080", "URL", "where Label Studio answers"
    )
    label_studio_api_key: Secret = _setting(
        "LABEL_STUDIO_API_KEY",
        Secret(""),
        "secret",
        "personal access token or legacy token; the token that Label Studio hands over at "
        "connection is refused by its own default settings",
    )
    label_studio_timeout_s: float = _setting(
        "LABEL_STUDIO_TIMEOUT_S", 60.0, "s", "a bulk import of 500 predictions takes under 1 s"
    )
    llm_base_url: str = _setting(
        "LLM_BASE_URL",
        "http://127.0.0.1:8000/v1",
        "URL,URL",
        "an OpenAI-compatible server, or several of one model",
    )
    llm_model: str = _setting(
        "LLM_MODEL", "", "name", "empty: the first model that the server names"
    )
    llm_api_key: Secret = _setting("LLM_API_KEY", Secret(""), "secret", "vLLM's --api-key, if any")
    llm_timeout_s: float = _setting(
        "LLM_TIMEOUT_S",
        120.0,
        "s",
        "for one request; a written answer gets as long again for every 96 tokens",
    )
    llm_batch_size: int = _setting(
        "LLM_BATCH_SIZE", 64, "prompts", "prompts in one request; vLLM batches them on its own"
    )
    llm_concurrency: int = _setting(
        "LLM_CONCURRENCY", 3, "requests", "lists in flight, so that the server never waits for us"
    )
    llm_cache_days: int = _setting(
        "LLM_CACHE_DAYS", 90, "days", "answers are kept this long, so that none is paid twice"
    )
    llm_price_in: float = _setting(
        "LLM_PRICE_IN", 0.0, "per million tokens", "what prompts cost, for the status and metrics"
    )
    llm_price_out: float = _setting("LLM_PRICE_OUT", 0.0, "per million tokens", "what answers cost")
    encoder_model: str = _setting(
        "ENCODER_MODEL",
        "",
        "name or folder",
        "a Hugging Face encoder for similarity and embeddings; empty: the all-MiniLM-L6-v2 inside",
    )
    slm_model: str = _setting(
        "SLM_MODEL",
        "",
        "name or folder",
        "a Hugging Face encoder that rounds fine-tune; empty: the all-MiniLM-L6-v2 inside",
    )
    slm_recipe: str = _setting(
        "SLM_RECIPE",
        "default",
        "default/plain/probe",
        "how it learns; probe: a linear one on frozen vectors, seconds instead of minutes",
    )
    slm_views: str = _setting(
        "SLM_VIEWS",
        "",
        "paraphrase or field",
        "second wordings for ROUND_RECIPE=paper: by the LLM, or a field of the tasks; empty: none",
    )
    slm_processes: int = _setting(
        "SLM_PROCESSES",
        0,
        "processes",
        "how many train the small model, at most one per GPU; 0: so many from 5,000 texts on",
    )
    round_recipe: str = _setting(
        "ROUND_RECIPE",
        "default",
        "default/paper",
        "paper: FreeAL's four rounds as published, in which people have no part",
    )
    round_min_tasks: int = _setting(
        "ROUND_MIN_TASKS", 100, "tasks", "fewer labels teach a small model nothing"
    )
    round_every: int = _setting(
        "ROUND_EVERY",
        20,
        "labels by people",
        "the next round follows so many; 0: rounds are made only when asked for",
    )
    round_limit: int = _setting(
        "ROUND_LIMIT", 1, "cycles", "of refinement and training in one round; 1 is FreeAL's number"
    )
    round_shots: int = _setting(
        "ROUND_SHOTS", 8, "examples", "in-context examples of a refined answer"
    )
    llm_share: float = _setting(
        "LLM_SHARE",
        0.0,
        "share of the pool",
        "asked at first, and again in each cycle; 0: all, or what takes a night, and then an hour",
    )
    predict_deadline_s: float = _setting(
        "PREDICT_DEADLINE_S", 8.0, "s", "an annotator waits for /predict; later tasks get none"
    )
    live_predict_limit: int = _setting(
        "LIVE_PREDICT_LIMIT", 64, "tasks", "more than this in one call are left to the worker"
    )
    annotate_chunk: int = _setting(
        "ANNOTATE_CHUNK", 256, "tasks", "what a kill can cost at most, and the step of progress"
    )
    publish_chunk: int = _setting(
        "PUBLISH_CHUNK", 500, "predictions", "one bulk import takes about half a second"
    )
    sync_interval_s: float = _setting(
        "SYNC_INTERVAL_S", 30.0, "s", "Label Studio never repeats a lost webhook, so we look"
    )
    full_sync_interval_s: float = _setting(
        "FULL_SYNC_INTERVAL_S",
        3600.0,
        "s",
        "a full listing costs Label Studio 2 s per 1,000 tasks; made at once when counts differ",
    )
    retry_abstentions_s: float = _setting(
        "RETRY_ABSTENTIONS_S", 600.0, "s", "an answer that could not be read is asked for again"
    )
    manage_queue: bool = _setting(
        "MANAGE_QUEUE",
        True,
        "true/false",
        "set the project's model version and sampling, without which its queue is random",
    )
    query_strategy: str = _setting(
        "QUERY_STRATEGY",
        "activellm",
        "name",
        "what orders the queue; activellm-paper, random and the others of docs/algorithms.md are "
        "there to compare with",
    )
    query_paper_mode: str = _setting(
        "QUERY_PAPER_MODE",
        "",
        "words",
        "how activellm-paper asks: list, think or explain, advice, guidelines, texts=50 to 400, "
        "picks=N, rounds=N with commas between; empty: think, texts=200, picks=32",
    )
    query_paper_then: str = _setting(
        "QUERY_PAPER_THEN",
        "activellm",
        "name",
        "the strategy that goes on after what activellm-paper picked",
    )
    query_llm_judge: bool = _setting(
        "QUERY_LLM_JUDGE",
        False,
        "true/false",
        "let the LLM judge 200 texts for activellm at each ordering; its word counts as far as it "
        "repeats itself",
    )
    max_request_mb: int = _setting(
        "MAX_REQUEST_MB", 64, "MB", "5,000 tasks of 10 kB in one webhook; larger bodies get 413"
    )
    max_text_chars: int = _setting(
        "MAX_TEXT_CHARS", 200_000, "characters", "longer texts are cut before they are tokenized"
    )
    allowed_data_hosts: tuple[str, ...] = _setting(
        "ALLOWED_DATA_HOSTS",
        (),
        "host,host",
        "task texts that are URLs are fetched from these hosts only; empty: never",
    )
    definitions_dir: str = _setting(
        "DEFINITIONS_DIR",
        "",
        "folder",
        "label definitions: <project number>.yaml; empty: definitions in FREEAL_HOME",
    )
    basic_auth_user: str = _setting(
        "BASIC_AUTH_USER", "", "name", "with BASIC_AUTH_PASS: asked for on all routes but /health"
    )
    basic_auth_pass: Secret = _setting("BASIC_AUTH_PASS", Secret(""), "secret", "see above")
    worker_id: str = _setting(
        "WORKER_ID",
        "",
        "name",
        "a restarted worker takes up its own jobs by this name; empty: the host's name",
    )
    log_level: str = _setting("LOG_LEVEL", "INFO", "level", "DEBUG, INFO, WARNING or ERROR")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read all settings; raises SettingsError naming the variable that cannot be used."""
        environ = os.environ if environ is None else environ
        values = {}
        for spec in fields(cls):
            raw = environ.get(spec.metadata["env"])
            if raw is not None and raw.strip() != "":
                values[spec.name] = parse(spec.metadata["env"], str(spec.type), raw.strip())
        settings = cls(**values)
        settings._check()
        return settings

    def to_env(self) -> dict[str, str]:
        """Return the environment from which `from_env` reads these settings, for a child."""
        values = {spec.metadata["env"]: getattr(self, spec.name) for spec in fields(self)}
        return {name: as_text(value) for name, value in values.items()}

    def _check(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                continue
            may_be_zero = spec.default == 0 or spec.name in _MAY_BE_ZERO
            if value < 0 or (value == 0 and not may_be_zero):
                raise SettingsError(f"{spec.metadata['env']}={value}: expected more than 0")
        for env, url in (
            ("LABEL_STUDIO_URL", self.label_studio_url),
            *(("LLM_BASE_URL", url) for url in self.llm_base_urls or ("",)),
        ):
            if not url.startswith(("http://", "https://")):
                raise SettingsError(f"{env}={url!r}: expected a URL that starts with http(s)://")
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass):
            raise SettingsError("set both BASIC_AUTH_USER and BASIC_AUTH_PASS, or neither")
        for env, value, known in (
            ("SLM_RECIPE", self.slm_recipe, ("default", "plain", "probe")),
            ("ROUND_RECIPE", self.round_recipe, ("default", "paper")),
        ):
            if value not in known:
                raise SettingsError(f"{env}={value!r}: expected one of {', '.join(known)}")
        if self.llm_share > 1:
            raise SettingsError(f"LLM_SHARE={self.llm_share}: expected at most 1")
        if self.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingsError(f"LOG_LEVEL={self.log_level!r}: expected DEBUG, INFO, ...")

    @property
    def llm_base_urls(self) -> tuple[str, ...]:
        """The address of each LLM server."""
        return tuple(url.strip() for url in self.llm_base_url.split(",") if url.strip())

    @property
    def state_url(self) -> str:
        """The database URL for SQLAlchemy, with the default filled in."""
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'freeal.db'}"
        return _with_driver(self.database_url.reveal())

    @property
    def definitions_folder(self) -> Path:
        """The folder of the label definitions, with the default filled in."""
        return Path(self.definitions_dir) if self.definitions_dir else self.home / "definitions"

    @property
    def jobs_url(self) -> str:
        """The database URL of the durable workflows: its own file, or the same PostgreSQL."""
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'jobs.db'}"
        url = self.database_url.reveal()
        if url.startswith("sqlite"):
            return f"{url.removesuffix('.db')}-jobs.db"
        return _with_driver(url)

    @property
    def own_url(self) -> str:
        """This backend's URL as Label Studio reaches it."""
        return (self.backend_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def own_worker_id(self) -> str:
        """The name under which this machine's worker takes up its own jobs again."""
        return self.worker_id or f"worker-{socket.gethostname()}"


def _with_driver(url: str) -> str:
    for prefix in ("postgres://", "postgresql://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def settings_table() -> str:
    """Return every setting as a Markdown table; docs/operations.md holds exactly this."""
    lines = ["| variable | default | unit | why |", "|---|---|---|---|"]
    defaults = Settings()
    for spec in fields(Settings):
        value = getattr(defaults, spec.name)
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        is_empty = isinstance(value, Secret) or value in ("", ())
        meta = spec.metadata
        cells = (f"`{meta['env']}`", "" if is_empty else f"`{shown}`", meta["unit"])
        lines.append(f"| {' | '.join(cells)} | {meta['reason']} |")
    return "\n".join(lines) + "\n"
