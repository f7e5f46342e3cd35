"""Every unlabeled task gets its prediction, once, whatever happens in between."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.chunks import ALL_TASKS, ChunkKind
from backend.domain.projects import Prediction
from backend.errors import (
    LanguageModelUnavailable,
    PlatformRejected,
    PlatformUnavailable,
)
from backend.pipeline.chunks import AdaptiveBatchSize
from backend.pipeline.prelabel import chunk_work, prelabel
from tests.conftest import SENTIMENT, TOPIC
from tests.pipeline.conftest import CHUNK, House
from tests.pipeline.steps import KilledHere, PlainSteps

RESULT = (
    {
        "from_name": "sentiment",
        "to_name": "text",
        "type": "choices",
        "value": {"choices": ["Positive"]},
    },
)


def assert_each_task_has_one(house, project_id):
    remote = house.remote(project_id)
    version = house.projects.get(project_id).model_version
    predicted = Counter(
        row.task_id for row in remote.predictions.values() if row.model_version == version
    )
    assert predicted == Counter(list(remote.tasks))


def test_every_task_gets_a_prediction_of_the_served_version(house):
    project_id = house.connected(10)
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    remote = house.remote(project_id)
    assert remote.info.model_version == house.projects.get(project_id).model_version
    assert remote.info.sampling == "Uncertainty sampling"
    assert house.labels.progress(house.projects.get(project_id)).is_complete


def test_the_answer_and_its_probability_stand_in_the_prediction(house):
    project_id = house.connected(2)
    house.prelabel(project_id)
    rows = sorted(house.remote(project_id).predictions.values(), key=lambda row: row.task_id)
    assert [row.result[0]["value"]["choices"] for row in rows] == [["Negative"], ["Positive"]]
    assert [row.result[0]["score"] for row in rows] == [0.8, 0.9]


def test_running_it_again_changes_nothing_and_asks_nothing(house):
    project_id = house.connected(10)
    house.prelabel(project_id)
    before = dict(house.remote(project_id).predictions)
    house.annotator.asked.clear()
    house.prelabel(project_id)
    assert house.remote(project_id).predictions == before
    assert house.annotator.asked == []


@pytest.mark.parametrize("step", ["sync", "annotate", "publish", "serve"])
@pytest.mark.parametrize("time", [1, 2])
def test_a_kill_after_any_step_loses_and_doubles_nothing(house, step, time):
    project_id = house.connected(10)
    steps = PlainSteps()
    steps.kill_after = (step, time)
    try:
        house.prelabel(project_id, steps)
    except KilledHere:
        assert step != "sync" or time == 1
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    assert Counter(house.annotator.asked) == Counter(list(house.remote(project_id).tasks))


def test_a_kill_between_import_and_note_doubles_nothing(house, monkeypatch):
    project_id = house.connected(10)
    note = house.publication.note_published

    def killed(*args):
        monkeypatch.setattr(house.publication, "note_published", note)
        raise KilledHere

    monkeypatch.setattr(house.publication, "note_published", killed)
    with pytest.raises(KilledHere):
        house.prelabel(project_id)
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_what_predict_has_given_away_is_not_imported_again(house):
    project_id = house.connected(6)
    house.synchronizer.sync(project_id)
    project = house.projects.get(project_id)
    first = house.labels.unlabeled(project, ALL_TASKS)[:1]
    (answer,) = house.prediction.predict(project, first)
    house.platform.import_predictions(project.platform_id, [answer])  # Label Studio stores it
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_what_predict_has_given_away_in_vain_is_imported_all_the_same(house):
    project_id = house.connected(6)
    house.synchronizer.sync(project_id)
    project = house.projects.get(project_id)
    house.prediction.predict(project, house.labels.unlabeled(project, ALL_TASKS)[:2])
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_tasks_that_come_later_are_labelled_too(house):
    project_id = house.connected(3)
    house.prelabel(project_id)
    house.platform.import_tasks(house.projects.get(project_id).platform_id, [{"text": "good"}])
    assert house.synchronizer.work_due(project_id) == "tasks or annotations have changed"
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_tasks_that_people_have_labelled_are_left_to_them(house):
    project_id = house.connected(3)
    first = min(house.remote(project_id).tasks)
    result = [{"from_name": "sentiment", "to_name": "text", "type": "choices", "value": {}}]
    house.platform.annotate(first, result)
    house.prelabel(project_id)
    assert first not in house.annotator.asked


def test_the_llm_being_down_is_said_and_repaired(house):
    project_id = house.connected(6)
    house.annotator.failure = LanguageModelUnavailable("the LLM server does not answer")
    house.prelabel(project_id)
    assert house.remote(project_id).predictions == {}
    (problem,) = house.jobs.problems(project_id)
    assert problem.source == "llm"
    house.annotator.failure = None
    assert "no label" in house.synchronizer.work_due(project_id)
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    assert house.jobs.problems(project_id) == []


def test_label_studio_being_down_keeps_what_was_labelled(house):
    project_id = house.connected(6)
    house.synchronizer.sync(project_id)
    house.platform.failure = PlatformUnavailable("down")
    house.prelabel(project_id)
    assert house.labels.progress(house.projects.get(project_id)).n_labelled == 6
    assert {p.source for p in house.jobs.problems(project_id)} == {"label-studio", "publishing"}
    house.platform.failure = None
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    assert house.jobs.problems(project_id) == []
    assert sorted(house.annotator.asked) == sorted(house.remote(project_id).tasks)


def test_a_task_that_is_deleted_while_its_label_is_made_holds_nothing_up(house):
    project_id = house.connected(6)
    house.synchronizer.sync(project_id)
    house.platform.delete_task(min(house.remote(project_id).tasks))
    house.prelabel(project_id)
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    assert house.labels.progress(house.projects.get(project_id)).is_complete


def test_a_refused_import_leads_to_a_full_listing(house, monkeypatch):
    project_id = house.connected(3)
    house.synchronizer.sync(project_id)

    def refuse(*args):
        raise PlatformRejected("no such task")

    with monkeypatch.context() as patch:
        patch.setattr(house.platform, "import_predictions", refuse)
        house.prelabel(project_id)
    assert house.synchronizer.work_due(project_id) == "tasks or annotations have changed"


def test_a_changed_label_config_replaces_every_prediction(house):
    project_id = house.connected(6)
    house.prelabel(project_id)
    old = house.projects.get(project_id).model_version
    house.platform.change_project(house.projects.get(project_id).platform_id, label_config=TOPIC)
    house.prelabel(project_id)
    assert house.projects.get(project_id).model_version != old
    assert_each_task_has_one(house, project_id)
    versions = {row.model_version for row in house.remote(project_id).predictions.values()}
    assert old not in versions
    assert house.projects.superseded_versions(project_id) == []


def test_a_config_that_cannot_be_labelled_is_said_and_the_rest_stays(house):
    project_id = house.connected(3)
    house.prelabel(project_id)
    number = house.projects.get(project_id).platform_id
    house.platform.change_project(number, label_config="<View/>")
    house.prelabel(project_id)
    (problem,) = house.jobs.problems(project_id)
    assert problem.source == "label-config"
    assert house.projects.get(project_id).label_config == SENTIMENT


def test_an_edited_text_is_labelled_anew_and_its_old_prediction_goes(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    first = min(house.remote(project_id).tasks)
    house.remote(project_id).tasks[first] = {"text": "good after all"}
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    row = next(r for r in house.remote(project_id).predictions.values() if r.task_id == first)
    assert row.result[0]["value"] == {"choices": ["Positive"]}


def test_a_listing_rests_ten_times_as_long_as_the_last_one_took(house, monkeypatch):
    project_id = house.connected(3)
    house.prelabel(project_id)
    house.platform.import_tasks(house.projects.get(project_id).platform_id, [{"text": "good"}])
    house.projects.note_full_sync(project_id, 360.0, 0)
    monkeypatch.setattr("backend.pipeline.sync._LISTING_SHARE", 0.1)
    assert house.synchronizer.sync(project_id)["n_listed"] == 0
    monkeypatch.setattr("backend.pipeline.sync._LISTING_SHARE", math.inf)
    assert house.synchronizer.sync(project_id)["n_listed"] == 4


def test_doubles_in_label_studio_are_noticed_by_their_number_and_removed(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    remote = house.remote(project_id)
    first = next(iter(remote.predictions.values()))
    house.platform.import_predictions(int(project_id.split(".")[0]), [first])
    assert house.synchronizer.work_due(project_id) is not None
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_predictions_that_someone_deleted_are_noticed_and_brought_back(house):
    project_id = house.connected(4)
    house.prelabel(project_id)
    del house.remote(project_id).predictions[next(iter(house.remote(project_id).predictions))]
    assert house.synchronizer.work_due(project_id) is not None
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_predictions_of_others_are_counted_apart_and_left_alone(house):
    project_id = house.connected(4)
    number = int(project_id.split(".")[0])
    theirs = Prediction(min(house.remote(project_id).tasks), "theirs", RESULT, 0.5)
    house.platform.import_predictions(number, [theirs])
    house.prelabel(project_id)
    assert theirs in house.remote(project_id).predictions.values()
    assert house.synchronizer.work_due(project_id) is None


def test_a_task_that_predict_labels_while_the_worker_labels_its_chunk_is_not_doubled(house):
    project_id = house.connected(4)
    house.synchronizer.sync(project_id)
    project = house.projects.get(project_id)
    number = project.platform_id
    ask = house.annotator.annotate

    def meanwhile(*args, **kwargs):
        house.annotator.annotate = ask
        (answer,) = house.prediction.predict(
            project, house.labels.unlabeled(project, ALL_TASKS)[:1]
        )
        house.platform.import_predictions(number, [answer])  # Label Studio stores the answer
        return ask(*args, **kwargs)

    house.annotator.annotate = meanwhile
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_a_task_that_the_worker_publishes_while_predict_labels_it_is_not_doubled(house):
    project_id = house.connected(4)
    house.synchronizer.sync(project_id)
    project = house.projects.get(project_id)
    ask = house.annotator.annotate

    def meanwhile(*args, **kwargs):
        house.annotator.annotate = ask
        house.prelabel(project_id)
        return ask(*args, **kwargs)

    house.annotator.annotate = meanwhile
    assert house.prediction.predict(project, house.labels.unlabeled(project, ALL_TASKS)[:1]) == [
        None
    ]
    assert_each_task_has_one(house, project_id)


def test_two_projects_keep_to_their_own_questions(house):
    one, two = house.connected(4), house.connected(4, TOPIC)
    house.prelabel(two)
    house.prelabel(one)
    for project_id, name in ((one, "sentiment"), (two, "topic")):
        assert_each_task_has_one(house, project_id)
        names = {r.result[0]["from_name"] for r in house.remote(project_id).predictions.values()}
        assert names == {name}


def test_a_project_whose_number_is_used_again_is_left_alone(house):
    project_id = house.connected(3)
    number = house.projects.get(project_id).platform_id
    house.platform.change_project(number, id=f"{number}.1999999999")
    house.prelabel(project_id)
    assert house.projects.get(project_id).is_connected is False
    assert house.remote(project_id).predictions == {}


def test_an_answer_that_cannot_be_read_is_not_published_and_asked_for_again(house):
    project_id = house.connected(3)
    first = min(house.remote(project_id).tasks)
    house.annotator.unreadable = {first}
    house.prelabel(project_id)
    assert first not in {row.task_id for row in house.remote(project_id).predictions.values()}
    house.annotator.unreadable = set()
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


@pytest.mark.parametrize("change", [{"model_version": ""}, {"sampling": "Sequential sampling"}])
def test_the_queue_is_set_again_after_someone_has_reset_it(house, change):
    project_id = house.connected(3)
    house.prelabel(project_id)
    number = house.projects.get(project_id).platform_id
    house.platform.change_project(number, **change)
    assert "queue" in house.synchronizer.work_due(project_id)
    house.prelabel(project_id)
    version = house.projects.get(project_id).model_version
    info = house.remote(project_id).info
    assert (info.model_version, info.sampling) == (version, "Uncertainty sampling")


def test_a_queue_that_is_left_to_the_user_is_not_touched_and_is_no_work(stores):
    house = House(stores, manages_queue=False)
    project_id = house.connected(3)
    house.prelabel(project_id)
    assert house.remote(project_id).info.sampling == "Sequential sampling"
    assert house.synchronizer.work_due(project_id) is None


def test_a_kill_between_the_switch_and_the_withdrawal_leaves_no_old_predictions(house, monkeypatch):
    project_id = house.connected(3)
    house.prelabel(project_id)
    old = house.projects.get(project_id).model_version
    house.platform.change_project(house.projects.get(project_id).platform_id, label_config=TOPIC)
    withdraw = house.platform.delete_model_version

    def killed(*args):
        monkeypatch.setattr(house.platform, "delete_model_version", withdraw)
        raise KilledHere

    monkeypatch.setattr(house.platform, "delete_model_version", killed)
    with pytest.raises(KilledHere):
        house.prelabel(project_id)
    house.prelabel(project_id)
    versions = {row.model_version for row in house.remote(project_id).predictions.values()}
    assert old not in versions


def test_on_a_slow_server_each_answer_is_saved_soon(house, monkeypatch):
    """One task takes a minute: after the first chunk they are saved one by one."""
    project_id = house.connected(7)
    now = 0.0
    annotate = house.annotator.annotate

    def slowly(schema, instruction, examples, **settings):
        nonlocal now
        now += 60.0 * len(examples)
        return annotate(schema, instruction, examples, **settings)

    monkeypatch.setattr(house.annotator, "annotate", slowly)
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("backend.pipeline.prelabel.time", clock)
    sizes = []
    label = house._labeler.label
    house.pre_annotator.labeler = SimpleNamespace(
        label=lambda project, tasks, **options: (
            sizes.append(len(tasks)) or label(project, tasks, **options)
        )
    )
    house.prelabel(project_id)
    assert sizes == [4, 1, 1, 1]


def test_the_sample_is_fitted_when_the_llm_is_back(stores):
    house = House(stores, orders_queue=True)
    house.similarity.is_silent = False
    project_id = house.connected(24)
    house.annotator.failure = LanguageModelUnavailable("down")
    house.prelabel(project_id)
    project = house.projects.get(project_id)
    assert house.ensemble.state(project).label_model
    assert not house.ensemble.state(project).templates
    house.annotator.failure = None
    house.prelabel(project_id)
    assert house.ensemble.state(project).templates == {"sentiment": "plain-hints"}
    assert house.reporter.prompts(project) == {
        "sentiment": "template plain-hints (the server takes no other template)"
    }


def test_an_llm_that_returns_after_the_sample_labels_nothing_before_it_is_asked_about_it(stores):
    house = House(stores, orders_queue=True)
    house.similarity.is_silent = False
    project_id = house.connected(24)
    fit_sample = house.pre_annotator.fit_sample

    def while_it_is_gone(project_id):
        house.annotator.failure = LanguageModelUnavailable("down")
        counts = fit_sample(project_id)
        house.annotator.failure = None
        house.annotator.asked.clear()
        return counts

    house.pre_annotator.fit_sample = while_it_is_gone
    house.prelabel(project_id)
    project = house.projects.get(project_id)
    assert house.annotator.asked == []
    assert house.labels.progress(project).abstentions == {"unreachable": 24}
    assert_each_task_has_one(house, project_id)
    house.pre_annotator.fit_sample = fit_sample
    house.prelabel(project_id)
    assert house.ensemble.state(project).templates == {"sentiment": "plain-hints"}
    assert house.labels.progress(project).abstentions == {}


def test_people_see_a_few_labels_before_the_sample_is_fitted(stores):
    house = House(stores, orders_queue=True)
    house.similarity.is_silent = False
    project_id = house.connected(24)
    steps = PlainSteps()
    steps.kill_after = ("study", 1)
    with pytest.raises(KilledHere):
        house.prelabel(project_id, steps)
    first = house.remote(project_id)
    shown = {row.task_id for row in first.predictions.values()}
    project = house.projects.get(project_id)
    queue = [place.task_id for place in house.stores.releases.places(project)]
    assert shown == set(queue[: len(shown)])
    assert 0 < len(shown) < 24
    assert first.info.model_version == house.projects.get(project_id).model_version
    assert house.labels.progress(house.projects.get(project_id)).n_to_label == 24
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)


def test_a_first_label_that_turns_out_otherwise_is_replaced(stores):
    house = House(stores, orders_queue=True)
    house.similarity.is_silent = False
    project_id = house.connected(24)
    house.annotator.contradicts = True
    steps = PlainSteps()
    steps.kill_after = ("first", 1)
    with pytest.raises(KilledHere):
        house.prelabel(project_id, steps)
    house.annotator.contradicts = False
    house.prelabel(project_id)
    texts = {i: task["text"] for i, task in house.remote(project_id).tasks.items()}
    for row in house.remote(project_id).predictions.values():
        said = row.result[0]["value"]["choices"][0]
        assert said == ("Positive" if "good" in texts[row.task_id] else "Negative")


def with_similarity_alone(stores):
    """A project that similarity labelled and published while the LLM was down."""
    house = House(stores, orders_queue=True)
    house.similarity.is_silent = False
    house.pre_annotator.plan = replace(house.pre_annotator.plan, retry_abstentions_s=3600.0)
    project_id = house.connected(24)
    house.annotator.failure = LanguageModelUnavailable("down")
    house.prelabel(project_id)
    assert_each_task_has_one(house, project_id)
    house.annotator.failure = None
    return house, project_id


def test_the_return_of_the_llm_is_noticed_and_what_it_says_is_published(stores):
    house, project_id = with_similarity_alone(stores)
    project = house.projects.get(project_id)
    house.annotator.contradicts = True
    assert house.synchronizer.work_due(project_id) == "the LLM could not be reached about 24 tasks"
    house.prelabel(project_id)
    assert set(house.annotator.asked) >= set(house.remote(project_id).tasks)
    assert house.labels.progress(project).abstentions == {}
    assert_each_task_has_one(house, project_id)
    assert house.projects.get(project_id).model_version != project.model_version


def test_while_the_llm_is_down_one_text_alone_is_asked_about(stores):
    house, project_id = with_similarity_alone(stores)
    house.annotator.failure = LanguageModelUnavailable("still down")
    calls = []
    label = house._labeler.label
    house.pre_annotator.labeler = SimpleNamespace(
        label=lambda project, tasks, **options: calls.append(len(tasks)) or label(project, tasks)
    )
    house.prelabel(project_id)
    assert calls == [1]


def test_tasks_without_an_answer_are_not_counted_as_labelled(house):
    project_id = house.connected(4)
    house.annotator.unreadable = set(house.remote(project_id).tasks)
    house.prelabel(project_id)
    state = house.reporter.project(house.projects.get(project_id))
    assert (state["n_tasks"], state["n_without_label"], state["n_labelled"]) == (4, 4, 0)
    assert len(state["unreadable_answers"]) == 4


def test_what_the_llm_left_unanswered_is_asked_again_later_and_at_once_for_a_round(house):
    project_id = house.connected()
    plan = house.pre_annotator.plan
    house.pre_annotator.plan = replace(plan, retry_abstentions_s=3600.0)
    house.annotator.unreadable = set(house.remote(project_id).tasks)
    house.prelabel(project_id)
    asked = len(house.annotator.asked)
    house.prelabel(project_id)
    assert len(house.annotator.asked) == asked
    prelabel(project_id, house.equip(PlainSteps()), house.round_steps.prelabel, is_thorough=True)
    assert len(house.annotator.asked) == asked + len(house.annotator.unreadable)


def sizes(most, s_per_task, n_chunks):
    pace, found = AdaptiveBatchSize(most), []
    for _ in range(n_chunks):
        found.append(pace.size)
        pace = pace.after(pace.size, pace.size * s_per_task)
    return found


@pytest.mark.parametrize(
    ("most", "s_per_task", "expected"),
    [
        (256, 0.02, [16, 64, 256, 256]),
        (256, 10.0, [16, 2, 2, 2]),
        (256, 600.0, [16, 1, 1, 1]),
        (4, 0.02, [4, 4, 4, 4]),
        (256, 1.0, [16, 20, 20, 20]),
    ],
)
def test_chunks_grow_and_shrink_to_what_takes_twenty_seconds(most, s_per_task, expected):
    assert sizes(most, s_per_task, 4) == expected


def test_a_chunk_that_takes_a_whole_import_tells_how_long_that_took(house):
    project_id, steps = house.connected(CHUNK), house.round_steps.prelabel
    steps.synchronizer.sync(project_id)
    steps.annotator.annotate_chunk(project_id, chunk=ALL_TASKS)
    counts = chunk_work(steps)[ChunkKind.PUBLISH](project_id, ALL_TASKS, PlainSteps())
    assert counts["is_done"]
    assert counts["n_tasks"] == CHUNK
    assert "ms" in counts


def test_a_chunk_whose_tasks_were_done_already_leaves_the_size():
    size = AdaptiveBatchSize(256, 64)
    assert size.after(0, 0.001) == size


def test_a_chunk_from_the_cache_takes_no_time_and_does_not_divide_by_it():
    assert AdaptiveBatchSize(256).after(16, 0.0).size == 64


@given(st.integers(1, 300), st.lists(st.floats(0, 1e6), max_size=8))
def test_sizes_stay_between_one_and_the_most(most, durations):
    pace = AdaptiveBatchSize(most)
    for seconds in durations:
        pace = pace.after(pace.size, seconds)
        assert 1 <= pace.size <= most
