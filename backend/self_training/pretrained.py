"""Transformers models with a head of this project: created from a base, saved and loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from backend.errors import InvalidRequest, SettingsError
from backend.files import replacing_folder
from backend.self_training.checkpoint import writing_tensors
from backend.self_training.encoder import compute_device, has_fast_bf16
from backend.self_training.encoder_files import embedded_encoder_folder
from backend.self_training.tokens import Tokens, inference_batches

_SPEC_FILE = "freeal.json"
"""Stands beside the transformers model: its labels and the number of tokens."""

Spec = TypeVar("Spec")


class PretrainedModel(Generic[Spec]):
    """A transformers model with its tokenizer, on the device that computes it."""

    def __init__(self, model: Any, tokenizer: Any, spec: Spec) -> None:
        self.spec = spec
        self.model = model
        self.tokenizer = tokenizer
        self.device = compute_device()
        self.model.to(self.device)
        self._has_fast_bf16 = has_fast_bf16(self.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes: bfloat16 where that is fast."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._has_fast_bf16)

    def forward(
        self, tokens: Tokens, before_batch: Callable[[], None], **options: Any
    ) -> Iterator[tuple[NDArray[np.integer], torch.Tensor, Any]]:
        """Yield rows, attention mask and model output of each batch; without gradients."""
        self.model.eval()
        for rows in inference_batches(tokens.lengths):
            before_batch()
            inputs = tokens.collate(rows, self.device)
            with torch.inference_mode(), self.autocast():
                output = self.model(**inputs, **options)
            yield rows, inputs["attention_mask"], output

    def write(
        self, folder: Path, spec: Mapping[str, Any], *, card: Mapping[str, str] | None, task: str
    ) -> None:
        """Write model, tokenizer, spec and model card; an existing folder is replaced as a whole.

        Args:
            folder: where to.
            spec: JSON values that `load_model` hands back.
            card: text of the model card's sections by title; None for no card.
            task: the transformers pipeline that the model is for.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        with replacing_folder(folder) as fresh, writing_tensors():
            self.model.save_pretrained(fresh)
            self.tokenizer.save_pretrained(fresh)
            (fresh / _SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
            if card is not None:
                head = f"---\nlibrary_name: transformers\npipeline_tag: {task}\n---\n"
                sections = (f"\n## {title}\n\n{text}\n" for title, text in card.items())
                (fresh / "README.md").write_text(head + "".join(sections), encoding="utf-8")


def create_model(
    architecture: Any, base: str, outputs: tuple[str, ...], *, seed: int, **config: Any
) -> tuple[Any, Any]:
    """Return a base model with a new random head, and its tokenizer; raises SettingsError.

    Args:
        architecture: a transformers auto class.
        base: a hub name or a folder; "" for the embedded encoder.
        outputs: the names of the head's outputs.
        seed: of the head's weights.
        config: further options of the model's config.
    """
    torch.manual_seed(seed)
    base = base or str(embedded_encoder_folder())
    names = {
        "num_labels": len(outputs),
        "id2label": dict(enumerate(outputs)),
        "label2id": {name: index for index, name in enumerate(outputs)},
    }
    try:
        return _load(architecture, base, config=AutoConfig.from_pretrained(base, **names, **config))
    except (OSError, ValueError, KeyError) as exc:
        raise SettingsError(
            f"STUDENT_MODEL={base!r}: cannot be loaded ({type(exc).__name__}); expected a "
            "Hugging Face encoder's name or a folder with config, tokenizer and safetensors"
        ) from exc


def load_model(
    architecture: Any, folder: Path, read_spec: Callable[[Mapping[str, Any]], Spec], *, what: str
) -> tuple[Any, Any, Spec]:
    """Read model, tokenizer and spec that `PretrainedModel.write` wrote; raises InvalidRequest."""
    try:
        spec = read_spec(json.loads((folder / _SPEC_FILE).read_text(encoding="utf-8")))
        return *_load(architecture, str(folder)), spec
    except (OSError, ValueError, KeyError) as exc:
        raise InvalidRequest(f"{folder} holds no {what} of this project: {exc}") from exc


def _load(architecture: Any, source: str, **options: Any) -> tuple[Any, Any]:
    """Load without transformers' warning that the new head is new, and its progress bars."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.ERROR)
    transformers.logging.disable_progress_bar()
    try:
        model = architecture.from_pretrained(
            source, use_safetensors=True, dtype=torch.float32, **options
        )
    finally:
        transformers.logging.set_verbosity(level)
    return model, AutoTokenizer.from_pretrained(source)
