"""Part long lists into pages, which the database cuts out by limit and offset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Paging:
    """One page of a list of `n_rows`; `number` counts from 1 and is always one that exists."""

    number: int
    n_rows: int
    size: int = PAGE_SIZE

    @classmethod
    def of(cls, args: Mapping[str, str], n_rows: int, *, size: int = PAGE_SIZE) -> Paging:
        """Return the page that the address names under `page`, or the nearest that there is."""
        asked = args.get("page", "1")
        number = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 1
        return cls(min(max(number, 1), cls(1, n_rows, size).n_pages), n_rows, size)

    @property
    def n_pages(self) -> int:
        """Return how many pages there are, at least one."""
        return max(1, -(-self.n_rows // self.size))

    @property
    def offset(self) -> int:
        """Return how many rows stand on the pages before."""
        return (self.number - 1) * self.size

    @property
    def last(self) -> int:
        """Return the number of the page's last row, counted from 1."""
        return min(self.offset + self.size, self.n_rows)
