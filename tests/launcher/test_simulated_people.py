"""The demo's simulated people answer with gold labels, the random holdout first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from backend.domain.projects import Prediction, QueuePlace
from backend.launcher.simulated_people import simulate_people
from backend.services import Adapters, build_services
from backend.settings import Settings
from tests.conftest import SENTIMENT
from tests.fakes import FakePlatform

SPANS = (
    '<View><Text name="text" value="$text"/>'
    '<Labels name="who" toName="text"><Label value="Person"/></Labels></View>'
)


class Admin:
    """Label Studio as far as simulated people need it."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.answers: list[tuple[int, int, str]] = []

    def ensure_user(self, email: str, name: str) -> int:
        self.users[email] = name
        return len(self.users)

    def annotate_as(self, user: int, task: int, result) -> None:
        (region,) = result
        assert set(region) == {"from_name", "to_name", "type", "value"}
        self.answers.append((user, task, region["value"]["choices"][0]))


@pytest.fixture
def place(tmp_path, request):
    services = build_services(Settings(home=tmp_path), Adapters(FakePlatform()))
    config = getattr(request, "param", SENTIMENT)
    number = services.platform.create_project(config)
    ids = services.platform.import_tasks(number, [{"text": f"text {i}"} for i in range(300)])
    project_id = services.platform.projects[number].info.id
    services.events.connect(project_id, config)
    services.round_steps.prelabel.synchronizer.sync(project_id)
    project = services.stores.projects.get(project_id)
    region = {"id": "a", "from_name": "sentiment", "to_name": "text", "type": "choices"}
    region |= {"value": {"choices": ["Negative"]}, "score": 0.9}
    predictions = [Prediction(i, "", (region,), 0.5) for i in ids]
    places = [QueuePlace(i, at, "because", at % 10 == 9) for at, i in enumerate(ids)]
    draft = services.stores.releases.draft(project, predictions, places, {})
    assert services.stores.releases.promote(draft)
    held_out = [place.task_id for place in places if place.is_holdout]
    yield SimpleNamespace(
        services=services, project=draft, ids=ids, held_out=held_out, admin=Admin()
    )
    services.close()


def simulate(place, gold) -> int:
    return simulate_people(place.admin, place.services, place.project, gold)


def test_the_random_holdout_is_answered_first_and_some_tasks_twice(place):
    n = simulate(place, dict.fromkeys(place.ids, "Positive"))
    assert n == len(place.admin.answers)
    assert all(name.startswith("Simulated") for name in place.admin.users.values())
    assert {label for _, _, label in place.admin.answers} == {"Positive"}
    by_first = [task for user, task, _ in place.admin.answers if user == 1]
    assert by_first[: len(place.held_out)] == place.held_out
    assert len(by_first) > len(place.held_out)
    by_second = [task for user, task, _ in place.admin.answers if user == 2]
    assert by_second and set(by_second) <= set(by_first)


def test_labels_that_are_no_choice_are_left_out(place):
    assert simulate(place, dict.fromkeys(place.ids, "great")) == 0


@pytest.mark.parametrize("place", [SPANS], indirect=True)
def test_only_a_single_choice_is_answered(place):
    assert simulate(place, dict.fromkeys(place.ids, "Person")) == 0
