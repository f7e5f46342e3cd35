"""What a saved model says of itself, and the way out of the store for those who take it along."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from backend.core.small_model import SmallModelOutput, TrainingSet
from backend.errors import InvalidRequest

_PACKAGES = ("torch", "transformers", "safetensors")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: the base encoder's name, the project's round, when."""

    base: str
    question: str
    n_round: int
    trained_at: str


def model_card(
    data: TrainingSet, output: SmallModelOutput, provenance: Provenance
) -> Mapping[str, str]:
    """Return the sections of a model's README by title; no text of the pool is in them."""
    n_human = int((data.has_label & data.is_human).sum())
    n_labelled = int(data.has_label.sum())
    report = output.report
    figures = {**report.figures, **{f"{k}, s": v for k, v in report.seconds.items()}}
    return {
        "What it is": (
            f"A {data.kind.value.replace('_', ' ')} classifier for the question "
            f"`{provenance.question}`, fine-tuned from `{provenance.base}` by the recipe "
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


def export_model(source: Path, target: Path) -> None:
    """Copy a saved model to a new folder.

    Raises InvalidRequest when there is no model, or when the target is there already.
    """
    if not (source / "config.json").exists() and not (source / "probe.json").exists():
        raise InvalidRequest(f"{source} holds no trained model yet; run a round first")
    if target.exists():
        raise InvalidRequest(f"{target} is there already; name a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part")
    if scratch.exists():
        shutil.rmtree(scratch)
    shutil.copytree(source, scratch)
    scratch.rename(target)
