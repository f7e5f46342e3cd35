"""The command line of the benchmarks: `python -m benchmarks NAME`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from benchmarks.report import Report

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_console = Console()


@app.callback()
def root() -> None:
    """Measure FreeAL for Label Studio, and write docs/benchmarks from the reports."""


@app.command()
def serving(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path | None, typer.Option(help="JSONL of texts; default: the demo's.")] = None,
    n_texts: Annotated[int, typer.Option(help="Texts to annotate.")] = 1000,
) -> None:
    """Measure latency against a bare label-studio-ml backend, and labels/s against the LLM's."""
    from benchmarks.serving import run

    report = Report("serving", {"n_texts": n_texts, "data": _name(data)})
    run(report, console=_console, data=data, n_texts=n_texts)
    _finish(report, json_file)


@app.command()
def startup(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    runs: Annotated[int, typer.Option(help="Child processes per figure.")] = 5,
) -> None:
    """Measure seconds and memory until the web process serves and until commands answer."""
    from benchmarks.startup import run

    report = Report("startup", {"runs": runs})
    run(report, n_runs=runs)
    _finish(report, json_file)


@app.command()
def page(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    tasks: Annotated[int, typer.Option(help="Tasks in the project.")] = 100_000,
    runs: Annotated[int, typer.Option(help="Requests per figure.")] = 5,
) -> None:
    """Measure what each part of the page costs on a large project."""
    from benchmarks.page import run

    report = Report("page", {"tasks": tasks, "runs": runs})
    run(report, console=_console, n_tasks=tasks, n_runs=runs)
    _finish(report, json_file)


@app.command()
def annotate(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and a gold answer per row.")],
    limit: Annotated[int | None, typer.Option(help="Evaluated texts, drawn; default: all.")] = None,
    shots: Annotated[int, typer.Option(help="Gold demonstrations in each prompt, for spans.")] = 0,
    answers: Annotated[
        Path | None, typer.Option(help="Folder that keeps the LLM's answers; no speed then.")
    ] = None,
) -> None:
    """Measure the annotators' accuracy, calibration and speed on one data set."""
    from benchmarks.annotate import run

    report = Report("annotate", {"data": data.name, "limit": limit, "shots": shots})
    run(report, console=_console, data=data, limit=limit, shots=shots, answers=answers)
    _finish(report, json_file)


@app.command()
def accept(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path, typer.Option(help="Folder of data sets.")] = Path("../shared/data"),
    cache: Annotated[Path, typer.Option(help="Folder that keeps embeddings.")] = Path(".freeal"),
    projects: Annotated[int, typer.Option(help="Simulated projects of each kind.")] = 1000,
    draws: Annotated[int, typer.Option(help="Draws of each set's holdout.")] = 100,
    pool: Annotated[int, typer.Option(help="Texts of each set.")] = 2000,
) -> None:
    """Simulate the promise of accepted labels, and count what holdouts of six sets certify."""
    from benchmarks.accept import AcceptRun, run

    names = ("ag_news", "clinc150", "newsgroups20", "sms_spam", "trec", "tweet_offensive")
    files = [data / f"{name}.jsonl.gz" for name in names]
    given = {"n_projects": projects, "n_draws": draws, "n_pool": pool}
    config = AcceptRun(files, cache, projects, draws, pool)
    _measure(run, config, Report("accept", given), json_file)


@app.command()
def answers(
    data: Annotated[Path, typer.Option(help="JSONL with a text and one gold label per row.")],
    out: Annotated[Path, typer.Option(help="Posteriors to write, .npz.")],
    limit: Annotated[int, typer.Option(help="Training texts, drawn.")] = 2000,
) -> None:
    """Store the LLM's zero-shot posteriors of training texts, for the other benchmarks."""
    from benchmarks.annotator_posteriors import store_llm_posteriors

    store_llm_posteriors(data, out, limit=limit, console=_console)


@app.command()
def forms(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and one gold label per row.")],
    limit: Annotated[int, typer.Option(help="Training texts, drawn.")] = 300,
    draws: Annotated[int, typer.Option(help="Selections on 48 drawn texts each.")] = 60,
) -> None:
    """Measure every prompt template on training texts, and the automatic selection."""
    from benchmarks.template_selection import run

    report = Report("forms", {"data": data.name, "limit": limit, "draws": draws})
    run(report, console=_console, data=data, limit=limit, n_draws=draws)
    _finish(report, json_file)


@app.command()
def injection(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
) -> None:
    """Measure how often an instruction inside a text changes its label, per prompt template."""
    from benchmarks.injection import run

    report = Report("injection", {})
    run(report)
    _finish(report, json_file)


