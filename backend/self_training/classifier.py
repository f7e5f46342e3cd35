"""A transformer that labels whole texts: made, asked, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, StudentPrediction
from backend.label_model.linear_probe import LinearProbe
from backend.self_training import head_init as start
from backend.self_training import losses
from backend.self_training.batches import Tokens, reading_batches, tokenize
from backend.self_training.encoder import compute_device, embedded_encoder_folder, has_fast_bf16
from backend.self_training.pretrained import Pretrained, read_ours, under_new_head


@dataclass(frozen=True, slots=True)
class ClassifierSpec:
    """Which encoder answers what; `base` is a hub name or a folder, "" the embedded encoder."""

    labels: tuple[str, ...]
    kind: QuestionKind
    base: str = ""
    max_tokens: int = 256


class TextClassifier:
    """Sequence classification with the base model's own head, so that transformers can load it.

    The head reads what the base model's architecture gives it (BERT and RoBERTa: the first token,
    ModernBERT: as its config says). Embeddings are the mean of the last layer's token vectors, at
    unit length.
    """

    def __init__(self, model: Any, tokenizer: Any, spec: ClassifierSpec) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.spec = spec
        self.device = compute_device()
        self.model.to(self.device)
        self._bf16 = has_fast_bf16(self.device)

    @classmethod
    def create(
        cls, spec: ClassifierSpec, *, seed: int, reads_all_tokens: bool = False
    ) -> TextClassifier:
        """Return the base model under a new head; raises SettingsError.

        With `reads_all_tokens` the head reads their mean where `start` knows how to make it.
        """
        torch.manual_seed(seed)
        base = spec.base or str(embedded_encoder_folder())
        made = under_new_head(AutoModelForSequenceClassification, base, _head(spec))
        if reads_all_tokens:
            start.use_mean_pooling(made.model)
        return cls(made.model, made.tokenizer, spec)

    @classmethod
    def load(cls, folder: Path) -> TextClassifier:
        """Read what `save` wrote; raises InvalidRequest."""

        def read_spec(ours: Mapping[str, Any]) -> ClassifierSpec:
            kind = QuestionKind(ours["kind"])
            return ClassifierSpec(tuple(ours["labels"]), kind, str(folder), ours["max_tokens"])

        read, spec = read_ours(
            AutoModelForSequenceClassification, folder, read_spec, what="small model"
        )
        return cls(read.model, read.tokenizer, spec)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the label space that probabilities follow."""
        return self.spec.labels

    def tokenize(self, pool: PoolTexts) -> Tokens:
        """Return the pool's tokens, cut at the spec's `max_tokens`."""
        return tokenize(self.tokenizer, pool, max_tokens=self.spec.max_tokens)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes: bfloat16 where that is fast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def predict(
        self, pool: PoolTexts, *, between: Callable[[], None] = lambda: None
    ) -> StudentPrediction:
        """Answer for each text, in order; `between` is called before each batch."""
        return self.read(self.tokenize(pool), between=between)

    def read(
        self, tokens: Tokens, *, between: Callable[[], None] = lambda: None
    ) -> StudentPrediction:
        """Answer for texts that are tokenized already."""
        logits, embeddings = self.logits(tokens, between=between)
        answers = losses.probabilities(torch.from_numpy(logits).double(), self.spec.kind)
        return StudentPrediction(answers.numpy(), embeddings)

    def logits(
        self, tokens: Tokens, *, between: Callable[[], None] = lambda: None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits (n, K) and unit vectors (n, d)."""
        logits = np.zeros((len(tokens), len(self.labels)), dtype=np.float32)
        vectors = np.zeros((len(tokens), self.model.config.hidden_size), dtype=np.float32)
        self.model.eval()
        for rows in reading_batches(tokens.lengths):
            between()
            inputs = tokens.collate(rows, self.device)
            with torch.inference_mode(), self.autocast():
                output = self.model(**inputs, output_hidden_states=True)
                states = output.hidden_states[-1].float()
                mask = inputs["attention_mask"][..., None]
                means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
                units = torch.nn.functional.normalize(means, dim=1)
            logits[rows] = output.logits.float().cpu().numpy()
            vectors[rows] = units.cpu().numpy()
        return logits, vectors

    def head_states(
        self, tokens: Tokens, *, between: Callable[[], None] = lambda: None
    ) -> NDArray[np.float64]:
        """Return what the head's last layer reads of each text, shape (n, d)."""
        layer = output_layer(self.model, len(self.labels))
        states = np.zeros((len(tokens), layer.in_features))
        caught: list[torch.Tensor] = []
        handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        self.model.eval()
        try:
            for rows in reading_batches(tokens.lengths):
                between()
                caught.clear()
                with torch.inference_mode(), self.autocast():
                    self.model(**tokens.collate(rows, self.device))
                states[rows] = caught[0].double().cpu().numpy()
        finally:
            handle.remove()
        return states

    def start_from(self, probes: tuple[LinearProbe, ...], *, size: float) -> None:
        """Let the head say what probes say that were fitted on `head_states` over `size`."""
        start.init_head_from_probe(probes, output_layer(self.model, len(self.labels)), size=size)

    def sharpen(self, temperature: float) -> None:
        """Divide the logits by a temperature for good, in the head's own weights.

        So the calibrated probabilities come out of any program that loads the files.
        """
        head = output_layer(self.model, len(self.labels))
        with torch.no_grad():
            head.weight.div_(temperature)
            if head.bias is not None:
                head.bias.div_(temperature)

    def save(self, folder: Path, *, card: Mapping[str, str] | None = None) -> None:
        """Write model, tokenizer and card; a folder that is there is replaced as a whole."""
        ours = {
            "labels": list(self.labels),
            "kind": self.spec.kind.value,
            "max_tokens": self.spec.max_tokens,
        }
        made = Pretrained(self.model, self.tokenizer)
        made.write(folder, ours, card=card, task="text-classification")


def output_layer(model: Any, n_labels: int) -> torch.nn.Linear:
    """Return the last linear layer that has one output per label."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == n_labels
    ]
    return layers[-1]


def _head(spec: ClassifierSpec) -> dict[str, Any]:
    is_multiple = spec.kind.is_multilabel
    return {
        "num_labels": len(spec.labels),
        "id2label": dict(enumerate(spec.labels)),
        "label2id": {label: index for index, label in enumerate(spec.labels)},
        "problem_type": (
            "multi_label_classification" if is_multiple else "single_label_classification"
        ),
    }


def decide(probabilities: NDArray[np.floating], kind: QuestionKind) -> NDArray[np.int64]:
    """Return the label index of each text for an exclusive question, shape (n,).

    The likeliest label; on an ordered scale the median of the distribution, which makes the
    expected distance least.
    """
    if not kind.is_ordinal:
        return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
    return np.asarray((probabilities.cumsum(axis=1) < 0.5).sum(axis=1), dtype=np.int64).clip(
        max=probabilities.shape[1] - 1
    )
