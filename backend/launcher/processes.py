"""Start servers as child processes, wait until they answer, and stop all of them at the end."""

import http.client
import logging
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from backend.errors import ProcessError, ServerNotReady
from backend.launcher.child_process import GRACE_S, POLL_S, ChildProcess, Command

LOOPBACK = "127.0.0.1"

_LOG = logging.getLogger(__name__)
_MAX_PORTS_TRIED = 50
_MAX_LINE_CHARACTERS = 70


class Processes:
    """Child processes with logs in home/logs; leaving the `with` block stops them, latest first.

    Inside the block SIGTERM and SIGHUP raise SystemExit, as Ctrl-C raises KeyboardInterrupt, so
    that all three end the block in the ordinary way. While children are being stopped, a further
    signal makes that immediate. Only the main thread can enter the block, as signals go to it.
    """

    def __init__(self, *, home: Path, console: Console, grace_s: float = GRACE_S) -> None:
        self.home = home.absolute()
        self.console = console
        self._grace_s = grace_s
        self._children: list[ChildProcess] = []
        self._signals = ExitStack()

    def __enter__(self) -> Self:
        def end(signum: int, frame: FrameType | None) -> None:
            raise SystemExit(128 + signum)

        self._signals.enter_context(_on_signals(end, signal.SIGTERM, signal.SIGHUP))
        return self

    def __exit__(self, *_: object) -> None:
        with self._signals:
            self.stop(*reversed(self._children))

    def start(self, command: Command) -> ChildProcess:
        """Start a command now, without waiting for it; its output goes to home/logs/NAME.log."""
        child = ChildProcess(command, log_file=self.home / "logs" / f"{command.name}.log")
        self._children.append(child)
        _LOG.info("started %s as process %d", command.name, child.pid)
        return child

    def wait_ready(self, child: ChildProcess, *, url: str, deadline_s: float) -> None:
        """Wait until a GET of `url` succeeds.

        Raises:
            ProcessError: a child ended meanwhile; its last log lines are in the message.
            ServerNotReady: no success within `deadline_s`.
        """
        deadline = time.monotonic() + deadline_s
        with shown_stage(self.console, f"Waiting for {child.name}") as show_line:
            while not answers(url):
                self.check()
                if time.monotonic() > deadline:
                    raise ServerNotReady(
                        f"{child.name} runs, but did not answer at {url} within "
                        f"{deadline_s:.0f} s. {child.log_tail()}"
                    )
                show_line(child.last_line())
                time.sleep(POLL_S)
            self.check()  # another program may have answered on the port of an ended child

    def check(self) -> None:
        """Raise ProcessError if any child has ended by itself."""
        for child in self._children:
            child.raise_if_ended()

    def watch(self) -> None:
        """Block while all children run; raises ProcessError when one has ended."""
        while True:
            self.check()
            time.sleep(POLL_S)

    def stop(self, *children: ChildProcess) -> None:
        """Stop children, each with its group, in this order."""
        with _recorded_signals() as is_hurried:
            for child in children:
                self._children.remove(child)
                child.stop(grace_s=self._grace_s, is_hurried=is_hurried)


def run_to_end(command: Command, *, log_file: Path, title: str, console: Console) -> None:
    """Run a command until it ends, showing the latest line of its output.

    Raises:
        ProcessError: it failed; its last lines are in the message.
    """
    with shown_stage(console, title) as show_line:
        run_with_lines(command, log_file=log_file, show_line=show_line)


def run_with_lines(command: Command, *, log_file: Path, show_line: Callable[[str], None]) -> None:
    """Run a command until it ends, handing on the latest line of its output; see `run_to_end`."""
    child = ChildProcess(command, log_file=log_file)
    try:
        while (code := child.exit_code()) is None:
            show_line(child.last_line())
            time.sleep(POLL_S)
        if code != 0:
            child.raise_if_ended()
    finally:
        child.stop()


@contextmanager
def shown_stage(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner, the seconds so far and a line of details; yield what replaces that line.

    Where the console is no terminal (a log, a build), there is one line at each end and no spinner.
    """
    started = time.monotonic()
    outcome = "[red]failed[/red]"
    if not console.is_terminal:
        console.print(Text(f"{title} ..."))
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False, style="dim"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        with progress:
            bar = progress.add_task(title, total=None, detail="")
            yield lambda line: progress.update(bar, detail=line.strip()[:_MAX_LINE_CHARACTERS])
        outcome = "[green]done[/green]"
    except (KeyboardInterrupt, SystemExit):
        outcome = "[yellow]interrupted[/yellow]"
        raise
    finally:
        took_s = time.monotonic() - started
        console.print(Text(f"{title}: "), Text.from_markup(outcome), f"({took_s:.0f} s)")


def answers(url: str) -> bool:
    """Return whether a GET of `url` succeeds."""
    status = http_status(url)
    return status is not None and status < 300


def http_status(
    url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 5.0
) -> int | None:
    """Return the HTTP status of a GET, None without an answer; proxies are never used."""
    request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310  (our own)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def free_port(preferred: int, *, name: str, console: Console) -> int:
    """Return the preferred port, or the next free one and say so."""
    for port in range(preferred, preferred + _MAX_PORTS_TRIED):
        try:
            socket.create_server((LOOPBACK, port)).close()
        except OSError:
            continue
        if port != preferred:
            console.print(Text(f"Port {preferred} is taken: {name} uses {port}"))
        return port
    last = preferred + _MAX_PORTS_TRIED - 1
    raise ProcessError(
        f"no port is free from {preferred} to {last}, and {name} needs one. Stop one."
    )


@contextmanager
def _on_signals(
    handler: Callable[[int, FrameType | None], None], *signums: signal.Signals
) -> Iterator[None]:
    """Install a handler, inside the block, for the signals that are not ignored (nohup)."""
    former = {one: signal.getsignal(one) for one in signums}
    former = {one: before for one, before in former.items() if before is not signal.SIG_IGN}
    for signum in former:
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, before in former.items():
            signal.signal(signum, before)


@contextmanager
def _recorded_signals() -> Iterator[Callable[[], bool]]:
    """Record signals instead of obeying them, so that none interrupts the stopping."""
    received: list[int] = []
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with _on_signals(lambda signum, _: received.append(signum), *signums):
        yield lambda: bool(received)
