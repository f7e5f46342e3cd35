"""A round makes a better release of a project, or leaves it as it is and says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
import pytest

from backend.domain.holdout import holdout_seed, in_holdout
from backend.domain.projects import Project
from backend.domain.rounds import RoundState
from backend.errors import LanguageModelUnavailable, TrainingDiverged
from backend.pipeline.rounds.context import RoundPlan
from tests.pipeline.conftest import CHUNK, LARGE_CHUNK, House
from tests.pipeline.people import N_TEXTS, choice, outcome, people_answer, people_contradict
from tests.pipeline.steps import KilledHere, PlainSteps, ReplayingSteps


@pytest.fixture
def house(stores, tmp_path) -> House:
    house = House(stores, folder=tmp_path, orders_queue=True, chunk=LARGE_CHUNK)
    house.similarity.is_silent = False
    return house


def source_of(house, project) -> dict[str, object]:
    provenance = house.releases.provenance(project.id, project.model_version)
    return provenance["learned"]["sentiment"]


def project_of(house, project_id) -> Project:
    return house.projects.get(project_id)


def test_a_round_ends_in_a_release_with_its_figures(house):
    project_id = house.labeled(N_TEXTS)
    before = house.projects.get(project_id).model_version
    people_answer(house, project_id, 12)
    house.round(project_id)
    (found,) = house.rounds.history(project_id)
    assert found.state is RoundState.RELEASED
    assert found.model_version == house.projects.get(project_id).model_version != before
    assert found.figures["sentiment"]["n_human"] == 12
    assert found.figures["sentiment"]["gate"]["is_promoted"]
    assert house.releases.provenance(project_id, found.model_version)["round"] == 1
    assert len(outcome(house, project_id)["predictions"]) == N_TEXTS
    in_queue = {place.task_id for place in house.releases.places(project_of(house, project_id))}
    assert len(in_queue) == N_TEXTS - 12


def test_a_round_without_human_labels_brings_an_order_and_leaves_the_labels(house):
    project_id = house.labeled(N_TEXTS)
    before = house.labels.weak_labels(house.projects.get(project_id))
    version = house.projects.get(project_id).model_version
    house.round(project_id)
    project = house.projects.get(project_id)
    assert project.model_version != version
    assert house.labels.weak_labels(project) == before
    (found,) = house.rounds.history(project_id)
    assert found.figures["sentiment"]["gate"]["is_better"] is False


def without_holdout(project_id, ids) -> list[int]:
    seed = holdout_seed(project_id)
    return [i for i in ids if not in_holdout(i, seed=seed)]


def test_the_label_model_learns_from_labels_of_the_queue_s_choice_too(house):
    project_id = house.labeled(N_TEXTS)
    answered = people_answer(house, project_id, 12)
    house.round(project_id)
    project = project_of(house, project_id)
    house.aggregator.aggregate(project)
    n_human = house.ensemble.state(project).label_model["sentiment"]["n_human"]
    assert n_human == len(without_holdout(project_id, answered))


def test_a_round_waits_until_the_llm_has_answered(house):
    project_id = house.connected(N_TEXTS)
    house.annotator.failure = LanguageModelUnavailable("down")
    house.prelabel(project_id)
    house.round(project_id)
    (waiting,) = house.rounds.history(project_id)
    assert waiting.state is RoundState.RUNNING
    assert house.student.fits == []
    (problem,) = [p for p in house.jobs.problems(project_id) if p.source == "round"]
    assert f"could not be reached about {N_TEXTS} tasks" in problem.message
    house.annotator.failure = None
    house.round(project_id)
    assert house.rounds.history(project_id)[0].state is RoundState.RELEASED
    votes = [v for v in house.labels.weak_labels(project_of(house, project_id))]
    assert all(v.abstention is None for v in votes if v.annotator == "fake")


def test_labels_that_were_there_before_any_annotator_teach_the_label_model_too(house):
    project_id = house.connected(N_TEXTS)
    answered = people_answer(house, project_id, 12)
    house.prelabel(project_id)
    project = project_of(house, project_id)
    pool = house.aggregator.pool(project)
    assert set(pool.first_labels["sentiment"]) >= set(answered)
    house.aggregator.aggregate(project)
    n_human = house.ensemble.state(project).label_model["sentiment"]["n_human"]
    assert n_human == len(without_holdout(project_id, answered)) > 5
    assert not {
        v.example_id for v in house.labels.weak_labels(project) if v.annotator != "fused"
    } & (set(answered))


def test_labels_that_human_labels_confirm_replace_the_served_ones(stores, tmp_path):
    plan = RoundPlan(recipe="paper", chunk=CHUNK)
    house = House(stores, folder=tmp_path, orders_queue=True, plan=plan)
    house.student.is_wrong = True  # of what the annotators say, and so of people's opinion
    project_id = house.labeled(50)
    people_contradict(house, project_id, 24)
    house.round(project_id)
    (found,) = house.rounds.history(project_id)
    assert found.figures["sentiment"]["gate"]["is_better"] is True
    project = house.projects.get(project_id)
    assert source_of(house, project)["labels_from"] == 1
    names = {vote.annotator for vote in house.labels.weak_labels(project)}
    assert {"fake+shots", "small-model:paper"} <= names
    shown = house.remote(project_id).predictions.values()
    texts = house.remote(project_id).tasks
    good = [row for row in shown if "good" in texts[row.task_id]["text"]]
    assert any(row.result[0]["value"]["choices"] == ["Negative"] for row in good)


@dataclass
class EditingSteps(PlainSteps):
    """Has people edit a text after the first step of a name; the worker notices and labels it."""

    house: House
    edited_after: str
    task_id: int

    def __post_init__(self) -> None:
        super().__init__()

    def run(self, name, step, project_id):
        counts = super().run(name, step, project_id)
        if name == self.edited_after and self.ran.count(name) == 1:
            self.house.remote(project_id).tasks[self.task_id] = {"text": "bad, all of it"}
            self.house.projects.forget_full_sync(project_id)
            self.house.prelabel(project_id)
        return counts


@pytest.mark.parametrize(
    ("step", "is_read_anew"),
    [("train", True), ("select", True), ("refine", True), ("fuse", False)],
)
def test_a_text_that_is_edited_during_a_round_gets_no_label_of_the_former_text(
    stores, tmp_path, step, is_read_anew
):
    plan = RoundPlan(recipe="paper", chunk=CHUNK)
    house = House(stores, folder=tmp_path, orders_queue=True, plan=plan)
    house.student.is_wrong = True  # as in the test above: the round's labels replace the served
    project_id = house.labeled(50)
    people_contradict(house, project_id, 24)
    edited = sorted(house.remote(project_id).tasks)[41]
    assert house.remote(project_id).tasks[edited]["text"].startswith("good")
    house.round(project_id, EditingSteps(house, step, edited))
    assert house.rounds.history(project_id)[0].figures["sentiment"]["gate"]["is_better"] is True
    votes = house.labels.weak_labels(project_of(house, project_id))
    of_round = {vote.example_id for vote in votes if vote.annotator_kind.is_from_round}
    assert len(of_round) > 40 and (edited in of_round) == is_read_anew
    (said,) = (r for r in house.remote(project_id).predictions.values() if r.task_id == edited)
    by_round, by_first = ["Positive"], ["Negative"]  # of "bad": the round says the opposite
    assert said.result[0]["value"]["choices"] == (by_round if is_read_anew else by_first)


def test_the_student_labels_texts_that_come_after_its_round(house, monkeypatch):
    project_id = house.connected(N_TEXTS)
    house.round(project_id)
    project = project_of(house, project_id)
    served = source_of(house, project) | {"labels_from": 1}  # as if people had spoken for it
    learned = {"learned": {"sentiment": served}}
    monkeypatch.setattr(house.releases, "provenance", lambda *_: learned)
    later = house.platform.import_tasks(project.platform_id, [{"text": "good, but later"}])
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    said = {v.annotator: v for v in house.labels.weak_labels(project) if v.example_id in later}
    assert said["small-model:default"].probabilities[0] > 0.5
    assert said["small-model:default"].prompt_version == "round 1"


def test_a_student_whose_labels_are_not_served_labels_no_later_tasks(house):
    project_id = house.connected(N_TEXTS)
    house.round(project_id)
    project = project_of(house, project_id)
    assert "model_from" in source_of(house, project)
    assert "labels_from" not in source_of(house, project)
    later = house.platform.import_tasks(project.platform_id, [{"text": "good, but later"}])
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    heard = [v.annotator for v in house.labels.weak_labels(project) if v.example_id in later]
    assert heard
    assert not any(name.startswith("small-model") for name in heard)


def test_an_order_that_follows_keeps_the_labels_and_the_model_of_the_round(house, tmp_path):
    project_id = house.connected(N_TEXTS)
    house.round(project_id)
    first = house.projects.get(project_id)
    number = first.platform_id
    house.platform.import_tasks(number, [{"text": f"good, later {n}"} for n in range(N_TEXTS)])
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    second = house.projects.get(project_id)
    assert second.model_version != first.model_version
    assert house.releases.provenance(project_id, second.model_version)["kind"] == "ordering"
    assert source_of(house, second) == source_of(house, first)
    assert "model_from" in source_of(house, second)


def test_people_are_clean_training_data_and_first_as_demonstrations(house, tmp_path):
    project_id = house.labeled(N_TEXTS)
    answered = without_holdout(project_id, people_answer(house, project_id, 12))
    house.round(project_id)
    data = house.student.fits[-1]
    assert [i for i, is_human in zip(data.pool.ids, data.is_human, strict=True) if is_human] == (
        answered
    )
    assert set(np.unique(data.targets[data.is_human])) == {0.0, 1.0}
    (file,) = (tmp_path / project_id / "1").glob("*/shots-1.npz")
    with np.load(file) as shots:
        assert shots["is_human"].all()
        assert not set(answered) & set(shots["asked"].tolist())


def test_a_round_learns_an_answer_whose_change_nobody_told(house, tmp_path):
    project_id = house.labeled(N_TEXTS)
    people_answer(house, project_id, 12)
    house.prelabel(project_id)
    remote = house.remote(project_id)
    number, label = min(remote.annotations.items())
    before = label.result[0]["value"]["choices"]
    changed = choice("Negative" if before == ["Positive"] else "Positive")
    remote.annotations[number] = replace(
        label, result=(changed,), updated_at=label.updated_at + timedelta(seconds=1)
    )
    house.round(project_id)
    data = house.student.fits[-1]
    at = data.pool.ids.index(label.task_id)
    named = data.labels[int(np.argmax(data.targets[at]))]
    assert [named] == changed["value"]["choices"] != before


def test_the_student_is_not_trained_on_its_own_labels(house):
    project_id = house.connected(N_TEXTS)
    house.round(project_id)
    first = house.student.fits[0].targets
    house.round(project_id)
    assert house.student.fits[len(house.student.fits) // 2].targets == pytest.approx(first)


def test_without_new_labels_no_round_is_due(house):
    project_id = house.connected(N_TEXTS)
    project = house.projects.get(project_id)
    assert house.scheduler.due(project) is None
    house.prelabel(project_id)
    assert house.scheduler.due(house.projects.get(project_id)) == "all tasks have their first label"
    house.round(project_id, is_asked=False)
    assert house.scheduler.due(house.projects.get(project_id)) is None
    house.round(project_id, is_asked=False)
    assert len(house.rounds.history(project_id)) == 1


def test_new_labels_by_people_make_a_round_due(house):
    project_id = house.connected(N_TEXTS)
    house.round(project_id)
    people_answer(house, project_id, 4)
    house.prelabel(project_id)
    assert house.scheduler.due(house.projects.get(project_id)) is None
    people_answer(house, project_id, 1, skip=4)
    house.prelabel(project_id)
    assert house.scheduler.due(house.projects.get(project_id)) == "5 new labels by people"


def test_few_texts_make_no_round(house):
    project_id = house.connected(10)
    house.round(project_id)
    assert house.rounds.history(project_id) == []


def test_the_llm_being_down_leaves_the_round_open_and_it_goes_on_later(house):
    project_id = house.labeled(N_TEXTS)
    house.annotator.failure = LanguageModelUnavailable("down")
    house.round(project_id)
    (found,) = house.rounds.history(project_id)
    assert found.state is RoundState.RUNNING
    assert "the round waits: down" in [p.message for p in house.jobs.problems(project_id)]
    house.annotator.failure = None
    assert house.scheduler.due(house.projects.get(project_id)) == "a round is not finished"
    house.round(project_id, is_asked=False)
    (found,) = house.rounds.history(project_id)
    assert found.state is RoundState.RELEASED
    assert house.jobs.problems(project_id) == []


def test_a_full_disk_leaves_the_round_open(house):
    project_id = house.labeled(N_TEXTS)
    house.student.failure = OSError(28, "No space left on device")
    house.round(project_id)
    assert house.rounds.history(project_id)[-1].state is RoundState.RUNNING
    house.round(project_id, is_asked=False)
    assert house.rounds.history(project_id)[-1].state is RoundState.RELEASED


def test_a_training_that_diverges_fails_the_round_in_plain_words(house):
    project_id = house.labeled(N_TEXTS)
    version = house.projects.get(project_id).model_version
    house.student.failure = TrainingDiverged("the loss is no number")
    house.round(project_id)
    (found,) = house.rounds.history(project_id)
    assert found.state is RoundState.FAILED
    assert found.error == "sentiment: the loss is no number"
    assert house.projects.get(project_id).model_version == version


def test_a_cancelled_round_ends_and_leaves_the_release_as_it_is(house):
    project_id = house.labeled(N_TEXTS)
    version = house.projects.get(project_id).model_version
    steps = PlainSteps()
    steps.kill_after = ("train", 1)
    with pytest.raises(KilledHere):
        house.round(project_id, steps)
    running = house.rounds.running(project_id)
    assert house.rounds.finish(running, RoundState.CANCELLED)
    house.round(project_id, is_asked=False)
    assert house.rounds.running(project_id) is None
    assert house.projects.get(project_id).model_version == version


@pytest.mark.parametrize("step", ["train", "select", "refine", "fuse"])
def test_a_round_that_other_models_began_is_made_anew_by_those_that_are_set(house, step):
    project_id = house.labeled(N_TEXTS)
    people_answer(house, project_id, 12)
    version = house.projects.get(project_id).model_version
    steps = ReplayingSteps()
    steps.kill_after = (step, 1)
    with pytest.raises(KilledHere):
        house.round(project_id, steps)
    reason = house.rounds.running(project_id).reason
    n_trained = len(house.student.fits)
    house.models = {**house.models, "ENCODER_MODEL": "another"}
    house.round(project_id, steps.again())  # what was under way stops where it is
    assert house.projects.get(project_id).model_version == version
    assert len(house.student.fits) == n_trained
    project = house.projects.get(project_id)
    assert house.round_steps.scheduler.due(project) == "a round is not finished"
    house.round(project_id, is_asked=False)
    first, second = house.rounds.history(project_id)
    assert (first.state, second.state) == (RoundState.CANCELLED, RoundState.RELEASED)
    assert first.error.startswith("ENCODER_MODEL was fake and is another since it began")
    assert second.reason == reason
    assert len(house.student.fits) == n_trained + 1 + second.figures["sentiment"]["n_cycles"]


def test_a_worse_version_is_refused_and_changes_nothing(stores, tmp_path):
    plan = RoundPlan(recipe="paper", chunk=CHUNK)
    house = House(stores, folder=tmp_path, orders_queue=True, plan=plan)
    house.similarity.is_silent = False
    house.student.is_wrong = True
    project_id = house.labeled(50)
    n_taught = len(without_holdout(project_id, people_answer(house, project_id, 24)))
    house.prelabel(project_id)
    before = (
        project_of(house, project_id),
        house.labels.weak_labels(project_of(house, project_id)),
    )
    house.round(project_id)
    (found,) = house.rounds.history(project_id)
    assert found.state is RoundState.REFUSED
    assert found.figures["sentiment"]["gate"]["reason"].startswith(
        f"refused: on {n_taught} human labels it is right 0.0%"
    )
    project = project_of(house, project_id)
    assert (project, house.labels.weak_labels(project)) == before
