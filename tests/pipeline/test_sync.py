"""Connection and webhooks: nothing waits for a model, nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.domain.projects import Event, ProjectId, ProjectInfo, Task
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.config_change import AskedChange, compare
from tests.conftest import SENTIMENT, TOPIC
from tests.pipeline.conftest import House

ONE = ProjectId("1.1795215594")


def info(label_config=SENTIMENT, instruction=""):
    return ProjectInfo(id=ONE, label_config=label_config, instruction=instruction)


def test_connecting_asks_for_a_job_once(house):
    first = house.events.connect(ONE, SENTIMENT)
    assert house.events.connect(ONE, SENTIMENT) == first
    assert [(r[0], r[1]) for r in house.jobs.job_requests()] == [(ONE, "prelabel")]


def test_connecting_with_a_config_that_asks_nothing_is_refused_and_keeps_nothing(house):
    with pytest.raises(UnsupportedLabelConfig):
        house.events.connect(ONE, "<View/>")
    assert house.projects.get(ONE) is None


def test_connecting_again_after_a_removal_goes_on(house):
    house.events.connect(ONE, SENTIMENT)
    house.projects.disconnect(ONE)
    assert house.events.connect(ONE, SENTIMENT).is_connected


@pytest.mark.parametrize("action", ["TASKS_CREATED", "START_TRAINING"])
def test_news_that_calls_for_work_asks_for_it(house, action):
    house.events.connect(ONE, SENTIMENT)
    (request,) = house.jobs.job_requests()
    house.jobs.drop_request(*request)
    house.events.receive(Event(action, info(), tasks=(Task(1, {"text": "a"}),)))
    assert len(house.jobs.job_requests()) == 1


def versions_after(house, project_id, *changes):
    """The project's model versions after each of the changes was seen by the worker."""
    number, found = int(project_id.split(".")[0]), []
    for change in changes:
        house.platform.change_project(number, **change)
        house.synchronizer.sync(project_id)
        found.append(house.projects.get(project_id).model_version)
    return found


def test_a_changed_config_or_instruction_starts_a_version(house):
    project_id = house.connected(3)
    first = house.projects.get(project_id).model_version
    news = [{"label_config": TOPIC}, {"instruction": "Judge fairly."}]
    assert len({first, *versions_after(house, project_id, *news)}) == 3


@pytest.mark.parametrize(
    "same",
    [
        SENTIMENT.replace("><", ">\n  <"),
        SENTIMENT.replace("<View>", '<View style="color: red"><Style>p { margin: 0 }</Style>'),
        SENTIMENT.replace(
            '<Choice value="Positive"/>', '<Choice background="red" value="Positive"/>'
        ),
        SENTIMENT.replace(
            'name="sentiment" toName="text" choice="single"',
            'choice="single" toName="text" name="sentiment"',
        ),
        "<!-- agreed in May -->" + SENTIMENT,
    ],
    ids=["blanks", "style", "color", "order", "comment"],
)
def test_a_config_that_looks_different_and_asks_the_same_keeps_version_and_labels(house, same):
    project_id = house.connected(3)
    house.prelabel(project_id)
    before = house.projects.get(project_id)
    house.annotator.asked.clear()
    house.platform.change_project(before.platform_id, label_config=same)
    house.prelabel(project_id)
    after = house.projects.get(project_id)
    assert after.model_version == before.model_version
    assert after.label_config == same
    assert house.annotator.asked == []
    assert house.events.recent(project_id, same) == after


@pytest.mark.parametrize(
    "other",
    [
        SENTIMENT.replace('value="Negative"', 'value="Neutral"'),
        SENTIMENT.replace('value="Negative"', 'value="Negative" hint="complains"'),
        SENTIMENT.replace("$text", "$review"),
        SENTIMENT.replace('choice="single"', 'choice="multiple"'),
        SENTIMENT.replace("the reviewer", "the buyer"),
    ],
    ids=["label", "hint", "text", "kind", "header"],
)
def test_a_config_that_asks_something_else_starts_a_version(house, other):
    project_id = house.connected(3)
    first = house.projects.get(project_id).model_version
    assert versions_after(house, project_id, {"label_config": other}) != [first]


