"""A real PostgreSQL server on loopback, in a folder of its own, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")
_NOBODY = "nobody"


def binary(name: str) -> str:
    """Return a server program's path; Debian keeps them off PATH. Fails when there is none."""
    found = sorted(map(str, _DEBIAN.glob(f"*/bin/{name}")))
    program = found[-1] if found else shutil.which(name)
    if program is None:
        raise RuntimeError(f"no {name} here: apt-get install postgresql")
    return program


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Start a server with its data in `folder`; yield its URL without a database's name.

    PostgreSQL refuses to run as root: then it runs as nobody, and `folder` must be reachable.
    """
    data = folder / "data"
    data.mkdir(parents=True)
    user = _unprivileged(folder)
    port = _free_port()
    init = [binary("initdb"), "-D", str(data), "-U", "freeal", "-A", "trust", "--no-sync"]
    subprocess.run(init, check=True, capture_output=True, user=user, cwd="/")
    arguments = [binary("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
    options = ["-k", str(folder), "-c", "fsync=off", "-c", "max_connections=200"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*arguments, *options], stdout=log, stderr=log, user=user, cwd="/"
        )
    try:
        _wait(port, server)
        yield f"postgresql+psycopg://freeal@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients that are still connected
        server.wait(30)


def _unprivileged(folder: Path) -> str | None:
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(_NOBODY)
    for path in (folder, folder / "data"):
        os.chown(path, entry.pw_uid, entry.pw_gid)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp"):  # noqa: S108
            parent.chmod(parent.stat().st_mode | 0o011)
    return _NOBODY


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    ready = [binary("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "30"]
    for _ in range(100):
        if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
            return
        if server.poll() is not None:
            break
        try:
            server.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    raise RuntimeError("PostgreSQL did not start")
