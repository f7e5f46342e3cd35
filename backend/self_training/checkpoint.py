"""State that a training keeps between epochs: averaged weights, best weights, files on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from backend.files import replacing_file

_log = logging.getLogger(__name__)
_N_WARMUP_UPDATES = 10
"""After n updates the average reaches back n + 10 steps at most."""
_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class WeightAverager:
    """Keeps the exponential moving average of a model's weights, and the best epoch's weights."""

    average: dict[str, Tensor] = field(default_factory=dict)
    n_updates: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float | None = None

    @torch.no_grad()
    def update(self, model: Any, decay: float) -> None:
        """Take one step's weights into the average."""
        if not self.average:
            self.average = copy_weights(model)
            return
        self.n_updates += 1
        decay = min(decay, self.n_updates / (self.n_updates + _N_WARMUP_UPDATES))
        names, weights = zip(*model.named_parameters(), strict=True)
        averages = [self.average[name] for name in names]
        torch._foreach_lerp_(averages, [tensor.detach() for tensor in weights], 1 - decay)

    def keep_best(self, score: float, model: Any) -> None:
        """Keep the present weights if they score at least as well as any before."""
        if self.best_score is None or score >= self.best_score:
            self.best_score, self.best = score, copy_weights(model)


def copy_weights(model: Any) -> dict[str, Tensor]:
    """Return a copy of a model's weights by name."""
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


@torch.no_grad()
def set_weights(model: Any, weights: dict[str, Tensor]) -> None:
    """Overwrite a model's weights with those of `copy_weights`."""
    for name, tensor in model.named_parameters():
        tensor.copy_(weights[name])


@contextmanager
def writing_tensors() -> Iterator[None]:
    """Turn the error of safetensors, whose own it is, into an OSError: the disk may be full."""
    try:
        yield
    except SafetensorError as exc:
        raise OSError(str(exc)) from exc


class Checkpoint:
    """The state after the last whole epoch of one training, in a safetensors file.

    It is used only where `fingerprint`, a digest of all that decides a training's course, agrees.
    """

    def __init__(self, folder: Path, name: str, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name.replace('/', '-').replace(' ', '-')}.safetensors"
        self._fingerprint = fingerprint

    def save(
        self, n_epochs: int, model: Any, optimizer: Optimizer, averager: WeightAverager
    ) -> None:
        """Write the state after `n_epochs` epochs; raises OSError."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in model.named_parameters():
            tensors[f"model/{name}"] = tensor.detach()
            for key, value in optimizer.state[tensor].items():
                tensors[f"{key}/{name}"] = torch.as_tensor(value)
        tensors |= {f"average/{name}": tensor for name, tensor in averager.average.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in averager.best.items()}
        state = {
            "fingerprint": self._fingerprint,
            "n_epochs": n_epochs,
            "n_updates": averager.n_updates,
            "best_score": averager.best_score,
        }
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with replacing_file(self._path) as part, writing_tensors():
            save_file(whole, part, {"state": json.dumps(state)})

    def restore(self, model: Any, optimizer: Optimizer, averager: WeightAverager) -> int:
        """Load the state into model, optimizer and averager; return the epochs done, 0 if none."""
        try:
            with safe_open(self._path, framework="pt") as file:
                state = dict(json.loads((file.metadata() or {})["state"]))
        except (OSError, SafetensorError, KeyError, ValueError):
            return 0
        if state.get("fingerprint") != self._fingerprint:
            return 0
        tensors = load_file(self._path)
        set_weights(model, _part(tensors, "model/"))
        for name, tensor in model.named_parameters():
            optimizer.state[tensor] = {
                key: tensors[f"{key}/{name}"].to("cpu" if key == "step" else tensor.device)
                for key in _OPTIMIZER_STATE
            }
        device = next(model.parameters()).device
        averager.average = {k: v.to(device) for k, v in _part(tensors, "average/").items()}
        averager.best = {k: v.to(device) for k, v in _part(tensors, "best/").items()}
        averager.n_updates, averager.best_score = state["n_updates"], state["best_score"]
        _log.info("training resumed stage=%s epochs=%d", self._path.stem, state["n_epochs"])
        return int(state["n_epochs"])


def fingerprint(options: object, *arrays: NDArray[np.generic]) -> str:
    """Return a digest of options and arrays."""
    digest = hashlib.sha256(repr(options).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
