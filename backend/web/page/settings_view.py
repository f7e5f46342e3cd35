"""Show the settings as they are, versions, the LLM server's abilities, and a task's prompts."""

from __future__ import annotations

import logging
import platform
from importlib import metadata
from typing import Any

from backend import __version__
from backend.domain.audit import record
from backend.errors import EmbeddedModelError, InvalidRequest, LanguageModelError
from backend.web.page.part import Part, Visit

_LOG = logging.getLogger(__name__)
_PACKAGES = ("label-studio-sdk", "torch", "transformers", "scikit-learn", "SQLAlchemy", "flask")


def view(visit: Visit) -> dict[str, Any]:
    """Return the settings without secrets; prompts are those of the task that the address names."""
    services = visit.services
    number, has_text = visit.args.get("task", ""), visit.args.get("text") == "shown"
    prompts, refusal = _prompts(visit, has_text=has_text) if number else ([], "")
    return {
        "settings": services.settings.shown(),
        "versions": versions(),
        "llm": services.reporter.llm_server(),
        "how_asked": services.reporter.prompts(visit.project),
        "prompts": prompts,
        "refusal": refusal,
        "task": number,
        "has_text": has_text,
    }


def versions() -> dict[str, str]:
    """Return the version of this backend and of what it runs on."""
    found = {"this backend": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _prompts(visit: Visit, *, has_text: bool) -> tuple[list[Any], str]:
    """Return the prompts about a task, or why there are none."""
    task_id = visit.task_id()
    if task_id is None:
        return [], "a task is named by its number in Label Studio"
    if has_text:
        record("showed-text", visit.project.id, f"task={task_id}")
    try:
        found = visit.services.prompt_preview.prompts(visit.project, task_id, has_text=has_text)
    except InvalidRequest as exc:
        return [], str(exc)
    except (LanguageModelError, EmbeddedModelError) as exc:
        _LOG.warning("project=%s prompts cannot be written: %s", visit.project.id, exc)
        return [], (
            "the LLM server does not answer now, and without it prompts cannot be written; "
            "the backend's log says why"
        )
    return found, "" if found else "the LLM is asked nothing about this task"


PART = Part("settings", "Settings", view)
