"""Show by question how the served labels compare with people's, and annotators with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.web.page.formatting import NOTHING, count, decimal, interval, share
from backend.web.page.overview import SOURCES, measured_rounds
from backend.web.page.part import Part, Visit
from backend.web.page.plots import Plot

_MAX_LABELS = 20  # of a matrix; of more labels the frequent confusions are told


def view(visit: Visit) -> dict[str, Any]:
    """Return what the last round that measured each question found."""
    state = visit.state()
    found = []
    for at, name in enumerate(state["questions"]):
        measured = [
            (number, figures["quality"])
            for number, figures in measured_rounds(state, name)
            if "quality" in figures
        ]
        found.append({"name": name, "how": state["questions"][name]})
        if measured:
            number, quality = measured[-1]
            found[-1] |= {"round": number, **_figures(at, name, quality)}
    return {"state": state, "questions": found}


def _figures(at: int, name: str, quality: Mapping[str, Any]) -> dict[str, Any]:
    """Return a question's plots and tables."""
    errors = quality.get("span_errors")
    pairs = quality.get("confusion", ())
    return {
        "n": quality["n"],
        "reliability": _reliability(f"reliability-{at}", name, quality["reliability"]),
        "confusion": _confusion(f"confusion-{at}", name, pairs) if pairs else None,
        "mistakes": [(theirs, ours, count(n)) for theirs, ours, n in pairs if theirs != ours],
        "label_rows": [
            (
                *(row["label"], count(row["n_people"]), count(row["n_found"])),
                *(count(row["n_right"]), decimal(row["f1"])),
            )
            for row in sorted(quality["by_label"], key=lambda row: (-row["n_people"], row["label"]))
        ],
        "span_rows": [] if errors is None else [(kind, count(n)) for kind, n in errors.items()],
        "annotator_rows": [
            (
                " and ".join(SOURCES.get(one, one) for one in pair["between"]),
                *(count(pair["n"]), interval(pair["same"])),
                NOTHING if pair["kappa"] is None else decimal(pair["kappa"]["value"]),
            )
            for pair in quality["annotators"]
        ],
        "people_rows": [
            (
                *(f"person {one['person']}", count(one["n_answers"]), count(one["n_shared"])),
                *(share(one["agreement"]), share(one["accuracy"])),
            )
            for one in quality["people"]
        ],
    }


def _reliability(name: str, question: str, rows: Sequence[Mapping[str, float]]) -> Plot:
    """Return the reliability diagram: how often labels are right by their confidence."""
    y = [row["value"] for row in rows]
    error = {
        "array": [row["high"] - row["value"] for row in rows],
        "arrayminus": [row["value"] - row["low"] for row in rows],
    }
    diagonal = {"x": [0, 1], "y": [0, 1], "mode": "lines", "name": "as confident as right"}
    labels = {"x": [row["confidence"] for row in rows], "y": y, "mode": "lines+markers"}
    axis = {"tickformat": ".0%", "range": [0, 1.02]}
    return Plot(
        name,
        f"{question}: how often served labels are right, by their confidence",
        [
            {**diagonal, "line": {"dash": "dot"}, "palette": 4},
            {**labels, "name": "served labels", "error_y": error, "palette": 0},
        ],
        {
            "xaxis": {**axis, "title": {"text": "confidence"}},
            "yaxis": {**axis, "title": {"text": "right"}},
        },
        ("confidence", "labels", "right"),
        [(share(row["confidence"]), count(row["n"]), interval(row)) for row in rows],
    )


def _confusion(name: str, question: str, pairs: Sequence[tuple[str, str, int]]) -> Plot | None:
    """Return the matrix of people's and served labels; None where it has too many."""
    labels = sorted({label for theirs, ours, _ in pairs for label in (theirs, ours)})
    if len(labels) > _MAX_LABELS:
        return None
    counts = {(theirs, ours): n for theirs, ours, n in pairs}
    cells = [[counts.get((theirs, ours), 0) for ours in labels] for theirs in labels]
    heat = {"type": "heatmap", "x": labels, "y": labels, "z": cells, "palette": 0}
    heat |= {"text": cells, "texttemplate": "%{text}", "showscale": False}
    return Plot(
        name,
        f"{question}: people's labels (rows) and the served ones (columns)",
        [heat],
        {
            "xaxis": {"title": {"text": "served"}, "type": "category"},
            "yaxis": {"title": {"text": "people"}, "type": "category", "autorange": "reversed"},
        },
        ("people / served", *labels),
        [(theirs, *(count(n) for n in row)) for theirs, row in zip(labels, cells, strict=True)],
    )


PART = Part("quality", "Quality", view)
