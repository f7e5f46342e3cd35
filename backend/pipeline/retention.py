"""Keep the disk from filling: delete what no project, rollback or round needs any more."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.domain.projects import Project, ProjectId
from backend.errors import BackendError, ProjectInUse
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_PROJECT_FOLDER = re.compile(r"\d+\.\d+")
_MEGABYTE, _DAY_S = 2**20, 86_400


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """How much is kept: counts, days, and megabytes.

    `manages_queue`: a release is deleted only after Label Studio has been told to forget it.
    """

    keep_releases: int = 3
    events_days: int = 30
    llm_cache_days: int = 90
    llm_cache_mb: int = 1024
    embedding_cache_mb: int = 1024
    grace_days: int = 30
    manages_queue: bool = True


@dataclass(frozen=True)
class Housekeeper:
    """Deletes by the plan; every part is safe to repeat and to interrupt.

    `models` is the folder of the rounds' files, one per project. `trim_embeddings` deletes cached
    vectors beyond so many bytes, `clean_rounds` the files of rounds that no release needs.
    """

    stores: Stores
    models: Path
    plan: RetentionPlan
    trim_embeddings: Callable[[int], object]
    clean_rounds: Callable[[ProjectId], object]

    def run(self) -> None:
        """Delete all that is past its time; what fails is logged and does not stop the rest."""
        plan, stores = self.plan, self.stores
        for project in stores.projects.all():
            with _logged(f"project={project.id} old releases"):
                self.prune(project)
        for project_id in stores.retention.disconnected_for(plan.grace_days):
            with _logged(f"project={project_id} its data"):
                self.purge(project_id)
        parts: dict[str, Callable[[], object]] = {
            "events": lambda: stores.retention.forget_events(plan.events_days),
            "strays": self._delete_strays,
            "LLM answers": self._trim_answers,
            "embeddings": lambda: self.trim_embeddings(plan.embedding_cache_mb * _MEGABYTE),
            "pages": stores.retention.compact,
        }
        for part, work in parts.items():
            with _logged(part):
                work()

    def prune(self, project: Project) -> None:
        """Delete superseded releases beyond those that are kept, and files of ended rounds."""
        gone = self.stores.retention.prune_releases(
            project, self.plan.keep_releases, even_unwithdrawn=not self.plan.manages_queue
        )
        if gone:
            _LOG.info("project=%s deleted releases=%s", project.id, ",".join(gone))
        self.clean_rounds(project.id)

    def purge(self, project_id: ProjectId) -> None:
        """Delete all that is stored of a project, with its models; raises ProjectInUse."""
        if not self.stores.retention.delete_project(project_id):
            raise ProjectInUse(
                f"project {project_id} is connected: `python -m backend disconnect` it, or remove "
                "this backend in its Settings > Model, or its data would come back"
            )
        shutil.rmtree(self.models / project_id, ignore_errors=True)
        _LOG.info("project=%s is deleted", project_id)

    def purge_shared(self, days: int) -> None:
        """Delete events and cached answers that are older, and at 0 days the vectors too."""
        self.stores.retention.forget_events(days)
        if days:
            self.stores.llm_cache.forget(days)
        else:
            self.stores.llm_cache.trim(0)
            self.trim_embeddings(0)

    def _delete_strays(self) -> None:
        """Delete rows and old folders of what is no project, such as an interrupted purge leaves.

        A folder waits for the grace: a wrong DATABASE_URL must not cost its models.
        """
        for project_id in self.stores.retention.strays():
            self.purge(project_id)
        known = {project.id for project in self.stores.projects.all()}
        oldest = time.time() - self.plan.grace_days * _DAY_S
        for folder in self.models.glob("*.*"):
            is_stray = _PROJECT_FOLDER.fullmatch(folder.name) and folder.name not in known
            if is_stray and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)

    def _trim_answers(self) -> None:
        self.stores.llm_cache.forget(self.plan.llm_cache_days)
        self.stores.llm_cache.trim(self.plan.llm_cache_mb * _MEGABYTE)


@contextmanager
def _logged(part: str) -> Iterator[None]:
    try:
        yield
    except (BackendError, OSError) as exc:
        _LOG.error("cannot delete %s: %s", part, exc)
