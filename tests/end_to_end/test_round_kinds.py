"""Rounds in the real Label Studio where nobody answers: entities, several labels, two questions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from backend.domain.rounds import Round, RoundState
from tests.end_to_end.data import ENTITIES, Visit, visits
from tests.end_to_end.stack import LiveProject, Stack, wait_for

pytestmark = pytest.mark.e2e

N_TASKS = 240
_ROUND_WITHIN_S = 1500.0
_MAX_LOSS = 0.01
"""Of F1: two of 240 texts. What is served is an estimate's gain, at nine in ten."""
TOPICS = """
<View>
  <Header value="What does the guest speak of?"/>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="price"/><Choice value="staff"/><Choice value="food"/><Choice value="room"/>
  </Choices>
</View>
"""
SENTIMENT_AND_ENTITIES = """
<View>
  <Header value="Is the guest content? Who and what place is named?"/>
  <Labels name="names" toName="text"><Label value="Person"/><Label value="Place"/></Labels>
  <Text name="text" value="$text"/>
  <Choices name="sentiment" toName="text" choice="single">
    <Choice value="Positive"/><Choice value="Negative"/>
  </Choices>
</View>
"""

Parts = frozenset[object]


@dataclass(frozen=True, slots=True)
class Question:
    """How a question's answer is read off a region, and off a note."""

    of_region: Callable[[Mapping[str, Any]], list[object]]
    of_visit: Callable[[Visit], Parts]


def spans_of(visit: Visit) -> Parts:
    people = {(start, end, "Person") for start, end in visit.people}
    return frozenset(people | {(start, end, "Place") for start, end in visit.places})


QUESTIONS = {
    "names": Question(
        lambda value: [(value["start"], value["end"], label) for label in value["labels"]], spans_of
    ),
    "topics": Question(lambda value: list(value["choices"]), lambda visit: frozenset(visit.topics)),
    "sentiment": Question(
        lambda value: list(value["choices"]), lambda visit: frozenset({visit.label})
    ),
}


def answers(tasks: list[dict[str, Any]], question: str) -> dict[str, Parts]:
    """Return what Label Studio shows as the answer to a question, by text."""
    read = QUESTIONS[question].of_region
    return {
        task["data"]["text"]: frozenset(
            part
            for prediction in task["predictions"]
            for region in prediction["result"]
            if region["from_name"] == question
            for part in read(region["value"])
        )
        for task in tasks
    }


def end_of_round(project: LiveProject) -> Round:
    """Wait until the one round has ended and what it released, if anything, is served in order.

    A text that the LLM could not answer has no prediction before a round.
    """

    def history() -> list[Round]:
        return project.stack.services.stores.rounds.history(project.id())

    def is_over() -> bool:
        project.stack.processes.check()
        state = project.state()
        is_served = state["served_version"] == state["model_version"]
        is_shown = state["is_complete"] and is_served and project.is_settled()
        ended = [made for made in history() if made.state is not RoundState.RUNNING]
        now = (None, state["model_version"])
        return bool(is_shown and any(made.model_version in now for made in ended))

    wait_for(is_over, what="the round's end", within_s=_ROUND_WITHIN_S, found=project.state)
    (made,) = history()
    return made


def f1(found: Mapping[str, Parts], gold: Mapping[str, Parts]) -> float:
    """Return the micro-F1; of single labels that is the accuracy."""
    n_right = sum(len(found.get(text, frozenset()) & parts) for text, parts in gold.items())
    n_all = sum(map(len, found.values())) + sum(map(len, gold.values()))
    return 2 * n_right / n_all if n_all else 1.0


@pytest.mark.parametrize(
    ("config", "questions"),
    [
        (ENTITIES, ("names",)),
        (TOPICS, ("topics",)),
        (SENTIMENT_AND_ENTITIES, ("names", "sentiment")),
    ],
    ids=["entities", "several-labels", "two-questions"],
)
def test_a_round_without_people_learns_every_question(
    stack: Stack, config: str, questions: tuple[str, ...]
):
    notes = visits(N_TASKS)
    project = stack.new_project("Visits", config, [{"text": note.text} for note in notes])
    project.wait_until_labelled(N_TASKS)
    first = str(project.state()["model_version"])
    before = project.tasks()

    stack.call("POST", f"/api/ml/{project.backend.id}/train", json={})
    made = end_of_round(project)
    after = project.tasks()
    is_released = made.state is RoundState.RELEASED
    assert is_released or made.state is RoundState.REFUSED
    assert (project.state()["model_version"] != first) == is_released
    assert made.n_human == 0
    assert set(made.figures) == set(questions)
    for question in questions:
        gold = {note.text: QUESTIONS[question].of_visit(note) for note in notes}
        old, new = answers(before, question), answers(after, question)
        gate = made.figures[question]["gate"]
        sys.stdout.write(
            f"{question}: F1 {f1(old, gold):.3f} before, {f1(new, gold):.3f} after the round; "
            f"{gate['reason']}\n"
        )
        assert (old != new) == gate["is_better"]
        assert f1(new, gold) >= f1(old, gold) - _MAX_LOSS
    models = stack.settings.home / "models" / project.id() / "1"
    assert len(list(models.iterdir())) == len(questions)
