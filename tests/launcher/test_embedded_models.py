"""Names of embedded models, and whether one fits a machine."""

import pytest

from backend.launcher import embedded_models
from backend.launcher.embedded_models import (
    ENCODERS,
    GB,
    LANGUAGE_MODELS,
    MPNET,
    QWEN_CODER,
    SMOLLM2,
    find,
)
from backend.launcher.environments import PROJECT_FOLDER

ALL = (*LANGUAGE_MODELS, *ENCODERS)


@pytest.fixture
def free(monkeypatch):
    """Set the gigabytes of memory and disk that are free, and how the processor computes."""

    def set_free(memory: float, disk: float, *, is_bfloat16_fast: bool = True):
        monkeypatch.setattr(embedded_models, "free_memory", lambda: int(memory * GB))
        monkeypatch.setattr(embedded_models, "free_disk", lambda folder: int(disk * GB))
        monkeypatch.setattr(embedded_models, "computes_in_bfloat16", lambda: is_bfloat16_fast)

    return set_free


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("smollm2-135m", SMOLLM2),
        ("smollm2-135m-instruct", SMOLLM2),
        ("SmolLM2-135M-Instruct", SMOLLM2),
        ("qwen2.5-coder-1.5b", QWEN_CODER),
        ("qwen2.5-coder-1.5b-instruct", QWEN_CODER),
        ("all-mpnet-base-v2", MPNET),
    ],
)
def test_short_and_full_names_are_known_in_any_case(name, model):
    assert find(name, ALL) is model


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        "sentence-transformers/all-mpnet-base-v2",
        "./qwen2.5-coder-1.5b",
        "qwen2.5-coder-7b",
    ],
)
def test_names_of_a_hub_and_folders_are_none_of_ours(name):
    assert find(name, ALL) is None


def test_no_name_means_two_models():
    names = [name for model in ALL for name in model.names]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() for name in names)


def test_the_language_model_that_needs_most_comes_first_and_the_last_needs_no_download():
    sizes = [model.memory for model in LANGUAGE_MODELS]
    assert sizes == sorted(sizes, reverse=True)
    assert LANGUAGE_MODELS[-1].archive is None


def test_making_a_model_takes_disk_and_having_it_takes_none(free, tmp_path):
    free(memory=16, disk=2)
    needs = QWEN_CODER.needs(tmp_path)
    assert not needs.are_met
    assert str(needs).endswith("16 GB of memory and 2.0 GB of disk are free")
    QWEN_CODER.folder(tmp_path).mkdir(parents=True)
    assert QWEN_CODER.needs(tmp_path).are_met
    assert "of disk;" not in str(QWEN_CODER.needs(tmp_path))


def test_float32_doubles_the_weights(free, tmp_path):
    free(memory=QWEN_CODER.memory / GB, disk=50)
    assert QWEN_CODER.needs(tmp_path).are_met
    free(memory=QWEN_CODER.memory / GB, disk=50, is_bfloat16_fast=False)
    needs = QWEN_CODER.needs(tmp_path)
    assert not needs.are_met
    assert needs.memory == QWEN_CODER.memory + QWEN_CODER.weights


def test_what_runs_beside_it_counts(free, tmp_path):
    free(memory=QWEN_CODER.memory / GB + 1, disk=50)
    assert QWEN_CODER.needs(tmp_path, more_memory=GB).are_met
    assert not QWEN_CODER.needs(tmp_path, more_memory=2 * GB).are_met
    assert not QWEN_CODER.needs(tmp_path, more_disk=46 * GB).are_met


def test_the_documented_table_is_what_is_asked_for():
    def gb(n_bytes):
        return f"{n_bytes / GB:.1f} GB"

    text = (PROJECT_FOLDER / "docs" / "operations.md").read_text(encoding="utf-8")
    for model in ALL:
        setting = "`LLM_MODEL`" if model in LANGUAGE_MODELS else "`ENCODER_MODEL`, `STUDENT_MODEL`"
        download = gb(model.archive.size) if model.archive else "with vLLM's environment"
        float32 = gb(model.memory + model.weights) if model in LANGUAGE_MODELS else "the same"
        name = min(model.names, key=len)
        cells = (f"`{name}`", setting, download, gb(model.disk), gb(model.memory), float32)
        assert f"| {' | '.join(cells)} |" in text
