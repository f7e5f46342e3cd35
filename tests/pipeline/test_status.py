"""The state of a project as status pages and the command line tell it."""

from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.labels import MIN_HOLDOUT_ANSWERS
from backend.domain.llm_usage import Usage, UsageScope
from backend.domain.rounds import RoundState
from tests.statements import noted_queries

MAX_QUERIES, MAX_QUERIES_OF_FIGURES = 27, 8


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


def test_a_state_takes_few_queries_whatever_the_project_has_and_none_of_them_twice(house):
    numbers = []
    for n_tasks, n_rounds in ((8, 0), (40, 3)):
        project_id = house.connected(n_tasks)
        house.prelabel(project_id)
        project = house.projects.get(project_id)
        for _ in range(n_rounds):
            made = house.stores.rounds.open(project, recipe="default", reason="news", n_human=0)
            house.stores.rounds.finish(made, RoundState.RELEASED)
        with noted_queries() as queries:
            house.reporter.project(project)
        assert len(queries) == len(set(queries)) <= MAX_QUERIES
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]


def test_the_list_of_projects_reads_figures_alone(house):
    for _ in range(2):
        house.prelabel(house.connected(4))
    house.stores.projects.disconnect(house.projects.all()[0].id)
    with noted_queries() as queries:
        found = house.reporter.overview(is_brief=True)["projects"]
    assert [one["is_connected"] for one in found] == [False, True]
    assert len(queries) <= 2 + 2 * MAX_QUERIES_OF_FIGURES
    shown = house.reporter.overview(is_brief=True, has_disconnected=False)["projects"]
    assert shown == found[1:]
