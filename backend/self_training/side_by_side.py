"""A training by several processes, one per GPU: what goes in, what comes out, and who watches.

The processes are started by torch's launcher and meet through `accelerate` (`peers`). Order and
result travel as files in a folder: JSON, arrays, and the model as it is saved everywhere.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from backend import errors
from backend.domain.ports import Encoder
from backend.domain.questions import QuestionKind
from backend.domain.student import (
    FittedStudent,
    PoolTexts,
    Recipe,
    Student,
    StudentOutput,
    StudentPrediction,
    TrainingHooks,
    TrainingProgress,
    TrainingReport,
    TrainingSet,
)
from backend.errors import BackendError, TrainingCancelled, TrainingError
from backend.files import replacing_file

_LOOK_S = 0.2
_ORDER, _RESULT, _FAILURE, _PROGRESS = "order.json", "result.json", "failure.json", "progress.json"
_ORDER_ARRAYS, _RESULT_ARRAYS = "order.npz", "result.npz"
MODEL = "model"


class Running(Protocol):
    """A started program."""

    def exit_code(self) -> int | None:
        """Return how it ended, None while it runs."""
        ...

    def stop(self) -> None:
        """End it and all that it started."""
        ...

    def log_tail(self) -> str:
        """Return a sentence with its last lines."""
        ...


Start = Callable[[tuple[str, ...], Path], Running]
"""Starts a program with its arguments; its output goes to a file."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the processes are to train; `vectors` are the frozen encoder's of `texts`."""

    data: TrainingSet
    recipe: Recipe
    base: str
    seed: int
    checkpoints: Path | None = None
    is_on_cpu: bool = False
    vectors: Mapping[str, Any] | None = None


class SideBySide:
    """The `Student` port: trains by `n_processes` at once, reads and answers alone.

    The same as `alone` but for the rounding: every process sees the same numbers and takes its
    share of each batch. A training of fewer than `fewest_texts` texts is left to `alone`: to start
    processes takes longer than it saves. Ends its processes when cancelled, and they end with it.
    """

    def __init__(
        self,
        alone: Student,
        order: Callable[[TrainingSet, int, TrainingHooks], Order],
        start: Start,
        *,
        n_processes: int,
        fewest_texts: int = 0,
    ) -> None:
        self._alone = alone
        self._order = order
        self._start = start
        self._n_processes = n_processes
        self._fewest_texts = fewest_texts

    def fit(
        self, data: TrainingSet, *, seed: int = 0, hooks: TrainingHooks | None = None
    ) -> tuple[FittedStudent, StudentOutput]:
        """Train on `data`; see the port. Raises SmallModelError when a process fails."""
        hooks = hooks or TrainingHooks()
        if self._n_processes < 2 or len(data.pool) < self._fewest_texts:
            return self._alone.fit(data, seed=seed, hooks=hooks)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_order(self._order(data, seed, hooks), folder)
            argv = command(self._n_processes, folder)
            running = self._start(argv, folder / "training.log")
            try:
                _watch(running, folder, hooks)
            finally:
                running.stop()
            return self._alone.load(folder / MODEL), read_output(folder)

    def load(self, folder: Path) -> FittedStudent:
        """Read what `FittedStudent.save` wrote; raises InvalidRequest."""
        return self._alone.load(folder)


def command(n_processes: int, folder: Path) -> tuple[str, ...]:
    """Return the program that trains what lies in a folder by so many processes."""
    return (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--local-addr", "127.0.0.1", "--nproc-per-node", str(n_processes)),
        *("-m", "backend.self_training.peer", str(folder)),
    )


def known_vectors(encoder: Encoder | None, pool: PoolTexts) -> dict[str, Any] | None:
    """Return the frozen encoder's vectors of all texts, so that no process has to embed again."""
    if encoder is None:
        return None
    texts = _distinct(pool)
    return dict(zip(texts, encoder.embed(texts), strict=True))


def _distinct(pool: PoolTexts) -> list[str]:
    return sorted({*pool.texts, *(pool.pairs or ())})


