"""A transformer that classifies whole texts, and how its head pools and starts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForSequenceClassification

from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, StudentPrediction
from backend.label_model.linear_probe import LinearProbe
from backend.self_training.encoder import mean_embeddings
from backend.self_training.pretrained import PretrainedModel, create_model, load_model
from backend.self_training.tokens import Tokens, truncate

_MEAN_GAIN = 4.0
"""Weight of the mean of all tokens over the token's own state in the added layer."""
_POOLER_GAIN = 0.5
"""Small enough for the pooler's tanh to be nearly linear on states of unit variance."""
_BERT_LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer")


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """Labels, base model (hub name or folder, "" for the embedded encoder) and truncation."""

    labels: tuple[str, ...]
    kind: QuestionKind
    base: str = ""
    max_tokens: int = 256


class TextClassifier(PretrainedModel[ClassifierSpec]):
    """Sequence classification with the base model's own head, so that transformers can load it.

    The head reads what the base model's architecture gives it (BERT and RoBERTa: the first token,
    ModernBERT: as its config says). Embeddings are the mean of the last layer's token vectors, at
    unit length.
    """

    @classmethod
    def create(
        cls, spec: ClassifierSpec, *, seed: int, mean_pooling: bool = False
    ) -> TextClassifier:
        """Return the base model with a new random head; raises SettingsError.

        With `mean_pooling` the head reads the mean of all tokens where the architecture allows it.
        """
        problem = f"{'multi' if spec.kind.is_multilabel else 'single'}_label_classification"
        architecture = AutoModelForSequenceClassification
        model, tokenizer = create_model(
            architecture, spec.base, spec.labels, seed=seed, problem_type=problem
        )
        if mean_pooling:
            use_mean_pooling(model)
        return cls(model, tokenizer, spec)

    @classmethod
    def load(cls, folder: Path) -> TextClassifier:
        """Read what `save` wrote; raises InvalidRequest."""

        def read_spec(stored: Mapping[str, Any]) -> ClassifierSpec:
            kind = QuestionKind(stored["kind"])
            return ClassifierSpec(tuple(stored["labels"]), kind, str(folder), stored["max_tokens"])

        architecture = AutoModelForSequenceClassification
        return cls(*load_model(architecture, folder, read_spec, what="student"))

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write model, tokenizer and card; an existing folder is replaced as a whole."""
        kind, max_tokens = self.spec.kind.value, self.spec.max_tokens
        spec = {"labels": list(self.labels), "kind": kind, "max_tokens": max_tokens}
        self.write(folder, spec, card=card, task="text-classification")

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels in the order of the probabilities' columns."""
        return self.spec.labels

    @property
    def output_layer(self) -> nn.Linear:
        """Return the head's last linear layer, which has one output per label."""
        linears = [each for each in self.model.modules() if isinstance(each, nn.Linear)]
        return [layer for layer in linears if layer.out_features == len(self.labels)][-1]

    def tokenize(self, pool: PoolTexts) -> Tokens:
        """Return the pool's tokens, truncated to `max_tokens`; "" has special tokens only."""
        pad_id, max_tokens = self.tokenizer.pad_token_id or 0, self.spec.max_tokens
        if not len(pool):
            return Tokens([], None, pad_id)
        texts = truncate(pool.texts, max_tokens)
        pairs = truncate(pool.pairs, max_tokens) if pool.pairs is not None else None
        encoded = self.tokenizer(texts, pairs, truncation=True, max_length=max_tokens)
        return Tokens(encoded["input_ids"], encoded.get("token_type_ids"), pad_id)

    def predict(self, pool: PoolTexts) -> StudentPrediction:
        """Predict the labels of each text, in order."""
        return self.predict_tokens(self.tokenize(pool))

    def predict_tokens(
        self, tokens: Tokens, *, before_batch: Callable[[], None] = lambda: None
    ) -> StudentPrediction:
        """Predict the labels of tokenized texts; `before_batch` is called before each batch."""
        logits, embeddings = self.logits(tokens, before_batch=before_batch)
        scores = torch.from_numpy(logits).double()
        probabilities = scores.sigmoid() if self.spec.kind.is_multilabel else scores.softmax(dim=1)
        return StudentPrediction(probabilities.numpy(), embeddings)

    def logits(
        self, tokens: Tokens, *, before_batch: Callable[[], None] = lambda: None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits (n, K) and unit vectors (n, d)."""
        logits = np.zeros((len(tokens), len(self.labels)), dtype=np.float32)
        vectors = np.zeros((len(tokens), self.model.config.hidden_size), dtype=np.float32)
        batches = self.forward(tokens, before_batch, output_hidden_states=True)
        for rows, attention_mask, output in batches:
            logits[rows] = output.logits.float().cpu().numpy()
            vectors[rows] = mean_embeddings(output.hidden_states[-1], attention_mask)
        return logits, vectors

    @contextmanager
    def catch_head_states(self) -> Iterator[list[torch.Tensor]]:
        """Yield a list that collects what the output layer reads, (n, d), in each forward pass."""
        states: list[torch.Tensor] = []
        layer = self.output_layer
        handle = layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        try:
            yield states
        finally:
            handle.remove()

    def head_states(
        self, tokens: Tokens, *, before_batch: Callable[[], None] = lambda: None
    ) -> NDArray[np.float64]:
        """Return what the output layer reads of each text, shape (n, d)."""
        out = np.zeros((len(tokens), self.output_layer.in_features))
        with self.catch_head_states() as states:
            for rows, _, _ in self.forward(tokens, before_batch):
                out[rows] = states.pop().double().cpu().numpy()
        return out

    @torch.no_grad()
    def init_head_from_probe(self, probes: tuple[LinearProbe, ...], *, scale: float) -> None:
        """Give the output layer the weights of probes fitted on `head_states` / `scale`.

        One over all labels, or one of two classes for each label, whose log-odds are the logits.
        """
        layer = self.output_layer
        origin = np.zeros((1, layer.in_features))
        slopes, bias = probes[0].weights, probes[0].scores(origin)[0]
        if len(probes) > 1 or slopes.shape[1] != layer.out_features:
            slopes = np.hstack([probe.weights[:, 1:] - probe.weights[:, :1] for probe in probes])
            bias = np.hstack([np.diff(probe.scores(origin)[0]) for probe in probes])
        layer.weight.copy_(torch.as_tensor(slopes.T / scale, dtype=layer.weight.dtype))
        if layer.bias is not None:
            layer.bias.copy_(torch.as_tensor(bias, dtype=layer.bias.dtype))

    @torch.no_grad()
    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature for good, in the output layer's own weights.

        So the calibrated probabilities come out of any program that loads the files.
        """
        layer = self.output_layer
        layer.weight.div_(temperature)
        if layer.bias is not None:
            layer.bias.div_(temperature)


@torch.no_grad()
def use_mean_pooling(model: Any) -> bool:
    """Let the head read the mean of all tokens instead of the first; return whether it does.

    A sentence encoder's meaning is in the mean of its tokens; the first one's state was never
    trained for it. BERT-like models get one layer more, whose attention is even and whose other
    parts pass on what they get: its first token is the mean, and the files stay ordinary ones.
    ModernBERT has a setting for it; other architectures are left as they are. Cost: one layer in
    training and use.
    """
    if hasattr(model.config, "classifier_pooling"):
        model.config.classifier_pooling = "mean"
        return True
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if layers is None or len(layers) == 0 or type(layers[-1]).__name__ not in _BERT_LAYERS:
        return False
    layers.append(_mean_pooling_layer(layers[-1], len(layers)))
    model.config.num_hidden_layers = len(layers)
    # The head's hidden layer: BERT's is in its pooler, RoBERTa's in its classifier.
    for parent in (getattr(model.base_model, "pooler", None), getattr(model, "classifier", None)):
        dense = getattr(parent, "dense", None)
        if isinstance(dense, nn.Linear):
            nn.init.eye_(dense.weight).mul_(_POOLER_GAIN)
            nn.init.zeros_(dense.bias)
    return True


def _mean_pooling_layer(last: Any, index: int) -> Any:
    """Return a copy of a layer that puts the mean of all tokens into each."""
    layer = copy.deepcopy(last)
    attention = layer.attention.self
    attention.layer_idx = index
    for linear in (attention.query, attention.key):
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    nn.init.eye_(attention.value.weight)
    nn.init.eye_(layer.attention.output.dense.weight).mul_(_MEAN_GAIN)
    nn.init.zeros_(layer.output.dense.weight)
    for linear in (attention.value, layer.attention.output.dense, layer.output.dense):
        nn.init.zeros_(linear.bias)
    for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    return layer


def predicted_labels(probabilities: NDArray[np.floating], kind: QuestionKind) -> NDArray[np.int64]:
    """Return the label index of each text for an exclusive question, shape (n,).

    The likeliest label; on an ordered scale the median of the distribution, which makes the
    expected distance least.
    """
    if not kind.is_ordinal:
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    medians = (probabilities.cumsum(axis=1) < 0.5).sum(axis=1)
    return np.asarray(medians, dtype=np.int64).clip(max=probabilities.shape[1] - 1)
