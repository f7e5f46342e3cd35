"""Tell which tasks belong to the random holdout: a uniform sample, drawn by a hash."""

from __future__ import annotations

import hashlib

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
    """Whether the example belongs to the holdout, a uniformly random share of all examples."""
    return holdout_rank(example_id, seed=seed) < HOLDOUT_SHARE
