"""Read a server's list of models, in any of the shapes that servers give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LIST_FIELDS = ("data", "models", "result")
_NAME_FIELDS = ("id", "name", "model")
_CONTEXT_FIELDS = (
    "max_model_len",
    "loaded_context_length",
    "n_ctx",
    "context_length",
    "context_window",
    "max_context_length",
    "max_input_tokens",
    "max_seq_len",
)
_TRAINED_CONTEXT_FIELD = "n_ctx_train"
_OTHER_KINDS = ("embed", "rerank", "whisper", "tts", "moderation")
"""Parts of the names of models that answer no question."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of the list, with the context lengths (in tokens) that the list tells, if any.

    `n_context_tokens`: what a request may use. `n_trained_tokens`: what the model was trained with.
    """

    name: str
    n_context_tokens: int | None = None
    n_trained_tokens: int | None = None


def read_models(payload: object) -> list[ServedModel]:
    """Return the listed models, those that look like language models first; [] for none."""
    rows: object = payload
    if isinstance(payload, Mapping):
        rows = next((payload[name] for name in _LIST_FIELDS if payload.get(name)), [])
    models = list(_models(rows if isinstance(rows, list) else []))
    return sorted(models, key=lambda one: any(kind in one.name.lower() for kind in _OTHER_KINDS))


def read_props(payload: Mapping[str, Any]) -> int | None:
    """Return the context length that a llama.cpp server gives each request, if it says so."""
    settings = payload.get("default_generation_settings")
    return _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None


def _models(rows: list[Any]) -> Iterator[ServedModel]:
    for row in rows:
        fields = {"id": row} if isinstance(row, str) else row
        if not isinstance(fields, dict):
            continue
        names = (fields.get(name) for name in _NAME_FIELDS)
        name = next((name for name in names if isinstance(name, str) and name), None)
        if name is None:
            continue
        meta = fields.get("meta")
        told = fields | (meta if isinstance(meta, dict) else {})
        lengths = (_positive(told.get(one)) for one in _CONTEXT_FIELDS)
        yield ServedModel(
            name,
            next((length for length in lengths if length is not None), None),
            _positive(told.get(_TRAINED_CONTEXT_FIELD)),
        )


def _positive(length: object) -> int | None:
    is_number = isinstance(length, int) and not isinstance(length, bool)
    return length if is_number and length > 0 else None  # type: ignore[operator,return-value]
