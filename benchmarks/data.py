"""Benchmark data: any JSONL file with a text and, if there is one, a gold label per row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SAMPLE = Path(__file__).resolve().parent.parent / "backend/launcher/sample/reviews.jsonl"


def read_rows(path: Path | None, *, split: str | None = None) -> list[dict[str, Any]]:
    """Return a file's rows in order, those of one split if it names splits; None: the sample."""
    path = path or _SAMPLE
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    return [row for row in rows if split is None or row.get("split", split) == split]


def cycled(texts: Sequence[str], n: int) -> list[str]:
    """Return n texts, repeating with a number before the text so that no two are equal."""
    return [
        texts[i] if i < len(texts) else f"({i // len(texts)}) {texts[i % len(texts)]}"
        for i in range(n)
    ]
