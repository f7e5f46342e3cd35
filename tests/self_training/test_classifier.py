"""The classifier's head: mean pooling, a start from a probe, predicted labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ModernBertConfig, RobertaConfig, RobertaForSequenceClassification

from backend.domain.questions import QuestionKind
from backend.self_training.classifier import (
    ClassifierSpec,
    TextClassifier,
    predicted_labels,
    use_mean_pooling,
)
from backend.self_training.embedding_probe import fit_probes, predict_proba
from tests.self_training.conftest import reviews, training_set

TEXTS, LABELS = reviews(60)
POOL = training_set(TEXTS, LABELS).pool


def new_model(base: str, n_labels: int = 2, kind: QuestionKind = QuestionKind.SINGLE_CHOICE):
    labels = tuple(f"label {number}" for number in range(n_labels))
    spec = ClassifierSpec(labels, kind, base, max_tokens=32)
    return TextClassifier.create(spec, seed=0, mean_pooling=True)


def test_with_mean_pooling_the_head_reads_the_mean_of_all_tokens(tiny_base):
    model = new_model(tiny_base)
    tokens = model.tokenize(POOL)
    states = model.head_states(tokens)
    inputs = tokens.collate(range(len(TEXTS)), model.device)
    with torch.inference_mode():
        output = model.model.bert(**inputs, output_hidden_states=True)
    before = output.hidden_states[-2]
    mask = inputs["attention_mask"][..., None]
    means = ((before * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    correlations = [
        np.corrcoef(state, mean)[0, 1] for state, mean in zip(states, means, strict=True)
    ]
    assert np.median(correlations) > 0.9
    assert model.model.config.num_hidden_layers == 3


def test_the_head_starts_as_the_probe(tiny_base):
    model = new_model(tiny_base)
    states = model.head_states(model.tokenize(POOL))
    targets = np.eye(2)[LABELS]
    probes = fit_probes(states / 2.5, targets, np.ones(60), QuestionKind.SINGLE_CHOICE)
    model.init_head_from_probe(probes, scale=2.5)
    predicted = model.predict(POOL).probabilities
    np.testing.assert_allclose(predicted, predict_proba(probes, states / 2.5), atol=0.02)
    assert np.ptp(predicted[:, 0]) > 0.05


@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_several_labels_start_with_a_probe_each(tiny_base, n_labels):
    kind = QuestionKind.MULTIPLE_CHOICE
    model = new_model(tiny_base, n_labels, kind)
    states = model.head_states(model.tokenize(POOL))
    targets = np.random.default_rng(0).integers(0, 2, (60, n_labels)).astype(float)
    probes = fit_probes(states, targets, np.ones(60), kind)
    model.init_head_from_probe(probes, scale=1.0)
    predicted = model.predict(POOL).probabilities
    expected = np.stack([probe.posterior(states)[:, 1] for probe in probes], axis=1)
    np.testing.assert_allclose(predicted, expected, atol=0.02)


def test_a_saved_model_is_loaded_as_it_was(tiny_base, tmp_path):
    model = new_model(tiny_base)
    model.save(tmp_path / "model")
    loaded = TextClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(
        loaded.predict(POOL).probabilities, model.predict(POOL).probabilities, atol=1e-6
    )


def test_mean_pooling_works_for_roberta_too():
    config = RobertaConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=1,
    )
    model = RobertaForSequenceClassification(config).eval()
    assert use_mean_pooling(model)
    inputs = {"input_ids": torch.tensor([[0, 5, 6, 2]]), "attention_mask": torch.ones(1, 4)}
    with torch.inference_mode():
        states = model.roberta(**inputs, output_hidden_states=True).hidden_states
    correlations = torch.corrcoef(torch.stack([states[-1][0, 0], states[-2][0].mean(dim=0)]))[0, 1]
    assert correlations > 0.9


def test_an_architecture_with_a_pooling_option_is_set_to_mean():
    class Model:
        config = ModernBertConfig(classifier_pooling="cls")

    assert use_mean_pooling(Model())
    assert Model.config.classifier_pooling == "mean"


def test_other_architectures_are_left_alone():
    class Model:
        config = object()
        base_model = object()

    assert not use_mean_pooling(Model())


def test_a_rating_is_the_median_and_a_choice_the_likeliest():
    probabilities = np.array([[0.4, 0.15, 0.45]])
    assert predicted_labels(probabilities, QuestionKind.RATING).tolist() == [1]
    assert predicted_labels(probabilities, QuestionKind.SINGLE_CHOICE).tolist() == [2]
