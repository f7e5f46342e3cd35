"""Fixtures that start the real parts once for all end-to-end tests; they fail, they never skip.

A plugin of tests/conftest.py, because the contract tests and the adapters' own use them too. What
they start is imported when it is asked for: most runs need none of it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from backend.launcher.label_studio_server import LabelStudioServer
    from tests.end_to_end.stack import Stack, Workplace

_PLACE = pytest.StashKey["Workplace"]()
_TIMEOUT_S = 1800  # the first test makes the environments where they are not there yet


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give end-to-end tests more time, unless they say how much they need."""
    if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(_TIMEOUT_S))


@pytest.fixture(scope="session")
def workplace(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workplace]:
    """A home of this run's own, in which everything is stopped at the end."""
    from rich.console import Console

    from tests.end_to_end.stack import open_workplace

    with open_workplace(tmp_path_factory.mktemp("home"), Console(stderr=True)) as place:
        request.session.stash[_PLACE] = place
        yield place


@pytest.fixture(scope="session")
def starting_label_studio(workplace: Workplace) -> LabelStudioServer:
    """An empty Label Studio that may not answer yet, so that others can start beside it."""
    from tests.end_to_end.stack import launch_label_studio

    return launch_label_studio(workplace)


@pytest.fixture(scope="session")
def label_studio(
    workplace: Workplace, starting_label_studio: LabelStudioServer
) -> LabelStudioServer:
    """A Label Studio that answers."""
    starting_label_studio.wait(workplace.processes)
    return starting_label_studio


@pytest.fixture(scope="session")
def running_stack(
    workplace: Workplace, starting_label_studio: LabelStudioServer
) -> Iterator[Stack]:
    """Label Studio, vLLM with the embedded model, the web process and the worker."""
    from tests.end_to_end.stack import open_stack

    with open_stack(workplace, starting_label_studio) as stack:
        yield stack


@pytest.fixture(scope="module")
def stack(running_stack: Stack) -> Iterator[Stack]:
    """The stack, whose worker follows the projects of the present module alone."""
    yield running_stack
    running_stack.leave_projects()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the last lines of each process's log with a failed test."""
    report = yield
    place = item.session.stash.get(_PLACE, None)
    if report.failed and place is not None:
        report.sections += place.log_tails()
    return report
