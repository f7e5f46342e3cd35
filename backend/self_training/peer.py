"""Run as `torch.distributed.run -m backend.self_training.peer FOLDER`: one of the processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.student import TrainingHooks, TrainingProgress
from backend.errors import BackendError
from backend.self_training import peers
from backend.self_training.self_trainer import SelfTrainer
from backend.self_training.side_by_side import MODEL, own_up, read_order, tell, write_output


class KnownVectors:
    """The `Encoder` port over vectors that were made before."""

    name = "known"

    def __init__(self, vectors: Mapping[str, Any]) -> None:
        self._vectors = vectors

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector per text, shape (n, d)."""
        return np.array([self._vectors[text] for text in texts], dtype=np.float32)


def main(folder: Path) -> None:
    """Train what is ordered; the first process writes the result, or why there is none."""
    order = read_order(folder)
    peers.join_peers(on_cpu=order.is_on_cpu)

    def listen(progress: TrainingProgress) -> None:
        if peers.is_first():
            tell(progress, folder)

    hooks = TrainingHooks(on_progress=listen, checkpoints=order.checkpoints)
    encoder = None if order.vectors is None else KnownVectors(order.vectors)
    small_model = SelfTrainer(order.base, recipe=order.recipe, encoder=encoder)
    try:
        model, output = small_model.fit(order.data, seed=order.seed, hooks=hooks)
    except BackendError as error:
        own_up(error, folder)
        sys.exit(1)
    if peers.is_first():
        model.save(folder / MODEL)
        write_output(output, folder)
    peers.leave_peers()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
