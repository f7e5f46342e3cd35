"""In a project that is too large for the LLM, a share of the tasks stands for the others."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.llm_usage import Usage, UsageScope
from backend.pipeline.rounds.context import RoundPlan
from backend.pipeline.status import read_llm_budget
from tests.pipeline.conftest import LARGE_CHUNK, House

N_TEXTS = 40


@pytest.fixture
def shared(stores, tmp_path) -> House:
    plan = RoundPlan(chunk=LARGE_CHUNK, max_cycles=1, n_shots=2, llm_share=0.25)
    house = House(stores, folder=tmp_path, chunk=LARGE_CHUNK, plan=plan)
    house.similarity.is_silent = False
    return house


def heard(house, project_id, annotator):
    votes = house.labels.weak_labels(house.projects.get(project_id))
    return {vote.example_id for vote in votes if vote.annotator == annotator}


def test_the_llm_labels_its_share_and_every_task_gets_a_prediction(shared):
    project_id = shared.connected(N_TEXTS)
    shared.prelabel(project_id)
    project = shared.projects.get(project_id)
    ids = set(shared.tasks.ids(project_id))
    known = read_llm_budget(shared.stores, project)
    assert len(heard(shared, project_id, "fake")) == N_TEXTS // 4
    assert heard(shared, project_id, "fake") == ids - set(known.left_out)
    assert heard(shared, project_id, "similarity:fake") == ids
    assert {row.task_id for row in shared.remote(project_id).predictions.values()} == ids
    assert known.why == "the LLM labels 25% of the tasks, as LLM_SHARE says"
    assert known.summary.endswith("; 30 tasks in all are left to similarity at first")


def test_only_new_tasks_are_decided_about_later(shared):
    project_id = shared.connected(N_TEXTS)
    shared.prelabel(project_id)
    project = shared.projects.get(project_id)
    first = heard(shared, project_id, "fake")
    shared.platform.import_tasks(project.platform_id, [{"text": f"good {i}"} for i in range(8)])
    shared.projects.forget_full_sync(project_id)
    shared.prelabel(project_id)
    assert first < heard(shared, project_id, "fake")
    assert len(heard(shared, project_id, "fake") - first) == 2
    assert len(read_llm_budget(shared.stores, project).left_out) == 30 + 6


def test_a_second_look_before_the_labelling_changes_nothing(shared):
    project_id = shared.connected(N_TEXTS)
    shared.synchronizer.sync(project_id)
    assert shared.pre_annotator.fit_sample(project_id)["n_left_out"] == 30
    left_out = read_llm_budget(shared.stores, shared.projects.get(project_id)).left_out
    assert shared.pre_annotator.fit_sample(project_id)["n_left_out"] == 0
    assert read_llm_budget(shared.stores, shared.projects.get(project_id)).left_out == left_out


def test_the_student_learns_the_left_out_texts_without_a_label(shared):
    project_id = shared.connected(N_TEXTS)
    shared.prelabel(project_id)
    left_out = set(read_llm_budget(shared.stores, shared.projects.get(project_id)).left_out)
    shared.round(project_id)
    first = shared.student.fits[0]
    unlabelled = {i for i, has in zip(first.pool.ids, first.has_label, strict=True) if not has}
    assert unlabelled == left_out
    assert np.isfinite(first.targets).all()


@pytest.mark.parametrize(("seconds", "share"), [(7.9 * 3600, 1.0), (16 * 3600, 0.5)])
def test_what_the_llm_cannot_label_in_a_night_is_left_out(house, seconds, share):
    house.similarity.is_silent = False
    project_id = house.connected(N_TEXTS)
    scope = UsageScope(project_id, "study")
    usage = Usage(scope, 1, n_prompts=N_TEXTS + 5, n_cache_hits=5, seconds=seconds)
    house.stores.llm_cache.keep({}, usage)
    house.prelabel(project_id)
    assert len(heard(house, project_id, "fake")) == share * N_TEXTS
    why = read_llm_budget(house.stores, house.projects.get(project_id)).why
    assert ("every task" in why) is (share == 1.0)


def test_nobody_is_left_out_where_only_the_llm_can_answer(stores):
    house = House(stores, chunk=LARGE_CHUNK, plan=RoundPlan(chunk=LARGE_CHUNK, llm_share=0.25))
    project_id = house.connected(N_TEXTS)
    house.prelabel(project_id)
    assert len(heard(house, project_id, "fake")) == N_TEXTS
