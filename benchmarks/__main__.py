"""`python -m benchmarks NAME`."""

from __future__ import annotations

import tempfile
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
    _finish(report, json_file)


@app.command()
def startup(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    runs: Annotated[int, typer.Option(help="Child processes per figure.")] = 5,
) -> None:
    """Seconds and memory until the web process serves, and until a command has answered."""
    from benchmarks.startup import run

    report = Report("startup", {"runs": runs})
    run(report, n_runs=runs)
    _finish(report, json_file)


@app.command()
def annotate(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and a right answer per row.")],
    limit: Annotated[int | None, typer.Option(help="Evaluated texts, drawn; none: all.")] = None,
    shots: Annotated[int, typer.Option(help="Demonstrations in each prompt.")] = 0,
) -> None:
    """Accuracy, calibration and speed of the annotators on one data set."""
    from benchmarks.annotate import run

    report = Report("annotate", {"data": data.name, "limit": limit, "shots": shots})
    run(report, console=_console, data=data, limit=limit, shots=shots)
    _finish(report, json_file)


@app.command()
def answers(
    data: Annotated[Path, typer.Option(help="JSONL with a text and one right label per row.")],
    out: Annotated[Path, typer.Option(help="Where the answers go, .npz.")],
    limit: Annotated[int, typer.Option(help="Training texts, drawn.")] = 2000,
) -> None:
    """Store the LLM's zero-shot answers on training texts, for the other benchmarks."""
    from benchmarks.annotator_posteriors import store_answers

    store_answers(data, out, limit=limit, console=_console)


@app.command()
def forms(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and one right label per row.")],
    limit: Annotated[int, typer.Option(help="Training texts, drawn.")] = 300,
    draws: Annotated[int, typer.Option(help="Probes of 48 texts among them.")] = 60,
) -> None:
    """Every prompt form on training texts, and what the form probe would pick."""
    from benchmarks.template_selection import run

    report = Report("forms", {"data": data.name, "limit": limit, "draws": draws})
    run(report, console=_console, data=data, limit=limit, n_draws=draws)
    _finish(report, json_file)


@app.command()
def injection(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
) -> None:
    """How often an order inside a text changes its label, form by form."""
    from benchmarks.template_selection import run_injection

    report = Report("injection", {})
    run_injection(report)
    _finish(report, json_file)


