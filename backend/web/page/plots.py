"""Describe plots for plotly, each with the table that says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of plotly, as JSON-ready traces and layout, and its numbers as a table.

    `name` is unique on its page. Colors and fonts are the page's: a trace names none, or a number
    of the palette under `palette`. `rows` are shown as they are: formatted texts.
    """

    name: str
    title: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def figure(self) -> dict[str, Any]:
        """Return what the page's script draws."""
        return {"data": list(self.traces), "layout": dict(self.layout)}
