"""Write requirements.lock and requirements-cuda.lock: versions with all their files' hashes.

uv resolves requirements.txt for all platforms at once; pip refuses a file with another hash. Builds
of torch from another index than PyPI's are other files: those named on the command line are allowed
too, and so are earlier ones of the same version.

Usage: lock.py UV [torch-wheel ...]
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, CUDA_LOCK = ROOT / "requirements.lock", ROOT / "requirements-cuda.lock"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_ONLY_FOR_CUDA = re.compile(r"(nvidia|cuda)-|triton==")
_HEADER = "# Written by `make lock` from {sources}.\n# {use}\n"
_UV_OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-header", "--no-annotate", "--quiet"),
)


def main(uv: str, *torch_wheels: str) -> None:
    """Resolve, and write both locks."""
    own = ("requirements.txt", "requirements-label-studio-ml.txt")
    entries = _resolve(uv, own[0]) | _resolve(uv, own[1], "--no-deps")
    _allow_builds_of_torch(entries, torch_wheels)
    cuda = {line: hashes for line, hashes in entries.items() if _ONLY_FOR_CUDA.match(line)}
    rest = {line: hashes for line, hashes in entries.items() if line not in cuda}
    all_use = "Complete: pip install --require-hashes --no-deps -r requirements.lock"
    LOCK.write_text(_HEADER.format(sources=" and ".join(own), use=all_use) + _text(rest))
    cuda_use = "What torch asks for besides, in its build for NVIDIA GPUs."
    CUDA_LOCK.write_text(_HEADER.format(sources=own[0], use=cuda_use) + _text(cuda))


def read_lock(text: str) -> dict[str, set[str]]:
    """Return name==version with its marker -> the allowed hashes."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return {_HASH.sub("", line).strip(): set(_HASH.findall(line)) for line in lines}


def _resolve(uv: str, source: str, *options: str) -> dict[str, set[str]]:
    command = (uv, "pip", "compile", source, *_UV_OPTIONS, *options)
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return read_lock(done.stdout)


def _allow_builds_of_torch(entries: dict[str, set[str]], wheels: tuple[str, ...]) -> None:
    torch = next(line for line in entries if line.startswith("torch=="))
    before = read_lock(LOCK.read_text()) if LOCK.exists() else {}
    entries[torch] |= before.get(torch, set())
    for wheel in map(Path, wheels):
        if not wheel.name.startswith(torch.replace("==", "-")):
            raise SystemExit(f"{wheel.name} is not a build of {torch}")
        entries[torch].add(_sha256(wheel))


def check(file: Path, allowed: set[str]) -> None:
    """End the program with a remedy unless the file has one of the hashes."""
    found = _sha256(file)
    if found not in allowed:
        raise SystemExit(
            f"{file.name} has the hash {found}, which requirements.lock does not name. "
            "If you trust it: make lock TORCH_WHEELS=FILE. Or go without: make install HASHED=no"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _text(entries: dict[str, set[str]]) -> str:
    lines = []
    for name in sorted(entries):
        hashes = (f"    --hash=sha256:{value}" for value in sorted(entries[name]))
        lines.append(" \\\n".join((name, *hashes)))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
