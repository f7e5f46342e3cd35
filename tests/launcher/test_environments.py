"""Virtual environments: created once, again when outdated, with a clear message on failure."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from backend.errors import EnvironmentSetupError
from backend.launcher import environments
from backend.launcher.environments import ENVIRONMENTS, PROJECT_FOLDER, ensure_environment

NAME = "vllm-cpu"  # the one with two requirement files


@pytest.fixture(autouse=True)
def without_package_index(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")


@pytest.fixture
def project(tmp_path):
    """A project folder whose requirement files ask for nothing."""
    folder = tmp_path / "project"
    folder.mkdir()
    for files in ENVIRONMENTS.values():
        for file in files:
            (folder / file).write_text("# nothing\n")
    return folder


@pytest.fixture
def ensure(home, project, console):
    def ensure_it(name=NAME):
        return ensure_environment(name, home=home, console=console, project_folder=project)

    return ensure_it


@pytest.fixture
def without_pip(monkeypatch):
    """Leave pip out, for tests of when something is made: that takes a tenth of the time."""
    runs = []

    def run(argv, folder, title, console):
        runs.append(argv)
        if "venv" in argv:
            python = folder / "bin" / "python"
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()

    monkeypatch.setattr(environments, "_run", run)
    return runs


@pytest.mark.slow
def test_its_own_python_has_the_packages_and_dependencies_only_where_asked(
    ensure, home, project, tmp_path
):
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "stub.py").write_text("")
    (stub / "backend.py").write_text(BUILD_BACKEND)
    (stub / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "requirements-vllm-cpu-nodeps.txt").write_text(f"stub @ {stub.as_uri()}\n")
    python = ensure()
    script = "import stub, sys; print(sys.prefix)"
    shown = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == str(home / "envs" / NAME)

    (project / "requirements-vllm-cpu.txt").write_text(f"stub @ {stub.as_uri()}\n")
    with pytest.raises(EnvironmentSetupError, match="a-package-that-is-not-there"):
        ensure()


# The smallest build backend: a wheel of one module that depends on something that does not exist.
BUILD_BACKEND = textwrap.dedent(
    """
    import zipfile

    METADATA = "Metadata-Version: 2.1\\nName: stub\\nVersion: 1\\n"
    METADATA += "Requires-Dist: a-package-that-is-not-there\\n"
    WHEEL = "Wheel-Version: 1.0\\nGenerator: stub\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"

    def build_wheel(folder, config_settings=None, metadata_directory=None):
        name = "stub-1-py3-none-any.whl"
        with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
            wheel.writestr("stub.py", "")
            wheel.writestr("stub-1.dist-info/METADATA", METADATA)
            wheel.writestr("stub-1.dist-info/WHEEL", WHEEL)
            wheel.writestr("stub-1.dist-info/RECORD", "")
        return name
    """
)


# Stands in for venv, which takes seconds: an environment that borrows the Python of the tests.
BORROW_THIS_PYTHON = """
import pathlib, sys
python = pathlib.Path(sys.argv[1], "bin", "python")
python.parent.mkdir(parents=True)
python.write_text(f'#!/bin/sh\\nexec {sys.executable} "$@"\\n')
python.chmod(0o755)
"""


def test_a_failing_pip_is_an_error_with_its_last_lines_and_a_remedy(
    ensure, project, home, monkeypatch
):
    monkeypatch.setattr(environments, "_VENV", (sys.executable, "-c", BORROW_THIS_PYTHON))
    (project / "requirements-vllm-cpu.txt").write_text("a-package-that-is-not-there==1\n")
    with pytest.raises(EnvironmentSetupError) as caught:
        ensure()
    message = str(caught.value)
    assert "Installing requirements-vllm-cpu.txt failed" in message
    assert "No matching distribution found for a-package-that-is-not-there==1" in message
    assert "run the same command again" in message
    assert not (home / "envs" / NAME / ".complete").exists()


def test_an_environment_is_created_once(ensure, without_pip):
    first = ensure()
    n_runs = len(without_pip)
    started = time.monotonic()
    assert ensure() == first
    assert len(without_pip) == n_runs
    assert time.monotonic() - started < 1.0


def test_an_interrupted_creation_starts_anew(ensure, without_pip, home):
    ensure()
    (home / "envs" / NAME / ".complete").unlink()
    n_runs = len(without_pip)
    ensure()
    assert len(without_pip) == 2 * n_runs
    assert "--clear" in without_pip[n_runs]


def test_changed_requirements_recreate_an_environment(ensure, without_pip, project):
    ensure()
    n_runs = len(without_pip)
    (project / "requirements-vllm-cpu-nodeps.txt").write_text("# something else\n")
    ensure()
    assert len(without_pip) == 2 * n_runs


def test_another_python_version_recreates_an_environment(ensure, without_pip, monkeypatch):
    ensure()
    n_runs = len(without_pip)
    monkeypatch.setattr(
        "backend.launcher.environments.platform.python_version_tuple", lambda: ("3", "99", "0")
    )
    ensure()
    assert len(without_pip) == 2 * n_runs


def test_an_environment_without_its_python_is_recreated(ensure, without_pip):
    python = ensure()
    n_runs = len(without_pip)
    python.unlink()
    ensure()
    assert len(without_pip) == 2 * n_runs


def test_a_relative_home_gives_an_absolute_python(project, console, without_pip, home, monkeypatch):
    monkeypatch.chdir(home)
    python = ensure_environment(NAME, home=Path(".freeal"), console=console, project_folder=project)
    assert python == home / ".freeal" / "envs" / NAME / "bin" / "python"


def test_a_missing_requirement_file_is_named(ensure, project):
    (project / "requirements-vllm-cpu.txt").unlink()
    with pytest.raises(EnvironmentSetupError, match="requirements-vllm-cpu.txt is missing"):
        ensure()


def test_the_project_has_all_requirement_files():
    for files in ENVIRONMENTS.values():
        for file in files:
            assert (PROJECT_FOLDER / file).is_file()
