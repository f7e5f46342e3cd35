"""Tell which tasks belong to the random holdout: a uniform sample, drawn by a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

HOLDOUT_SHARE = 0.10


def holdout_seed(project_id: str) -> int:
    """Return the seed of a project's random holdout, the same for good."""
    return int(float(project_id))


def holdout_rank(example_id: int, *, seed: int) -> float:
    """Return the example's place in [0, 1) in a random order that can be computed again.

    It is a hash of id and seed: independent of texts, labels, models and of other examples, and the
    same after tasks are added or deleted.
    """
    # the word "audit" is part of the hash: another one would draw another holdout in every project
    digest = hashlib.sha256(f"audit:{seed}:{example_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def in_holdout(example_id: int, *, seed: int) -> bool:
    """Return whether the example is in the holdout, a uniformly random share of all examples."""
    return holdout_rank(example_id, seed=seed) < HOLDOUT_SHARE


def holdout_order(example_ids: Iterable[int], *, seed: int) -> list[int]:
    """Return those of the examples that are in the holdout, in its random order."""
    ranks = {example_id: holdout_rank(example_id, seed=seed) for example_id in example_ids}
    held_out = (example_id for example_id, rank in ranks.items() if rank < HOLDOUT_SHARE)
    return sorted(held_out, key=lambda example_id: (ranks[example_id], example_id))
