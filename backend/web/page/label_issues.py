"""List probable label errors, people's included; each opens its task, or is dismissed."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, redirect
from werkzeug.exceptions import NotFound

from backend.errors import InvalidRequest
from backend.web.page.paging import Paging
from backend.web.page.part import Part, Visit

DISMISSED = "dismissed"


def view(visit: Visit) -> dict[str, Any]:
    """Return one page of the errors, as `issues --json` lists them, with the tasks' texts."""
    is_dismissed = visit.args.get("show") == DISMISSED
    found = visit.services.issues.issues(visit.project, is_dismissed=is_dismissed)
    question = visit.args.get("question", "")
    asked = [issue for issue in found if question in ("", issue["question"])]
    paging = Paging.of(visit.args, len(asked))
    issues = asked[paging.offset : paging.last]
    return {
        "issues": issues,
        "paging": paging,
        "texts": visit.services.task_texts.read(visit.project, [one["task_id"] for one in issues]),
        "quotes": visit.services.task_texts.quotes(visit.project, issues),
        "questions": sorted({issue["question"] for issue in found} | ({question} - {""})),
        "question": question,
        "is_dismissed": is_dismissed,
        "n_by_people": sum(issue["is_human"] for issue in asked),
    }


def dismiss(visit: Visit) -> str:
    """Say that a label is right."""
    key = visit.form.get("issue", "")
    if not visit.services.issues.dismiss(visit.project, key):
        raise InvalidRequest(
            "this error is not there any more: its task is gone, or somebody has answered it"
        )
    return f"Dismissed: the label of task {key.partition('-')[0]} is taken to be right."


def undo(visit: Visit) -> str:
    """Take a dismissal back."""
    key = visit.form.get("issue", "")
    if not visit.services.issues.undo(visit.project, key):
        raise InvalidRequest("this error was not dismissed, or is listed again already")
    return f"The error in task {key.partition('-')[0]} is listed again."


def open_task(visit: Visit) -> Response:
    """Lead to a task in Label Studio's Data Manager, or say that it is gone."""
    task_id = visit.task_id()
    if task_id is None or not visit.services.stores.tasks.get(visit.project.id, [task_id]):
        number = visit.args.get("task", "")[:20]
        raise NotFound(f"task {number} is not there any more: Label Studio has deleted it")
    address = visit.services.settings.label_studio_url.rstrip("/")
    target = f"{address}/projects/{visit.project.platform_id}/data?task={task_id}"
    return make_response(redirect(target))


PART = Part(
    "issues",
    "Label issues",
    view,
    actions={"dismiss": dismiss, "undo": undo},
    files={"task": open_task},
)
