"""Show rounds with their steps, decisions and cost; start, cancel and take back their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.errors import InvalidRequest
from backend.web.page.overview import SOURCES
from backend.web.page.part import Part, Visit

_STEPS = {
    "train": "train the student",
    "select": "choose examples for the LLM",
    "refine": "ask the LLM again",
    "fuse": "combine all labels",
    "release": "compare with the served labels, and release",
}


def view(visit: Visit) -> dict[str, Any]:
    """Return the rounds, as `status --json` tells them, newest first, with the kept releases."""
    services, project = visit.services, visit.project
    state = services.reporter.rounds(project)
    return {
        "rounds": [one | {"steps": steps(one)} for one in reversed(state["rounds"])],
        "n_rounds": state["n_rounds"],
        "advice": state["advice"],
        "sources": SOURCES,
        "asked": services.round_requests.asked(project),
        "releases": services.reporter.releases(project),
    }


def steps(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a running round's present question, with which of them are done."""
    if made["state"] != "running":
        return []
    n_cycles = int(made["progress"].get("cycle", 0))
    names = ["train 1"]
    for cycle in range(1, n_cycles + 1):
        names += [f"select {cycle}", f"refine {cycle}", f"train {cycle + 1}", f"fuse {cycle}"]
    names.append("release")
    at = names.index(made["step"]) if made["step"] in names else -1
    return [
        {
            "words": _in_words(name),
            "state": "done" if number < at else "running" if number == at else "to come",
            "progress": _progress(made["progress"]) if number == at else "",
        }
        for number, name in enumerate(names)
    ]


def start(visit: Visit) -> str:
    """Ask the worker for a round."""
    return visit.services.round_requests.start(visit.project)


def cancel(visit: Visit) -> str:
    """End the round that runs or is asked for."""
    return visit.services.round_requests.cancel(visit.project)


def roll_back(visit: Visit) -> str:
    """Have an earlier release served again."""
    version = visit.form.get("version", "")
    if not version:
        raise InvalidRequest("no version was chosen")
    return visit.services.round_requests.roll_back(visit.project, version)


def _in_words(step: str) -> str:
    kind, _, number = step.partition(" ")
    return f"{_STEPS[kind]} ({number})" if number else _STEPS[kind]


def _progress(progress: Mapping[str, Any]) -> str:
    parts = [str(progress["question"])] if progress.get("question") else []
    if "n_asked" in progress:
        parts.append(f"{progress['n_done']:,} of {progress['n_asked']:,} texts")
    if "n_epochs" in progress:
        parts.append(f"{progress['stage']}, epoch {progress['epoch']} of {progress['n_epochs']}")
    return ": ".join(parts)


PART = Part(
    "rounds", "Rounds", view, actions={"start": start, "cancel": cancel, "roll-back": roll_back}
)
