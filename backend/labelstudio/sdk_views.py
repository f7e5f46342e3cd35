"""The SDK's own views of a label config, which label-studio-ml 2.x offers to its users."""

from __future__ import annotations

from typing import Any

_EMPTY = "<View/>"


def label_interface(label_config: str | None) -> Any:
    """Return a config as `LabelInterface`, which is what 2.x's `label_interface` is."""
    from label_studio_sdk.label_interface.interface import LabelInterface

    return LabelInterface(config=label_config or _EMPTY)


def parsed_label_config(label_config: str | None) -> dict[str, Any]:
    """Return a config's control tags by name, which is what `parsed_label_config` is."""
    from label_studio_sdk._extensions.label_studio_tools.core.label_config import parse_config

    parse: Any = parse_config
    return dict(parse(label_config or _EMPTY))
