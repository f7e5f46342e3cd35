"""Files of a training on a disk that is full: an OSError, upon which a round waits."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from backend.self_training.checkpoint import Checkpoint, WeightAverager
from backend.self_training.tagger import SpanTagger, TaggerSpec

_FULL_BYTES = 8_000


@contextmanager
def full_disk() -> Iterator[None]:
    """Refuse to write more than some bytes into a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def tagger(tiny_base) -> SpanTagger:
    return SpanTagger.create(TaggerSpec(("praise",), tiny_base), seed=0)


def test_a_checkpoint_that_does_not_fit_is_an_os_error_and_leaves_nothing(tagger, tmp_path):
    optimizer = torch.optim.AdamW(tagger.model.parameters())
    checkpoint = Checkpoint(tmp_path, "spans", "print")
    with full_disk(), pytest.raises(OSError, match=r"os error|File too large"):
        checkpoint.save(1, tagger.model, optimizer, WeightAverager())
    assert list(tmp_path.iterdir()) == []
    assert checkpoint.restore(tagger.model, optimizer, WeightAverager()) == 0


def test_a_student_that_does_not_fit_is_an_os_error_and_the_former_one_stays(tagger, folder):
    tagger.save(folder)
    with full_disk(), pytest.raises(OSError, match=r"os error|File too large"):
        tagger.save(folder)
    assert SpanTagger.load(folder).labels == ("praise",)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