def write_order(order: Order, folder: Path) -> None:
    """Write what `read_order` reads."""
    data, vectors = order.data, order.vectors
    frozen = [] if vectors is None else [vectors[text] for text in _distinct(data.pool)]
    said = {
        "ids": data.pool.ids,
        "texts": data.pool.texts,
        "pairs": data.pool.pairs,
        "labels": data.labels,
        "kind": data.kind.value,
        "views": data.views,
        "recipe": asdict(order.recipe),
        "base": order.base,
        "seed": order.seed,
        "checkpoints": order.checkpoints and str(order.checkpoints.absolute()),
        "is_on_cpu": order.is_on_cpu,
        "has_vectors": vectors is not None,
    }
    (folder / _ORDER).write_text(json.dumps(said), encoding="utf-8")
    np.savez(
        folder / _ORDER_ARRAYS,
        targets=data.targets,
        has_label=data.has_label,
        is_human=data.is_human,
        vectors=np.array(frozen, dtype=np.float32),
    )


def read_order(folder: Path) -> Order:
    """Return the order that was written to a folder."""
    said = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    with np.load(folder / _ORDER_ARRAYS, allow_pickle=False) as arrays:
        targets, has_label = arrays["targets"], arrays["has_label"]
        is_human, vectors = arrays["is_human"], arrays["vectors"]
    pairs, views = said["pairs"], said["views"]
    pool = PoolTexts(tuple(said["ids"]), tuple(said["texts"]), tuple(pairs) if pairs else None)
    data = TrainingSet(
        pool,
        tuple(said["labels"]),
        targets,
        has_label,
        is_human,
        QuestionKind(said["kind"]),
        tuple(views) if views else None,
    )
    return Order(
        data,
        Recipe(**said["recipe"]),
        said["base"],
        said["seed"],
        Path(said["checkpoints"]) if said["checkpoints"] else None,
        said["is_on_cpu"],
        dict(zip(_distinct(pool), vectors, strict=True)) if said["has_vectors"] else None,
    )


def write_output(output: StudentOutput, folder: Path) -> None:
    """Write what `read_output` reads; the model is saved by itself."""
    np.savez(
        folder / _RESULT_ARRAYS,
        probabilities=output.prediction.probabilities,
        embeddings=output.prediction.embeddings,
        cross_fitted=output.cross_fitted,
        clean=output.label_quality_score,
        posterior=output.posterior,
        label_issues=output.label_issues,
    )
    _put(folder / _RESULT, asdict(output.report))


def read_output(folder: Path) -> StudentOutput:
    """Return the output that was written to a folder."""
    said = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
    with np.load(folder / _RESULT_ARRAYS, allow_pickle=False) as arrays:
        return StudentOutput(
            StudentPrediction(arrays["probabilities"], arrays["embeddings"]),
            arrays["cross_fitted"],
            arrays["clean"],
            arrays["posterior"],
            arrays["label_issues"],
            TrainingReport(**said | {"notes": tuple(said["notes"])}),
        )


def tell(progress: TrainingProgress, folder: Path) -> None:
    """Say how far the training is."""
    _put(folder / _PROGRESS, asdict(progress))


def own_up(error: BackendError, folder: Path) -> None:
    """Say why there is no result."""
    _put(folder / _FAILURE, {"kind": type(error).__name__, "message": str(error)})


def _watch(running: Running, folder: Path, hooks: TrainingHooks) -> None:
    """Pass progress on until the program has ended well.

    Raises TrainingCancelled when the caller wants an end, the error that a process owned up to, or
    SmallModelError.
    """
    heard = ""
    while (code := running.exit_code()) is None:
        if hooks.should_stop():
            raise TrainingCancelled("stopped while several processes trained")
        said = _read(folder / _PROGRESS)
        if said and said != heard:
            heard = said
            hooks.on_progress(TrainingProgress(**json.loads(said)))
        time.sleep(_LOOK_S)
    failure = _read(folder / _FAILURE)
    if failure:
        known = json.loads(failure)
        raise getattr(errors, known["kind"])(known["message"])
    if code != 0 or not (folder / _RESULT).exists():
        raise TrainingError(
            f"a training by several processes ended with {code}. {running.log_tail()}"
        )


def _put(path: Path, content: Mapping[str, Any]) -> None:
    with replacing_file(path) as part:  # several processes may fail at once
        part.write_text(json.dumps(content), encoding="utf-8")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
