"""Several labels per text: the jury learns whom to believe, from votes and from people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from backend.active_learning.holdout import holdout_seed, in_holdout
from backend.domain.labels import Answer, Example, WeakLabel
from backend.domain.projects import Project, ProjectId
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.label_model.crowd import Consensus, ConsensusLabel
from backend.pipeline.ensemble import AnnotatorEnsemble, EnsembleState
from backend.pipeline.guidelines import Guidelines, labels_by_example
from tests.pipeline.conftest import FakeAnnotator, FakeEncoder, FakeSimilarity

VALUES = ("a", "b", "c", "d", "e", "f")
QUESTION = Question(
    "topic",
    (TextField("t", "t"),),
    QuestionKind.MULTIPLE_CHOICE,
    tuple(LabelDefinition(value, value) for value in VALUES),
)
BRIEF = Guidelines(TaskSchema((QUESTION,)), "")
PROJECT = Project(ProjectId("3.1795215594"), "", "", "", "v1", "v1", True)
EXAMPLES = [Example(n, {"t": f"text {n}"}) for n in range(300)]


@pytest.fixture
def ensemble(stores):
    return AnnotatorEnsemble(FakeAnnotator(), FakeSimilarity(), FakeEncoder(), stores)


@pytest.fixture
def truth():
    return np.random.default_rng(1).random((len(EXAMPLES), len(VALUES))) < 0.2


@pytest.fixture
def votes(truth):
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


def published(labels_out):
    return np.array([label_out.probabilities for label_out in labels_out]) >= 0.5


def test_before_anything_is_learned_everybody_counts_alike(ensemble, votes):
    label_out = ensemble.fuse(PROJECT, BRIEF, EXAMPLES, votes, found=EnsembleState("v1"))[0]
    both = [np.array(votes[0].probabilities), np.array(votes[300].probabilities)]
    odds = sum(np.log(p / (1 - p)) for p in both) / 2
    np.testing.assert_allclose(label_out.probabilities, expit(odds))


def test_a_noisy_annotator_adds_no_labels(ensemble, votes, truth):
    even = published(ensemble.fuse(PROJECT, BRIEF, EXAMPLES, votes, found=EnsembleState("v1")))
    ensemble.learn(PROJECT, BRIEF, EXAMPLES, votes, {})
    learned = published(ensemble.fuse(PROJECT, BRIEF, EXAMPLES, votes))
    assert (learned == truth).mean() > 0.97 > 0.85 > (even == truth).mean()
    assert learned.sum(axis=1).mean() == pytest.approx(1.3, abs=0.05)


def test_people_of_the_audit_slice_say_how_many_labels_there_are(ensemble, votes, truth):
    seed = holdout_seed(PROJECT.id)
    everybody = [replace(vote, example_id=10 * vote.example_id) for vote in votes]
    examples = [replace(example, id=10 * example.id) for example in EXAMPLES]
    audited = [e.id for e in examples if in_holdout(e.id, seed=seed)]
    assert len(audited) >= 20
    sets = {"topic": {i: frozenset(range(len(VALUES))) for i in audited}}
    found = ensemble.learn(PROJECT, BRIEF, examples, everybody, {}, sets=sets)
    assert found.label_model["topic"]["n_human"] == len(audited)
    assert min(found.label_model["topic"]["base_rates"]) > 0.5
    others = {"topic": {e.id: frozenset() for e in examples if e.id not in audited}}
    unheard = ensemble.learn(PROJECT, BRIEF, examples, everybody, {}, sets=others)
    assert unheard.label_model["topic"]["n_human"] == 0


def test_answers_of_people_become_positions_of_labels():
    labels = {
        7: ConsensusLabel(7, Answer(labels=("c", "a")), 0.9, (), 1, False),
        8: ConsensusLabel(8, Answer(), 0.9, (), 1, False),
    }
    found = labels_by_example(QUESTION, Consensus(labels))
    assert found == {7: frozenset({0, 2}), 8: frozenset()}
    single = replace(QUESTION, kind=QuestionKind.SINGLE_CHOICE)
    assert labels_by_example(single, Consensus(labels)) == {}


def test_studying_spans_asks_the_llm_nothing(stores):
    spans = replace(QUESTION, kind=QuestionKind.SPANS, name="ner")
    annotator = FakeAnnotator()
    ensemble = AnnotatorEnsemble(annotator, FakeSimilarity(), FakeEncoder(), stores)
    guidelines = Guidelines(TaskSchema((spans,)), "")
    assert ensemble.fit_sample(PROJECT, guidelines, EXAMPLES, {}).n_texts == len(EXAMPLES)
    assert annotator.asked == []
