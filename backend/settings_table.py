"""Write the table of all settings that the docs hold."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from backend.setting_values import Secret
from backend.settings import Settings, variable


def settings_table() -> str:
    """Return every setting as a Markdown table; docs/operations.md holds exactly this."""
    lines = ["| variable | default | unit | why |", "|---|---|---|---|"]
    for spec in fields(Settings):
        value: Any = spec.default
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        is_empty = isinstance(value, Secret) or value in ("", ())
        unit, reason = spec.metadata["unit"], spec.metadata["reason"]
        cells = (f"`{variable(spec.name)}`", "" if is_empty else f"`{shown}`", unit, reason)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
