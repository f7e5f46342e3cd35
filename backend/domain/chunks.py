"""Values of chunks of work: what workers take from one queue."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CHUNKS_AT_ONCE = 4
"""Chunks that one worker works on at a time: while one waits for the LLM another is saved."""


STEPS_AT_ONCE = 4
"""Steps of one name that run at a time in a worker, whatever number of projects is under way."""


class ChunkKind(StrEnum):
    """Kinds of work that is done chunk by chunk."""

    LABEL = "label-chunk"
    RELABEL = "relabel-chunk"
    PUBLISH = "publish-chunk"
    DRAFT = "draft-chunk"
    """A chunk of the release that waits until Label Studio has all of it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tasks of a project whose ids are above `after` and at most `through`.

    Queued chunks of a lower `turn` go first.
    """

    after: int
    through: int
    turn: int = 0


ALL_TASKS = Chunk(0, 2**63 - 1)
"""Every task of a project."""
