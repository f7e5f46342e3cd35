"""`python -m benchmarks NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import Report

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_console = Console()


@app.callback()
def root() -> None:
    """Measure FreeAL for Label Studio."""


@app.command()
def serving(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    data: Annotated[Path | None, typer.Option(help="JSONL of texts; none: the demo's.")] = None,
    n_texts: Annotated[int, typer.Option(help="Texts to annotate.")] = 1000,
    seconds: Annotated[int, typer.Option(help="Length of the webhook runs.")] = 30,
) -> None:
    """Routes against a bare label-studio-ml backend; labelling against the server's ceiling."""
    from benchmarks.serving import run

    report = Report("serving", {"n_texts": n_texts, "seconds": seconds, "data": _name(data)})
    run(report, console=_console, data=data, n_texts=n_texts, seconds=seconds)
    report.write(json_file)
    _console.print(report.table())


@app.command()
def pages() -> None:
    """Write docs/benchmarks/*.md from the JSON files beside them."""
    from benchmarks.pages import write_pages

    for page in write_pages():
        _console.print(f"wrote {page}")


def _name(path: Path | None) -> str:
    return path.name if path else "demo"


if __name__ == "__main__":
    app()
