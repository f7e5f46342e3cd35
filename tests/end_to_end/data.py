"""Texts with gold labels for the end-to-end tests."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from itertools import cycle, islice

from backend.launcher.environments import PROJECT_FOLDER

SAMPLE = PROJECT_FOLDER / "backend" / "launcher" / "sample" / "reviews.jsonl"
SAMPLE_CONFIG = PROJECT_FOLDER / "backend" / "launcher" / "sample" / "reviews.xml"
_SST2 = PROJECT_FOLDER.parent / "shared" / "data" / "sst2.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Review:
    """A text, and "Positive" or "Negative"."""

    text: str
    label: str


def reviews(n: int, *, start: int = 0) -> list[Review]:
    """Return n reviews: SST-2's training sentences where they are at hand, else our own sample."""
    source = _sst2() if _SST2.exists() else sample()
    return list(islice(cycle(source), start, start + n))


def sample() -> list[Review]:
    """Return the project's own sample."""
    return [_review(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def _sst2() -> list[Review]:
    with gzip.open(_SST2, "rt", encoding="utf-8") as file:
        return [_review(line) for line in file if json.loads(line)["split"] == "train"]


def _review(line: str) -> Review:
    row = json.loads(line)
    return Review(row["text"], row["label"].capitalize())
