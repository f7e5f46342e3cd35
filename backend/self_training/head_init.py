"""Where a fine-tune starts: a head that already says what the frozen encoder's vectors tell."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backend.label_model.linear_probe import LinearProbe

Floats = NDArray[np.float64]

_MEANS_SHARE = 4.0
"""How much louder the mean of all tokens is than the token's own state in the added layer."""
_POOLER_GAIN = 0.5
"""Small enough for the pooler's tanh to be nearly linear on states of unit variance."""
_OWN_LAYERS = ("BertLayer", "RobertaLayer", "XLMRobertaLayer")


@torch.no_grad()
def use_mean_pooling(model: Any) -> bool:
    """Let the head read the mean of all tokens where it would read the first alone.

    A sentence encoder's meaning is in the mean of its tokens; the first one's state was never
    trained for it. BERT-like models get one layer more, whose attention is even and whose other
    parts pass on what they get: its first token is the mean, and the files stay ordinary ones.
    ModernBERT has a setting for it. Returns whether the head reads the mean now; other
    architectures are left as they are. Cost: one layer in training and use.
    """
    if hasattr(model.config, "classifier_pooling"):
        model.config.classifier_pooling = "mean"
        return True
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if layers is None or len(layers) == 0 or type(layers[-1]).__name__ not in _OWN_LAYERS:
        return False
    layers.append(_averaging(layers[-1], len(layers)))
    model.config.num_hidden_layers = len(layers)
    for dense in _dense_before_tanh(model):
        nn.init.eye_(dense.weight).mul_(_POOLER_GAIN)
        nn.init.zeros_(dense.bias)
    return True


def _averaging(last: Any, place: int) -> Any:
    """Return a copy of a layer that puts the mean of all tokens into each."""
    layer = copy.deepcopy(last)
    attention = layer.attention.self
    attention.layer_idx = place
    for linear in (attention.query, attention.key):
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
    nn.init.eye_(attention.value.weight)
    nn.init.eye_(layer.attention.output.dense.weight).mul_(_MEANS_SHARE)
    nn.init.zeros_(layer.output.dense.weight)
    for linear in (attention.value, layer.attention.output.dense, layer.output.dense):
        nn.init.zeros_(linear.bias)
    for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    return layer


def _dense_before_tanh(model: Any) -> list[nn.Linear]:
    """Return the head's hidden layer: BERT's is in its pooler, RoBERTa's in its classifier."""
    places = (getattr(model.base_model, "pooler", None), getattr(model, "classifier", None))
    found = [getattr(place, "dense", None) for place in places]
    return [dense for dense in found if isinstance(dense, nn.Linear)]


@torch.no_grad()
def init_head_from_probe(probes: tuple[LinearProbe, ...], layer: nn.Linear, *, size: float) -> None:
    """Give the head's last layer the weights of probes on what that layer reads, over `size`.

    One probe over all labels, or one of two classes for each label, whose log-odds are the logits.
    """
    if len(probes) > 1 or probes[0].weights.shape[1] != layer.out_features:
        slopes = np.hstack([probe.weights[:, 1:] - probe.weights[:, :1] for probe in probes])
        biases = np.hstack([probe.bias[1:] - probe.bias[:1] for probe in probes])
        bias = biases - [float(probe.center @ slopes[:, k]) for k, probe in enumerate(probes)]
    else:
        slopes = probes[0].weights
        bias = probes[0].bias - probes[0].center @ slopes
    layer.weight.copy_(torch.as_tensor(slopes.T / size, dtype=layer.weight.dtype))
    if layer.bias is not None:
        layer.bias.copy_(torch.as_tensor(bias, dtype=layer.bias.dtype))