@app.command()
def ordering(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    data: Annotated[Path, typer.Option(help="JSONL with text, label and split.")],
    strategies: Annotated[str, typer.Option(help="Names with commas between them.")],
    seeds: Annotated[int, typer.Option(help="Pools to draw.")] = 20,
    pool_size: Annotated[int, typer.Option(help="Training rows in a pool.")] = 1500,
    rows: Annotated[int | None, typer.Option(help="Training rows, without --posteriors.")] = None,
    random_draws: Annotated[int, typer.Option(help="Random orders per pool.")] = 50,
    posteriors: Annotated[Path | None, typer.Option(help="An LLM's answers, .npz.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="Vectors made before, .npz.")] = None,
    llm: Annotated[str, typer.Option(help="Address of an LLM server, for those that ask.")] = "",
    on_train: Annotated[bool, typer.Option(help="Measure on held-out training rows.")] = False,
    learner: Annotated[str, typer.Option(help="probe, or fine-tune: the small model.")] = "probe",
    test: Annotated[int, typer.Option(help="Test rows at most, evenly spread.")] = 2000,
) -> None:
    """Query strategies by how fast a learner learns from the texts that they put first."""
    from benchmarks.ordering import OrderingRun, run

    asked = OrderingRun(
        data=data,
        strategies=tuple(strategies.split(",")),
        n_seeds=seeds,
        pool_size=pool_size,
        n_random=random_draws,
        n_rows=rows,
        posteriors=posteriors,
        embeddings=embeddings,
        llm=llm,
        on_train=on_train,
        learner=learner,
        n_test=test,
    )
    report = Report("ordering", asked.parameters())
    run(report, asked, console=_console)
    report.write(json_file)


@app.command()
def selftrain(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and a right label per row.")],
    labels: Annotated[str | None, typer.Option(help="Their key, llm:FILE or similarity.")] = None,
    recipes: Annotated[str, typer.Option(help="Names, commas between.")] = "plain,default,gold",
    seeds: Annotated[int, typer.Option(help="Trainings of each recipe.")] = 3,
    human: Annotated[int, typer.Option(help="Right labels that people gave.")] = 0,
    noise: Annotated[float, typer.Option(help="Share of labels to make wrong.")] = 0.0,
    noise_kind: Annotated[
        str, typer.Option(help="drawn by a weak model's doubt, or hardest: where it doubts most.")
    ] = "drawn",
    limit: Annotated[int | None, typer.Option(help="Training texts, drawn; none: all.")] = None,
    test: Annotated[int | None, typer.Option(help="Test texts, drawn; none: all.")] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of every training.")] = 3,
    model: Annotated[str, typer.Option(help="Base encoder; none: the embedded one.")] = "",
    sizes: Annotated[str, typer.Option(help="Smaller pools for a learning curve: 100,200.")] = "",
) -> None:
    """What the small model makes of noisy labels: test accuracy, label errors found, seconds."""
    from benchmarks.selftrain import run
    from benchmarks.selftrain_runs import SelfTrainRun

    asked = SelfTrainRun(
        data=data,
        recipes=tuple(recipes.split(",")),
        labels=labels,
        n_seeds=seeds,
        n_human=human,
        noise=noise,
        noise_kind=noise_kind,
        limit=limit,
        n_test=test,
        n_epochs=epochs,
        model=model,
        sizes=tuple(int(size) for size in sizes.split(",") if size),
    )
    report = Report("selftrain", asked.parameters())
    run(report, asked, console=_console)
    _finish(report, json_file)


@app.command()
def rounds(
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and a right label per row.")],
    humans: Annotated[int, typer.Option(help="Answers by people, in the queue's order.")] = 0,
    recipe: Annotated[str, typer.Option(help="default or paper.")] = "default",
    limit: Annotated[int, typer.Option(help="Texts in the pool, drawn.")] = 2000,
    small_model: Annotated[str, typer.Option(help="A STUDENT_RECIPE.")] = "default",
    order: Annotated[str, typer.Option(help="queue, or random for comparison.")] = "queue",
    seed: Annotated[int, typer.Option(help="Which texts are drawn.")] = 0,
    answers: Annotated[
        Path | None, typer.Option(help="Keeps the LLM's answers for reruns.")
    ] = None,
) -> None:
    """Whole rounds over a simulated Label Studio: what FreeAL adds to its annotators."""
    from benchmarks.rounds import RoundsRun, run

    asked = RoundsRun(data, humans, recipe, limit, small_model, order, seed, answers)
    report = Report("rounds", asked.parameters())
    run(report, asked, console=_console)
    _finish(report, json_file)


@app.command()
def faults(
    json_file: Annotated[Path, typer.Option("--json", help="Where the rows go; gone on with.")],
    folder: Annotated[Path | None, typer.Option(help="Keeps the stage between runs.")] = None,
    llm: Annotated[str, typer.Option(help="Address of a server, scripted or embedded.")] = "",
    n_texts: Annotated[int, typer.Option(help="Texts in the pool.")] = 80,
    seed: Annotated[int, typer.Option(help="Which moments are drawn.")] = 0,
    minutes: Annotated[float, typer.Option(help="End after so many; 0: when all is played.")] = 0,
    only: Annotated[str, typer.Option(help="Names of cases, or how they begin.")] = "",
) -> None:
    """Kill, stop, lock, fill and cancel during a real round; count what is lost or paid twice."""
    from benchmarks.faults.run import FaultsRun, run

    with tempfile.TemporaryDirectory() as scratch:
        asked = FaultsRun(
            folder=(folder or Path(scratch)).absolute(),
            out=json_file,
            llm=llm or "embedded",
            n_texts=n_texts,
            seed=seed,
            minutes=minutes,
            only=tuple(name for name in only.split(",") if name),
        )
        report = Report("faults", asked.parameters())
        run(report, asked, console=_console)
    report.write(json_file)
    _console.print({k: v for k, v in report.results.items() if k != "cases"})


@app.command()
def pages() -> None:
    """Write docs/benchmarks/*.md from the JSON files beside them."""
    from benchmarks.pages import write_pages

    for page in write_pages():
        _console.print(f"wrote {page}")


def _finish(report: Report, json_file: Path) -> None:
    report.write(json_file)
    _console.print(report.table())


def _name(path: Path | None) -> str:
    return path.name if path else "demo"


if __name__ == "__main__":
    app()
