"""An owner's day: connect, label, edit, change config, remove, add again, new token, delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backend.domain.projects import UNCERTAINTY_SAMPLING, Disconnection, Project
from backend.setting_values import Secret
from tests.end_to_end.data import reviews
from tests.end_to_end.people import new_token, replace_token
from tests.end_to_end.stack import LiveProject, Stack, wait_for
from tests.end_to_end.test_main_job import SENTIMENT, texts, the_choice, the_prediction

pytestmark = pytest.mark.e2e

N_ROWS = 30
LOOK_S = 60.0
"""Far more than the sync interval of the tests, and less than an hourly listing."""
EDITED = "Good. A good film, with good actors and a good end: I like all of it very much."


@pytest.fixture(scope="module")
def films(stack: Stack) -> LiveProject:
    """A project of 30 film reviews that is labelled and ordered."""
    project = stack.new_project("Owner's day", SENTIMENT, texts(reviews(N_ROWS, start=5000)))
    project.wait_until_labelled(N_ROWS)
    return project


def stored(project: LiveProject) -> Project:
    found = project.stack.services.stores.projects.find(project.number)
    assert found is not None
    return found


def soon(project: LiveProject, condition: Callable[[], bool], *, what: str) -> None:
    wait_for(condition, what=what, within_s=LOOK_S, found=project.state)


def remove_backends(project: LiveProject) -> None:
    for backend in project.stack.admin.backends(project.number):
        project.stack.call("DELETE", f"/api/ml/{backend.id}")


def task(project: LiveProject, task_id: int) -> dict[str, Any]:
    return next(each for each in project.tasks() if each["id"] == task_id)


def test_an_edited_text_gets_a_label_of_its_own(films):
    first = films.tasks()[0]
    before = the_prediction(first)["id"]
    films.stack.call("PATCH", f"/api/tasks/{first['id']}/", json={"data": {"text": EDITED}})

    def is_anew() -> bool:
        found = task(films, first["id"])["predictions"]
        return len(found) == 1 and found[0]["id"] != before

    soon(films, is_anew, what="a label of the edited text")
    assert the_choice(the_prediction(task(films, first["id"]))) in ("Positive", "Negative")
    films.wait_until_labelled(N_ROWS)


def test_another_look_of_the_config_changes_no_version(films):
    version = films.state()["model_version"]
    same = SENTIMENT.replace("<View>", '<View style="color: gray">\n  <Style>p {margin: 0}</Style>')
    films.stack.call("PATCH", f"/api/projects/{films.number}/", json={"label_config": same})
    soon(films, lambda: stored(films).label_config == same.strip(), what="the config's new look")
    assert films.state()["model_version"] == version
    films.wait_until_labelled(N_ROWS)


def test_several_changes_in_a_row_start_one_version(films):
    n_versions, version = len(films.state()["versions"]), films.state()["model_version"]
    for name in ("Mixed", "Undecided", "Neutral"):
        config = SENTIMENT.replace(
            '<Choice value="Negative"/>', f'<Choice value="Negative"/><Choice value="{name}"/>'
        )
        films.stack.call("PATCH", f"/api/projects/{films.number}/", json={"label_config": config})
    films.wait_until_labelled(N_ROWS, not_under=version)
    assert stored(films).label_config == config.strip()
    asked = {each.split("-")[1] for each in films.state()["versions"]}
    assert len(asked) - n_versions in (1, 2)  # the question's first version, and its ordered one


def test_the_address_that_label_studio_uses_counts_beside_another_backend(films):
    stack = films.stack
    other = stack.settings.own_url.replace("127.0.0.1", "localhost")
    stack.admin.connect_backend(films.number, other, "The same by another name")
    first = next(b for b in stack.admin.backends(films.number) if "127.0.0.1" in b.url)
    stack.call("DELETE", f"/api/ml/{first.id}")
    stack.admin.import_tasks(films.number, [{"text": "A good film."}])
    films.wait_until_labelled(N_ROWS + 1)
    assert stored(films).is_connected


def test_a_removed_backend_stops_and_leaves_the_project_as_it_was(films):
    assert films.described()["sampling"] == UNCERTAINTY_SAMPLING
    remove_backends(films)
    wait_for(
        lambda: not stored(films).is_connected, what="the end of the work", within_s=3 * LOOK_S
    )
    assert stored(films).disconnection == Disconnection.REMOVED
    assert "does not list the backend" in films.state()["disconnected_why"]
    soon(
        films,
        lambda: films.described()["sampling"] == "Sequential sampling",
        what="the sampling as it was",
    )
    films.stack.admin.import_tasks(films.number, [{"text": "A bad film."}])
    newest = films.tasks()[-1]
    assert newest["predictions"] == []


def test_added_again_it_goes_on_where_it_was(films):
    films.stack.admin.connect_backend(films.number, films.stack.settings.own_url, "FreeAL")
    films.wait_until_labelled(N_ROWS + 2)
    assert stored(films).is_connected
    assert films.described()["sampling"] == UNCERTAINTY_SAMPLING
    assert all(len(each["predictions"]) == 1 for each in films.tasks())


def run_worker_by(stack: Stack, token: str) -> None:
    """Start the worker again by another token, as after a change of LABEL_STUDIO_API_KEY."""
    stack.kill_worker()
    stack.settings = replace(stack.settings, label_studio_api_key=Secret(token))
    stack.start_worker()


def test_a_replaced_token_stops_the_work_in_words_until_the_new_one_is_set(films):
    stack = films.stack
    own, first = stack.settings.label_studio_api_key.reveal(), new_token(stack, "backend")
    try:
        run_worker_by(stack, first)
        stack.admin.import_tasks(films.number, [{"text": "A good film with bad music."}])
        films.wait_until_labelled(N_ROWS + 3)
        second = replace_token(stack, first)
        soon(films, lambda: not stored(films).is_connected, what="the end of the work")
        assert stored(films).disconnection == Disconnection.REFUSED
        why = films.state()["disconnected_why"]
        assert "refuses the token" in why and "set LABEL_STUDIO_API_KEY" in why
        stack.admin.import_tasks(films.number, [{"text": "A bad film with good music."}])
        run_worker_by(stack, second)
        films.wait_until_labelled(N_ROWS + 4)
        assert stored(films).is_connected
        assert films.state()["disconnected_why"] is None
    finally:
        run_worker_by(stack, own)


def test_a_deleted_project_is_asked_about_no_more(films):
    films.stack.admin.delete_project(films.number)
    soon(films, lambda: not stored(films).is_connected, what="the end of the work")
    state = films.state()
    assert state["disconnection"] == Disconnection.DELETED
    assert state["problems"] == []
