"""The page of first orders: figures of both projects and of large pools, goals met and missed."""

from __future__ import annotations

from benchmarks.first_order_page import first_order_page


def report(**pools):
    first = {"first_order_s": 12.0, "n_places": 10_000, "n_imported_twice": 0}
    missed = {"first_order_s": None, "n_places": 0, "n_imported_twice": 3}
    return {
        "benchmark": "first-order",
        "commit": "abc",
        "machine": {"cores": 2, "processor": "x86_64"},
        "parameters": {"n_tasks": 10_000},
        "results": {"none": first, "scripted": missed, "pools": pools},
    }


def rows(page: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    return {cell[0].strip("`"): [each.strip() for each in cell[1:]] for cell in cells}


def test_each_figure_has_its_goal_and_says_whether_it_is_met():
    pools = {"100000": {"order_s": 11.0, "peak_gb": 0.9}, "1000000": {"order_s": 300, "peak_gb": 3}}
    found = rows(first_order_page(report(**pools), "first-order.json"))
    assert found["none.first_order_s"][1:] == ["12.0", "under 60", "yes"]
    assert found["scripted.first_order_s"][1:] == ["None", "under 60", "**no**"]
    assert found["scripted.n_imported_twice"][1:] == ["3", "0", "**no**"]
    assert found["100000.order_s"][1:] == ["11.0", "under 12", "yes"]
    assert found["1000000.order_s"][1:] == ["300", "under 240", "**no**"]
    assert found["1000000.peak_gb"][1:] == ["3", "under 4", "yes"]


def test_a_pool_of_another_size_has_no_goal():
    page = first_order_page(report(**{"5000": {"order_s": 1.0, "peak_gb": 0.3}}), "x.json")
    assert rows(page)["5000.order_s"][1:] == ["1.0"]
