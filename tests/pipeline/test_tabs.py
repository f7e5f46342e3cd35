"""Tabs of the Data Manager: added beside the owner's, kept up to date, never forced on them."""

from dataclasses import replace

import pytest

from backend.domain.projects import Tab, TabFilter
from backend.errors import PlatformUnavailable
from backend.pipeline.tabs import TABS, keep_tabs
from tests.fakes import OWN_ADDRESS
from tests.pipeline.steps import PlainSteps


class Shop:
    """A labeled project whose owner has opened the Data Manager once."""

    def __init__(self, house) -> None:
        self.house, self.id = house, house.connected(6)
        house.prelabel(self.id)
        house.stores.state.put(self.id, TABS, None)  # as if it had not tried yet
        self.number = int(self.id.split(".")[0])
        house.tabs.tabs.clear()
        house.tabs.descriptions.clear()
        house.tabs.open(self.number)

    @property
    def project(self):
        return self.house.projects.get(self.id)

    @property
    def tabs(self) -> dict[int, Tab]:
        return self.house.tabs.tabs[self.number]

    def titles(self) -> list[str]:
        return [tab.title for tab in self.tabs.values()]

    def id_of(self, title: str) -> int:
        return next(tab_id for tab_id, tab in self.tabs.items() if tab.title == title)

    def wait(self) -> None:
        """Let a minute pass."""
        state = self.house.stores.state.get(self.id, TABS) or {}
        self.house.stores.state.put(self.id, TABS, state | {"tried_at": None})

    def keep(self) -> None:
        self.wait()
        keep_tabs(self.id, PlainSteps(), self.house.tab_keeper)

    def is_due(self) -> bool:
        return self.house.tab_keeper.is_due(self.project)


@pytest.fixture
def shop(house) -> Shop:
    return Shop(house)


def test_tabs_stand_beside_the_owners_and_the_description_names_the_page(shop):
    assert shop.is_due()
    shop.keep()
    assert shop.titles() == ["Default", "Queue", "No label"]
    assert shop.tabs[shop.id_of("Queue")].shows is TabFilter.WAITING
    assert f"{OWN_ADDRESS}/projects/{shop.number}/" in shop.house.tabs.descriptions[shop.number]
    assert not shop.is_due()


def test_a_long_workflow_keeps_them_too(house):
    project_id = house.connected(6)
    house.tabs.open(1)
    house.prelabel(project_id)
    assert [tab.title for tab in house.tabs.tabs[1].values()] == ["Default", "Queue", "No label"]


def test_nothing_is_added_before_the_owner_has_opened_the_data_manager(house):
    project_id = house.connected(6)
    house.prelabel(project_id)
    keep_tabs(project_id, PlainSteps(), house.tab_keeper)
    assert set(house.tabs.calls) == {"describe", "ids"}


def test_a_description_that_somebody_wrote_stays(shop):
    shop.house.tabs.descriptions[shop.number] = "Reviews of May"
    shop.keep()
    shop.house.tab_keeper.remove(shop.project)
    assert shop.house.tabs.descriptions[shop.number] == "Reviews of May"


def test_a_list_of_tasks_comes_with_its_first_task_and_follows_it(shop):
    shop.house.wrong_tasks[:] = [5, 3]
    shop.keep()
    tab_id = shop.id_of("Probable label errors")
    assert shop.tabs[tab_id].shows == (5, 3)
    shop.house.wrong_tasks.remove(5)
    assert not shop.is_due()  # a minute has not passed
    shop.keep()
    assert shop.tabs[tab_id].shows == (3,)
    shop.house.wrong_tasks.clear()
    shop.keep()
    assert shop.tabs[tab_id].shows == ()


def test_a_long_list_is_cut_and_its_title_says_so(shop):
    shop.house.wrong_tasks[:] = range(1, 1_235)
    shop.keep()
    tab = shop.tabs[shop.id_of("Probable label errors (500 of 1,234)")]
    assert tab.shows == tuple(range(1, 501))


def test_a_deleted_tab_stays_away_until_it_is_asked_for(shop):
    shop.keep()
    del shop.tabs[shop.id_of("Queue")]
    shop.house.wrong_tasks[:] = [5]
    shop.keep()
    shop.keep()
    assert shop.titles() == ["Default", "No label", "Probable label errors"]
    shop.house.tab_keeper.bring_back(shop.project)
    assert shop.is_due()
    shop.keep()
    assert "Queue" in shop.titles()


def test_disconnecting_removes_what_was_added_and_nothing_else(shop):
    shop.house.wrong_tasks[:] = [5]
    shop.keep()
    shop.house.tabs.filtered.add(shop.id_of("Probable label errors"))
    shop.house.connections.disconnect(shop.project)
    assert shop.titles() == ["Default", "Probable label errors"]
    assert shop.house.tabs.descriptions[shop.number] == ""
    assert shop.house.stores.state.get(shop.id, TABS) is None
    shop.keep()
    assert shop.titles() == ["Default", "Probable label errors"]


def test_a_backend_that_is_removed_in_label_studio_takes_its_tabs_along(shop):
    shop.keep()
    shop.house.remote(shop.id).backends.clear()
    shop.house.synchronizer.work_due(shop.id)
    assert shop.titles() == ["Default"]


def test_switched_off_they_are_removed(shop):
    shop.keep()
    keeper = replace(shop.house.tab_keeper, is_on=False)
    shop.wait()
    assert keeper.is_due(shop.project)
    keeper.keep(shop.id)
    assert shop.titles() == ["Default"]
    assert not keeper.is_due(shop.project)


@pytest.mark.parametrize("is_on", [True, False])
def test_while_label_studio_is_down_it_is_tried_once_a_minute(shop, is_on):
    shop.keep()
    keeper = replace(shop.house.tab_keeper, is_on=is_on)
    shop.house.wrong_tasks[:] = [5]
    shop.house.tabs.failure = PlatformUnavailable("down")
    shop.wait()
    assert keeper.is_due(shop.project)
    keeper.keep(shop.id)
    assert not keeper.is_due(shop.project)
    shop.wait()
    assert keeper.is_due(shop.project)


def test_while_label_studio_is_down_a_problem_says_so(shop):
    shop.house.tabs.failure = PlatformUnavailable("down")
    shop.keep()
    (problem,) = shop.house.stores.jobs.problems(shop.id)
    assert (problem.source, problem.message) == (TABS, "down")
    shop.house.tabs.failure = None
    shop.keep()
    assert shop.house.stores.jobs.problems(shop.id) == []


def test_a_kill_after_a_tab_was_added_adds_no_second_one(shop):
    shop.keep()
    shop.house.stores.state.put(shop.id, TABS, None)
    shop.keep()
    assert shop.titles() == ["Default", "Queue", "No label"]
