"""The state of a project as status pages and the command line tell it."""

from backend.domain.llm_usage import Usage, UsageScope


def test_tokens_of_all_purposes_are_counted(house):
    project_id = house.connected()
    for purpose, n_in, n_out in (("study", 5_000, 200), ("annotate", 0, 0), ("round 1", 70, 3)):
        scope = UsageScope(project_id, purpose)
        house.stores.llm_cache.keep({}, Usage(scope, n_tokens_in=n_in, n_tokens_out=n_out))
    state = house.reporter.project(house.projects.get(project_id))
    assert (state["n_tokens_in"], state["n_tokens_out"]) == (5_070, 203)
    assert state["llm_usage"]["study"]["n_tokens_in"] == 5_000
