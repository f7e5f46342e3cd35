"""Certified labels in the real Label Studio: in a tab, accepted, nobody's answers, taken back."""

from __future__ import annotations

from typing import Any

import pytest

from backend.domain.holdout import holdout_order, holdout_seed
from backend.domain.projects import CERTIFICATE
from backend.pipeline import certificate
from tests.end_to_end.data import reviews
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_browser import tabs_of
from tests.end_to_end.test_main_job import SENTIMENT, answer, texts, the_choice, the_prediction
from tests.end_to_end.test_round import command, ordered_release

pytestmark = pytest.mark.e2e

N_ROWS = 300
_WITHIN_S = 900.0


def copies(project: LiveProject) -> dict[int, dict[str, Any]]:
    """Return the annotations that name a prediction and that nobody has touched, by task."""
    return {
        task["id"]: one
        for task in project.tasks()
        for one in task["annotations"]
        if one["parent_prediction"] is not None and one["lead_time"] is None
    }


def wait_until(project: LiveProject, state: str) -> dict[str, Any]:
    def is_there() -> bool:
        return (project.state()["acceptance"] or {}).get("state") == state

    wait_for(is_there, what=f"labels {state}", within_s=_WITHIN_S, found=project.state)
    found: dict[str, Any] = project.state()["acceptance"]
    return found


def in_certified_tab(project: LiveProject) -> set[int]:
    """Bring the tabs up to date, as the worker does once a minute; return what Certified shows."""
    services, stack = project.stack.services, project.stack
    stored = services.stores.projects.get(project.id())
    assert stored is not None
    services.stores.state.put(stored.id, CERTIFICATE, None)
    services.certifier.refresh(stored)
    assert services.tabs.keep(stored.id)["n_tabs"] == 3
    query = {"project": project.number, "view": tabs_of(project)["Certified"], "page_size": N_ROWS}
    return {task["id"] for task in stack.call("GET", "/api/tasks", params=query)["tasks"]}


def test_certified_labels_are_listed_accepted_and_exactly_these_taken_back(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    # at 5 % hundreds of answers would be needed, each a request
    monkeypatch.setattr(certificate, "MAX_ERROR", 0.2)
    monkeypatch.setattr(certificate, "ERROR_RATES", (0.2,))
    rows = reviews(N_ROWS)
    project = stack.new_project("Accept", SENTIMENT, texts(rows))
    stack.admin.open_data_manager(project.number)
    own_tabs = set(tabs_of(project))
    ordered_release(project)
    tasks = {task["id"]: task for task in project.tasks()}
    held_out = holdout_order(tasks, seed=holdout_seed(project.id()))
    for task_id in held_out:
        shown = the_choice(the_prediction(tasks[task_id]))  # people find every label right
        body = {"result": answer(shown), "lead_time": 2.0}
        stack.call("POST", f"/api/tasks/{task_id}/annotations/", json=body)
    n_human = project.state()["n_human_labels"]
    listed = in_certified_tab(project)

    command(stack, "accept", str(project.number), "--max-error", "0.2")
    asked = wait_until(project, "accepted")
    made = copies(project)
    assert len(made) == asked["n_done"] > 0
    assert set(made) == listed
    assert in_certified_tab(project) == set()  # none is left to accept
    assert not set(made) & set(held_out)
    state = project.state()
    assert state["n_human_labels"] == n_human == len(held_out)
    assert state["events"]["ANNOTATION_CREATED"] >= len(made)  # their webhooks came, and count not

    edited_in, edited = next(iter(made.items()))
    change = {"result": edited["result"], "lead_time": 3.0}
    stack.call("PATCH", f"/api/annotations/{edited['id']}/", json=change)
    command(stack, "undo", str(project.number))
    undone = wait_until(project, "undone")
    assert undone["n_left_out"] == 1
    assert copies(project) == {}
    left = {one["id"] for task in project.tasks() for one in task["annotations"]}
    assert edited["id"] in left
    assert len(left) == len(held_out) + 1
    wait_for(lambda: in_certified_tab(project) != set(), what="labels to accept again")
    assert edited_in not in in_certified_tab(project)

    assert {"Queue", "Certified", "No label"} < set(tabs_of(project))
    command(stack, "disconnect", str(project.number))
    assert set(tabs_of(project)) == own_tabs
