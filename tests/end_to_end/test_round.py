"""A whole round in the real Label Studio: better predictions in another order, and back again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from backend.domain.rounds import RoundState
from backend.launcher.environments import PROJECT_FOLDER
from backend.pipeline.status import read_queue
from tests.end_to_end.data import reviews
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_main_job import SENTIMENT, answer, texts, the_choice, the_prediction

pytestmark = pytest.mark.e2e

N_ROWS = 300
N_ANSWERS = 30
_ORDER_WITHIN_S = 400.0
_ROUND_WITHIN_S = 900.0


def is_open(task: dict[str, Any]) -> bool:
    return task["total_annotations"] == 0


def accuracy(tasks: list[dict[str, Any]], gold: dict[str, str]) -> float:
    open_tasks = [task for task in tasks if is_open(task)]
    n_right = sum(the_choice(the_prediction(t)) == gold[t["data"]["text"]] for t in open_tasks)
    return n_right / len(open_tasks)


def is_right(tasks: list[dict[str, Any]], gold: dict[str, str]) -> dict[int, bool]:
    return {t["id"]: the_choice(the_prediction(t)) == gold[t["data"]["text"]] for t in tasks}


def queue(tasks: list[dict[str, Any]]) -> list[int]:
    """Return the open tasks in the order in which annotators get them."""
    open_tasks = [task for task in tasks if is_open(task)]
    return [t["id"] for t in sorted(open_tasks, key=lambda t: the_prediction(t)["score"])]


def command(stack: Stack, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "backend", *words],
        cwd=PROJECT_FOLDER,
        env=stack.settings.to_env(),
        check=True,
        timeout=120,
    )


def served(project: LiveProject, *, not_under: str = "") -> str:
    """Return the version in Label Studio's queue; nothing while the one before is still there.

    Tasks are listed only for another version than `not_under`: that takes Label Studio a second,
    and half of a small machine from a training if it is asked all the time.
    """
    project.stack.processes.check()
    state = project.state()
    is_there = (
        state["is_complete"]
        and state["served_version"] == state["model_version"] != not_under
        and all(len(t["predictions"]) == 1 for t in project.tasks() if is_open(t))
    )
    return str(state["model_version"]) if is_there else ""


def wait_for_version(project: LiveProject, *, not_under: str = "", is_version: str = "") -> str:
    def is_there() -> bool:
        version = served(project, not_under=not_under)
        return bool(version) and is_version in ("", version)

    wait_for(is_there, what="another version", within_s=_ROUND_WITHIN_S, found=project.state)
    return str(project.state()["model_version"])


def ordered_release(project: LiveProject) -> str:
    """Wait for the first release in the strategy's order; return its version."""
    services = project.stack.services

    def is_there() -> bool:
        found = services.stores.projects.get(project.id())
        ordered = None if found is None else read_queue(services.stores, found)
        if found is None or ordered is None or ordered.is_early:
            return False
        is_waiting = services.stores.releases.pending(found) is not None
        return not is_waiting and served(project) == found.model_version

    wait_for(is_there, what="an ordered release", within_s=_ORDER_WITHIN_S, found=project.state)
    return str(project.state()["model_version"])


def test_a_round_gives_better_predictions_in_another_order_and_can_be_taken_back(stack: Stack):
    rows = reviews(N_ROWS)
    gold = {row.text: row.label for row in rows}
    project = stack.new_project("Round", SENTIMENT, texts(rows))
    first = ordered_release(project)
    before = project.tasks()
    for task_id in queue(before)[:N_ANSWERS]:
        text = next(task["data"]["text"] for task in before if task["id"] == task_id)
        body = {"result": answer(gold[text])}
        stack.call("POST", f"/api/tasks/{task_id}/annotations/", json=body)
    before = [task for task in project.tasks() if is_open(task)]

    stack.call("POST", f"/api/ml/{project.backend.id}/train", json={})
    second = wait_for_version(project, not_under=first)
    after = [task for task in project.tasks() if is_open(task)]
    sys.stdout.write(
        f"accuracy on {len(after)} open tasks: {accuracy(before, gold):.3f} first, "
        f"{accuracy(after, gold):.3f} after the round\n"
    )
    (made,) = stack.services.stores.rounds.history(project.id())
    assert (made.state, made.model_version) == (RoundState.RELEASED, second)
    assert made.n_human == N_ANSWERS
    old, new = is_right(before, gold), is_right(after, gold)
    n_won = sum(new[i] and not old[i] for i in old)
    n_lost = sum(old[i] and not new[i] for i in old)
    assert n_lost - n_won <= 2 * (n_won + n_lost) ** 0.5  # within two standard errors: not worse
    assert n_won + n_lost > 0
    assert queue(after) != queue(before)

    command(stack, "rollback", str(project.number), first)
    wait_for_version(project, is_version=first)
    restored = [task for task in project.tasks() if is_open(task)]
    assert queue(restored) == queue(before)
    assert [the_choice(the_prediction(t)) for t in restored] == [
        the_choice(the_prediction(t)) for t in before
    ]
