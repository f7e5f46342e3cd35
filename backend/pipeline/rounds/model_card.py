"""The card of a round's student: what it is, what it learned from, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.questions import Question
from backend.domain.student import TrainingReport

MODEL_CARD = "README.md"
_PACKAGES = ("torch", "transformers", "safetensors")
_SNIPPET = (
    "```python\nfrom transformers import pipeline\n\n"
    'model = pipeline("{task}", model="FOLDER", {option})\n```'
)


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """What a student was trained on: which texts had a label (n,), and which a person's (n,)."""

    question: Question
    has_label: NDArray[np.bool_]
    is_human: NDArray[np.bool_]
    n_round: int

    @property
    def what(self) -> str:
        """Return what the student is, in words."""
        kind = self.question.kind
        return "span tagger" if kind.has_spans else f"{kind.value.replace('_', ' ')} classifier"


def model_card(trained: TrainedOn, report: TrainingReport) -> Mapping[str, str]:
    """Return the sections of a model's README by title; no text of the pool is in them."""
    question, n_texts = trained.question, len(trained.has_label)
    n_human = int((trained.has_label & trained.is_human).sum())
    n_labeled = int(trained.has_label.sum())
    today = datetime.now(UTC).date().isoformat()
    figures = {**report.figures, **{f"{k}, s": v for k, v in report.seconds.items()}}
    has_spans = question.kind.has_spans
    snippet = _SNIPPET.format(
        task="token-classification" if has_spans else "text-classification",
        option='aggregation_strategy="first"' if has_spans else "top_k=None",
    )
    return {
        "What it is": (
            f"A {trained.what} for the question `{question.name}`, fine-tuned from "
            f"`{report.base}` by the recipe `{report.recipe}` in round {trained.n_round}, {today}."
        ),
        "Labels": "\n".join(f"- {at}: {label.value}" for at, label in enumerate(question.labels)),
        "Data": (
            f"{n_texts} texts: {n_human} labelled by people, {n_labeled - n_human} by an "
            f"annotator, {n_texts - n_labeled} without a label."
        ),
        "Figures": _listed([f"{name}: {value:.4g}" for name, value in figures.items()])
        or "None were taken.",
        "Notes": _listed(report.notes) or "None.",
        "Versions": _listed([f"{name} {version(name)}" for name in _PACKAGES]),
        "Use": snippet,
    }


def round_section(figures: Mapping[str, Any]) -> str:
    """Return a round's figures on a question as the last section of its model's card."""
    lines = []
    for name, found in figures.get("accuracies", {}).items():
        lines.append(
            f"{name}: {found['value']:.3f} right, 95 % interval {found['low']:.3f} to "
            f"{found['high']:.3f}, by the audited labels of people"
        )
    reason = figures.get("gate", {}).get("reason")
    if reason:
        lines.append(reason)
    return "\n## In its project\n\n" + (_listed(lines) or "Nothing was measured.") + "\n"


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
