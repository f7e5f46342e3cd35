"""Every setting, read from the environment once; the only module that reads `os.environ`."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from backend.errors import SettingsError
from backend.log_lines import LogFormatter
from backend.setting_values import Secret, as_text, parse_value, shown_value, with_driver

RENAMED = {
    "SLM_MODEL": "STUDENT_MODEL",
    "SLM_RECIPE": "STUDENT_RECIPE",
    "SLM_VIEWS": "STUDENT_VIEWS",
}
"""Former variable -> its name today; the former one still counts, with a warning."""
REMOVED: dict[str, str] = {"SLM_PROCESSES": "a training always runs in one process"}
"""Variable that is ignored, with a warning -> the reason."""

_LOG = logging.getLogger(__name__)
_QUIET_LIBRARIES = ("httpx", "httpcore", "urllib3", "alembic", "sqlalchemy.engine", "dbos")
_MAY_BE_ZERO = ("round_every", "llm_context_tokens")
_CHOICES = {
    "student_recipe": ("default", "plain", "probe"),
    "round_recipe": ("default", "paper"),
    "labels_change": ("evidence", "people", "never"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
}


def _setting(default: Any, unit: str, reason: str) -> Any:
    """Return a field of Settings; its unit and reason stand in the docs."""
    return field(default=default, metadata={"unit": unit, "reason": reason})


def variable(name: str) -> str:
    """Return the environment variable of a field of Settings."""
    return "FREEAL_HOME" if name == "home" else name.upper()


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; `from_env` reads each from the variable in capitals, such as LLM_MODEL."""

    home: Path = _setting(
        Path(".freeal"),
        "folder",
        "everything made at run time: database, models, environments, logs",
    )
    database_url: Secret = _setting(
        Secret(""),
        "URL",
        "empty: SQLite files in FREEAL_HOME; postgresql://... for several machines",
    )
    host: str = _setting(
        "127.0.0.1", "address", "0.0.0.0 needs a password (BASIC_AUTH_USER), or ALLOW_OPEN"
    )
    port: int = _setting(9090, "port", "what Label Studio's ML backends use by habit")
    web_processes: int = _setting(
        1, "processes", "a stored prediction takes milliseconds, so one is enough for most"
    )
    web_threads: int = _setting(
        8, "threads", "a live label holds its thread for up to PREDICT_DEADLINE_S"
    )
    backend_url: str = _setting(
        "", "URL", "this backend as Label Studio reaches it; empty: http://127.0.0.1:PORT"
    )
    allow_open: bool = _setting(
        False,
        "true/false",
        "listen beyond this machine without a password: only where no stranger reaches the port",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (),
        "host,host",
        "names by which this backend is reached, besides addresses, localhost and BACKEND_URL's",
    )
    allowed_projects: tuple[str, ...] = _setting(
        (), "number,number", "projects of Label Studio that may connect; empty: all"
    )
    max_projects: int = _setting(200, "projects", "more that are connected are refused at /setup")
    label_studio_url: str = _setting("http://localhost:8080", "URL", "where Label Studio answers")
    label_studio_api_key: Secret = _setting(
        Secret(""),
        "secret",
        "personal access token or legacy token; the token that Label Studio hands over at "
        "connection is refused by its own default settings",
    )
    label_studio_timeout_s: float = _setting(
        60.0, "s", "a bulk import of 500 predictions takes under 1 s"
    )
    llm_base_url: str = _setting(
        "http://127.0.0.1:8000/v1",
        "URL",
        "one OpenAI-compatible server; several of them behind a load balancer's address",
    )
    llm_model: str = _setting(
        "",
        "name",
        "empty: the first of the server's models that answers. `make demo` and `make llm` start "
        "qwen2.5-coder-1.5b, smollm2-135m or one of a model hub by it; empty: the best embedded "
        "one that fits the machine",
    )
    llm_api_key: Secret = _setting(Secret(""), "secret", "vLLM's --api-key, if any")
    llm_context_tokens: int = _setting(
        0, "tokens", "the model's context length, where its server does not tell it; 0: as told"
    )
    llm_timeout_s: float = _setting(
        120.0, "s", "for one request; a written answer gets as long again for every 96 tokens"
    )
    llm_batch_size: int = _setting(
        64, "prompts", "prompts in one request; vLLM batches them on its own"
    )
    llm_concurrency: int = _setting(
        3, "requests", "lists in flight for a chunk, of which a worker labels four at a time"
    )
    llm_cache_days: int = _setting(
        90, "days", "answers are kept this long, so that none is paid twice"
    )
    llm_cache_mb: int = _setting(
        1024, "MB", "when the answers take more, the oldest are deleted; one takes 0.1 to 1 kB"
    )
    embedding_cache_mb: int = _setting(
        1024, "MB", "1.5 kB per text and encoder; a pool that does not fit is embedded anew"
    )
    keep_releases: int = _setting(
        3, "releases", "of each project, with predictions and model, for `rollback`"
    )
    keep_events_days: int = _setting(30, "days", "an event that comes twice in it counts once")
    project_grace_days: int = _setting(
        30, "days", "after that the data of a project that was removed is deleted"
    )
    llm_price_in: float = _setting(
        0.0, "per million tokens", "what prompts cost, for the status and metrics"
    )
    llm_price_out: float = _setting(0.0, "per million tokens", "what answers cost")
    encoder_model: str = _setting(
        "",
        "name or folder",
        "all-mpnet-base-v2, or a Hugging Face encoder, for similarity and embeddings; empty: the "
        "all-MiniLM-L6-v2 inside",
    )
    student_model: str = _setting(
        "",
        "name or folder",
        "all-mpnet-base-v2, or a Hugging Face encoder, that rounds fine-tune as the student; "
        "empty: the all-MiniLM-L6-v2 inside",
    )
    student_recipe: str = _setting(
        "default",
        "default/plain/probe",
        "how the student is trained; probe: a linear probe on frozen embeddings, seconds "
        "instead of minutes",
    )
    student_views: str = _setting(
        "",
        "paraphrase or field",
        "paraphrases for ROUND_RECIPE=paper: by the LLM, or a field of the tasks; empty: none",
    )
    round_recipe: str = _setting(
        "default",
        "default/paper",
        "paper: FreeAL's four rounds as published, in which people have no part",
    )
    round_min_tasks: int = _setting(100, "tasks", "a student cannot learn from fewer labels")
    round_every: int = _setting(
        20,
        "labels by people",
        "the next round follows so many; 0: rounds are made only when asked for",
    )
    round_limit: int = _setting(
        1, "cycles", "of relabeling and training in one round, at most; 1 is FreeAL's number"
    )
    labels_change: str = _setting(
        "evidence",
        "evidence/people/never",
        "on what a round's labels replace the served ones: the annotators' evidence, people's "
        "answers among it, unless these speak against it; people's answers alone; nothing",
    )
    round_shots: int = _setting(8, "examples", "in-context examples of a refined answer")
    llm_prompts_per_text: float = _setting(
        1.5,
        "prompts",
        "on average, the choice of the prompt included from some 600 texts on; above 1 texts where "
        "the LLM is unsure are asked about with a second template",
    )
    llm_share: float = _setting(
        0.0,
        "share of the pool",
        "asked at first, and again in each cycle; 0: all, or what takes a night, and then an hour",
    )
    predict_deadline_s: float = _setting(
        8.0, "s", "an annotator waits for /predict; later tasks get none"
    )
    live_predict_limit: int = _setting(64, "tasks", "more in one call are left to the worker")
    annotate_chunk: int = _setting(
        256, "tasks", "tasks in a chunk at most: what a worker takes at a time, and a kill can cost"
    )
    publish_chunk: int = _setting(500, "predictions", "one bulk import takes about half a second")
    sync_interval_s: float = _setting(
        30.0, "s", "Label Studio never repeats a lost webhook, so we look"
    )
    full_sync_interval_s: float = _setting(
        3600.0,
        "s",
        "a full listing costs Label Studio 2 s per 1,000 tasks; made at once when counts differ",
    )
    retry_abstentions_s: float = _setting(
        600.0, "s", "an answer that could not be read is asked for again"
    )
    manage_queue: bool = _setting(
        True,
        "true/false",
        "set the project's model version and sampling, without which its queue is random",
    )
    manage_views: bool = _setting(
        True,
        "true/false",
        "add tabs to the project's Data Manager, beside its own, and a line to an empty "
        "description; false removes them",
    )
    query_strategy: str = _setting(
        "activellm",
        "name",
        "what orders the queue; activellm-paper, random and the others of docs/algorithms.md "
        "are there to compare with",
    )
    question_weights: tuple[str, ...] = _setting(
        (), "name=weight,...", "how much a corrected label of each question counts; others: 1"
    )
    holdout_share: float = _setting(0.15, "share", "of the first tasks at random; fewer later")
    query_paper_mode: str = _setting(
        "",
        "words",
        "how activellm-paper asks: list, think or explain, advice, guidelines, texts=50 to 400,"
        " picks=N, rounds=N with commas between; empty: think, texts=200, picks=32",
    )
    query_paper_then: str = _setting(
        "activellm", "name", "the strategy that goes on after what activellm-paper picked"
    )
    query_llm_judge: bool = _setting(
        False,
        "true/false",
        "let the LLM judge 200 texts for activellm at each ordering; weighted by how far it "
        "repeats itself",
    )
    max_request_mb: int = _setting(
        64, "MB", "5,000 tasks of 10 kB in one webhook; larger bodies get 413"
    )
    max_text_chars: int = _setting(
        200_000, "characters", "longer texts are cut before they are tokenized"
    )
    allowed_data_hosts: tuple[str, ...] = _setting(
        (), "host,host", "task texts that are URLs are fetched from these hosts only; empty: never"
    )
    skip_controls: tuple[str, ...] = _setting(
        (),
        "name,name",
        "controls of these names are left to people in every project; a config does the same for "
        "itself with <!-- freeal: skip=name -->",
    )
    definitions_dir: str = _setting(
        "", "folder", "label definitions: <project number>.yaml; empty: definitions in FREEAL_HOME"
    )
    basic_auth_user: str = _setting(
        "", "name", "with BASIC_AUTH_PASS: asked for on all routes but /health and /ready"
    )
    basic_auth_pass: Secret = _setting(Secret(""), "secret", "see above")
    worker_id: str = _setting(
        "", "name", "a restarted worker takes up its own jobs by this name; empty: the host's name"
    )
    log_level: str = _setting("INFO", "level", "DEBUG, INFO, WARNING or ERROR")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check all settings; empty variables count as unset.

        Raises:
            SettingsError: a value cannot be used; the message names its variable.
        """
        environ = os.environ if environ is None else environ
        given = {name: text.strip() for name, text in environ.items() if text.strip()}
        for former, name in RENAMED.items():
            if former in given and name not in given:
                given[name] = given[former]
                _LOG.warning("%s is called %s now; set that one instead", former, name)
        for name in REMOVED.keys() & given.keys():
            _LOG.warning("%s is ignored: %s", name, REMOVED[name])
        values = {}
        for spec in fields(cls):
            env = variable(spec.name)
            if env in given:
                values[spec.name] = parse_value(env, str(spec.type), given[env])
        settings = cls(**values)
        settings._check()
        return settings

    def to_env(self) -> dict[str, str]:
        """Return the environment from which `from_env` reads these settings, for a child."""
        return {variable(spec.name): as_text(getattr(self, spec.name)) for spec in fields(self)}

    def _check(self) -> None:
        for spec in fields(self):
            value, env = getattr(self, spec.name), variable(spec.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                may_be_zero = spec.default == 0 or spec.name in _MAY_BE_ZERO
                if value < 0 or (value == 0 and not may_be_zero):
                    raise SettingsError(f"{env}={value}: expected more than 0")
            choices = _CHOICES.get(spec.name, (value,))
            if value not in choices:
                raise SettingsError(f"{env}={value!r}: expected one of {', '.join(choices)}")
        for env, url in (
            ("LABEL_STUDIO_URL", self.label_studio_url),
            ("LLM_BASE_URL", self.llm_base_url),
        ):
            if not url.startswith(("http://", "https://")):
                raise SettingsError(f"{env}={url!r}: expected a URL that starts with http(s)://")
        if "," in self.llm_base_url:
            raise SettingsError(
                f"LLM_BASE_URL={self.llm_base_url!r}: expected one URL; put a load balancer in "
                "front of several servers, or use vLLM's --data-parallel-size"
            )
        for number in self.allowed_projects:
            if not (number.isascii() and number.isdigit()):
                raise SettingsError(f"ALLOWED_PROJECTS={number!r}: expected numbers with commas")
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass):
            raise SettingsError("set both BASIC_AUTH_USER and BASIC_AUTH_PASS, or neither")
        if (n_prompts := self.llm_prompts_per_text) < 1:
            raise SettingsError(f"LLM_PROMPTS_PER_TEXT={n_prompts}: expected at least 1")
        if self.llm_share > 1:
            raise SettingsError(f"LLM_SHARE={self.llm_share}: expected at most 1")

    def check_exposure(self) -> None:
        """Raise SettingsError where strangers could reach this backend without a password."""
        is_local = self.host == "localhost" or self.host.startswith(("127.", "::1"))
        if not (is_local or self.basic_auth_user or self.allow_open):
            raise SettingsError(
                f"HOST={self.host} lets other machines ask without a password: set BASIC_AUTH_USER "
                "and BASIC_AUTH_PASS, or HOST=127.0.0.1; ALLOW_OPEN=true if the network keeps "
                "strangers away"
            )

    def shown(self) -> list[dict[str, Any]]:
        """Return every setting as it is, for people: secrets are told as set or not set alone."""
        return [
            {
                "variable": variable(spec.name),
                "value": shown_value(getattr(self, spec.name)),
                "is_default": getattr(self, spec.name) == spec.default,
                "unit": spec.metadata["unit"],
                "reason": spec.metadata["reason"],
            }
            for spec in fields(self)
        ]

    def configure_logging(self) -> None:
        """Log to standard error at this level; libraries from WARNING on only."""
        handler = logging.StreamHandler()
        handler.setFormatter(LogFormatter())
        logging.basicConfig(handlers=[handler], level=self.log_level, force=True)
        for name in _QUIET_LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)

    @property
    def state_url(self) -> str:
        """The database URL for SQLAlchemy, with the default filled in."""
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'freeal.db'}"
        return with_driver(self.database_url.reveal())

    @property
    def jobs_url(self) -> str:
        """The database URL of the durable workflows: its own file, or the same PostgreSQL."""
        if not self.database_url:
            return f"sqlite:///{self.home.absolute() / 'jobs.db'}"
        url = self.database_url.reveal()
        if url.startswith("sqlite"):
            return f"{url.removesuffix('.db')}-jobs.db"
        return with_driver(url)

    @property
    def definitions_folder(self) -> Path:
        """The folder of the label definitions, with the default filled in."""
        return Path(self.definitions_dir) if self.definitions_dir else self.home / "definitions"

    @property
    def own_url(self) -> str:
        """This backend's URL as Label Studio reaches it."""
        return (self.backend_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def own_worker_id(self) -> str:
        """Name under which this machine's worker resumes its own jobs."""
        return self.worker_id or f"worker-{socket.gethostname()}"
