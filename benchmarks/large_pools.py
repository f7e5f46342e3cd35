"""Measure what ordering a large made pool takes: each in a process of its own."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.active_learning.activellm import ActiveLLMStrategy
from backend.active_learning.strategy_interface import PoolView
from benchmarks.memory import peak_mb

_N_DIMENSIONS, _N_TOPICS, _N_LABELS = 384, 200, 4
_SPREAD = 0.06
"""Of a text around its topic, in each dimension: cosines within a topic are about .4."""
_BLOCK = 10_000


def measure_order(n_texts: int) -> dict[str, float]:
    """Return the seconds to order a made pool, and the peak memory of the process, the pool's too.

    The pool has unit vectors of 384 dimensions around 200 topics, and a posterior over four labels
    for each text; nobody has answered.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(_order, n_texts).result()


def _order(n_texts: int) -> dict[str, float]:
    pool = _made_pool(n_texts, np.random.default_rng(0))
    started = time.perf_counter()
    ordering = ActiveLLMStrategy().order(pool, rng=np.random.default_rng(0))
    seconds = time.perf_counter() - started
    if len(ordering.positions) != n_texts:
        raise RuntimeError(f"{len(ordering.positions)} of {n_texts} texts were ordered")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"order_s": round(seconds, 1), "peak_gb": round(peak_mb(status) / 1024, 2)}


def _made_pool(n_texts: int, rng: np.random.Generator) -> PoolView:
    topics = rng.normal(0, 1 / np.sqrt(_N_DIMENSIONS), (_N_TOPICS, _N_DIMENSIONS))
    embeddings: NDArray[np.float32] = np.empty((n_texts, _N_DIMENSIONS), dtype=np.float32)
    for start in range(0, n_texts, _BLOCK):
        rows = embeddings[start : start + _BLOCK]
        rows[:] = topics[rng.integers(0, _N_TOPICS, len(rows))]
        rows += _SPREAD * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    posteriors = rng.dirichlet(np.full(_N_LABELS, 0.5), n_texts)
    return PoolView(np.arange(1, n_texts + 1), embeddings, posteriors, prelabeled_share=1.0)
