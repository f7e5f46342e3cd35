"""How a tab is written for Label Studio's Data Manager."""

import re

from backend.domain.projects import Tab, TabFilter
from backend.labelstudio.tabs import has_filters_of, tab_data

OPERATORS_OF_THE_PAGE = {"equal", "empty", "regex"}
"""Those of ours that Label Studio's own page can show; an unknown one breaks it."""


def conditions(tab: Tab) -> list[tuple[str, str, str]]:
    items = tab_data(tab)["filters"]["items"]
    return [(item["filter"], item["operator"], item["type"]) for item in items]


def test_the_queue_is_ordered_as_label_studio_serves_it():
    data = tab_data(Tab("Queue", TabFilter.WAITING))
    assert data["ordering"] == ["tasks:predictions_score"]
    assert conditions(Tab("Queue", TabFilter.WAITING)) == [
        ("filter:tasks:total_annotations", "equal", "Number")
    ]


def test_ids_are_matched_whole_and_none_where_there_is_none():
    (item,) = tab_data(Tab("Errors", (12, 345)))["filters"]["items"]
    found = [str(i) for i in range(4_000) if re.search(item["value"], str(i))]
    assert found == ["12", "345"]
    (item,) = tab_data(Tab("Errors", ()))["filters"]["items"]
    assert not any(re.search(item["value"], str(i)) for i in range(100))


def test_the_page_can_show_every_filter():
    for shows in (*TabFilter, (1, 2)):
        assert {operator for _, operator, _ in conditions(Tab("", shows))} <= OPERATORS_OF_THE_PAGE
    assert tab_data(Tab("", (1,)))["columnsDisplayType"] == {"tasks:id": "String"}


def test_another_value_or_order_is_still_ours_and_another_condition_is_not():
    tab = Tab("Errors", (12, 345))
    older = tab_data(Tab("Mine", (12,))) | {"ordering": ["-tasks:id"]}
    assert has_filters_of(older, tab)
    assert not has_filters_of({"title": "Errors", "filters": {"items": []}}, tab)
    more = [*older["filters"]["items"], *tab_data(Tab("", TabFilter.WAITING))["filters"]["items"]]
    assert not has_filters_of(older | {"filters": {"items": more}}, tab)
