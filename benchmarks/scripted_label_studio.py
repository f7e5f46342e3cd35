"""Serve the part of Label Studio's API that a worker calls, for projects of many tasks.

It keeps no results of predictions, only how many a task has of which version, so that a million
fit; and it takes them at a pace of Label Studio's own where one is given.

python -m benchmarks.scripted_label_studio PORT SCRIPT_FILE
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.faults.http_server import HttpServer

CREATED_AT, CREATED_UNIX = "2026-11-21T08:59:54Z", 1795251594
_PAGE = 500
_PATH = re.compile(r"/api/projects/(\d+)(/[\w/-]+)?")


@dataclass(frozen=True, slots=True)
class Script:
    """What a scripted Label Studio holds: projects from 1 on, of `n_tasks` each.

    `texts` repeat, each with its task's number in front. `imports_per_s`: predictions that it takes
    in a second, 0 for as fast as it can.
    """

    label_config: str
    backend_url: str
    texts: Sequence[str]
    n_tasks: int
    n_projects: int = 1
    imports_per_s: float = 0.0

    def ids(self, project: int) -> range:
        """Return the ids of a project's tasks."""
        return range((project - 1) * self.n_tasks + 1, project * self.n_tasks + 1)


class ScriptedLabelStudio:
    """Serves a script on a local port; port 0 takes a free one.

    `first_import_at` is the time of each project's first predictions, in seconds since 1970.
    """

    def __init__(self, port: int, script: Script) -> None:
        self.first_import_at: dict[int, float] = {}
        self._script = script
        self._held: dict[int, dict[str, Counter[int]]] = defaultdict(dict)
        self._changes: dict[int, dict[str, Any]] = defaultdict(dict)
        self._lock, self._importing = threading.Lock(), threading.Lock()
        self._server = HttpServer(port, self._respond)

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return self._server.url

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def counts(self) -> dict[str, Any]:
        """Return how many tasks have a prediction, and how many have several of one version."""
        with self._lock:
            held = [counter for versions in self._held.values() for counter in versions.values()]
            by_project = {
                str(project): len(set().union(*versions.values()))
                for project, versions in self._held.items()
                if versions
            }
            return {
                "n_predicted": sum(by_project.values()),
                "n_by_project": by_project,
                "n_doubled": sum(n > 1 for counter in held for n in counter.values()),
                "first_import_at": {str(k): at for k, at in self.first_import_at.items()},
            }

    def _respond(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        answer = self._answer(method, parts.path.rstrip("/"), query, body)
        status = 404 if answer is None else 200
        return status, json.dumps({"detail": "not found"} if answer is None else answer).encode()

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        if path == "/counts":
            return self.counts()
        if path == "/api/ml":
            project = int(query["project"])
            return [{"id": project, "url": self._script.backend_url, "project": project}]
        if path == "/api/tasks":
            return self._page(int(query["project"]), json.loads(query["query"]))
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        project, what = int(found[1]), found[2]
        if what == "/import/predictions":
            return self._import(project, json.loads(body))
        if what == "/model-versions" and method == "DELETE":
            with self._lock:
                gone = self._held[project].pop(json.loads(body)["model_version"], Counter())
            return {"deleted_predictions": gone.total()}
        if method == "PATCH":
            self._changes[project] |= json.loads(body)
        return self._project(project)

    def _project(self, project: int) -> dict[str, Any]:
        with self._lock:
            n_predictions = sum(counter.total() for counter in self._held[project].values())
        return {
            "id": project,
            "title": f"project {project}",
            "created_at": CREATED_AT,
            "label_config": self._script.label_config,
            "expert_instruction": "",
            "model_version": "",
            "sampling": "Sequential sampling",
            "task_number": self._script.n_tasks,
            "total_predictions_number": n_predictions,
            "total_annotations_number": 0,
            "skipped_annotations_number": 0,
            **self._changes[project],
        }

    def _page(self, project: int, query: dict[str, Any]) -> dict[str, Any]:
        """Return a page of tasks: of chosen ones, after an id, or of those edited since (none)."""
        items = {i["filter"]: i["value"] for i in query.get("filters", {}).get("items", [])}
        if "filter:tasks:updated_at" in items:
            return {"tasks": [], "total": 0}
        with self._lock:
            held = dict(self._held[project])
        chosen = query.get("selectedItems", {}).get("included")
        if chosen is not None:
            version = items.get("filter:tasks:predictions_model_versions", [None])[0]
            found = [i for i in chosen if version is None or i in held.get(version, {})]
            return {"tasks": [self._row(project, i, held) for i in found], "total": len(found)}
        ids = self._script.ids(project)
        left = range(max(ids.start, int(items["filter:tasks:id"]) + 1), ids.stop)
        return {"tasks": [self._row(project, i, held) for i in left[:_PAGE]], "total": len(left)}

    def _row(self, project: int, number: int, held: dict[str, Counter[int]]) -> dict[str, Any]:
        texts = self._script.texts
        predictions = [
            {"id": number * 1000 + at, "model_version": version}
            for version, counter in held.items()
            for at in range(counter.get(number, 0))
        ]
        return {
            "id": number,
            "project": project,
            "data": {"text": f"({number}) {texts[number % len(texts)]}"},
            "annotations": [],
            "predictions": predictions,
        }

    def _import(self, project: int, rows: list[dict[str, Any]]) -> dict[str, int]:
        if self._script.imports_per_s:
            with self._importing:
                time.sleep(len(rows) / self._script.imports_per_s)
        with self._lock:
            self.first_import_at.setdefault(project, time.time())
            for row in rows:
                versions = self._held[project]
                versions.setdefault(str(row["model_version"]), Counter())[int(row["task"])] += 1
        return {"created": len(rows)}


if __name__ == "__main__":
    script = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    ScriptedLabelStudio(int(sys.argv[1]), Script(**script))
    threading.Event().wait()
