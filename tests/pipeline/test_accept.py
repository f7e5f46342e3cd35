"""Labels that the holdout certifies become annotations, are nobody's answers, and go again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest

from backend.domain.holdout import holdout_order, holdout_seed
from backend.domain.projects import Prediction
from backend.errors import InvalidRequest, PlatformUnavailable
from backend.pipeline.accept import accept
from backend.pipeline.certificate import Certifier
from backend.pipeline.status import OUTDATED
from tests.pipeline.conftest import House
from tests.pipeline.people import choice
from tests.pipeline.snapshots import Setups
from tests.pipeline.steps import PlainSteps, ReplayingSteps

N_TASKS, N_ANSWERS = 200, 18
"""18 right answers, as few as can certify labels of which a fifth may be wrong."""
_SETUPS = Setups()


@pytest.fixture
def house(stores) -> House:
    return House(stores, orders_queue=True, chunk=100)


def holdout(house, project_id) -> list[int]:
    """The random holdout in the order in which people get it."""
    return holdout_order(house.remote(project_id).tasks, seed=holdout_seed(project_id))


def answer(house, project_id, ids, *, is_right=True) -> None:
    tasks = house.remote(project_id).tasks
    for task_id in ids:
        is_good = ("good" in tasks[task_id]["text"]) == is_right
        house.platform.annotate(task_id, [choice("Positive" if is_good else "Negative")])
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)


def certified_project(house, *, n_answers=N_ANSWERS):
    def set_up():
        project_id = house.labeled(N_TASKS)
        answer(house, project_id, holdout(house, project_id)[:n_answers])
        return project_id

    return _SETUPS.project(house, n_answers, set_up)


def run(house, project_id, steps=None) -> None:
    steps = house.equip(steps or PlainSteps())
    accept(project_id, steps, house.acceptor, house.round_steps.prelabel)


def copies(house, project_id) -> dict[int, int]:
    rows = house.remote(project_id).annotations.items()
    return {row.task_id: number for number, row in rows if row.is_copied}


def at(house, project_id, max_error):
    report = house.certifier.report(house.projects.get(project_id), max_error)
    return report, next(row for row in report["at"] if row["max_error"] == max_error)


def test_what_the_holdout_certifies_is_told_and_stays_an_open_task_in_the_holdout(house):
    project_id = certified_project(house)
    report, row = at(house, project_id, 0.2)
    assert (report["n_checked"], report["n_wrong"], report["n_accepted"]) == (N_ANSWERS, 0, 0)
    n_held_out = len(holdout(house, project_id))
    assert row["n_certified"] == report["n_labels"] == N_TASKS - n_held_out
    assert report["next_task_ids"][0] == holdout(house, project_id)[N_ANSWERS]
    assert row["expected_after"] == {"50": row["n_certified"], "100": row["n_certified"]}
    _, strict = at(house, project_id, 0.01)
    assert strict["n_certified"] == 0 and "is the least" in strict["reason"]


def test_only_the_beginning_of_the_random_order_is_a_random_sample(house):
    project_id = house.labeled(N_TASKS)
    answer(house, project_id, holdout(house, project_id)[1:N_ANSWERS])
    report, row = at(house, project_id, 0.2)
    assert (report["n_checked"], row["n_certified"]) == (0, 0)
    assert report["next_task_ids"][0] == holdout(house, project_id)[0]


def test_no_more_answers_are_expected_than_the_holdout_has_tasks(house):
    project_id = certified_project(house, n_answers=N_TASKS)
    report, row = at(house, project_id, 0.05)
    assert report["next_task_ids"] == []
    assert row["expected_after"] == {"50": row["n_certified"], "100": row["n_certified"]}


def test_a_skipped_task_of_the_holdout_counts_as_wrong(house):
    project_id = house.labeled(N_TASKS)
    first, *others = holdout(house, project_id)[:N_ANSWERS]
    house.platform.annotate(first, [], was_cancelled=True)
    answer(house, project_id, others)
    report, _ = at(house, project_id, 0.2)
    assert (report["n_checked"], report["n_wrong"]) == (N_ANSWERS, 1)


def test_the_holdouts_answers_teach_nothing(house):
    projects = []
    for is_right in (True, False):
        project_id = house.connected(60)
        house.similarity.is_silent = False
        house.prelabel(project_id)
        answer(house, project_id, holdout(house, project_id), is_right=is_right)
        house.aggregator.aggregate(house.projects.get(project_id))
        labels = house.labels.weak_labels(house.projects.get(project_id), annotator="fused")
        first = min(house.remote(project_id).tasks)
        projects.append({one.example_id - first: one.probabilities for one in labels})
        state = house.ensemble.state(house.projects.get(project_id))
        assert state.n_human == 0
    both = projects[0].keys() & projects[1].keys()
    assert len(both) > 50
    assert all(projects[0][i] == projects[1][i] for i in both)


def test_accepted_labels_become_annotations_that_are_nobodys_answers(house):
    project_id = certified_project(house)
    house.acceptor.ask(house.projects.get(project_id), 0.2)
    run(house, project_id)
    made = copies(house, project_id)
    held_out = set(holdout(house, project_id))
    assert set(made) == set(house.remote(project_id).tasks) - held_out
    project = house.projects.get(project_id)
    assert house.acceptor.request(project_id).state == "accepted"
    assert house.acceptor.request(project_id).n_done == len(made)
    house.prelabel(project_id)
    pool = house.guidelines.pool(project)
    assert pool.human_ids == set(holdout(house, project_id)[:N_ANSWERS])
    assert house.labels.progress(project).n_human_labelled == N_ANSWERS
    report, row = at(house, project_id, 0.2)
    assert (report["n_accepted"], row["n_certified"]) == (len(made), 0)
    assert row["expected_after"] == {"50": 0, "100": 0}


def test_undo_removes_exactly_these_and_nothing_that_people_edited(house):
    project_id = certified_project(house)
    house.acceptor.ask(house.projects.get(project_id), 0.2)
    run(house, project_id)
    before = dict(house.remote(project_id).annotations)
    number = next(iter(copies(house, project_id).values()))
    house.platform.edit_annotation(number, [choice("Negative")])
    by_hand = holdout(house, project_id)[-1]
    copied = house.platform.annotate(by_hand, [choice("Negative")], is_copied=True)
    house.acceptor.ask_undo(house.projects.get(project_id))
    run(house, project_id)
    left = house.remote(project_id).annotations
    of_people = {number for number, row in before.items() if not row.is_copied}
    assert set(left) == of_people | {number, copied}
    asked = house.acceptor.request(project_id)
    assert (asked.state, asked.n_left_out) == ("undone", 1)
    assert house.stores.accepted.all(project_id) == []


def test_a_task_that_people_annotated_meanwhile_is_left_alone(house):
    project_id = certified_project(house)
    house.acceptor.ask(house.projects.get(project_id), 0.2)
    house.acceptor.plan(project_id)
    task_id = house.stores.accepted.all(project_id)[0].task_id
    own = house.platform.annotate(task_id, [choice("Negative")])
    run(house, project_id)
    assert task_id not in copies(house, project_id)
    assert own in house.remote(project_id).annotations
    assert house.acceptor.request(project_id).n_left_out == 1


def test_killed_anywhere_it_goes_on_and_doubles_nothing(house, monkeypatch):
    monkeypatch.setattr("backend.pipeline.accept._CHUNK", 80)
    project_id = certified_project(house)
    make = house.platform.accept_predictions

    def make_and_die(platform_id, labels):
        make(platform_id, labels)
        raise KilledAfterwards

    house.acceptor.ask(house.projects.get(project_id), 0.2)
    house.platform.accept_predictions = make_and_die
    with pytest.raises(KilledAfterwards):
        run(house, project_id, steps := ReplayingSteps())
    assert len(copies(house, project_id)) == 80
    house.platform.accept_predictions = make
    run(house, project_id, steps.again())
    rows = [row.task_id for row in house.remote(project_id).annotations.values() if row.is_copied]
    assert len(rows) == len(set(rows)) == N_TASKS - len(holdout(house, project_id))
    known = {one.annotation_id for one in house.stores.accepted.all(project_id)}
    assert known == set(copies(house, project_id).values())


class KilledAfterwards(BaseException):
    """Stands for kill -9 after Label Studio has stored what was sent."""


def test_undo_while_labels_are_accepted_ends_with_none(house, monkeypatch):
    monkeypatch.setattr("backend.pipeline.accept._CHUNK", 80)
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    make = house.platform.accept_predictions

    def make_while_somebody_asks(platform_id, labels):
        house.acceptor.ask_undo(project)
        house.platform.accept_predictions = make
        return make(platform_id, labels)

    house.platform.accept_predictions = make_while_somebody_asks
    run(house, project_id)
    assert copies(house, project_id) == {}
    assert house.acceptor.request(project_id).state == "undone"


@dataclass
class WhilePlanning:
    """A certifier during whose work somebody asks for something."""

    certifier: Certifier
    ask: Callable[[], None] | None

    def certifiable(self, project):
        found = self.certifier.certifiable(project)
        ask, self.ask = self.ask, None
        if ask is not None:
            ask()
        return found


def plan_while(house, project_id, ask) -> dict[str, int]:
    certifier = WhilePlanning(house.certifier, ask)
    return replace(house.acceptor, certifier=certifier).plan(project_id)


def test_undo_that_is_asked_for_during_the_plan_ends_with_none(house):
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    undo = partial(house.acceptor.ask_undo, project)
    assert plan_while(house, project_id, undo) == {"is_planned": 1}
    assert house.acceptor.request(project_id).state == "undoing"
    run(house, project_id)
    assert copies(house, project_id) == {}
    assert house.stores.accepted.all(project_id) == []
    assert house.acceptor.request(project_id).state == "undone"


def test_an_error_rate_that_is_asked_for_during_the_plan_is_the_one_that_is_planned(house):
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    assert plan_while(house, project_id, partial(house.acceptor.ask, project, 0.01))["is_planned"]
    asked = house.acceptor.request(project_id)
    assert (asked.state, asked.max_error, asked.n_planned) == ("accepting", 0.01, 0)
    assert house.stores.accepted.all(project_id) == []


def test_while_labels_are_taken_back_none_are_accepted_and_undo_goes_on_as_it_is(house):
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    run(house, project_id)
    house.acceptor.ask_undo(project)
    house.acceptor.step(project_id)
    under_way = house.acceptor.request(project_id)
    assert 0 < under_way.n_done < under_way.n_planned
    with pytest.raises(InvalidRequest, match="being taken back"):
        house.acceptor.ask(project, 0.05)
    house.acceptor.ask_undo(project)
    assert house.acceptor.request(project_id) == under_way
    run(house, project_id)
    done = house.acceptor.request(project_id)
    assert (done.state, done.n_done) == ("undone", done.n_planned)
    house.acceptor.ask(project, 0.05)


def test_who_asks_again_before_the_first_request_is_done_gets_all_labels(house):
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    house.acceptor.plan(project_id)
    n_planned = house.acceptor.request(project_id).n_planned
    house.acceptor.ask(project, 0.2)
    run(house, project_id)
    assert len(copies(house, project_id)) == n_planned > 0.8 * N_TASKS


@pytest.mark.parametrize("is_drafted", [False, True])
def test_while_a_round_releases_nothing_is_accepted_and_then_the_released_labels(house, is_drafted):
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    if is_drafted:
        results = house.stores.publication.results(project)
        labels = [Prediction(i, "", tuple(result), 0.5) for i, result in results.items()]
        places = house.stores.releases.places(project)
        house.stores.releases.draft(project, labels, places, {})
    else:
        state = {"question_version": project.question_version, "why": "a round is over"}
        house.stores.state.put(project_id, OUTDATED, state)
    assert house.acceptor.plan(project_id) == {"is_planned": 0}
    assert house.stores.accepted.all(project_id) == []
    assert house.acceptor.is_due(project)
    run(house, project_id)  # it publishes the new release first
    assert house.acceptor.request(project_id).state == "accepted"
    released = house.projects.get(project_id).model_version
    assert released != project.model_version
    made = house.stores.accepted.all(project_id)
    assert {label.model_version for label in made} == {released}
    assert len(made) == N_TASKS - len(holdout(house, project_id))


def test_while_label_studio_is_down_it_waits(house):
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    house.acceptor.ask(project, 0.2)
    house.acceptor.plan(project_id)
    house.platform.failure = PlatformUnavailable("down")
    assert house.acceptor.step(project_id) == {"is_done": 1}
    assert house.acceptor.is_due(project)
    house.platform.failure = None
    run(house, project_id)
    assert len(copies(house, project_id)) > 0.8 * N_TASKS


def test_an_error_rate_that_is_none_is_refused(house):
    project = house.projects.get(house.connected(1))
    with pytest.raises(InvalidRequest, match="expected 0 to 1"):
        house.acceptor.ask(project, 1.5)


def test_a_stored_report_is_made_anew_when_something_has_changed(house, monkeypatch):
    monkeypatch.setattr("backend.pipeline.certificate._MIN_AGE_S", 0.0)
    project_id = house.connected(40)
    house.prelabel(project_id)
    refresh = partial(house.certifier.refresh, house.projects.get(project_id))
    refresh()
    first = house.stores.state.get(project_id, "certificate")
    refresh()
    assert house.stores.state.get(project_id, "certificate") == first
    answer(house, project_id, holdout(house, project_id)[:2])
    refresh()
    assert house.stores.state.get(project_id, "certificate")["n_checked"] == 2


def test_the_surest_of_the_certified_labels_come_first(house, monkeypatch):
    monkeypatch.setattr("backend.pipeline.certificate.MAX_ERROR", 0.2)
    monkeypatch.setattr("backend.pipeline.certificate.ERROR_RATES", (0.05, 0.2))
    project_id = certified_project(house)
    project = house.projects.get(project_id)
    assert house.certifier.task_ids(project) == []  # no report is stored yet
    house.certifier.refresh(project)
    found = house.certifier.task_ids(project)
    labels = house.certifier.certifiable(project)
    confidence = dict(zip(labels.task_ids.tolist(), labels.confidences.tolist(), strict=True))
    _, row = at(house, project_id, 0.2)
    assert len(found) == row["n_certified"] > 0
    assert [confidence[i] for i in found] == sorted(map(confidence.get, found), reverse=True)
