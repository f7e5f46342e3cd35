"""Note the statements that a database is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

Statement = tuple[str, tuple[Any, ...]]
"""A statement and its values."""


@contextmanager
def noted_queries() -> Iterator[list[Statement]]:
    """Yield the list of queries that any engine is sent while the block runs."""
    queries: list[Statement] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        if statement.startswith("SELECT"):
            ordered = sorted(values.items()) if isinstance(values, dict) else values
            queries.append((statement, tuple(ordered)))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield queries
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
