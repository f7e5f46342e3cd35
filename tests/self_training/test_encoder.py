"""Sentence vectors, and their cache: computed once, shared by processes."""

from __future__ import annotations

import numpy as np
import pytest

from backend.errors import SettingsError
from backend.self_training.encoder import SentenceEncoder
from backend.self_training.encoder_files import embedded_encoder_folder

TEXTS = ["a cat sleeps", "stock markets fell sharply today", "", "a cat sleeps"]


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder(batch_size=2)


def test_vectors_have_unit_length_and_like_texts_lie_close(encoder):
    vectors = encoder.embed(["a kitten is asleep", *TEXTS])
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    np.testing.assert_array_equal(vectors[1], vectors[4])


def test_vectors_hardly_depend_on_the_other_texts_of_the_batch(encoder):
    together = encoder.embed(TEXTS)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    assert (together * alone).sum(axis=1).min() > 0.999


def test_a_huge_text_is_cut_and_no_text_gives_no_vector(encoder):
    assert encoder.embed(["word " * 200_000]).shape == (1, 384)
    assert encoder.embed([]).shape == (0, 384)


def test_a_folder_is_named_with_a_digest_of_its_weights(encoder):
    folder = embedded_encoder_folder()
    assert encoder.name == "all-MiniLM-L6-v2"
    assert SentenceEncoder(str(folder)).name.startswith(f"{folder.name}@")


def test_a_model_that_cannot_be_loaded_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match="ENCODER_MODEL"):
        SentenceEncoder(str(tmp_path)).embed(["text"])
