"""Make an encoder that is fine-tuned in seconds, so that a fault case takes no longer than that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_SCALE = 8.0
"""Lengthens its vectors, so that a head learns in the few steps that a fold of some texts takes."""


def save_small_encoder(folder: Path, texts: Sequence[str]) -> None:
    """Save the embedded encoder's first layer, with the vectors of these texts' words alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer, BertTokenizerFast

    from backend.self_training.encoder_files import embedded_encoder_folder

    source = str(embedded_encoder_folder())
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source)
    rows = tokenizer(list(texts))["input_ids"]
    ids = sorted({*tokenizer.all_special_ids, *(token for row in rows for token in row)})
    words = model.get_input_embeddings().weight[ids]
    model.set_input_embeddings(torch.nn.Embedding(len(ids), words.shape[1], _weight=words.detach()))
    model.encoder.layer = model.encoder.layer[:1]
    with torch.no_grad():
        for parameter in model.encoder.layer[0].output.LayerNorm.parameters():
            parameter.mul_(_SCALE)
    model.config.vocab_size, model.config.num_hidden_layers = len(ids), 1
    model.save_pretrained(folder)
    vocabulary = {token: at for at, token in enumerate(tokenizer.convert_ids_to_tokens(ids))}
    BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
