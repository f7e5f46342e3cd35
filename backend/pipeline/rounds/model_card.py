"""What a saved model says of itself to those who take it along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from backend.domain.student import StudentOutput, TrainingSet

CARD = "README.md"
_PACKAGES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: the question that it answers, the project's round, the day."""

    question: str
    n_round: int
    trained_at: str


def model_card(
    data: TrainingSet, output: StudentOutput, provenance: Provenance
) -> Mapping[str, str]:
    """Return the sections of a model's README by title; no text of the pool is in them."""
    n_human = int((data.has_label & data.is_human).sum())
    n_labelled = int(data.has_label.sum())
    report = output.report
    figures = {**report.figures, **{f"{k}, s": v for k, v in report.seconds.items()}}
    return {
        "What it is": (
            f"A {data.kind.value.replace('_', ' ')} classifier for the question "
            f"`{provenance.question}`, fine-tuned from `{report.base}` by the recipe "
            f"`{report.recipe}` in round {provenance.n_round}, {provenance.trained_at}."
        ),
        "Labels": "\n".join(f"- {index}: {label}" for index, label in enumerate(data.labels)),
        "Data": (
            f"{len(data.pool)} texts: {n_human} labelled by people, {n_labelled - n_human} by an "
            f"annotator, {len(data.pool) - n_labelled} without a label."
        ),
        "Figures": "\n".join(f"- {name}: {value:.4g}" for name, value in figures.items())
        or "None were taken.",
        "Notes": "\n".join(f"- {note}" for note in report.notes) or "None.",
        "Versions": "\n".join(f"- {name} {version(name)}" for name in _PACKAGES),
        "Use": (
            "```python\nfrom transformers import pipeline\n\n"
            'classify = pipeline("text-classification", model="FOLDER", top_k=None)\n```'
        ),
    }


def round_section(metrics: Mapping[str, Any]) -> str:
    """Return what a round measured of itself, as the last section of its model's card."""
    lines = []
    for name, found in metrics.get("accuracies", {}).items():
        lines.append(
            f"- {name}: {found['value']:.3f} right, 95 % interval {found['low']:.3f} to "
            f"{found['high']:.3f}, by the audited labels of people"
        )
    reason = metrics.get("gate", {}).get("reason")
    if reason:
        lines.append(f"- {reason}")
    return "\n## In its project\n\n" + ("\n".join(lines) or "Nothing was measured.") + "\n"
