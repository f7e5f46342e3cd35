"""Multiple choice: the label model is fitted to weak labels and to the random holdout."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy.special import expit

from backend.domain.labels import Abstention, AbstentionReason, Answer, Example, WeakLabel
from backend.domain.llm_usage import Prices
from backend.domain.projects import Project, ProjectId
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.errors import LanguageModelUnavailable
from backend.label_model.crowd import Consensus, ConsensusLabel
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState
from backend.pipeline.pool import Guidelines, Pool, label_positions
from backend.pipeline.status import StatusReporter
from tests.pipeline.annotators import FakeAnnotator, FakeEncoder, FakeSimilarity

VALUES = ("a", "b", "c", "d", "e", "f")
QUESTION = Question(
    "topic",
    (TextField("t", "t"),),
    QuestionKind.MULTIPLE_CHOICE,
    tuple(LabelDefinition(value, value) for value in VALUES),
)
GUIDELINES = Guidelines(TaskSchema((QUESTION,)), "")
PROJECT = Project(ProjectId("3.1795215594"), "", "", "", "v1", "v1", True)
EXAMPLES = [Example(n, {"t": f"text {n}"}) for n in range(300)]


@pytest.fixture
def ensemble(stores):
    return AnnotatorEnsemble(FakeAnnotator(), FakeSimilarity(), FakeEncoder(), stores)


@pytest.fixture
def truth():
    return np.random.default_rng(1).random((len(EXAMPLES), len(VALUES))) < 0.2


@pytest.fixture
def weak_labels(truth):
    rng = np.random.default_rng(2)
    odds = {
        "noise": rng.normal(1, 2, truth.shape),
        "good": 4 * truth + rng.normal(-2, 1, truth.shape),
    }
    return [
        WeakLabel(example.id, "topic", name, "v", probabilities=tuple(expit(row).tolist()))
        for name, rows in odds.items()
        for example, row in zip(EXAMPLES, rows, strict=True)
    ]


def pool_of(examples, weak_labels=(), **human):
    pool = Pool(PROJECT, GUIDELINES, [], examples, **human)
    return pool.with_weak_labels(weak_labels)


def predicted(aggregated):
    return np.array([label.probabilities for label in aggregated.labels]) >= 0.5


def test_without_a_label_model_all_annotators_have_the_same_weight(ensemble, weak_labels):
    pool = pool_of(EXAMPLES, weak_labels)
    label = ensemble.aggregate(pool, EnsembleState("v1")).labels[0]
    both = [np.array(weak_labels[0].probabilities), np.array(weak_labels[300].probabilities)]
    odds = sum(np.log(p / (1 - p)) for p in both) / 2
    np.testing.assert_allclose(label.probabilities, expit(odds))


def test_a_noisy_annotator_adds_no_labels(ensemble, weak_labels, truth):
    pool = pool_of(EXAMPLES, weak_labels)
    even = predicted(ensemble.aggregate(pool, EnsembleState("v1")))
    ensemble.fit(pool)
    fitted = predicted(ensemble.aggregate(pool))
    assert (fitted == truth).mean() > 0.97 > 0.85 > (even == truth).mean()
    assert fitted.sum(axis=1).mean() == pytest.approx(truth.sum(axis=1).mean(), abs=0.1)


def test_all_answers_of_people_count(ensemble, weak_labels, truth):
    sets = {"topic": {e.id: frozenset(np.flatnonzero(truth[e.id]).tolist()) for e in EXAMPLES[:50]}}
    state = ensemble.fit(pool_of(EXAMPLES, weak_labels, human_sets=sets))
    assert state.label_model["topic"]["n_human"] == 50


def test_answers_of_people_become_positions_of_labels():
    labels = {
        7: ConsensusLabel(7, Answer(labels=("c", "a")), 0.9, (), 1, False),
        8: ConsensusLabel(8, Answer(), 0.9, (), 1, False),
    }
    found = label_positions(QUESTION, Consensus(labels))
    assert found == {7: frozenset({0, 2}), 8: frozenset()}
    single = replace(QUESTION, kind=QuestionKind.SINGLE_CHOICE)
    assert label_positions(single, Consensus(labels)) == {}


def test_fitting_a_sample_of_spans_asks_the_llm_nothing(stores):
    spans = replace(QUESTION, kind=QuestionKind.SPANS, name="ner")
    annotator = FakeAnnotator()
    ensemble = AnnotatorEnsemble(annotator, FakeSimilarity(), FakeEncoder(), stores)
    pool = Pool(PROJECT, Guidelines(TaskSchema((spans,)), ""), [], EXAMPLES)
    assert ensemble.fit_sample(pool).n_texts == len(EXAMPLES)
    assert annotator.asked == []


@dataclass
class TwoTemplates:
    """An LLM with a sure and an unsure template; texts with "hard" in them make both unsure."""

    asked: list[tuple[str, int]] = field(default_factory=list)
    fails_for: str = ""
    unread_by: tuple[str, ...] = ()

    def templates(self, question: Question) -> tuple[str, ...]:
        return ("plain-options", "plain-hints")

    def write_demonstrations(self, schema, question, instruction, examples, n_per_class):
        return ()

    def annotate(self, schema, instruction, examples, *, prompt_context=None, deadline_s=None):
        (question,) = schema.questions
        template = prompt_context.templates[question.name]
        if template == self.fails_for:
            raise LanguageModelUnavailable("down")
        self.asked += [(template, example.id) for example in examples]
        return [self._label(question, template, example) for example in examples]

    def _label(self, question: Question, template: str, example: Example) -> WeakLabel:
        text = example.texts["t"]
        if template in self.unread_by:
            why = Abstention(AbstentionReason.UNREADABLE, "no label")
            return WeakLabel(example.id, question.name, "llm:m", template, abstention=why)
        p = 0.9 if "good" in text else 0.1
        if "hard" in text:
            p = 0.55 if (template == "plain-hints") == ("good" in text) else 0.45
        return WeakLabel(example.id, question.name, "llm:m", template, probabilities=(p, 1 - p))


def two_template_project(stores, annotator, prompts_per_text=1.5):
    question = replace(
        QUESTION, kind=QuestionKind.SINGLE_CHOICE, labels=QUESTION.labels[:2], name="tone"
    )
    guidelines = Guidelines(TaskSchema((question,)), "")
    words = [("good" if n % 2 else "bad") + (" hard" if n % 4 < 2 else "") for n in range(200)]
    examples = [Example(n, {"t": f"{word} {n}"}) for n, word in enumerate(words)]
    ensemble = AnnotatorEnsemble(
        annotator, FakeSimilarity(), FakeEncoder(), stores, prompts_per_text
    )
    ensemble.fit_sample(Pool(PROJECT, guidelines, [], examples))
    annotator.asked.clear()
    return ensemble, guidelines, examples


def test_unsure_texts_are_asked_about_with_a_second_template(stores):
    annotator = TwoTemplates()
    ensemble, guidelines, examples = two_template_project(stores, annotator, prompts_per_text=2.0)
    labels = ensemble.collect(PROJECT, guidelines, examples)
    first = ensemble.state(PROJECT).templates["tone"]
    twice = {i for template, i in annotator.asked if template != first}
    assert {i for template, i in annotator.asked if template == first} == set(range(200))
    assert twice
    assert all("hard" in examples[i].texts["t"] for i in twice)
    assert len(twice) <= 0.5 * 200
    joined = {label.example_id for label in labels if "+" in label.prompt_version}
    assert joined == twice
    second = ensemble.state(PROJECT).reports["tone"]["second"]["template"]
    words = StatusReporter(
        stores, LabelConfigReader(lambda *_: ""), Prices(), max_cycles=1
    ).prompts(PROJECT)["tone"]
    assert words.startswith(f"template {first}, ")
    assert f"{second} as well where unsure (" in words


def test_one_prompt_per_text_asks_nobody_twice(stores):
    annotator = TwoTemplates()
    ensemble, guidelines, examples = two_template_project(stores, annotator, prompts_per_text=1.0)
    ensemble.collect(PROJECT, guidelines, examples)
    assert len(annotator.asked) == 200


def test_an_annotator_who_waits_gets_the_first_answer(stores):
    annotator = TwoTemplates()
    ensemble, guidelines, examples = two_template_project(stores, annotator)
    ensemble.collect(PROJECT, guidelines, examples, deadline_s=8.0)
    assert len(annotator.asked) == 200


def test_first_answers_stay_where_the_second_ones_do_not_come(stores):
    annotator = TwoTemplates()
    ensemble, guidelines, examples = two_template_project(stores, annotator)
    chosen = ensemble.state(PROJECT).templates["tone"]
    annotator.fails_for = "plain-hints" if chosen == "plain-options" else "plain-options"
    labels = ensemble.collect(PROJECT, guidelines, examples)
    assert all(label.abstention is None for label in labels)
    assert not any("+" in label.prompt_version for label in labels)


def test_what_cannot_be_read_is_asked_for_by_another_template(stores):
    annotator = TwoTemplates()
    ensemble, guidelines, examples = two_template_project(stores, annotator, prompts_per_text=1.0)
    chosen = ensemble.state(PROJECT).templates["tone"]
    (other,) = {"plain-options", "plain-hints"} - {chosen}
    annotator.unread_by = (chosen,)
    labels = ensemble.collect(PROJECT, guidelines, examples)
    assert all(label.abstention is None for label in labels)
    assert {template for template, _ in annotator.asked} == {chosen, other}


def test_a_server_whose_answers_cannot_be_read_at_all_is_not_asked_everything_twice(stores):
    annotator = TwoTemplates()
    ensemble, guidelines, examples = two_template_project(stores, annotator, prompts_per_text=1.0)
    annotator.unread_by = ("plain-options", "plain-hints")
    labels = ensemble.collect(PROJECT, guidelines, examples)
    assert all(label.abstention is not None for label in labels)
    assert len(annotator.asked) == 200 + 8
