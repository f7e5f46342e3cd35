"""What tabs of the Data Manager do, for the fake and for a real Label Studio alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backend.domain.ports import ProjectTabs
from backend.domain.projects import Prediction, Tab, TabFilter
from backend.labelstudio.client import LabelStudioPlatform
from backend.labelstudio.tabs import LabelStudioTabs
from backend.labelstudio.task_pages import send_request
from tests.contract.test_labeling_platform import CONFIG
from tests.fakes import FakeTabs
from tests.label_studio_user import LabelStudioUser
from tests.pipeline.people import choice

QUEUE, EMPTY = Tab("Queue", TabFilter.WAITING), Tab("No label", TabFilter.UNLABELED)


class RealTabs(LabelStudioTabs):
    """Tabs of a new project in a real Label Studio, and what its page does with them."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__(url, token)
        self.user = LabelStudioUser(url, token)
        self.platform = LabelStudioPlatform(url, token)

    def open(self, platform_id: int) -> None:
        body = {"project": platform_id, "data": {"title": "Default"}}
        self._send("POST", "api/dm/views/", "open the page", json=body)

    def change(self, platform_id: int, tab_id: int, **changes: Any) -> None:
        body = {"project": platform_id, "data": {**(self._data(platform_id, tab_id)), **changes}}
        self._send("PATCH", f"api/dm/views/{tab_id}/", "change a tab", json=body)

    def titles(self, platform_id: int) -> list[str]:
        return [view["data"]["title"] for view in self._views(platform_id)]

    def shown(self, platform_id: int, tab_id: int) -> list[int]:
        query = {"project": platform_id, "view": tab_id, "page_size": 100}
        with self._connection.calling("list a tab's tasks") as client:
            page = send_request(client, "api/tasks/", method="GET", params=query)
        return [task["id"] for task in page["tasks"]]


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Iterator[tuple[RealTabs, int]]:
    server = request.getfixturevalue("label_studio")
    tabs = RealTabs(server.url, server.credentials.token)
    number = tabs.user.create_project("tabs", CONFIG, "")
    yield tabs, number
    tabs.user.delete_project(number)
    for client in (tabs, tabs.user, tabs.platform):
        client.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.e2e)])
def place(request: pytest.FixtureRequest) -> tuple[ProjectTabs, int]:
    if request.param == "fake":
        return FakeTabs(), 7
    found: tuple[ProjectTabs, int] = request.getfixturevalue("real")
    return found


def test_a_tab_is_added_once_and_deleted_once(place):
    tabs, number = place
    assert tabs.ids(number) == []
    tab_id = tabs.add(number, QUEUE)
    assert tabs.add(number, QUEUE) == tab_id
    other = tabs.add(number, Tab("Errors", (1, 2)))
    assert tabs.ids(number) == [tab_id, other]
    tabs.delete(number, tab_id, QUEUE)
    tabs.delete(number, tab_id, QUEUE)
    assert tabs.ids(number) == [other]


def test_a_deleted_tab_is_not_changed(place):
    tabs, number = place
    tabs.update(number, 2_000_000, before=Tab("Errors", (1,)), after=Tab("Errors", (2,)))
    assert tabs.ids(number) == []


def test_a_description_is_set_only_where_it_is_what_it_was_taken_for(place):
    tabs, number = place
    assert tabs.describe(number, "the page", instead_of="")
    assert not tabs.describe(number, "another", instead_of="")
    assert tabs.describe(number, "", instead_of="the page")
    assert tabs.describe(number, "the page", instead_of="")


@pytest.mark.e2e
def test_label_studio_shows_what_the_tabs_are_for(real):
    tabs, number = real
    tabs.user.import_tasks(number, [{"text": f"text {i}"} for i in range(6)])
    ids = [task.id for task in tabs.platform.tasks(number)]
    scores = dict(zip(ids[:5], (0.5, 0.1, 0.9, 0.3, 0.7), strict=True))
    predictions = [Prediction(i, "v1", (choice("Negative"),), score) for i, score in scores.items()]
    assert tabs.platform.import_predictions(number, predictions) == 5
    tabs.platform.serve_model_version(number, "v1")
    tabs.user.annotate(ids[0], [choice("Negative")])
    by_score = [ids[1], ids[3], ids[4], ids[2]]
    assert tabs.shown(number, tabs.add(number, QUEUE)) == [*by_score, ids[5]]
    assert tabs.shown(number, tabs.add(number, EMPTY)) == [ids[5]]
    listed = tabs.add(number, Tab("Errors", (ids[4], ids[0])))
    assert tabs.shown(number, listed) == [ids[0], ids[4]]
    assert tabs.shown(number, tabs.add(number, Tab("None", ()))) == []


@pytest.mark.e2e
def test_what_the_owner_changes_in_a_tab_stays(real):
    tabs, number = real
    tabs.user.import_tasks(number, [{"text": f"text {i}"} for i in range(4)])
    ids = [task.id for task in tabs.platform.tasks(number)]
    before, after = Tab("Errors", (ids[0],)), Tab("Errors (2 of 3)", (ids[1], ids[2]))
    tabs.open(number)
    tab_id = tabs.add(number, before)
    tabs.change(number, tab_id, title="To correct", ordering=["-tasks:id"])
    tabs.update(number, tab_id, before=before, after=after)
    assert tabs.titles(number) == ["Default", "To correct"]
    assert tabs.shown(number, tab_id) == [ids[2], ids[1]]
    theirs = {"conjunction": "and", "items": []}
    tabs.change(number, tab_id, filters=theirs)
    tabs.update(number, tab_id, before=after, after=before)
    assert tabs.shown(number, tab_id) == ids[::-1]
    tabs.delete(number, tab_id, before)
    assert tab_id in tabs.ids(number)
