"""Start neighbours as child processes, wait until they answer, stop every one at the end."""

import http.client
import logging
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from backend.launcher.child import GRACE_S, POLL_S, ChildProcess, Command
from backend.launcher.errors import ProcessError, ServerNotReady
from backend.launcher.progress import stage

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_REQUEST_TIMEOUT_S = 5.0
_N_PORTS_TRIED = 50


class Processes:
    """The children that we started; leaving the `with` block stops them, the latest first.

    Inside the block SIGTERM and SIGHUP raise SystemExit, as Ctrl-C raises KeyboardInterrupt, so
    that all three end the block in the ordinary way. While children are being stopped, a further
    signal makes that immediate. Only the main thread can enter the block, as signals go to it.
    """

    def __init__(self, *, home: Path, console: Console, grace_s: float = GRACE_S) -> None:
        self._logs = home.absolute() / "logs"
        self._console = console
        self._grace_s = grace_s
        self._children: list[ChildProcess] = []
        self._restore_signals: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._restore_signals = _on_signals(_leave, signal.SIGTERM, signal.SIGHUP)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop_all()
        finally:
            self._restore_signals()

    def start(self, command: Command) -> ChildProcess:
        """Start a command now, without waiting for it; its output goes to home/logs/NAME.log."""
        child = ChildProcess(command, log_file=self._logs / f"{command.name}.log")
        self._children.append(child)
        logger.info("started %s as process %d", command.name, child.pid)
        return child

    def wait_ready(self, child: ChildProcess, *, url: str, deadline_s: float) -> None:
        """Wait until a GET of `url` succeeds.

        Raises:
            ProcessError: a child ended meanwhile; its last log lines are in the message.
            ServerNotReady: no success within `deadline_s`.
        """
        deadline = time.monotonic() + deadline_s
        with stage(self._console, f"Waiting for {child.name}") as news:
            while not answers(url):
                self.check()
                if time.monotonic() > deadline:
                    raise ServerNotReady(
                        f"{child.name} runs, but did not answer at {url} within "
                        f"{deadline_s:.0f} s. {child.log_tail()}"
                    )
                news(child.last_line())
                time.sleep(POLL_S)
            self.check()  # a stranger may have answered in the place of a child that has ended

    def check(self) -> None:
        """Raise ProcessError if any child has ended by itself."""
        for child in self._children:
            child.raise_if_ended()

    def watch(self) -> None:
        """Block for as long as all children run; raises ProcessError when one has ended."""
        while True:
            self.check()
            time.sleep(POLL_S)

    def stop(self, child: ChildProcess) -> None:
        """Stop one child, with its group."""
        with _signals_hurry() as is_hurried:
            self._children.remove(child)
            child.stop(grace_s=self._grace_s, is_hurried=is_hurried)

    def stop_all(self) -> None:
        """Stop all children, the latest first."""
        with _signals_hurry() as is_hurried:
            while self._children:
                self._children.pop().stop(grace_s=self._grace_s, is_hurried=is_hurried)


def answers(url: str) -> bool:
    """Say whether a GET of `url` succeeds; never asks a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_REQUEST_TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, http.client.HTTPException):
        return False


def free_port(preferred: int, *, name: str, console: Console) -> int:
    """Return the preferred port, or the next free one and say so."""
    for port in range(preferred, preferred + _N_PORTS_TRIED):
        if _is_free(port):
            if port != preferred:
                console.print(Text(f"Port {preferred} is taken: {name} uses {port}"))
            return port
    last = preferred + _N_PORTS_TRIED - 1
    raise ProcessError(
        f"no port is free from {preferred} to {last}, and {name} needs one. Stop one."
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _on_signals(
    handler: Callable[[int, FrameType | None], None], *signums: signal.Signals
) -> Callable[[], None]:
    """Install a handler for the signals that are not ignored (nohup); return how to undo it."""
    former = {one: signal.getsignal(one) for one in signums}
    heeded = {one: handler for one, handler in former.items() if handler is not signal.SIG_IGN}
    for signum in heeded:
        signal.signal(signum, handler)

    def restore() -> None:
        for signum, former_handler in heeded.items():
            signal.signal(signum, former_handler)

    return restore


@contextmanager
def _signals_hurry() -> Iterator[Callable[[], bool]]:
    """Take note of signals instead of obeying them, so that none cuts the stopping short."""
    received: list[int] = []
    restore = _on_signals(
        lambda signum, _: received.append(signum), signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    )
    try:
        yield lambda: bool(received)
    finally:
        restore()
