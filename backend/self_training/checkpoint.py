"""What a training keeps between epochs: its state on disk, averaged weights, the best epoch."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.files import replacing_file

_log = logging.getLogger(__name__)
_YOUTH = 10
"""Averaging starts short: after n steps it reaches back n + 10 at most."""
_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class WeightAverager:
    """Weights that a training remembers: the running average and the best epoch's."""

    average: dict[str, Tensor] = field(default_factory=dict)
    n_updates: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_score: float | None = None

    @torch.no_grad()
    def average_in(self, model: Any, decay: float) -> None:
        """Take one step's weights into the exponential moving average."""
        if not self.average:
            self.average = snapshot(model)
            return
        self.n_updates += 1
        decay = min(decay, self.n_updates / (self.n_updates + _YOUTH))
        names, fresh = zip(*model.named_parameters(), strict=True)
        ours = [self.average[name] for name in names]
        torch._foreach_lerp_(ours, [tensor.detach() for tensor in fresh], 1 - decay)

    def keep_best(self, score: float, model: Any) -> None:
        """Remember the present weights if they score at least as well as any before."""
        if self.best_score is None or score >= self.best_score:
            self.best_score, self.best = score, snapshot(model)


def snapshot(model: Any) -> dict[str, Tensor]:
    """Return a copy of a model's weights by name."""
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


@torch.no_grad()
def put_back(model: Any, weights: dict[str, Tensor]) -> None:
    """Overwrite a model's weights with those of `snapshot`."""
    for name, tensor in model.named_parameters():
        tensor.copy_(weights[name])


class Checkpoint:
    """The state after the last whole epoch of one training, in safetensors.

    `fingerprint` is a digest of all that decides the training's course; the state of another
    training is passed over.
    """

    def __init__(self, folder: Path, name: str, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{name.replace('/', '-').replace(' ', '-')}.safetensors"
        self._fingerprint = fingerprint

    def keep(
        self, n_epochs: int, model: Any, optimizer: torch.optim.Optimizer, memory: WeightAverager
    ) -> None:
        """Write the state under a temporary name, then rename."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in model.named_parameters():
            tensors[f"model/{name}"] = tensor.detach()
            for key, value in optimizer.state[tensor].items():
                tensors[f"{key}/{name}"] = torch.as_tensor(value)
        tensors |= {f"average/{name}": tensor for name, tensor in memory.average.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in memory.best.items()}
        head = {
            "fingerprint": self._fingerprint,
            "n_epochs": n_epochs,
            "n_updates": memory.n_updates,
            "best_score": memory.best_score,
        }
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        with replacing_file(self._path) as part:
            save_file(whole, part, {"state": json.dumps(head)})

    def restore(self, model: Any, optimizer: torch.optim.Optimizer, memory: WeightAverager) -> int:
        """Take the state up; return how many epochs are done, 0 when there is none of ours."""
        head = self._head()
        if head.get("fingerprint") != self._fingerprint:
            return 0
        tensors = load_file(self._path)
        put_back(model, _part(tensors, "model/"))
        for name, tensor in model.named_parameters():
            optimizer.state[tensor] = {
                key: tensors[f"{key}/{name}"].to("cpu" if key == "step" else tensor.device)
                for key in _OPTIMIZER_STATE
            }
        device = next(model.parameters()).device
        memory.average = {k: v.to(device) for k, v in _part(tensors, "average/").items()}
        memory.best = {k: v.to(device) for k, v in _part(tensors, "best/").items()}
        memory.n_updates, memory.best_score = head["n_updates"], head["best_score"]
        _log.info("training resumed stage=%s epochs=%d", self._path.stem, head["n_epochs"])
        return int(head["n_epochs"])

    def _head(self) -> dict[str, Any]:
        try:
            with safe_open(self._path, framework="pt") as file:
                return dict(json.loads((file.metadata() or {})["state"]))
        except (OSError, SafetensorError, KeyError, ValueError):
            return {}


def fingerprint(plan: object, *arrays: NDArray[np.generic]) -> str:
    """Return a digest of options and arrays."""
    digest = hashlib.sha256(repr(plan).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
