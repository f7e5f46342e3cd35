"""Projects, their versions and their measured state."""

from __future__ import annotations

from backend.domain.projects import ProjectId
from backend.store import StateStore
from tests.conftest import SENTIMENT, TOPIC

ONE, TWO = ProjectId("1.1795215594"), ProjectId("2.1795215595")


def test_saving_the_same_config_again_keeps_the_version(projects):
    first, is_new = projects.save(ONE, label_config=SENTIMENT)
    again, is_new_again = projects.save(ONE, label_config=SENTIMENT, title="Reviews")
    assert (is_new, is_new_again) == (True, False)
    assert again.model_version == first.model_version
    assert again.title == "Reviews"


def test_another_config_or_instruction_starts_another_version(projects):
    first, _ = projects.save(ONE, label_config=SENTIMENT)
    second, is_new = projects.save(ONE, label_config=TOPIC)
    third, is_new_again = projects.save(ONE, label_config=TOPIC, instruction="Judge the topic.")
    assert is_new and is_new_again
    names = [first.model_version, second.model_version, third.model_version]
    assert projects.versions(ONE) == names[::-1]
    assert projects.superseded_versions(ONE) == names[:2]


def test_none_leaves_title_and_instruction_as_they_are(projects):
    projects.save(ONE, label_config=SENTIMENT, title="Reviews", instruction="Be fair.")
    again, is_new = projects.save(ONE, label_config=SENTIMENT)
    assert (again.title, again.instruction, is_new) == ("Reviews", "Be fair.", False)


def test_projects_never_see_each_other(projects, jobs):
    projects.save(ONE, label_config=SENTIMENT)
    projects.save(TWO, label_config=TOPIC)
    jobs.note_problem(ONE, "llm", "down")
    assert projects.get(TWO).label_config == TOPIC
    assert projects.versions(ONE) == [projects.get(ONE).model_version]
    assert jobs.problems(TWO) == []


def test_a_number_that_label_studio_uses_again_is_another_project(projects):
    projects.save(ONE, label_config=SENTIMENT)
    newer, _ = projects.save(ProjectId("1.1900000000"), label_config=TOPIC)
    assert projects.get(ONE).label_config == SENTIMENT
    assert projects.find(1) == newer
    assert projects.find(7) is None


def test_state_is_kept_by_project_and_name(database):
    store = StateStore(database)
    assert store.get(ONE, "label_model") is None
    store.put(ONE, "label_model", {"llm": 0.8})
    store.put(ONE, "label_model", {"llm": 0.7, "similarity": [1, 2]})
    store.put(ONE, "templates", None)
    assert StateStore(database).get(ONE, "label_model") == {"llm": 0.7, "similarity": [1, 2]}
    assert store.get(ONE, "templates") is None
    assert store.get(ProjectId("9.9"), "label_model") is None
