"""Where a fine-tune starts: the head reads all tokens and says what a probe says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import ModernBertConfig, RobertaConfig, RobertaForSequenceClassification

from backend.domain.questions import QuestionKind
from backend.self_training import head_init as start
from backend.self_training.classifier import ClassifierSpec, TextClassifier
from backend.self_training.linear_heads import answers, fit_probes
from tests.self_training.conftest import reviews, training_set

TEXTS, LABELS = reviews(60)
POOL = training_set(TEXTS, LABELS).pool


def made(base: str, n_labels: int = 2, kind: QuestionKind = QuestionKind.SINGLE_CHOICE):
    labels = tuple(f"label {number}" for number in range(n_labels))
    spec = ClassifierSpec(labels, kind, base, max_tokens=32)
    return TextClassifier.create(spec, seed=0, reads_all_tokens=True)


def test_the_head_reads_the_mean_of_all_tokens(tiny_base):
    model = made(tiny_base)
    tokens = model.tokenize(POOL)
    states = model.head_states(tokens)
    inputs = tokens.collate(range(len(TEXTS)), model.device)
    with torch.inference_mode():
        output = model.model.bert(**inputs, output_hidden_states=True)
    before = output.hidden_states[-2]
    mask = inputs["attention_mask"][..., None]
    means = ((before * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    like = [np.corrcoef(state, mean)[0, 1] for state, mean in zip(states, means, strict=True)]
    assert np.median(like) > 0.9
    assert model.model.config.num_hidden_layers == 3


def test_the_head_starts_as_the_probe(tiny_base):
    model = made(tiny_base)
    states = model.head_states(model.tokenize(POOL))
    targets = np.eye(2)[LABELS]
    probes = fit_probes(states / 2.5, targets, np.ones(60), QuestionKind.SINGLE_CHOICE)
    model.start_from(probes, size=2.5)
    said = model.predict(POOL).probabilities
    np.testing.assert_allclose(said, answers(probes, states / 2.5), atol=0.02)
    assert np.ptp(said[:, 0]) > 0.05


@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_several_labels_start_with_a_probe_each(tiny_base, n_labels):
    kind = QuestionKind.MULTIPLE_CHOICE
    model = made(tiny_base, n_labels, kind)
    states = model.head_states(model.tokenize(POOL))
    targets = np.random.default_rng(0).integers(0, 2, (60, n_labels)).astype(float)
    probes = fit_probes(states, targets, np.ones(60), kind)
    model.start_from(probes, size=1.0)
    said = model.predict(POOL).probabilities
    expected = np.stack([probe.posterior(states)[:, 1] for probe in probes], axis=1)
    np.testing.assert_allclose(said, expected, atol=0.02)


def test_a_started_model_is_read_back_as_it_was(tiny_base, tmp_path):
    model = made(tiny_base)
    model.save(tmp_path / "model")
    read = TextClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(
        read.predict(POOL).probabilities, model.predict(POOL).probabilities, atol=1e-6
    )


def test_a_roberta_reads_all_tokens_too():
    config = RobertaConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=1,
    )
    model = RobertaForSequenceClassification(config).eval()
    assert start.use_mean_pooling(model)
    inputs = {"input_ids": torch.tensor([[0, 5, 6, 2]]), "attention_mask": torch.ones(1, 4)}
    with torch.inference_mode():
        states = model.roberta(**inputs, output_hidden_states=True).hidden_states
    like = torch.corrcoef(torch.stack([states[-1][0, 0], states[-2][0].mean(dim=0)]))[0, 1]
    assert like > 0.9


def test_an_architecture_with_a_setting_for_it_is_set():
    class Model:
        config = ModernBertConfig(classifier_pooling="cls")

    assert start.use_mean_pooling(Model())
    assert Model.config.classifier_pooling == "mean"


def test_other_architectures_are_left_alone():
    class Model:
        config = object()
        base_model = object()

    assert not start.use_mean_pooling(Model())
