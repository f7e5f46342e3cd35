"""Keep tabs in the Data Manager: filters that Label Studio evaluates and its page can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.domain.projects import Tab, TabFilter
from backend.labelstudio.client import LabelStudioConnection, data_manager_filters
from backend.labelstudio.task_pages import send_request

_VIEWS = "api/dm/views/"
_SCORE, _ID = "tasks:predictions_score", "tasks:id"
_SHOWN = (
    *("id", "data", "total_annotations", "annotations_results"),
    *("predictions_score", "predictions_results"),
)
_UNANSWERED = ("total_annotations", "equal", "Number", 0)
_NO_SCORE = ("predictions_score", "empty", "Number", True)


class LabelStudioTabs:
    """Implements the `ProjectTabs` port for Label Studio 1.23. Safe between threads."""

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 60.0) -> None:
        self._connection = LabelStudioConnection(url, api_key, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connections that are open; the next call opens new ones."""
        self._connection.close()

    def ids(self, platform_id: int) -> list[int]:
        """Return the ids of all tabs; none before somebody has opened the Data Manager."""
        return [int(view["id"]) for view in self._views(platform_id)]

    def add(self, platform_id: int, tab: Tab) -> int:
        """Add a tab after the others; return its id.

        One of this title and these filters is taken for it: a kill may have kept us from noting it.
        """
        for view in self._views(platform_id):
            data = view["data"]
            if data.get("title") == tab.title and has_filters_of(data, tab):
                return int(view["id"])
        hidden = self._columns_to_hide(platform_id)
        data = tab_data(tab) | {"hiddenColumns": {"explore": hidden, "labeling": hidden}}
        body = {"project": platform_id, "data": data}
        return int(self._send("POST", _VIEWS, f"add the tab {tab.title!r}", json=body)["id"])

    def update(self, platform_id: int, tab_id: int, *, before: Tab, after: Tab) -> None:
        """Show other tasks in a tab, and keep what people have changed in it.

        A title other than `before`'s stays, and a tab with other filters stays as it is.
        """
        present = self._data(platform_id, tab_id)
        if present is None or not has_filters_of(present, before):
            return
        data = {**present, "filters": tab_data(after)["filters"]}
        if present.get("title") == before.title:
            data["title"] = after.title
        if data != present:
            body = {"project": platform_id, "data": data}
            self._send("PATCH", f"{_VIEWS}{tab_id}/", f"change tab {tab_id}", json=body)

    def delete(self, platform_id: int, tab_id: int, tab: Tab) -> None:
        """Delete a tab unless somebody has given it other filters, or deleted it."""
        present = self._data(platform_id, tab_id)
        if present is not None and has_filters_of(present, tab):
            self._send("DELETE", f"{_VIEWS}{tab_id}/", f"delete tab {tab_id}")

    def describe(self, platform_id: int, text: str, *, instead_of: str) -> bool:
        """Set the project's description if it is `instead_of` now; return whether it was."""
        with self._connection.calling(f"describe project {platform_id}") as client:
            if (client.projects.get(id=platform_id).description or "").strip() != instead_of:
                return False
            client.projects.update(id=platform_id, description=text)
            return True

    def _views(self, platform_id: int) -> list[Mapping[str, Any]]:
        found = self._send("GET", _VIEWS, "list tabs", params={"project": platform_id})
        return list(found)

    def _columns_to_hide(self, platform_id: int) -> list[str]:
        path, query = "api/dm/columns/", {"project": platform_id}
        columns = self._send("GET", path, "list columns", params=query)["columns"]
        names = [column["id"] for column in columns if column.get("parent") is None]
        return [f"tasks:{name}" for name in names if name not in _SHOWN]

    def _data(self, platform_id: int, tab_id: int) -> Mapping[str, Any] | None:
        found = [view for view in self._views(platform_id) if view["id"] == tab_id]
        return found[0]["data"] if found else None

    def _send(self, method: str, path: str, purpose: str, **arguments: Any) -> Any:
        with self._connection.calling(purpose) as client:
            return send_request(client, path, method=method, **arguments)


def tab_data(tab: Tab) -> dict[str, Any]:
    """Return a tab as Label Studio's API takes it.

    Ids are matched by a regular expression, with the column shown as a text: for numbers the page
    knows no list, and an operator that it does not know breaks it.
    """
    data: dict[str, Any] = {"title": tab.title, "type": "list", "target": "tasks"}
    if tab.shows is TabFilter.WAITING:
        return data | {"ordering": [_SCORE], "filters": _all_of(_UNANSWERED)}
    if tab.shows is TabFilter.UNLABELED:
        return data | {"filters": _all_of(_UNANSWERED, _NO_SCORE)}
    pattern = f"^({'|'.join(map(str, tab.shows))})$"
    return data | {
        "filters": _all_of(("id", "regex", "String", pattern)),
        "columnsDisplayType": {_ID: "String"},
    }


def has_filters_of(present: Mapping[str, Any], tab: Tab) -> bool:
    """Return whether a tab's data has the columns and operators of our filters.

    Values may differ: a page that was open meanwhile writes back an older list of ids.
    """
    return _conditions(present) == _conditions(tab_data(tab))


def _conditions(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    items = (data.get("filters") or {}).get("items", ())
    return [(item["filter"], item["operator"]) for item in items]


def _all_of(*conditions: tuple[str, str, str, Any]) -> dict[str, Any]:
    items = [item for each in conditions for item in data_manager_filters(*each)["items"]]
    return {"conjunction": "and", "items": items}
