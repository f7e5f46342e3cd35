"""Show how many labels the holdout certifies, accept them, and take them back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flask import Response

from backend.domain.audit import record
from backend.domain.projects import ACCEPTANCE, CERTIFICATE, UNFINISHED
from backend.errors import InvalidRequest
from backend.web.page.formatting import count, decimal, share
from backend.web.page.part import Part, Visit
from backend.web.page.plots import Plot

_COLUMNS = ("wrong at most", "labels", "from confidence", "after 50 more", "after 100 more", "why")


def view(visit: Visit) -> dict[str, Any]:
    """Return what is certified and what became of the last request, as `status --json` does."""
    state = visit.services.stores.state
    report = state.current(visit.project, CERTIFICATE)
    acceptance = state.get(visit.project.id, ACCEPTANCE)
    return {
        "report": report,
        "acceptance": acceptance,
        "is_running": bool(acceptance) and acceptance["state"] in UNFINISHED,
        "columns": _COLUMNS,
        "rows": [_row(one) for one in report["at"]] if report else [],
        "figure": _plot(report) if report and _is_any_expected(report) else None,
    }


def accept(visit: Visit) -> str:
    """Ask the worker to accept what is certified at the form's error rate."""
    max_error = _rate(visit.form.get("percent", ""))
    visit.services.acceptor.ask(visit.project, max_error)
    return "The worker makes annotations of the labels that are certified when it begins."


def undo(visit: Visit) -> str:
    """Ask the worker to take all accepted labels back."""
    visit.services.acceptor.ask_undo(visit.project)
    return "The worker takes the accepted labels back."


def certified(visit: Visit) -> Response:
    """Return the certified labels as JSON lines: task, confidence and Label Studio's result."""
    max_error = _rate(visit.args.get("percent", "5"))
    labels = visit.services.certifier.certifiable(visit.project)
    chosen = labels.at_least(labels.rule(max_error).threshold)
    results = visit.services.stores.publication.results(visit.project)
    record("exported", visit.project.id, f"n_certified={len(chosen)}")
    lines = (
        json.dumps({"task": task_id, "confidence": p, "result": results[task_id]}) + "\n"
        for task_id, p in sorted(chosen.items())
    )
    headers = {"Content-Disposition": 'attachment; filename="certified.jsonl"'}
    return Response("".join(lines), mimetype="application/x-ndjson", headers=headers)


def _rate(percent: str) -> float:
    try:
        rate = float(percent) / 100
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise InvalidRequest(f"{percent[:20]!r} is no error rate: expected a number of percent")
    return rate


def _row(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        share(found["max_error"], 0),
        count(found["n_certified"]),
        decimal(found["threshold"], 3),
        count(found["expected_after"]["50"]),
        count(found["expected_after"]["100"]),
        found["reason"],
    )


def _is_any_expected(report: Mapping[str, Any]) -> bool:
    return any(one["n_certified"] or any(one["expected_after"].values()) for one in report["at"])


def _plot(report: Mapping[str, Any]) -> Plot:
    rates = [share(one["max_error"], 0) for one in report["at"]]
    now = [one["n_certified"] for one in report["at"]]
    more = {n: [one["expected_after"][n] for one in report["at"]] for n in ("50", "100")}
    named = {"now": now, "expected after 50 more": more["50"], "after 100 more": more["100"]}
    return Plot(
        "certified",
        "Labels certified by the error rate that is allowed",
        [{"type": "bar", "name": name, "x": rates, "y": y} for name, y in named.items()],
        {
            "barmode": "group",
            "xaxis": {"title": {"text": "wrong at most"}, "type": "category"},
            "yaxis": {"title": {"text": "labels"}},
        },
        ("wrong at most", *named),
        [(rate, *(count(y[at]) for y in named.values())) for at, rate in enumerate(rates)],
    )


PART = Part(
    "accept",
    "Accept",
    view,
    {"accept": accept, "undo": undo},
    {"certified.jsonl": certified},
)