@app.command()
def ordering(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path, typer.Option(help="JSONL with text, label and split.")],
    strategies: Annotated[str, typer.Option(help="Names, separated by commas.")],
    seeds: Annotated[int, typer.Option(help="Number of drawn pools.")] = 20,
    pool_size: Annotated[int, typer.Option(help="Training rows in a pool.")] = 1500,
    rows: Annotated[
        int | None, typer.Option(help="Training rows to draw from, without --posteriors.")
    ] = None,
    random_draws: Annotated[int, typer.Option(help="Random orders per pool.")] = 50,
    posteriors: Annotated[Path | None, typer.Option(help="Posteriors of `answers`, .npz.")] = None,
    embeddings: Annotated[Path | None, typer.Option(help="Stored embeddings, .npz.")] = None,
    llm: Annotated[str, typer.Option(help="LLM server, for strategies that need one.")] = "",
    on_train: Annotated[bool, typer.Option(help="Measure on held-out training rows.")] = False,
    learner: Annotated[str, typer.Option(help="probe, or fine-tune: the student.")] = "probe",
    test: Annotated[int, typer.Option(help="Test rows at most, evenly spread.")] = 2000,
    definitions: Annotated[bool, typer.Option(help="Tell similarity what labels mean.")] = True,
) -> None:
    """Measure query strategies by the learning curve of a learner, against random order."""
    from benchmarks.ordering import OrderingRun, run

    config = OrderingRun(
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
        has_definitions=definitions,
    )
    report = Report("ordering", config.parameters())
    run(report, config, console=_console)
    report.write(json_file)


@app.command()
def selftrain(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and a gold label per row.")],
    labels: Annotated[
        str | None,
        typer.Option(help="Labels to learn from: a key of the rows, llm:FILE or similarity."),
    ] = None,
    recipes: Annotated[
        str, typer.Option(help="Names, separated by commas.")
    ] = "plain,default,gold",
    seeds: Annotated[int, typer.Option(help="Trainings per recipe.")] = 3,
    human: Annotated[int, typer.Option(help="Texts with human labels.")] = 0,
    noise: Annotated[float, typer.Option(help="Share of gold labels to corrupt.")] = 0.0,
    noise_kind: Annotated[
        str,
        typer.Option(
            help="drawn by a weak model's uncertainty, or hardest: its most uncertain texts."
        ),
    ] = "drawn",
    limit: Annotated[int | None, typer.Option(help="Training texts, drawn; default: all.")] = None,
    test: Annotated[int | None, typer.Option(help="Test texts, drawn; default: all.")] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of every training.")] = 3,
    model: Annotated[str, typer.Option(help="Base encoder; default: the embedded one.")] = "",
    sizes: Annotated[
        str, typer.Option(help="Smaller pool sizes for a learning curve, like 100,200.")
    ] = "",
) -> None:
    """Measure the student on noisy labels: test accuracy, label errors found, seconds."""
    from benchmarks.selftrain import run
    from benchmarks.selftrain_runs import SelfTrainRun

    config = SelfTrainRun(
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
    _measure(run, config, Report("selftrain", config.parameters()), json_file)


@app.command()
def rounds(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    data: Annotated[Path, typer.Option(help="JSONL with a text and a gold label per row.")],
    humans: Annotated[
        str, typer.Option(help="Texts with simulated human labels; 16,32,64: a round follows each.")
    ] = "0",
    recipe: Annotated[str, typer.Option(help="Round recipe: default or paper.")] = "default",
    limit: Annotated[int, typer.Option(help="Texts in the pool, drawn.")] = 2000,
    student: Annotated[
        str, typer.Option("--small-model", help="The student's recipe, as STUDENT_RECIPE.")
    ] = "default",
    order: Annotated[
        str, typer.Option(help="Who chooses them: queue, random, uncertainty or maxherding.")
    ] = "queue",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    answers: Annotated[Path | None, typer.Option(help="Folder of cached answers.")] = None,
    llm: Annotated[Path | None, typer.Option(help="Folder of an LLM that runs here.")] = None,
) -> None:
    """Measure what whole rounds add to the annotators, over a simulated Label Studio."""
    from benchmarks.rounds import RoundsRun, run

    sizes = tuple(sorted(int(n) for n in humans.split(",")))
    config = RoundsRun(data, sizes, recipe, limit, student, order, seed, answers, llm)
    _measure(run, config, Report("rounds", config.parameters()), json_file)


@app.command()
def faults(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write, or to continue.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder that keeps the testbed between runs.")
    ] = None,
    llm: Annotated[str, typer.Option(help="URL of an LLM server, or scripted, or embedded.")] = "",
    question: Annotated[
        Literal["choice", "spans"], typer.Option(help="What the project asks.")
    ] = "choice",
    n_texts: Annotated[int, typer.Option(help="Texts in the pool.")] = 80,
    seed: Annotated[int, typer.Option(help="Seed of the faults' moments.")] = 0,
    minutes: Annotated[float, typer.Option(help="Limit on the run; 0: none.")] = 0,
    only: Annotated[
        str, typer.Option(help="Cases to run: names or prefixes, separated by commas.")
    ] = "",
) -> None:
    """Inject faults into a real round, and count what is lost, duplicated or paid twice."""
    from benchmarks.faults.run import FaultsRun, run

    with tempfile.TemporaryDirectory() as scratch:
        config = FaultsRun(
            folder=(folder or Path(scratch)).absolute(),
            out=json_file,
            llm=llm or "embedded",
            question=question,
            n_texts=n_texts,
            seed=seed,
            minutes=minutes,
            only=tuple(name for name in only.split(",") if name),
        )
        report = Report("faults", config.parameters())
        run(report, config, console=_console)
    report.write(json_file)
    _console.print({k: v for k, v in report.results.items() if k != "cases"})


