"""Embed texts as unit vectors with a small transformer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from backend.errors import SettingsError
from backend.self_training.encoder_files import embedded_encoder_folder, encoder_name
from backend.self_training.tokens import truncate

_log = logging.getLogger(__name__)


def compute_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, so that autocast pays."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def mean_embeddings(states: torch.Tensor, attention_mask: torch.Tensor) -> NDArray[np.float32]:
    """Return the mean of each text's token states (n, t, d) at unit length, shape (n, d)."""
    mask = attention_mask[..., None]
    means = (states.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return np.asarray(torch.nn.functional.normalize(means, dim=1).cpu().numpy())


class SentenceEncoder:
    """The `Encoder` port over any Hugging Face encoder: mean of the token vectors, unit length.

    Loaded at first use. Equal texts are embedded once and batches hold texts of like length. Under
    bfloat16 the vectors differ from float32 ones by a cosine of less than 0.001, and with the batch
    in the last digits. `model` is a name on the hub or a folder with safetensors, "" for the
    embedded weights; `name` is given where the folder's content is known by it.
    """

    def __init__(
        self, model: str = "", *, name: str = "", max_tokens: int = 256, batch_size: int = 64
    ) -> None:
        self._model_name = model
        self._given_name = name
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._lock = Lock()

    @cached_property
    def name(self) -> str:
        """Return the model's name; a folder's carries a digest of its weights."""
        return self._given_name or encoder_name(self._model_name)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector per text, shape (n, d), also for ""; raises SettingsError."""
        cut = truncate(texts, self._max_tokens)
        unique = sorted(set(cut), key=lambda text: (len(text), text))
        with self._lock:
            tokenizer, model = self._tokenizer_and_model
            vectors = np.empty((len(unique), model.config.hidden_size), dtype=np.float32)
            for start in range(0, len(unique), self._batch_size):
                batch = unique[start : start + self._batch_size]
                vectors[start : start + len(batch)] = self._forward(tokenizer, model, batch)
        row_of = {text: row for row, text in enumerate(unique)}
        return vectors[[row_of[text] for text in cut]]

    def _forward(self, tokenizer: Any, model: Any, batch: list[str]) -> NDArray[np.float32]:
        device = model.device
        encoded = tokenizer(
            batch, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(device)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device)),
        ):
            states = model(**encoded).last_hidden_state
            return mean_embeddings(states, encoded["attention_mask"])

    @cached_property
    def _tokenizer_and_model(self) -> tuple[Any, Any]:
        source = self._model_name or str(embedded_encoder_folder())
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModel.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
        except (OSError, ValueError, KeyError) as exc:
            raise SettingsError(
                f"ENCODER_MODEL={source!r}: cannot be loaded ({type(exc).__name__}); expected a "
                "Hugging Face encoder, by name or as a folder with safetensors"
            ) from exc
        model.eval().to(compute_device())
        _log.info("encoder loaded name=%s", self.name)
        return tokenizer, model
