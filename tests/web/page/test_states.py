"""States are counted rarely, once for many who ask, and again when something has changed."""

from __future__ import annotations

import threading

from backend.web.page.states import RecentStates


class Counter:
    """Counts how often it is called; each call takes two seconds of its own clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.n_calls = 0

    def __call__(self) -> dict[str, int]:
        self.now += 2.0
        self.n_calls += 1
        return {"n": self.n_calls}


def test_a_state_is_kept_for_ten_times_as_long_as_counting_took():
    count = Counter()
    states = RecentStates(clock=lambda: count.now)
    assert states.get("a", count) == {"n": 1}
    count.now += 19.9
    assert states.get("a", count) == {"n": 1}
    assert states.get("b", count) == {"n": 2}
    assert states.get("a", count) == {"n": 3}


def test_another_version_is_counted_at_once_and_takes_the_place_of_the_last():
    count = Counter()
    states = RecentStates(clock=lambda: count.now)
    for version in ("v1", "v2", "v2", "v1"):
        states.get("a", count, version=version)
    assert count.n_calls == 3


def test_after_a_change_everything_is_counted_anew():
    count = Counter()
    states = RecentStates(clock=lambda: count.now)
    states.get("a", count)
    states.forget()
    assert states.get("a", count) == {"n": 2}


def test_a_count_that_a_change_overtook_is_not_remembered():
    states = RecentStates(clock=lambda: count.now)
    count = Counter()

    def overtaken() -> dict[str, int]:
        states.forget()
        return count()

    assert states.get("a", overtaken) == {"n": 1}
    assert states.get("a", count) == {"n": 2}


def test_many_who_ask_at_once_have_one_count():
    states, started, go_on = RecentStates(), threading.Event(), threading.Event()
    n_counts = []

    def count() -> dict[str, int]:
        n_counts.append(1)
        started.set()
        go_on.wait(10)
        return {"n": 1}

    threads = [threading.Thread(target=states.get, args=("a", count)) for _ in range(5)]
    for thread in threads:
        thread.start()
    started.wait(10)
    threading.Timer(0.05, go_on.set).start()
    for thread in threads:
        thread.join()
    assert len(n_counts) == 1
