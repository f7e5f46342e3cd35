"""Show how far a project is, how right its labels are, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.web.page.formatting import NOTHING, count, interval, share, time_left
from backend.web.page.part import Part, Visit
from backend.web.page.plots import Plot

SOURCES = {
    "fused": "served labels",
    "small-model": "student",
    "llm": "LLM",
    "similarity": "similarity",
}
"""Who is measured, as rounds name it and as people read it."""
_DECIDERS = {
    "human": "people",
    "agreement": "annotators that agree",
    "combination": "annotators combined",
    "small-model": "student",
}
_MAX_BARS = 30


def view(visit: Visit) -> dict[str, Any]:
    """Return the project's state, as `status --json` does, and its plots."""
    state = visit.state()
    names = [name for name in state["questions"] if name in state["advice"] or state["labels"]]
    return {
        "state": state,
        "time_left": time_left(state["seconds_left"]),
        "questions": [_question(state, at, name) for at, name in enumerate(names)],
    }


def measured_rounds(state: Mapping[str, Any], question: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the rounds that measured a question on the random holdout, with their figures."""
    found = ((made["number"], made["metrics"]) for made in state["rounds"])
    figures = ((number, one.get("questions", {}).get(question, {})) for number, one in found)
    return [(number, one) for number, one in figures if one.get("accuracies")]


def _question(state: Mapping[str, Any], at: int, name: str) -> dict[str, Any]:
    """Return what is shown about one question; plots are None where there is nothing yet."""
    rounds = measured_rounds(state, name)
    last = rounds[-1][1] if rounds else {}
    accuracies = last.get("accuracies", {})
    labels = state["labels"].get(name, {})
    return {
        "name": name,
        "accuracy_rows": [
            (words, interval(accuracies[source]), count(accuracies[source]["n"]))
            for source, words in SOURCES.items()
            if source in accuracies
        ],
        "measured_in": rounds[-1][0] if rounds else None,
        "curve": _curve(f"curve-{at}", name, rounds) if rounds else None,
        "distribution": _distribution(f"labels-{at}", name, labels) if labels else None,
        "decider_rows": [
            (_DECIDERS.get(source, source), count(n))
            for source, n in labels.get("by_source", {}).items()
        ],
        "advice": state["advice"].get(name),
        "how": state["questions"][name],
    }


def _curve(name: str, question: str, rounds: Sequence[tuple[int, Mapping[str, Any]]]) -> Plot:
    """Return accuracies by round, each with the band of its intervals."""
    traces: list[dict[str, Any]] = []
    for palette, (source, words) in enumerate(SOURCES.items()):
        points = [(n, found) for n, one in rounds if (found := one["accuracies"].get(source))]
        if not points:
            continue
        x = [number for number, _ in points]
        band = {"x": x, "mode": "lines", "legendgroup": source, "showlegend": False}
        band |= {"line": {"width": 0}, "hoverinfo": "skip", "palette": palette}
        traces += [
            {**band, "y": [found["high"] for _, found in points]},
            {**band, "y": [found["low"] for _, found in points], "fill": "tonexty"},
            {
                **{"x": x, "y": [found["value"] for _, found in points], "name": words},
                **{"mode": "lines+markers", "legendgroup": source, "palette": palette},
            },
        ]
    columns = [
        source for source in SOURCES if any(source in one["accuracies"] for _, one in rounds)
    ]
    rows = [
        (f"round {number}", *(interval(one["accuracies"].get(source)) for source in columns))
        for number, one in rounds
    ]
    layout = {
        "xaxis": {"title": {"text": "round"}, "dtick": 1},
        "yaxis": {"title": {"text": "right"}, "tickformat": ".0%", "range": [0, 1.02]},
    }
    title = f"{question}: accuracy by round, with 95 % intervals from the random holdout"
    return Plot(name, title, traces, layout, ("", *(SOURCES[one] for one in columns)), rows)


def _distribution(name: str, question: str, labels: Mapping[str, Any]) -> Plot:
    """Return how often each label is served or was given; of many the most frequent as bars."""
    counts = sorted(labels["by_label"].items(), key=lambda one: (-one[1], one[0]))
    counts += [("(none)", labels["n_none"])] if labels["n_none"] else []
    total = sum(n for _, n in counts)
    shown = counts[:_MAX_BARS][::-1]
    bars = {"type": "bar", "orientation": "h", "palette": 0}
    bars |= {"x": [n for _, n in shown], "y": [label for label, _ in shown]}
    more = f"; the {_MAX_BARS} most frequent of {len(counts)}" if len(counts) > _MAX_BARS else ""
    return Plot(
        name,
        f"{question}: labels{more}",
        [bars],
        {"xaxis": {"title": {"text": "labels"}}, "yaxis": {"type": "category"}},
        ("label", "labels", "share"),
        [(label, count(n), share(n / total) if total else NOTHING) for label, n in counts],
    )


PART = Part("overview", "Overview", view)
