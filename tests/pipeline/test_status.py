"""The state of a project as status pages and the command line tell it."""

from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.labels import MIN_HOLDOUT_ANSWERS
from backend.domain.llm_usage import Usage, UsageScope


def test_tokens_of_all_purposes_are_counted(house):
    project_id = house.connected()
    for purpose, n_in, n_out in (("study", 5_000, 200), ("annotate", 0, 0), ("round 1", 70, 3)):
        scope = UsageScope(project_id, purpose)
        house.stores.llm_cache.keep({}, Usage(scope, n_tokens_in=n_in, n_tokens_out=n_out))
    state = house.reporter.project(house.projects.get(project_id))
    assert (state["n_tokens_in"], state["n_tokens_out"]) == (5_070, 203)
    assert state["llm_usage"]["study"]["n_tokens_in"] == 5_000


def test_a_small_projects_holdout_needs_no_more_answers_than_it_has_tasks(house):
    project_id = house.connected(200)
    house.synchronizer.sync(project_id)
    seed = holdout_seed(project_id)
    n_held_out = sum(in_holdout(i, seed=seed) for i in house.tasks.ids(project_id))
    state = house.reporter.project(house.projects.get(project_id))
    assert state["holdout"] == {"n_answers": 0, "n_needed": n_held_out}
    assert 0 < n_held_out < MIN_HOLDOUT_ANSWERS
