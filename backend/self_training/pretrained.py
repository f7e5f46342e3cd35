"""Pretrained transformers under a head of ours: made from a base, written, read back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from backend.errors import InvalidRequest, SettingsError
from backend.files import replacing_folder

_OURS = "freeal.json"
"""What our files hold beside a transformers model: what the head answers, and the cut."""

Spec = TypeVar("Spec")


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A transformers model and its tokenizer."""

    model: Any
    tokenizer: Any

    def write(
        self, folder: Path, ours: Mapping[str, Any], *, card: Mapping[str, str] | None, task: str
    ) -> None:
        """Write model, tokenizer and card; a folder that is there is replaced as a whole."""
        with replacing_folder(folder) as fresh:
            self.model.save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)
            (fresh / _OURS).write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")
            if card is not None:
                readme = _readme(card, task=task)
                (fresh / "README.md").write_text(readme, encoding="utf-8")


def under_new_head(architecture: Any, base: str, head: Mapping[str, Any]) -> Pretrained:
    """Return the base model under a new head of this config; raises SettingsError."""
    try:
        config = AutoConfig.from_pretrained(base, **head)
        return _load(architecture, base, config=config)
    except (OSError, ValueError, KeyError) as exc:
        raise SettingsError(
            f"STUDENT_MODEL={base!r}: cannot be loaded ({type(exc).__name__}); expected a "
            "Hugging Face encoder's name or a folder with config, tokenizer and safetensors"
        ) from exc


def read_ours(
    architecture: Any, folder: Path, read_spec: Callable[[Mapping[str, Any]], Spec], *, what: str
) -> tuple[Pretrained, Spec]:
    """Read what `Pretrained.write` wrote, and the spec in it; raises InvalidRequest."""
    try:
        spec = read_spec(json.loads((folder / _OURS).read_text(encoding="utf-8")))
        return _load(architecture, str(folder)), spec
    except (OSError, ValueError, KeyError) as exc:
        raise InvalidRequest(f"{folder} holds no {what} of ours: {exc}") from exc


def _load(architecture: Any, source: str, **options: Any) -> Pretrained:
    with _quiet_loading():
        model = architecture.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, **options
        )
    return Pretrained(model, AutoTokenizer.from_pretrained(source))


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep transformers from warning that the new head is new, and from its progress bars."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)


def _readme(sections: Mapping[str, str], *, task: str) -> str:
    """Return a model card in Markdown."""
    head = f"---\nlibrary_name: transformers\npipeline_tag: {task}\n---\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())
