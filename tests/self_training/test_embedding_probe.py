"""The linear probe as a student, its fits and its temperature."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, Recipe
from backend.errors import InvalidRequest
from backend.self_training.embedding_probe import (
    EmbeddingProbe,
    fit_probes,
    fit_temperature,
    predict_proba,
)
from backend.self_training.self_trainer import SelfTrainer
from tests.self_training.conftest import BAD, GOOD, OTHER, reviews, training_set


class WordEncoder:
    """One dimension per word of the tests' vocabulary."""

    def __init__(self, name: str = "words") -> None:
        self.name = name

    def embed(self, texts):
        words = (*GOOD, *BAD, *OTHER)
        counts = np.array([[text.split().count(w) for w in words] for text in texts], float)
        counts = counts.reshape(len(texts), len(words)) + 0.01
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)


def fit(data):
    return SelfTrainer(recipe=Recipe(name="probe"), encoder=WordEncoder()).fit(data)


def test_the_probe_learns_and_finds_wrong_labels():
    texts, labels = reviews(200)
    given = labels.copy()
    given[:20] = 1 - given[:20]
    model, output = fit(training_set(texts, given))
    assert (output.label_issues[:20] < 20).all()
    assert (output.posterior.argmax(axis=1) == labels).sum() > (given == labels).sum()
    unseen, truth = reviews(100, seed=1)
    probabilities = model.predict(PoolTexts(tuple(range(100)), unseen)).probabilities
    assert (probabilities.argmax(axis=1) == truth).mean() > 0.95


def test_a_saved_probe_predicts_the_same(folder):
    texts, labels = reviews(50)
    model, output = fit(training_set(texts, labels))
    model.save(folder)
    again = SelfTrainer(encoder=WordEncoder()).load(folder)
    pool = PoolTexts(tuple(range(50)), texts)
    np.testing.assert_allclose(
        again.predict(pool).probabilities, output.prediction.probabilities, atol=1e-9
    )


def test_a_probe_of_the_first_release_is_loaded(folder):
    folder.mkdir()
    weights = [[0.0, 0.0] for _ in (*GOOD, *BAD, *OTHER)]
    weights[0] = [-5.0, 5.0]
    probe = {"centre": [0.0] * len(weights), "weights": weights, "bias": [0.0, 0.0]}
    stored = {
        "labels": ["bad", "good"],
        "kind": "single_choice",
        "encoder": "words",
        "card": {"Data": "x"},
        "probes": [probe],
    }
    (folder / "probe.json").write_text(json.dumps(stored))
    model = SelfTrainer(encoder=WordEncoder()).load(folder)
    probabilities = model.predict(PoolTexts((1, 2), (GOOD[0], BAD[0]))).probabilities
    assert probabilities[0, 1] > 0.9
    np.testing.assert_allclose(probabilities[1], 0.5, atol=0.1)


def test_a_probe_on_other_vectors_is_refused(folder):
    model, _ = fit(training_set(*reviews(20)))
    model.save(folder)
    with pytest.raises(InvalidRequest, match="vectors of words, not of others"):
        EmbeddingProbe.load(folder, WordEncoder("others"))


def test_several_labels_and_pairs_are_learned():
    texts, labels = reviews(100)
    data = replace(training_set(texts, labels), kind=QuestionKind.MULTIPLE_CHOICE)
    probabilities = fit(data)[1].prediction.probabilities
    assert ((probabilities > 0.5) == (data.targets > 0.5)).mean() > 0.95
    single = training_set(texts, labels)
    paired = replace(single, pool=PoolTexts(single.pool.ids, texts, texts[::-1]))
    probabilities = fit(paired)[1].prediction.probabilities
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize("n_labels", [1, 2, 3, 40])
def test_any_number_of_labels_is_fitted(n_labels):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_labels, 300)
    vectors = rng.normal(size=(n_labels, 60))[labels] + rng.normal(size=(300, 60)) * 0.2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kind = QuestionKind.SINGLE_CHOICE
    probes = fit_probes(vectors, np.eye(n_labels)[labels], np.ones(300), kind)
    predicted = predict_proba(probes, vectors)
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert (predicted.argmax(axis=1) == labels).mean() > 0.95


def test_one_text_is_enough():
    assert fit(training_set(("good",), np.array([0])))[1].prediction.probabilities.shape == (1, 2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_the_logits_were_stretched_by(factor):
    logits = np.random.default_rng(0).normal(0, 2, (2000, 3))
    targets = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert fit_temperature(logits * factor, targets) == pytest.approx(factor, rel=0.01)


def test_few_texts_leave_the_temperature_alone():
    assert fit_temperature(np.ones((5, 2)), np.ones((5, 2)) / 2) == 1.0
