"""The cache of sentence vectors: computed once, shared by processes, kept within a size."""

from __future__ import annotations

import logging
import multiprocessing
import os

import numpy as np

from backend.self_training.embedding_cache import CachedEncoder, trim_embeddings
from tests.self_training.bag_of_words import BagOfWordsEncoder

TEXTS = ["a cat sleeps", "stock markets fell sharply today", "", "a cat sleeps"]


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


def test_a_cache_within_its_size_is_left_alone(tmp_path):
    CachedEncoder(BagOfWordsEncoder(), tmp_path).embed(TEXTS)
    assert trim_embeddings(tmp_path, 2**30) == 0
    inner = BagOfWordsEncoder()
    CachedEncoder(inner, tmp_path).embed(TEXTS)
    assert inner.asked == []
    assert trim_embeddings(tmp_path / "absent", 1) == 0


def test_the_encoder_that_was_used_longest_ago_goes_first(tmp_path):
    old, new = BagOfWordsEncoder(), BagOfWordsEncoder()
    old.name = "old"
    for encoder in (old, new):
        CachedEncoder(encoder, tmp_path).embed([f"text {i}" for i in range(50)])
    files = sorted(tmp_path.glob("*.sqlite"), key=lambda file: file.stat().st_mtime_ns)
    os.utime(files[0], (0, 0))
    size = files[1].stat().st_size
    assert trim_embeddings(tmp_path, size) == size
    new.asked.clear()
    CachedEncoder(new, tmp_path).embed(["text 1"])
    assert new.asked == []


def test_a_file_that_is_too_large_alone_is_cut_and_goes_on(tmp_path):
    encoder = BagOfWordsEncoder()
    texts = [f"text {i}" for i in range(2_000)]
    vectors = CachedEncoder(encoder, tmp_path).embed(texts)
    limit = sum(file.stat().st_size for file in tmp_path.iterdir()) // 2
    trim_embeddings(tmp_path, limit)
    assert limit // 2 < sum(file.stat().st_size for file in tmp_path.iterdir()) < limit
    encoder.asked.clear()
    np.testing.assert_array_equal(CachedEncoder(encoder, tmp_path).embed(texts), vectors)
    assert 1_000 < len(encoder.asked) < 1_500
