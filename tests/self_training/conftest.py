"""A transformer so small that it trains in a second, with a vocabulary of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from backend.domain.questions import QuestionKind
from backend.domain.student import PoolTexts, TrainingSet

GOOD = ("good", "great", "fine", "lovely")
BAD = ("bad", "awful", "poor", "nasty")
OTHER = ("the", "film", "was", "a", "story", "quite", "and", "very")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads on so small a model mostly wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with an untrained BERT of 2 layers and 16 dimensions."""
    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}).save_pretrained(
        folder
    )
    return str(folder)


def reviews(n: int, *, seed: int = 0) -> tuple[tuple[str, ...], np.ndarray]:
    """Return n texts of which one word tells the label, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    texts = []
    for label in labels:
        words = list(rng.choice(OTHER, rng.integers(2, 7)))
        words.insert(rng.integers(0, len(words)), str(rng.choice(GOOD if label else BAD)))
        texts.append(" ".join(words))
    return tuple(texts), labels


def training_set(texts: tuple[str, ...], labels: np.ndarray, n_labels: int = 2) -> TrainingSet:
    """Return hard labels for texts, none by people, none missing."""
    n_texts = len(texts)
    return TrainingSet(
        PoolTexts(tuple(range(n_texts)), texts),
        tuple(f"label {index}" for index in range(n_labels)),
        np.eye(n_labels)[labels],
        np.ones(n_texts, dtype=bool),
        np.zeros(n_texts, dtype=bool),
        QuestionKind.SINGLE_CHOICE,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"
