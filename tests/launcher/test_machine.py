"""What the machine has free: by the system, by a container's limits, on a disk."""

import os

import pytest

from backend.launcher.machine import GB, computes_in_bfloat16, free_disk, free_memory


@pytest.fixture
def machine(tmp_path):
    """A file system whose files say how much memory there is."""

    def write(**files: str):
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    write(proc__meminfo="MemTotal: 32000000 kB\nMemFree: 1000000 kB\nMemAvailable: 20000000 kB\n")
    return write


def test_without_limits_the_system_s_available_memory_counts(machine):
    assert free_memory(machine()) == 20_000_000 * 1024
    assert free_memory(machine(proc__self__cgroup="0::/\n")) == 20_000_000 * 1024


def test_a_container_of_cgroup_v2_counts_with_its_limit(machine):
    root = machine(
        proc__self__cgroup="0::/\n",
        **{
            "sys/fs/cgroup/memory.max": "8000000000\n",
            "sys/fs/cgroup/memory.current": "3000000000\n",
            "sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 1000000000\n",
        },
    )
    assert free_memory(root) == 6 * GB


def test_the_tightest_limit_of_the_cgroups_above_counts(machine):
    own, above = "sys/fs/cgroup/user.slice/shell.scope", "sys/fs/cgroup/user.slice"
    root = machine(
        proc__self__cgroup="0::/user.slice/shell.scope\n",
        **{
            f"{own}/memory.max": "max\n",
            f"{own}/memory.current": "100\n",
            f"{own}/memory.stat": "inactive_file 0\n",
            f"{above}/memory.max": "4000000000\n",
            f"{above}/memory.current": "1000000000\n",
            f"{above}/memory.stat": "inactive_file 0\n",
        },
    )
    assert free_memory(root) == 3 * GB


@pytest.mark.parametrize("path", ["/docker/0123", "/"])
def test_a_container_of_cgroup_v1_counts_with_its_limit_wherever_it_is_mounted(machine, path):
    root = machine(
        proc__self__cgroup=f"4:cpu,memory:{path}\n0::/\n",
        **{
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000000\n",
            "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 500000000\n",
        },
    )
    assert free_memory(root) == GB


def test_a_limit_that_is_used_up_leaves_nothing(machine):
    root = machine(
        proc__self__cgroup="0::/\n",
        **{
            "sys/fs/cgroup/memory.max": "1000\n",
            "sys/fs/cgroup/memory.current": "5000\n",
            "sys/fs/cgroup/memory.stat": "inactive_file 0\n",
        },
    )
    assert free_memory(root) == 0


def test_a_system_that_does_not_tell_counts_with_all_of_its_memory(tmp_path):
    assert free_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_folder_that_is_not_there_yet_has_its_disk_s_space(tmp_path):
    missing = tmp_path / "not" / "there"
    assert free_disk(missing) == pytest.approx(free_disk(tmp_path), rel=0.1)
    assert not missing.exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16", True), ("fpu amx_bf16", True)],
)
def test_bfloat16_is_read_from_the_processor_s_flags(tmp_path, flags, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags : {flags}\n")
    assert computes_in_bfloat16(cpuinfo) is expected
    assert computes_in_bfloat16(tmp_path / "nothing") is True
