"""Show one long stage on the console: a spinner, the time so far, and the latest line of news."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

News = Callable[[str], None]

_N_DETAIL_CHARACTERS = 70


@contextmanager
def stage(console: Console, title: str) -> Iterator[News]:
    """Yield a function that replaces the stage's line of news; say at the end how long it took.

    Where the console is no terminal (a log, a build), there is one line at each end and no spinner.
    """
    started = time.monotonic()
    outcome = "[red]failed[/red]"
    if not console.is_terminal:
        console.print(Text(f"{title} ..."))
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False, style="dim"),
    )
    try:
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress:
            bar = progress.add_task(title, total=None, detail="")
            yield lambda line: progress.update(bar, detail=line.strip()[:_N_DETAIL_CHARACTERS])
        outcome = "[green]done[/green]"
    except (KeyboardInterrupt, SystemExit):
        outcome = "[yellow]interrupted[/yellow]"
        raise
    finally:
        took_s = time.monotonic() - started
        console.print(Text(f"{title}: "), Text.from_markup(outcome), f"({took_s:.0f} s)")
