"""Compute the annotators' zero-shot posteriors on a data set, for other benchmarks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from backend.domain.labels import Example, PromptContext
from backend.domain.llm_usage import track_usage
from backend.domain.ports import Encoder
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.self_training.similarity import SimilarityAnnotator
from backend.services import build_services
from backend.settings import Settings
from benchmarks.datasets import load, row_in_split
from benchmarks.scores import posteriors
from benchmarks.template_selection import select_as_in_project

_PROJECT = "benchmark"
_BATCH_SIZE = 64
_SEED = 0
_FIELD = "text"


def similarity_posteriors(
    encoder: Encoder, texts: Sequence[str], labels: Sequence[str], definition: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Return the similarity annotator's posteriors (n, K), NaN where it abstains.

    Args:
        encoder: Embeds texts and label names.
        texts: The n texts.
        labels: The K label values.
        definition: The data set's file in `definitions/`, with names and descriptions of labels.
    """
    names, hints = definition.get("names", {}), definition.get("labels", {})
    definitions = tuple(
        LabelDefinition(label, str(names.get(label, label)).replace("_", " "), hints.get(label))
        for label in labels
    )
    field = TextField(_FIELD, _FIELD)
    question = Question("label", (field,), QuestionKind.SINGLE_CHOICE, definitions)
    examples = [Example(position, {_FIELD: text}) for position, text in enumerate(texts)]
    weak_labels = SimilarityAnnotator(encoder).annotate(TaskSchema((question,)), "", examples)
    return posteriors(weak_labels, len(labels))


def store_llm_posteriors(data: Path, out: Path, *, limit: int, console: Console) -> None:
    """Write the LLM's posteriors of `limit` drawn training texts to an .npz file.

    The prompt template is the one that a project would select, without labels. The file holds `i`
    (n,), the rows of the training split, `probabilities` (n, K), a row of NaN being an abstention,
    `labels` (K,), and `form`, the template's name.
    """
    dataset = load(data, limit=None, n_train=limit, seed=_SEED)
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings.from_env(), home=Path(folder), log_level="WARNING")
        services = build_services(settings)
        try:
            schema = services.config.read_schema(dataset.label_config)
            question = schema.questions[0]
            examples = [services.config.read_example(schema, each.task) for each in dataset.train]
            with track_usage(_PROJECT, "template selection"):
                selected = select_as_in_project(
                    services, schema, dataset.instruction, examples, len(examples)
                )
            template = selected.chosen
            prompt_context = PromptContext(templates={question.name: template})
            weak_labels = []
            with Progress(console=console) as progress, track_usage(_PROJECT, "annotate"):
                starts = range(0, len(examples), _BATCH_SIZE)
                for start in progress.track(starts, description=f"{dataset.name}, {template}"):
                    weak_labels += services.annotator.annotate(
                        schema,
                        dataset.instruction,
                        examples[start : start + _BATCH_SIZE],
                        prompt_context=prompt_context,
                    )
        finally:
            services.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        i=np.array([row_in_split(each) for each in dataset.train]),
        probabilities=posteriors(weak_labels, len(dataset.labels)),
        labels=np.array(dataset.labels),
        form=np.array(template),
    )
