"""Measure what this machine has to spare: memory, disk, processors and their instructions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

GB = 10**9


def free_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that new processes can take.

    A container's limit (cgroup v2 or v1) counts as well as the system's available memory. Systems
    that do not tell how much is available (macOS) count with all of their memory.

    Args:
        root: the folder in which `proc` and `sys` lie.
    """
    try:
        meminfo = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in meminfo if ":" in line}
    available = sizes.get("MemAvailable", sizes["MemFree"])
    return max(0, min([available, *_left_in_cgroups(root)]))


def _left_in_cgroups(root: Path) -> Iterator[int]:
    """Yield the bytes left under the limit of each memory cgroup that this process is in.

    File pages that the kernel gives back on demand (`inactive_file`) do not count as used.
    """
    for folder, limit, usage in _memory_cgroups(root):
        try:
            left = int((folder / limit).read_text()) - int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such cgroup, or its limit is "max"
            continue
        yield left + int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _memory_cgroups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the folder, limit file and usage file of this process's cgroup and all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mount, files = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # In a container the path may be the host's, of which only the mount itself is visible.
        own = mount / path.lstrip("/")
        for folder in (own, *own.parents):
            yield folder, *files
            if folder == mount:
                break


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is, or would be made."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


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
