"""Install the build of torch that pip's own settings choose, if requirements.lock allows its hash.

`pip install --require-hashes` cannot choose: it prefers PyPI's build to one for CPUs from a folder.

Usage: torch_build.py (with the Python to install it for)
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

from lock import LOCK, check, read_lock

_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def main() -> None:
    """Download, check and install it, unless one of this version is there."""
    locked = read_lock(LOCK.read_text())
    (pin,) = (line for line in locked if line.startswith("torch=="))
    if _installed() == pin.split("==")[1]:
        return
    with tempfile.TemporaryDirectory() as folder:
        options = ("--no-deps", "--only-binary", ":all:", "--dest", folder)
        subprocess.run((*_PIP, "download", *options, pin), check=True)  # noqa: S603
        (wheel,) = Path(folder).glob("*.whl")
        check(wheel, locked[pin])
        subprocess.run((*_PIP, "install", "--no-deps", str(wheel)), check=True)  # noqa: S603


def _installed() -> str:
    try:
        return importlib.metadata.version("torch").split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
