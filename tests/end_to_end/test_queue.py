"""The queue in a real Label Studio: what people are served is the order that was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backend.domain.projects import Prediction, QueuePlace
from backend.pipeline.status import read_queue
from tests.end_to_end.browser import open_browser
from tests.end_to_end.data import reviews
from tests.end_to_end.people import signed_up
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_main_job import SENTIMENT, texts, the_prediction
from tests.label_studio_user import LabelStudioUser

pytestmark = pytest.mark.e2e

N_ROWS = 200


@pytest.fixture(scope="module")
def films(stack: Stack) -> LiveProject:
    """A project of 200 film reviews whose queue is ordered."""
    project = stack.new_project("Queue", SENTIMENT, texts(reviews(N_ROWS, start=3000)))
    project.wait_until_labelled(N_ROWS)
    return project


@pytest.fixture(scope="module")
def anna(stack: Stack) -> Iterator[LabelStudioUser]:
    with signed_up(stack, "anna") as person:
        yield person


@pytest.fixture(scope="module")
def ben(stack: Stack) -> Iterator[LabelStudioUser]:
    with signed_up(stack, "ben") as person:
        yield person


def waiting(project: LiveProject) -> list[int]:
    """Return the tasks that nobody answered yet, in the order that the backend has chosen."""
    services = project.stack.services
    stored = services.stores.projects.get(project.id())
    assert stored is not None
    answered = {task["id"] for task in project.tasks() if task["total_annotations"]}
    places = services.stores.releases.places(stored)
    return [place.task_id for place in places if place.task_id not in answered]


def scores(project: LiveProject) -> dict[int, float]:
    return {
        task["id"]: the_prediction(task)["score"]
        for task in project.tasks()
        if not task["total_annotations"]
    }


def results(project: LiveProject) -> dict[int, list[dict[str, Any]]]:
    return {task["id"]: the_prediction(task)["result"] for task in project.tasks()}


def take(person: LabelStudioUser, project: LiveProject) -> int:
    task_id = person.next_task(project.number)
    assert task_id is not None, "the queue is at its end"
    return task_id


def test_the_first_place_has_the_lowest_score(films):
    by_score = scores(films)
    assert waiting(films) == sorted(by_score, key=by_score.__getitem__)


def test_one_annotator_is_served_the_order_that_was_chosen(films, anna):
    order, confirmed = waiting(films), results(films)
    served = []
    for _ in range(8):
        task_id = take(anna, films)
        served.append(task_id)
        anna.annotate(task_id, confirmed[task_id])
    assert served == order[:8]


def test_three_people_share_the_order_and_never_a_task(films, anna, ben, stack):
    order, confirmed = waiting(films), results(films)
    credentials = stack.label_studio.credentials
    with open_browser(stack.label_studio.url) as window:
        window.log_in(credentials.username, credentials.password)
        window.open_project(films.number)
        taken = [take(anna, films), take(ben, films), window.label_all_tasks()]
        for _ in range(2):
            anna.annotate(taken[-3], confirmed[taken[-3]])
            taken.append(take(anna, films))
            ben.annotate(taken[-3], confirmed[taken[-3]])
            taken.append(take(ben, films))
            _, following = window.submit()
            taken.append(following)
    assert taken == order[:9]
    anna.annotate(taken[6], confirmed[taken[6]])
    ben.annotate(taken[7], confirmed[taken[7]])
    stack.admin.annotate(taken[8], confirmed[taken[8]])


def test_what_people_answered_is_told_to_have_left_the_queue(films, stack):
    expected = waiting(films)

    def told() -> list[int]:
        project = stack.services.stores.projects.get(films.id())
        assert project is not None
        upcoming = stack.services.reporter.upcoming(project, 5)
        return [place.task_id for place in upcoming.places]

    wait_for(
        lambda: told() == expected[:5],
        what=f"{expected[:5]} to come next",
        found=told,
        within_s=30,
    )


def test_another_order_is_followed_at_once_but_an_open_task_stays(films, anna, ben, stack):
    opened = take(anna, films)
    order = waiting(films)
    assert opened == order[0]
    project = stack.services.stores.projects.get(films.id())
    assert project is not None
    backwards, confirmed = order[::-1], results(films)
    stack.services.stores.releases.draft(
        project,
        [
            Prediction(task_id, "", tuple(confirmed[task_id]), (at + 0.5) / len(order))
            for at, task_id in enumerate(backwards)
        ],
        [QueuePlace(task_id, at, "backwards") for at, task_id in enumerate(backwards)],
        {"kind": "test"},
    )
    films.wait_until_labelled(N_ROWS, not_under=project.model_version)
    assert waiting(films) == backwards
    assert take(anna, films) == opened
    assert take(ben, films) == backwards[0]
    anna.annotate(opened, confirmed[opened])
    assert take(anna, films) == backwards[1]


def test_an_order_is_there_while_the_llm_labels_and_follows_its_labels(anna, stack):
    n_rows = 400
    project = stack.new_project("Early", SENTIMENT, texts(reviews(n_rows, start=3400)))
    stores, reasons = stack.services.stores, dict[int, dict[int, str]]()

    def note_order() -> bool:
        stored = stores.projects.find(project.number)
        queue = read_queue(stores, stored) if stored else None
        if stored and queue and queue.is_early:
            places = stores.releases.places(stored)
            reasons[queue.n_evidence] = {place.task_id: place.reason for place in places}
        return bool(stored and len(reasons) > 1 and stores.publication.has_published(stored))

    wait_for(note_order, what="two early orders", found=lambda: [*reasons], within_s=120)
    stored = stores.projects.find(project.number)
    assert stored is not None
    assert stores.labels.progress(stored).n_to_label > 0
    first, later = (reasons[n] for n in sorted(reasons)[:2])
    assert len(first) == len(later) == n_rows
    assert first != later
    wait_for(
        lambda: stores.projects.served_version(stored.id) is not None,
        what="the first predictions to be served",
    )
    begun = take(anna, project)
    imported = [task for task in project.tasks() if task["predictions"]]
    assert begun in {task["id"] for task in imported}
    assert all(len(task["predictions"]) == 1 for task in imported)
    project.wait_until_labelled(n_rows)
    assert take(anna, project) == begun


def test_tasks_that_are_imported_later_are_served_between_the_others(anna, stack):
    rows = reviews(24, start=3300)
    project = stack.new_project("Slotted", SENTIMENT, texts(rows[:22]))
    version = project.wait_until_labelled(22)["model_version"]
    ordered = set(scores(project))
    stack.admin.import_tasks(project.number, texts(rows[22:]))
    assert project.wait_until_labelled(24)["model_version"] == version
    by_score, confirmed = scores(project), results(project)
    served = []
    while (task_id := anna.next_task(project.number)) is not None:
        served.append(task_id)
        anna.annotate(task_id, confirmed[task_id])
    assert [by_score[task_id] for task_id in served] == sorted(by_score.values())
    assert len(set(served) - ordered) == 2
    assert [task_id for task_id in served if task_id in ordered] == [
        task_id for task_id in sorted(ordered, key=by_score.__getitem__)
    ]
