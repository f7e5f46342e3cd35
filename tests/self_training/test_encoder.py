"""Sentence vectors, and their cache: computed once, shared by processes."""

from __future__ import annotations

import logging
import multiprocessing

import numpy as np
import pytest

from backend.errors import SettingsError
from backend.self_training.encoder import (
    CachedEncoder,
    SentenceEncoder,
    embedded_encoder_folder,
)
from tests.self_training.bag_of_words import BagOfWordsEncoder

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


def test_a_cached_text_is_embedded_once_even_after_a_restart(tmp_path):
    inner = BagOfWordsEncoder()
    first = CachedEncoder(inner, tmp_path).embed(TEXTS)
    again = CachedEncoder(inner, tmp_path).embed([*TEXTS, "new"])
    assert sorted(inner.asked) == sorted({*TEXTS, "new"})
    np.testing.assert_array_equal(first, again[:4])
    np.testing.assert_array_equal(first, BagOfWordsEncoder().embed(TEXTS))


def test_encoders_of_different_names_do_not_share_vectors(tmp_path):
    other = BagOfWordsEncoder(8)
    other.name = "another"
    CachedEncoder(BagOfWordsEncoder(), tmp_path).embed(["text"])
    assert CachedEncoder(other, tmp_path).embed(["text"]).shape == (1, 8)


def test_a_cache_file_that_cannot_be_read_is_skipped_with_a_warning(tmp_path, caplog):
    CachedEncoder(BagOfWordsEncoder(), tmp_path).embed(["text"])
    for path in tmp_path.iterdir():
        path.write_bytes(b"not a database at all" * 100)
    with caplog.at_level(logging.WARNING):
        assert CachedEncoder(BagOfWordsEncoder(), tmp_path).embed(["text"]).shape == (1, 256)
    assert "cannot be read" in caplog.text


def test_a_text_that_is_no_valid_unicode_can_be_cached(tmp_path):
    cached = CachedEncoder(BagOfWordsEncoder(), tmp_path)
    np.testing.assert_array_equal(cached.embed(["caf\u00e9 \U0001f600"]), cached.embed(["café 😀"]))


def _fill(folder, offset):
    CachedEncoder(BagOfWordsEncoder(), folder).embed([f"text {i + offset}" for i in range(200)])


def test_several_processes_may_fill_one_cache_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fill, args=(tmp_path, k * 100)) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    inner = BagOfWordsEncoder()
    CachedEncoder(inner, tmp_path).embed([f"text {i}" for i in range(400)])
    assert inner.asked == []
