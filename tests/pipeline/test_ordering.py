"""Tasks are ordered before and while they are labeled; predictions come with their places."""

from __future__ import annotations

import pytest

from backend.active_learning.activellm import ActiveLLMStrategy
from backend.active_learning.pool_estimate import ActiveLLMSettings
from backend.domain.holdout import holdout_seed, in_holdout
from backend.errors import LanguageModelUnavailable
from backend.pipeline.aggregate import Aggregator
from backend.pipeline.status import OUTDATED, read_queue, request_release
from tests.pipeline.conftest import CHUNK, House
from tests.pipeline.steps import KilledHere, PlainSteps

N_TASKS = 120


def ordering_house(stores, chunk: int) -> House:
    settings = ActiveLLMSettings(duplicate_similarity=2.0)  # the texts here differ by a digit
    return House(
        stores,
        orders_queue=True,
        chunk=chunk,
        make_strategy=lambda asked: ActiveLLMStrategy(settings=settings),
    )


@pytest.fixture
def house(stores) -> House:
    return ordering_house(stores, CHUNK)


@pytest.fixture
def hasty(stores) -> House:
    """A house that labels all in a few chunks, for what follows the last one."""
    return ordering_house(stores, N_TASKS // 4)


def places(house, project_id):
    return [p.task_id for p in house.releases.places(house.projects.get(project_id))]


def reasons(house, project_id):
    return [p.reason for p in house.releases.places(house.projects.get(project_id))]


def rows(house, project_id):
    return list(house.remote(project_id).predictions.values())


def stopped_after(house, project_id, step, number):
    steps = PlainSteps()
    steps.kill_after = (step, number)
    with pytest.raises(KilledHere):
        house.prelabel(project_id, steps)


def test_all_tasks_have_a_place_before_the_llm_is_asked(house):
    project_id = house.connected(N_TASKS)
    stopped_after(house, project_id, "rank", 1)
    assert house.annotator.asked == []
    assert sorted(places(house, project_id)) == sorted(house.remote(project_id).tasks)
    seed = holdout_seed(project_id)
    held_out = [p for p in house.releases.places(house.projects.get(project_id)) if p.is_holdout]
    assert held_out
    assert all(in_holdout(p.task_id, seed=seed) for p in held_out)


def test_the_first_tasks_of_the_queue_are_labeled_first_and_scores_are_places(house):
    project_id = house.connected(N_TASKS)
    stopped_after(house, project_id, "serve", 1)
    scores = {row.task_id: row.score for row in rows(house, project_id)}
    first = places(house, project_id)[: len(scores)]
    assert sorted(scores, key=scores.__getitem__) == first
    assert scores[first[0]] == pytest.approx(0.5 / N_TASKS)
    project = house.projects.get(project_id)
    assert house.remote(project_id).info.model_version == project.model_version


def test_the_order_follows_the_labels_and_imports_nothing_twice(house):
    house.similarity.is_silent = False
    project_id = house.connected(N_TASKS)
    stopped_after(house, project_id, "rank", 1)
    before = reasons(house, project_id)
    seen: dict[int, float] = {}
    steps = PlainSteps()
    steps.kill_after = ("rank", 20)
    with pytest.raises(KilledHere):
        house.prelabel(project_id, steps)
    assert not any("annotators" in reason for reason in before)
    assert sum("annotators" in reason for reason in reasons(house, project_id)) > 90
    for row in rows(house, project_id):
        assert row.task_id not in seen, "imported twice"
        seen[row.task_id] = row.score
    assert len(seen) > N_TASKS // 2
    queue = read_queue(house.stores, house.projects.get(project_id))
    assert queue.is_early
    assert queue.n_evidence > 2 * CHUNK


def test_a_release_in_the_final_order_follows_the_last_label(hasty):
    project_id = hasty.connected(N_TASKS)
    hasty.prelabel(project_id)
    project = hasty.projects.get(project_id)
    assert not read_queue(hasty.stores, project).is_early
    assert {row.model_version for row in rows(hasty, project_id)} == {project.model_version}
    assert hasty.orderer.rank(project_id) == {"is_ranked": 0}
    assert hasty.orderer.is_settled(project)


def test_a_release_that_is_asked_for_while_one_is_drafted_follows_it(hasty, monkeypatch):
    project_id = hasty.connected(N_TASKS)
    hasty.prelabel(project_id)
    project, draft = hasty.projects.get(project_id), hasty.releaser.draft
    request_release(hasty.stores, project, "first")

    def asked_meanwhile(*args):
        request_release(hasty.stores, project, "second")
        return draft(*args)

    monkeypatch.setattr(type(hasty.releaser), "draft", lambda self, *args: asked_meanwhile(*args))
    assert hasty.orderer.order(project_id)["is_ordered"]
    assert hasty.stores.state.current(project, OUTDATED)["why"] == "second"
    monkeypatch.undo()
    hasty.prelabel(project_id)
    hasty.prelabel(project_id)
    assert hasty.orderer.is_settled(hasty.projects.get(project_id))


def test_an_order_is_there_without_the_llm(house):
    house.similarity.is_silent = False
    house.annotator.failure = LanguageModelUnavailable("down")
    project_id = house.connected(N_TASKS)
    stopped_after(house, project_id, "serve", 1)
    scores = {row.task_id: row.score for row in rows(house, project_id)}
    order = [task_id for task_id in places(house, project_id) if task_id in scores]
    assert scores
    assert sorted(scores, key=scores.__getitem__) == order


def test_texts_that_could_not_be_embedded_in_time_follow_the_others(house):
    project_id = house.connected(N_TASKS)
    house.synchronizer.sync(project_id)
    project = house.projects.get(project_id)
    aggregated, unread = house.aggregator.preview(project, embed_s=0.0)
    assert unread == []  # all fit into the first slice
    late = sorted(house.remote(project_id).tasks)[:30]
    kept = house.aggregator.pool(project)
    some = [at for at, example in enumerate(kept.examples) if example.id not in late]
    part = house.ensemble.aggregate(
        kept.select(some).with_weak_labels([]), house.ensemble.state(project)
    )
    house.releaser.rank(part, late, 0)
    assert sorted(places(house, project_id)[-30:]) == late


def test_projects_without_an_order_share_the_time_to_read_texts(house, monkeypatch):
    asked = []
    preview = Aggregator.preview

    def noted(self, project, *, embed_s):
        asked.append(embed_s)
        return preview(self, project, embed_s=embed_s)

    monkeypatch.setattr(Aggregator, "preview", noted)
    projects = [house.connected(N_TASKS) for _ in range(8)]
    for project_id in projects:
        house.synchronizer.sync(project_id)
        house.orderer.rank(project_id)
    assert asked == sorted(asked)
    assert asked[0] == asked[-1] / 2  # eight wait at first, and four read at a time
