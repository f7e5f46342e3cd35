"""Another LLM, encoder or prompt: noticed, tried on a sample, and it labels anew if that pays."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.definitions import Definitions
from backend.domain.labels import AnnotatorKind, LabelOrigin
from backend.domain.projects import ProjectId
from backend.errors import LanguageModelUnavailable
from backend.pipeline.annotator_change import AnnotatorChange, Trial, change_annotator
from backend.pipeline.origins import (
    LLM_NAME,
    SIMILARITY_NAME,
    PresentAnnotators,
    labeled_by,
)
from tests.pipeline.annotators import FakeEncoder
from tests.pipeline.conftest import LARGE_CHUNK, House
from tests.pipeline.people import people_answer
from tests.pipeline.snapshots import Setups
from tests.pipeline.steps import KilledHere, PlainSteps

_SETUPS = Setups()


@pytest.fixture
def house(stores) -> House:
    return House(stores, orders_queue=True, chunk=LARGE_CHUNK)


def labelled_by(house, llm: str, *, is_wrong: bool, n_people: int = 24) -> ProjectId:
    """A project that one LLM labelled, and of which people answered a part."""
    house.annotator.llm, house.annotator.contradicts = llm, is_wrong

    def set_up() -> ProjectId:
        project_id = house.labeled(40)
        people_answer(house, project_id, n_people)
        house.prelabel(project_id)
        return project_id

    key = (llm, is_wrong, n_people, house.similarity.is_silent, house.similarity.contradicts)
    return _SETUPS.project(house, key, set_up)


def serve_now(house, llm: str, *, is_wrong: bool = False) -> None:
    house.annotator.llm, house.annotator.contradicts = llm, is_wrong
    house.annotator.asked.clear()
    house.stores.state.put(ProjectId(""), LLM_NAME, llm)


def relabel(house, project_id, *, is_forced=False, steps=None):
    project = house.projects.get(project_id)
    if not house.annotator_change.is_due(project):
        house.annotator_change.ask(project, share=0.5, is_forced=is_forced)
    steps = house.equip(steps or PlainSteps())
    change_annotator(project_id, steps, house.annotator_change, house.round_steps.prelabel)
    return house.annotator_change.request(house.projects.get(project_id))


def served(house, project_id) -> dict[int, str]:
    rows = house.remote(project_id).predictions.values()
    return {row.task_id: row.result[0]["value"]["choices"][0] for row in rows}


def test_status_says_who_labelled_what_and_who_answers_now(house):
    project_id = labelled_by(house, "small", is_wrong=True, n_people=0)
    serve_now(house, "large")
    state = house.reporter.project(house.projects.get(project_id))
    assert state["labeled_by"] == {"small": 40}
    assert state["llm_now"] == "large"
    assert any("python -m backend relabel" in words for words in state["relabeling_words"])


def test_a_better_llm_labels_anew_and_its_labels_are_served(house):
    project_id = labelled_by(house, "small", is_wrong=True)
    before = house.projects.get(project_id).model_version
    serve_now(house, "large")
    found = relabel(house, project_id)
    assert (found.state, found.n_left) == ("done", 0)
    assert found.words.endswith("expected to pay")
    assert labeled_by(house.labels.origins(house.projects.get(project_id))) == {"large": 40}
    assert house.projects.get(project_id).model_version != before
    texts = house.remote(project_id).tasks
    answered = {label.task_id for label in house.tasks.human_labels(project_id)}
    found = {i: label for i, label in served(house, project_id).items() if i not in answered}
    assert len(found) == 16
    for task_id, label in found.items():
        assert label == ("Positive" if "good" in texts[task_id]["text"] else "Negative")


@pytest.mark.parametrize("step", ["try", "count"])
def test_who_asks_during_a_step_is_not_overwritten(house, step, monkeypatch):
    project_id = labelled_by(house, "small", is_wrong=True)
    serve_now(house, "large")
    project, change = house.projects.get(project_id), house.annotator_change
    change.ask(project, share=0.5)
    if step == "count":
        assert change.try_sample(project_id)["is_due"]
    count = AnnotatorChange.count_outdated

    def count_while_somebody_asks(self, project):
        monkeypatch.setattr(AnnotatorChange, "count_outdated", count)
        change.ask(project, share=0.25, is_forced=True)
        return count(self, project)

    monkeypatch.setattr(AnnotatorChange, "count_outdated", count_while_somebody_asks)
    if step == "try":
        assert change.try_sample(project_id) == {"is_due": 1, "n_asked": 40}
        assert change.request(project).state == "running"
    else:
        assert change.note_progress(project_id, is_stopped=False)["is_done"]
        assert change.request(project).state == "asked"
    assert (change.request(project).share, change.request(project).is_forced) == (0.25, True)
    assert change.is_due(project)


def test_a_worse_llm_changes_nothing(house):
    project_id = labelled_by(house, "large", is_wrong=False)
    before = served(house, project_id)
    serve_now(house, "small", is_wrong=True)
    found = relabel(house, project_id)
    assert found.state == "refused"
    assert "not expected to pay" in found.words
    assert served(house, project_id) == before


def test_whoever_insists_gets_the_new_labels(house):
    project_id = labelled_by(house, "large", is_wrong=False, n_people=0)
    serve_now(house, "other")
    assert relabel(house, project_id, is_forced=True).state == "done"
    assert labeled_by(house.labels.origins(house.projects.get(project_id))) == {"other": 40}


def test_nothing_is_asked_where_one_llm_has_labelled_all(house):
    project_id = labelled_by(house, "small", is_wrong=False, n_people=0)
    serve_now(house, "small")
    assert relabel(house, project_id).state == "done"
    assert house.annotator.asked == []


@pytest.mark.parametrize("step", ["try", "relabel", "publish"])
def test_a_kill_loses_nothing(house, step):
    project_id = labelled_by(house, "small", is_wrong=True)
    serve_now(house, "large")
    steps = PlainSteps()
    steps.kill_after = (step, 1)
    with pytest.raises(KilledHere):
        relabel(house, project_id, steps=steps)
    if house.annotator_change.is_due(house.projects.get(project_id)):
        relabel(house, project_id)
    house.prelabel(project_id)
    assert labeled_by(house.labels.origins(house.projects.get(project_id))) == {"large": 40}


def test_an_llm_that_does_not_answer_is_tried_again_later(house):
    project_id = labelled_by(house, "small", is_wrong=True)
    serve_now(house, "large")
    house.annotator.failure = LanguageModelUnavailable("down")
    assert relabel(house, project_id).state == "asked"
    house.annotator.failure = None
    assert relabel(house, project_id).state == "done"


class SilentWhilePlanning(PlainSteps):
    """The LLM answers all but those steps that plan chunks."""

    def run(self, name, step, project_id):
        self.llm.failure = LanguageModelUnavailable("down") if name == "plan" else None
        return super().run(name, step, project_id)


def test_an_llm_that_is_silent_for_a_moment_ends_no_relabeling(house):
    project_id = labelled_by(house, "small", is_wrong=True)
    serve_now(house, "large")
    steps = SilentWhilePlanning()
    steps.llm = house.annotator
    assert relabel(house, project_id, steps=steps).state == "running"
    house.annotator.failure = None
    assert relabel(house, project_id).state == "done"
    assert labeled_by(house.labels.origins(house.projects.get(project_id))) == {"large": 40}


def other_encoder(house) -> None:
    """Set another encoder: its vectors are of another length, as those of another model are."""
    house.encoder.name, house.similarity.name = "wide", "similarity:wide"
    house.encoder.embed = lambda texts: np.tile(FakeEncoder().embed(texts), 2) / np.sqrt(2)
    house.similarity.contradicts = False
    house.stores.state.put(ProjectId(""), SIMILARITY_NAME, house.similarity.name)


def labelled_by_both(house, *, is_similarity_wrong: bool) -> ProjectId:
    house.similarity.is_silent = False
    house.similarity.contradicts = is_similarity_wrong
    return labelled_by(house, "small", is_wrong=False)


def relabeling_words(house, project_id) -> str:
    return "; ".join(house.reporter.project(house.projects.get(project_id))["relabeling_words"])


def test_another_encoder_is_noticed_and_labels_anew_where_it_is_better(house):
    project_id = labelled_by_both(house, is_similarity_wrong=True)
    serve_now(house, "small")
    assert "before a change" not in relabeling_words(house, project_id)
    other_encoder(house)
    assert "40 tasks before a change (similarity:wide answers now)" in relabeling_words(
        house, project_id
    )
    found = relabel(house, project_id)
    assert (found.state, found.n_left) == ("done", 0)
    assert found.words.startswith("similarity:wide labels")
    assert found.words.endswith("expected to pay")
    by = labeled_by(house.labels.origins(house.projects.get(project_id)))
    assert by == {"similarity:wide": 40, "small": 40}


def test_after_another_encoder_no_fit_to_the_old_ones_vectors_is_used(house):
    project_id = labelled_by_both(house, is_similarity_wrong=False)
    project = house.projects.get(project_id)
    assert house.ensemble.state(project).similarity
    other_encoder(house)
    assert not house.ensemble.state(project).similarity
    house.platform.import_tasks(project.platform_id, [{"text": "good news"}])
    house.prelabel(project_id)
    assert house.labels.progress(project).n_to_label == 0
    assert house.ensemble.state(project).encoder == "wide"


def test_other_guidelines_are_noticed_and_tried(house):
    project_id = labelled_by(house, "small", is_wrong=True)
    serve_now(house, "small")
    house.definitions = Definitions(instruction="Judge the film, not the cinema.")
    house.annotator_change.note_guidelines(house.projects.get(project_id))
    assert "40 tasks before a change (the prompt is another one now" in relabeling_words(
        house, project_id
    )
    found = relabel(house, project_id)
    assert (found.state, found.n_left) == ("done", 0)
    assert "than small by an earlier prompt" in found.words
    assert "before a change" not in relabeling_words(house, project_id)


def test_guidelines_that_cannot_be_read_change_nothing(house):
    project_id = labelled_by(house, "small", is_wrong=False, n_people=0)
    house.definitions = Definitions({"nothing": {}})
    house.annotator_change.note_guidelines(house.projects.get(project_id))
    assert "before a change" not in relabeling_words(house, project_id)


def test_labels_of_an_earlier_wording_or_guidelines_are_told_from_present_ones():
    present = PresentAnnotators("llm:a", "similarity:b", {"q": "1234"})
    same = (
        *("choice/plain-hints/2", "choice/plain-hints/2#1234", "yes-no/plain-options-top20/1#1234"),
        *("choice/plain-options/1+chat-choose#1234", "spans/chat-json-check/2", "v1", ""),
    )
    for version in same:
        assert not present.outdated([LabelOrigin("q", "llm:a", AnnotatorKind.LLM, version)])
    earlier = ("choice/plain-hints/1", "choice/plain-hints/2#5678", "spans/plain-json/1#1234")
    for version in earlier:
        assert present.outdated([LabelOrigin("q", "llm:a", AnnotatorKind.LLM, version)])


def test_a_gain_within_its_error_is_none():
    assert Trial(60, 20, n_judged=60, n_old=30, n_new=40, n_swapped=20).pays
    assert not Trial(60, 20, n_judged=60, n_old=30, n_new=33, n_swapped=20).pays
    assert "nobody can tell" in Trial(60, 20).in_words("a", "b")


def test_tasks_are_counted_over_prompts_and_by_the_question_with_most():
    def origin(question, annotator, prompt):
        return LabelOrigin(question, annotator, AnnotatorKind.LLM, prompt)

    counts = {
        origin("tone", "small", "1"): 30,
        origin("tone", "small", "2"): 12,
        origin("names", "small", "1"): 40,
        origin("names", "large", "1"): 50,
    }
    assert list(labeled_by(counts).items()) == [("large", 50), ("small", 42)]