@app.command()
def retention(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    n_tasks: Annotated[int, typer.Option(help="Tasks in the project.")] = 10_000,
    n_rounds: Annotated[int, typer.Option(help="Rounds in the year.")] = 100,
    n_answers: Annotated[int, typer.Option(help="Annotations by people in the year.")] = 50_000,
) -> None:
    """Write what a busy project writes in a year, and weigh what stays on the disk."""
    from benchmarks.retention import RetentionRun, run

    config = RetentionRun(n_tasks=n_tasks, n_rounds=n_rounds, n_answers=n_answers)
    _measure(run, config, Report("retention", asdict(config)), json_file)


@app.command("first-order")
def first_order(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    tasks: Annotated[int, typer.Option(help="Texts in the project.")] = 10_000,
    llm: Annotated[str, typer.Option(help="none, where none answers; scripted.")] = "none,scripted",
    seconds: Annotated[int, typer.Option(help="Length of the run at most, s.")] = 180,
    data: Annotated[Path | None, typer.Option(help="JSONL of texts; default: the demo's.")] = None,
    pools: Annotated[str, typer.Option(help="Sizes of made pools.")] = "100000,1000000",
) -> None:
    """Measure the seconds until a new project has an order, and what large pools take."""
    from benchmarks.first_order import FirstOrderRun, run

    llms, sizes = tuple(llm.split(",")), tuple(map(int, pools.split(",")))
    config = FirstOrderRun(tasks, llms, seconds, data, sizes)
    _measure(run, config, Report("first-order", config.parameters()), json_file)


@app.command()
def projects(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    n_projects: Annotated[int, typer.Option(help="Projects that Label Studio has.")] = 200,
    n_tasks: Annotated[int, typer.Option(help="Labeled tasks in each.")] = 100,
    n_invented: Annotated[int, typer.Option(help="Projects that do not exist.")] = 2_000,
) -> None:
    """Measure routes and the worker's pass with many projects, real and invented ones."""
    from benchmarks.many_projects import ManyProjectsRun, run

    config = ManyProjectsRun(n_projects=n_projects, n_tasks=n_tasks, n_invented=n_invented)
    _measure(run, config, Report("projects", asdict(config)), json_file)


@app.command()
def scale(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    workers: Annotated[str, typer.Option(help="Numbers of workers, like 1,2,4.")] = "1,2,4",
    tasks: Annotated[int, typer.Option(help="Tasks in the project.")] = 200_000,
    latency: Annotated[float, typer.Option(help="The LLM's per list of prompts, s.")] = 3.0,
    imports: Annotated[
        float, typer.Option(help="Predictions that Label Studio takes in a second; 0: no limit.")
    ] = 0.0,
) -> None:
    """Measure one large project's labels a second by the number of workers on one PostgreSQL."""
    from benchmarks.scale import ScaleRun, run

    numbers = tuple(int(number) for number in workers.split(","))
    config = ScaleRun(tasks, numbers, latency, imports)
    _measure(run, config, Report("scale", asdict(config)), json_file)


@app.command()
def load(
    json_file: Annotated[Path, typer.Option("--json", help="Report to write.")],
    projects: Annotated[int, typer.Option(help="Projects that connect at once.")] = 20,
    tasks: Annotated[int, typer.Option(help="Tasks in each.")] = 2_000,
    seconds: Annotated[int, typer.Option(help="Length of each webhook run, s.")] = 30,
    latency: Annotated[float, typer.Option(help="The LLM's per list of prompts, s.")] = 1.0,
) -> None:
    """Measure what people wait for while the worker is busy, beside a bare backend."""
    from benchmarks.load import LoadRun, run

    config = LoadRun(projects, tasks, seconds, latency)
    _measure(run, config, Report("load", asdict(config)), json_file)


@app.command()
def pages() -> None:
    """Write docs/benchmarks/*.md from the JSON files beside them."""
    from benchmarks.pages import write_pages

    for page in write_pages():
        _console.print(f"wrote {page}")


def _measure(run: Callable[..., None], config: object, report: Report, json_file: Path) -> None:
    run(report, config, console=_console)
    _finish(report, json_file)


def _finish(report: Report, json_file: Path) -> None:
    report.write(json_file)
    _console.print(report.table())


def _name(path: Path | None) -> str:
    return path.name if path else "demo"


if __name__ == "__main__":
    app()