def test_several_changes_in_a_row_start_one_version(stores):
    house = House(stores)
    project_id = house.connected(3)
    house.prelabel(project_id)
    first = house.projects.get(project_id)
    house.synchronizer = replace(
        house.synchronizer, plan=replace(house.synchronizer.plan, debounce_s=60.0)
    )
    configs = [SENTIMENT.replace("Negative", f"Negative{n}") for n in range(6)]
    for config in configs:
        house.platform.change_project(first.platform_id, label_config=config)
        assert house.synchronizer.sync(project_id)["is_stopped"]
        assert house.synchronizer.work_due(project_id) is None
        assert house.events.recent(project_id, config) is None
    assert house.projects.versions(project_id) == [first.model_version]
    house.synchronizer = replace(
        house.synchronizer, plan=replace(house.synchronizer.plan, debounce_s=0.0)
    )
    house.synchronizer.sync(project_id)
    assert len(house.projects.versions(project_id)) == 2
    assert house.projects.get(project_id).label_config == configs[-1]


def test_a_change_that_is_taken_back_changes_nothing(stores):
    house = House(stores)
    project_id = house.connected(3)
    first = house.projects.get(project_id)
    house.events.connect(project_id, TOPIC)
    house.synchronizer.sync(project_id)
    assert house.projects.get(project_id).model_version == first.model_version
    assert house.synchronizer.work_due(project_id) is not None


def test_labels_with_a_similar_name_keep_what_the_llm_said(house):
    project_id = house.connected(6)
    house.prelabel(project_id)
    house.annotator.asked.clear()
    shorter = SENTIMENT.replace("Positive", "Pos").replace("Negative", "Neg")
    house.platform.change_project(house.projects.get(project_id).platform_id, label_config=shorter)
    house.prelabel(project_id)
    assert house.annotator.asked == []
    rows = house.remote(project_id).predictions.values()
    assert {row.result[0]["value"]["choices"][0] for row in rows} == {"Pos", "Neg"}
    assert len(rows) == 6


TWO = SENTIMENT.replace(
    "</View>",
    '<Choices name="topic" toName="text"><Choice value="Price"/><Choice value="Taste"/>'
    "</Choices></View>",
)


def test_what_stays_of_a_config_is_known_question_by_question():
    read = LabelConfigReader(lambda *_: None).read_schema
    assert compare(read(SENTIMENT), read(TWO)) == AskedChange(
        frozenset({"sentiment"}), keeps_rounds=True
    )
    assert compare(read(TWO), read(SENTIMENT)).is_complete
    renamed = compare(read(TWO), read(TWO.replace('"Taste"', '"Tastes"')))
    assert renamed.renamed == {"topic": {"Price": "Price", "Taste": "Tastes"}}
    other = compare(read(TWO), read(TWO.replace('"Taste"', '"Delivery"')))
    assert (other.kept, other.renamed) == (frozenset({"sentiment"}), {})


def test_an_edited_text_has_no_label_from_the_moment_it_is_seen(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    first = min(house.remote(project_id).tasks)
    house.platform.edit_task(first, {"text": "good after all"})
    assert house.synchronizer.work_due(project_id) == "1 tasks have no label"
    rows = house.remote(project_id).predictions.values()
    assert first not in {row.task_id for row in rows}
    house.prelabel(project_id)
    (row,) = (r for r in house.remote(project_id).predictions.values() if r.task_id == first)
    assert row.result[0]["value"] == {"choices": ["Positive"]}


def test_a_webhook_with_an_edited_text_has_the_worker_look(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    for request in house.jobs.job_requests():
        house.jobs.drop_request(*request)
    first = min(house.remote(project_id).tasks)
    edited = Task(first, {"text": "good after all"})
    house.report(project_id, Event("ANNOTATION_CREATED", info(), tasks=(edited,)))
    assert [request[1] for request in house.jobs.job_requests()] == ["prelabel"]
    (stored,) = house.tasks.get(project_id, [first])
    assert stored.data != edited.data


def test_an_update_that_changes_nothing_that_is_asked_keeps_the_version(house):
    first = house.events.connect(ONE, SENTIMENT)
    house.events.receive(Event("PROJECT_UPDATED", info()))
    assert house.projects.get(ONE).model_version == first.model_version


def test_a_config_that_cannot_be_labelled_leaves_the_old_one(house):
    house.events.connect(ONE, SENTIMENT)
    house.events.receive(Event("PROJECT_UPDATED", info("<View/>")))
    assert house.projects.get(ONE).label_config == SENTIMENT


def test_news_of_a_project_that_never_connected_is_kept_and_starts_nothing(house):
    house.events.receive(Event("TASKS_CREATED", info(), tasks=(Task(1, {"text": "a"}),)))
    assert house.tasks.counts(ONE) == (1, 0)
    assert house.projects.get(ONE) is None


def test_an_event_without_a_project_is_passed_over(house):
    assert house.events.receive(Event("TASKS_CREATED", None)) is False
