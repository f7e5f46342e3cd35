"""The page beside a real Label Studio after a round on several labels and on spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.domain.holdout import holdout_order, holdout_seed
from backend.web.page.formatting import count, interval, share
from tests.end_to_end.browser import open_browser
from tests.end_to_end.data import Visit, visits
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_page_actions import open_part, shown_issues, told
from tests.end_to_end.test_round import command, ordered_release, wait_for_version

pytestmark = pytest.mark.e2e

N_TASKS = 60
N_MORE = 6
CONFIG = """
<View>
  <Header value="What does the guest speak of? Mark the people and the places that are named."/>
  <Labels name="names" toName="text"><Label value="Person"/><Label value="Place"/></Labels>
  <Text name="text" value="$text"/>
  <Choices name="topics" toName="text" choice="multiple">
    <Choice value="price"/><Choice value="staff"/><Choice value="food"/><Choice value="room"/>
  </Choices>
</View>
"""
QUESTIONS = ("names", "topics")


def answer(note: Visit) -> list[dict[str, Any]]:
    """Return the right answer to both questions, as a person submits it."""
    spans = [(*at, "Person") for at in note.people] + [(*at, "Place") for at in note.places]
    about = {"to_name": "text"}
    marked = [
        {"from_name": "names", "type": "labels", **about, "value": value}
        for start, end, label in spans
        for value in [{"start": start, "end": end, "text": note.text[start:end], "labels": [label]}]
    ]
    chosen = {"choices": list(note.topics)}
    return [*marked, {"from_name": "topics", "type": "choices", **about, "value": chosen}]


@pytest.fixture(scope="module")
def project(stack: Stack) -> LiveProject:
    """A project after a round, with answers to the random holdout and to some other tasks."""
    notes = {note.text: note for note in visits(N_TASKS)}
    project = stack.new_project("Kinds", CONFIG, [{"text": text} for text in notes])
    first = ordered_release(project)
    tasks = {task["id"]: task["data"]["text"] for task in project.tasks()}
    held_out = holdout_order(tasks, seed=holdout_seed(project.id()))
    others = [task_id for task_id in tasks if task_id not in held_out][:N_MORE]
    for task_id in held_out + others:
        body = {"result": answer(notes[tasks[task_id]]), "lead_time": 2.0}
        stack.call("POST", f"/api/tasks/{task_id}/annotations/", json=body)
    command(stack, "round", str(project.number))
    wait_for_version(project, not_under=first)
    wait_for(project.is_settled, what="the order after the round")
    return project


@pytest.fixture(scope="module")
def status(project: LiveProject) -> dict[str, Any]:
    """What `status --json` says about the project."""
    (found,) = told(project, "status")["projects"]
    return dict(found)


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    with open_browser(stack.settings.own_url) as browser:
        yield browser.page


def rows(page: Page, caption: str) -> list[list[str]]:
    """Return the cells of the table with this caption, a plot's folded table included."""
    table = page.locator("table", has=page.locator("caption", has_text=caption)).first
    return [
        [str(cell.text_content()) for cell in row.locator("th, td").all()]
        for row in table.locator("tbody tr").all()
    ]


def measured(status: dict[str, Any], question: str) -> dict[str, Any]:
    """Return what the last round found about a question."""
    return dict(status["rounds"][-1]["metrics"]["questions"][question])


def test_the_overview_says_what_the_status_says(page, project, status):
    open_part(page, project, "overview")
    for name in ("n_human_labels", "n_human_labelled_tasks"):
        expect(page.locator(f"[data-value={name}]")).to_have_text(count(status[name]))
    done = status["n_tasks"] - status["n_without_label"]
    expect(page.locator("main")).to_contain_text(f"{count(done)} of {count(N_TASKS)}")
    for question in QUESTIONS:
        shown = [cells[1] for cells in rows(page, f"{question}: right as a whole")]
        accuracies = measured(status, question)["accuracies"]
        assert sorted(shown) == sorted(interval(found) for found in accuracies.values()) != []
        labels = status["labels"][question]
        told_counts = {**labels["by_label"], **({"(none)": n} if (n := labels["n_none"]) else {})}
        shown_counts = {label: n for label, n, _ in rows(page, f"{question}: labels")}
        assert shown_counts == {label: count(n) for label, n in told_counts.items()} != {}
        expect(page.locator("main")).to_contain_text(status["advice"][question]["labels"])


def test_quality_tells_labels_and_spans_as_the_round_found_them(page, project, status):
    open_part(page, project, "quality")
    for question in QUESTIONS:
        found = measured(status, question)["quality"]
        by_label = {row[0]: row[1:4] for row in rows(page, f"{question}: by label")}
        assert by_label == {
            one["label"]: [count(one[name]) for name in ("n_people", "n_found", "n_right")]
            for one in found["by_label"]
        }
        agreements = [
            row[2] for row in rows(page, f"{question}: how often annotators say the same")
        ]
        assert agreements == [interval(pair["same"]) for pair in found["annotators"]] != []
        reliable = [row[0] for row in rows(page, f"{question}: how often served labels are right")]
        assert reliable == [share(one["confidence"]) for one in found["reliability"]]
    errors = measured(status, "names")["quality"]["span_errors"]
    assert rows(page, "names: spans by kind of error") == [
        [kind, count(n)] for kind, n in errors.items()
    ]


def test_errors_and_queue_are_those_of_the_commands(page, project):
    open_part(page, project, "issues")
    issues = told(project, "issues")
    assert shown_issues(page) == [issue["id"] for issue in issues][:50]
    for issue in issues[:5]:
        card = page.locator(f"[data-issue='{issue['id']}']")
        for name in ("given", "suggested"):
            if issue[name]:
                expect(card.locator(f"[data-value={name}]")).to_contain_text(issue[name])
    open_part(page, project, "queue")
    queue = told(project, "queue", "--limit", "50")
    shown = [row.get_attribute("data-task") for row in page.locator("tr[data-task]").all()]
    assert shown == [str(place["task_id"]) for place in queue["places"]] != []


def test_the_round_and_what_is_certified_are_those_of_the_status(page, project, status):
    open_part(page, project, "rounds")
    made = status["rounds"][-1]
    card = page.locator(f"[data-round='{made['number']}']")
    expect(card.locator("[data-value=state]")).to_have_text(made["state"])
    for question in QUESTIONS:
        expect(card).to_contain_text(measured(status, question)["gate"]["reason"])
    open_part(page, project, "accept")
    (now,) = told(project, "status")["projects"]
    report = now["certificate"]
    n_checked, n_wrong = count(report["n_checked"]), count(report["n_wrong"])
    expect(page.locator("main")).to_contain_text(f"answered {n_checked} tasks")
    expect(page.locator("main")).to_contain_text(f"the label of {n_wrong} is wrong")
    certified = [row[1] for row in rows(page, "Labels certified")]
    assert certified == [count(at["n_certified"]) for at in report["at"]] != []


def test_the_prompts_ask_both_questions(page, project):
    open_part(page, project, f"settings?task={project.tasks()[0]['id']}")
    heads = page.locator("#prompts h3").all_inner_texts()
    assert {re.split(r"[ ,]", head)[0] for head in heads} == set(QUESTIONS)
