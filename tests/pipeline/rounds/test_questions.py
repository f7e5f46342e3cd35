"""Every question of a project is learned in rounds, each by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.domain.labels import Demonstration
from backend.domain.rounds import RoundState
from backend.errors import LanguageModelUnavailable, TrainingDiverged
from tests.conftest import SENTIMENT
from tests.pipeline.conftest import LARGE_CHUNK, House
from tests.pipeline.people import N_TEXTS, outcome, people_answer
from tests.pipeline.steps import KilledHere, PlainSteps

TEXT = '<Text name="text" value="$text"/>'
TOPICS = (
    '<Choices name="topics" toName="text" choice="multiple">'
    '<Choice value="good"/><Choice value="price"/><Choice value="room"/></Choices>'
)
NAMES = '<Labels name="names" toName="text"><Label value="Person"/><Label value="Place"/></Labels>'
CHOICES = SENTIMENT[SENTIMENT.index("<Choices") : SENTIMENT.index("</View>")]
STARS = '<Rating name="stars" toName="text" maxRating="3"/>'
WHY = '<TextArea name="why" toName="text"/>'


def config(*tags: str) -> str:
    return f"<View>{TEXT}{''.join(tags)}</View>"


def text_of(number: int) -> str:
    """Return a text with words for every question, 1.3 topics a text on average."""
    parts = [
        "good" if number % 2 else "bad",
        "price" if number // 2 % 2 == 0 else "staff",
        "room" if number % 10 in (0, 3, 6) else "bar",
        "said Ada in Oslo" if number % 4 == 0 else "said nobody",
    ]
    return f"{' '.join(parts)} {number}"


@pytest.fixture
def house(stores, tmp_path) -> House:
    house = House(stores, folder=tmp_path, orders_queue=True, chunk=LARGE_CHUNK)
    house.similarity.is_silent = False
    return house


def labelled(house: House, *tags: str, n_texts: int = N_TEXTS):
    return house.labeled(n_texts, config(*tags), text_of=text_of)


def last_round(house: House, project_id):
    return house.rounds.history(project_id)[-1]


def learned(house: House, project_id) -> dict[str, dict[str, object]]:
    project = house.projects.get(project_id)
    return house.releases.provenance(project_id, project.model_version)["learned"]


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ((TOPICS,), ["topics"]),
        ((STARS,), ["stars"]),
        ((NAMES,), ["names"]),
        ((CHOICES, TOPICS), ["sentiment", "topics"]),
        ((NAMES, CHOICES), ["names", "sentiment"]),
        ((WHY, TOPICS), ["topics"]),
    ],
    ids=["multiple", "rating", "spans", "two-choices", "spans-and-choice", "beside-free-text"],
)
def test_each_question_has_a_student_labels_and_figures_of_its_own(house, tags, names, tmp_path):
    project_id = labelled(house, *tags)
    house.round(project_id)
    made = last_round(house, project_id)
    assert (made.state, list(made.figures)) == (RoundState.RELEASED, names)
    assert all(figures["gate"]["is_promoted"] for figures in made.figures.values())
    assert list(learned(house, project_id)) == names
    folders = [each for each in (tmp_path / project_id / "1").iterdir() if each.is_dir()]
    assert len(folders) == len(names)
    for folder in folders:
        assert {"train-0.npz", "shots-1.npz", "votes-1.npz", "fused-1.npz", "final.npz"} <= {
            path.name for path in folder.iterdir()
        }
    assert len(outcome(house, project_id)["predictions"]) == N_TEXTS


def test_status_says_which_questions_are_learned_and_why_others_are_not(house):
    project_id = labelled(house, CHOICES, NAMES, WHY)
    state = house.reporter.project(house.projects.get(project_id))
    assert state["questions"] == {
        "sentiment": "learned in rounds",
        "names": "learned in rounds",
        "why": "not learned in rounds: answers are no labels: the LLM answers alone",
    }
    assert list(state["advice"]) == ["sentiment", "names"]


def test_a_project_of_free_text_alone_has_no_round(house):
    project_id = labelled(house, WHY)
    assert house.scheduler.due(house.projects.get(project_id)) is None
    house.round(project_id)
    assert house.rounds.history(project_id) == []


def demonstrations_of(house, question: str) -> list[Demonstration]:
    """Return all demonstrations that the LLM was shown for a question."""
    of_texts = [of_text for shots in house.annotator.shots for of_text in shots[question].values()]
    return [shot for of_text in of_texts for shot in of_text]


def test_demonstrations_of_several_labels_show_all_of_them(house):
    project_id = labelled(house, TOPICS)
    house.round(project_id)
    shown = demonstrations_of(house, "topics")
    assert shown
    for shot in shown:
        named = {label for label in ("good", "price", "room") if label in shot.texts["text"]}
        assert set(shot.answer.labels) == named
    assert {min(len(shot.answer.labels), 2) for shot in shown} == {0, 1, 2}


def test_demonstrations_of_spans_show_spans_and_texts_without_any(house):
    project_id = labelled(house, NAMES)
    house.round(project_id)
    shown = demonstrations_of(house, "names")
    found = {
        tuple(shot.texts["text"][span.start : span.end] for span in shot.answer.spans)
        for shot in shown
    }
    assert found == {("Ada", "Oslo"), ()}


def test_spans_that_two_of_three_annotators_mark_are_served_with_a_probability(house):
    project_id = labelled(house, NAMES)
    people_mark(house, project_id, range(12))
    house.round(project_id)
    assert last_round(house, project_id).figures["names"]["gate"]["is_better"] is False
    people_mark(house, project_id, range(12, 24))
    house.round(project_id)
    made = last_round(house, project_id)
    assert made.figures["names"]["gate"]["is_better"] is True
    project = house.projects.get(project_id)
    labels = [v for v in house.labels.weak_labels(project) if v.annotator == "fused"]
    of_text = {v.example_id: v for v in labels}
    texts = house.remote(project_id).tasks
    task_id = next(i for i in sorted(texts)[24:] if "Ada" in texts[i]["text"])
    found = of_text[task_id]
    words = [texts[task_id]["text"][s.start : s.end] for s in found.spans]
    assert words == ["Ada", "Oslo"]
    assert all(0.5 < span.probability < 1 for span in found.spans)
    assert 0 < found.confidence < 1
    names = {v.annotator for v in house.labels.weak_labels(project)}
    assert {"fake", "fake+shots", "small-model:default"} <= names
    assert made.figures["names"]["f1"]["fused"] == 1.0
    assert learned(house, project_id)["names"]["labels_from"] == made.number


def people_mark(house: House, project_id, rows) -> None:
    """Have people mark the names in some texts."""
    tasks = sorted(house.remote(project_id).tasks.items())
    for task_id, data in [tasks[row] for row in rows]:
        text = data["text"]
        house.platform.annotate(
            task_id,
            [
                {
                    "from_name": "names",
                    "to_name": "text",
                    "type": "labels",
                    "value": {
                        "start": text.index(name),
                        "end": text.index(name) + len(name),
                        "text": name,
                        "labels": ["Person"],
                    },
                }
                for name in ("Ada", "Oslo")
                if name in text
            ],
        )
    house.projects.forget_full_sync(project_id)


def test_people_s_labels_decide_question_by_question(house):
    project_id = labelled(house, CHOICES, STARS)
    people_answer(house, project_id, 24)
    before = {
        v.example_id: v
        for v in house.labels.weak_labels(house.projects.get(project_id))
        if (v.question, v.annotator) == ("stars", "fused")
    }
    house.round(project_id)
    figures = last_round(house, project_id).figures
    assert (figures["sentiment"]["n_human"], figures["stars"]["n_human"]) == (24, 0)
    assert figures["sentiment"]["gate"]["is_better"] is True
    assert figures["stars"]["gate"]["is_better"] is False
    sources = learned(house, project_id)
    assert ("labels_from" in sources["sentiment"], "labels_from" in sources["stars"]) == (
        True,
        False,
    )
    after = {
        v.example_id: v
        for v in house.labels.weak_labels(house.projects.get(project_id))
        if (v.question, v.annotator) == ("stars", "fused")
    }
    assert after == before


def test_a_question_that_cannot_be_learned_costs_itself_alone(house):
    project_id = labelled(house, NAMES, CHOICES)
    house.tagger.failure = TrainingDiverged("the loss is no number")
    house.round(project_id)
    made = last_round(house, project_id)
    assert made.state is RoundState.RELEASED
    assert made.figures["names"] == {"error": "the loss is no number"}
    assert made.figures["sentiment"]["gate"]["is_promoted"]
    assert list(learned(house, project_id)) == ["sentiment"]


def test_a_question_that_the_llm_never_answers_costs_itself_alone(house):
    house.annotator.silent_about = {"names"}
    project_id = labelled(house, CHOICES, NAMES)
    house.round(project_id)
    made = last_round(house, project_id)
    assert made.state is RoundState.RELEASED
    assert "nothing to learn from" in made.figures["names"]["error"]


def test_a_question_is_learned_of_the_texts_for_which_it_is_shown(house):
    house.annotator.hides = {"topics": "good"}
    project_id = labelled(house, CHOICES, TOPICS)
    house.round(project_id)
    assert last_round(house, project_id).state is RoundState.RELEASED
    for data in house.student.fits:
        is_good = ["good" in text for text in data.pool.texts]
        if len(data.labels) == 3:
            assert data.has_label.tolist() == is_good
    texts = house.remote(project_id).tasks
    asked = {i for shots in house.annotator.shots for i in shots.get("topics", {})}
    assert asked
    project = house.projects.get(project_id)
    said = {
        v.example_id
        for v in house.labels.weak_labels(project)
        if v.question == "topics" and v.annotator_kind.is_from_round
    }
    asked |= said
    assert all("good" in texts[i]["text"] for i in asked)


def test_a_round_in_which_nothing_can_be_learned_fails_with_every_reason(house):
    project_id = labelled(house, NAMES, CHOICES)
    house.tagger.failure = TrainingDiverged("the loss is no number")
    house.student.failure = TrainingDiverged("the loss is infinite")
    house.round(project_id)
    made = last_round(house, project_id)
    assert made.state is RoundState.FAILED
    assert made.error == "names: the loss is no number; sentiment: the loss is infinite"
    assert [p.message for p in house.jobs.problems(project_id)] == [made.error]


@pytest.mark.parametrize("tags", [(TOPICS,), (NAMES,)], ids=["multiple", "spans"])
def test_a_pool_in_which_nothing_holds_anywhere_is_learned(house, tags):
    project_id = house.connected(N_TEXTS, config(*tags), text_of=lambda i: f"nothing at all {i}")
    house.round(project_id)
    assert last_round(house, project_id).state is RoundState.RELEASED


@pytest.mark.parametrize(
    "tags", [(TOPICS,), (NAMES,), (STARS,)], ids=["multiple", "spans", "stars"]
)
def test_twenty_tasks_are_enough(house, tags):
    project_id = labelled(house, *tags, n_texts=20)
    house.round(project_id)
    assert last_round(house, project_id).state is RoundState.RELEASED


@pytest.mark.parametrize(
    "changed", [config(CHOICES), config(CHOICES, NAMES, TOPICS)], ids=["removed", "added"]
)
def test_a_question_that_comes_or_goes_in_mid_round_ends_it_and_the_next_one_has_it(house, changed):
    project_id = labelled(house, CHOICES, NAMES)
    steps = PlainSteps()
    steps.kill_after = ("train", 3)  # the second question has begun
    with pytest.raises(KilledHere):
        house.round(project_id, steps)
    house.platform.change_project(house.projects.get(project_id).platform_id, label_config=changed)
    house.projects.forget_full_sync(project_id)
    house.round(project_id)
    first, second = house.rounds.history(project_id)
    assert (first.state, second.state) == (RoundState.CANCELLED, RoundState.RELEASED)
    assert list(second.figures) == [
        name for name in ("sentiment", "names", "topics") if f'"{name}"' in changed
    ]


def test_the_llm_being_down_at_the_second_question_keeps_the_first_one_s_work(house):
    project_id = labelled(house, CHOICES, NAMES)
    steps = PlainSteps()
    steps.kill_after = ("train", 3)
    with pytest.raises(KilledHere):
        house.round(project_id, steps)
    house.annotator.failure = LanguageModelUnavailable("down")
    house.round(project_id, is_asked=False)
    assert last_round(house, project_id).state is RoundState.RUNNING
    house.annotator.failure = None
    n_fits, n_tagged = len(house.student.fits), len(house.tagger.fits)
    house.round(project_id, is_asked=False)
    assert last_round(house, project_id).state is RoundState.RELEASED
    assert len(house.student.fits) == n_fits
    assert len(house.tagger.fits) > n_tagged


def test_students_of_all_served_questions_label_texts_that_come_later(house, monkeypatch):
    project_id = labelled(house, CHOICES, NAMES, TOPICS)
    house.round(project_id)
    project = house.projects.get(project_id)
    served = {name: one | {"labels_from": 1} for name, one in learned(house, project_id).items()}
    monkeypatch.setattr(house.releases, "provenance", lambda *_: {"learned": served})
    later = house.platform.import_tasks(project.platform_id, [{"text": "good price, says Ada"}])
    house.projects.forget_full_sync(project_id)
    house.prelabel(project_id)
    said = {
        v.question: v
        for v in house.labels.weak_labels(project)
        if v.example_id in later and v.annotator == "small-model:default"
    }
    assert said["sentiment"].probabilities[0] > 0.5
    assert [p > 0.5 for p in said["topics"].probabilities] == [True, True, False]
    assert [(s.start, s.end) for s in said["names"].spans] == [(17, 20)]


def test_an_export_has_a_model_of_each_question(house, tmp_path):
    project_id = labelled(house, CHOICES, NAMES)
    house.round(project_id)
    exported = house.exporter.export(house.projects.get(project_id), tmp_path / "out")
    cards = {path.parent.name[:5]: path.read_text() for path in exported.model.glob("*/README.md")}
    assert "`sentiment`" in cards["senti"]
    assert "`names`" in cards["names"]
    assert all("## In its project" in card for card in cards.values())


def test_rounds_as_published_learn_several_labels_and_spans(stores, tmp_path):
    from backend.pipeline.rounds.context import RoundPlan

    plan = RoundPlan(recipe="paper", chunk=LARGE_CHUNK)
    house = House(stores, folder=tmp_path, orders_queue=True, plan=plan)
    project_id = labelled(house, TOPICS, NAMES)
    house.round(project_id)
    made = last_round(house, project_id)
    assert (made.state, list(made.figures)) == (RoundState.RELEASED, ["topics", "names"])
    assert {figures["n_cycles"] for figures in made.figures.values()} == {1}


def test_a_pair_of_texts_is_learned_as_a_pair(house):
    tags = (
        '<Text name="other" value="$text"/>'
        '<Choices name="same" toName="text"><Choice value="yes"/><Choice value="no"/></Choices>'
    )
    project_id = labelled(house, tags)
    house.round(project_id)
    pool = house.student.fits[0].pool
    assert pool.pairs == pool.texts
    assert replace(pool, pairs=None).texts == pool.texts
