"""Write the pages of `scale` and `load` from their reports."""

from __future__ import annotations

from typing import Any

from benchmarks.load import N_HALF_REQUESTS, N_SIDE_BY_SIDE
from benchmarks.report import Goals, goal_table, origin

_MIN_RATIO = 3.5
_RATIO_WORKERS = 4
_MAX_MB = 1_024
_LOAD_MEANINGS = {
    "webhook_10_p99_ms": "/webhook at 10 a second while the worker labels, 99th percentile, ms",
    "webhook_10_max_ms": "the slowest of them, ms",
    "webhook_50_p99_ms": "/webhook at 50 a second while the worker labels, 99th percentile, ms",
    "webhook_50_max_ms": "the slowest of them, ms",
    "webhooks_lost": "webhooks that were sent and are not stored",
    "predict_200_p50_ms": f"/predict, {N_SIDE_BY_SIDE} calls at the same moment, median, ms",
    "predict_200_max_ms": "the slowest of them, ms",
    "first_labels_p50_s": "from connecting, all projects at once, to a project's first labels, s",
    "first_labels_max_s": "the same, the last project, s",
    **{
        f"half_requests_{name}_delay_ms": (
            f"/{name} beside {N_HALF_REQUESTS} half requests: more at the 99th percentile, ms"
        )
        for name in ("health", "predict", "webhook")
    },
}
_LOAD_GOALS: Goals = (
    ("webhook_10_p99_ms", "under 100", lambda value: value < 100),
    ("webhook_50_max_ms", "under 1,000", lambda value: value < 1_000),
    ("webhooks_lost", "0", lambda value: value == 0),
    ("first_labels_max_s", "at most 60", lambda value: value <= 60),
    *(
        (f"half_requests_{name}_delay_ms", "under 100", lambda value: value < 100)
        for name in ("health", "predict", "webhook")
    ),
)


def load_page(report: dict[str, Any], source: str) -> str:
    """Return the page of `load`."""
    lines = [
        "# Load: what waits while the worker is busy",
        "",
        origin(report, source) + ". Everything shares them: web, worker, the scripted servers, the "
        "bare backend and the clients.",
        "",
        *goal_table(report["results"], _LOAD_MEANINGS, _LOAD_GOALS),
        "",
        "Beside them, in the same run (`bare_` is label-studio-ml 1.0.9 answering constants under "
        "the same web server; its webhooks fork a process each and are given up after 1 s):",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| `{name}` | {value} |" for name, value in report["notes"].items()),
        "",
        "How it is measured: web and worker run as `serve` starts them, on SQLite, with the real "
        "sentence encoder; Label Studio and the LLM are scripted, the LLM with a fixed latency for "
        "each list of prompts. All projects connect at the same moment; a project's first labels "
        "are there when Label Studio has received them. Webhooks are posted on a fixed schedule, "
        "independent of the answers, and a call's time counts from the moment when it was due.",
        "",
    ]
    return "\n".join(lines)


def scale_page(report: dict[str, Any], source: str) -> str:
    """Return the page of `scale`."""
    results = report["results"]
    rows = results["rows"]
    lines = [
        "# Scale: one large project on several workers",
        "",
        origin(report, source) + ". Everything shares them: the workers, PostgreSQL and the "
        "scripted servers.",
        "",
        "| workers | labels a second | ratio to one | a worker's processor ms per label | "
        "processor shares | peak memory of a worker, MB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['n_workers']} | {row['labels_per_s']} | {row['ratio']} | "
            f"{row['worker_ms_per_label']} | {_shares(row)} | {row['worker_mb']} |"
            for row in rows
        ),
        "",
        "| figure | value | goal | met |",
        "|---|---|---|---|",
        *(_goal_row(name, value, goal, is_met) for name, value, goal, is_met in _goals(results)),
        "",
        _limit(rows[-1], report["machine"]["cores"]),
        "",
        "What the database takes for a task, with indexes, in bytes: "
        + ", ".join(f"`{name}` {size:,}" for name, size in results["bytes_per_task"].items())
        + f". Ten million tasks take {_gigabytes(results):.0f} GB.",
        "",
        "How it is measured: a scripted LLM answers each list of prompts after "
        f"{report['parameters']['latency_s']} s, however many are in flight. Sentence vectors are "
        "counts of letter pairs, which cost the processor about as little as an encoder on a GPU. "
        "The rest is the product: workers, PostgreSQL, Label Studio's client, whose server is "
        "scripted and counts what it gets. The rate is that of published labels from the "
        "first twentieth on; the queue is not ordered. Shares are of one core.",
        "",
    ]
    return "\n".join(lines)


def _shares(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {share}" for name, share in row["processor_shares"].items())


def _goals(results: dict[str, Any]) -> list[tuple[str, float, str, bool]]:
    ratios = [row["ratio"] for row in results["rows"] if row["n_workers"] == _RATIO_WORKERS]
    found = [
        (f"ratio of {_RATIO_WORKERS} workers", ratio, f"at least {_MIN_RATIO}", ratio >= _MIN_RATIO)
        for ratio in ratios
    ]
    for name in ("n_doubled", "n_lost", "n_paid_twice"):
        found.append((name, results[name], "0", results[name] == 0))
    mb = results["worker_mb"]
    return [*found, ("worker_mb", mb, f"under {_MAX_MB:,}", mb < _MAX_MB)]


def _goal_row(name: str, value: float, goal: str, is_met: bool) -> str:
    return f"| `{name}` | {value} | {goal} | {'yes' if is_met else '**no**'} |"


def _limit(row: dict[str, Any], n_cores: int) -> str:
    """Say whether the machine's processors limit the rate of the most workers."""
    share = row["processor_shares"]["machine"]
    if share > 0.9 * n_cores:
        return (
            f"With {row['n_workers']} workers the machine's {n_cores} cores are busy ({share} of "
            "them): they are the limit here, not the workers' number."
        )
    return (
        f"With {row['n_workers']} workers {share} of the machine's {n_cores} cores are busy: the "
        "LLM's latency is the limit."
    )


def _gigabytes(results: dict[str, Any]) -> float:
    return float(sum(results["bytes_per_task"].values()) * 10_000_000 / 1024**3)
