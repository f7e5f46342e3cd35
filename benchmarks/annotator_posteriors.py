"""The LLM's zero-shot answers on a data set's training texts, kept for benchmarks that learn."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from backend.domain.labels import PromptContext
from backend.domain.llm_usage import track_usage
from backend.llm.prompts.selection import N_SELECTION_TEXTS, TemplateSelector
from backend.services import build_services
from backend.settings import Settings
from benchmarks.datasets import load, place_in_split
from benchmarks.scores import posteriors

_PROJECT = "benchmark"
_CHUNK = 64
_SEED = 0


def store_answers(data: Path, out: Path, *, limit: int, console: Console) -> None:
    """Ask about `limit` drawn training texts in the form that a project would pick, label-free.

    The .npz holds `i` (n,), the rows of the training split, `probabilities` (n, K), a row of NaN
    being an abstention, `labels` (K,), and `form`.
    """
    dataset = load(data, limit=None, n_train=limit, seed=_SEED)
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings.from_env(), home=Path(folder), log_level="WARNING")
        services = build_services(settings)
        try:
            schema = services.config.read_schema(dataset.label_config)
            question = schema.questions[0]
            examples = [services.config.read_example(schema, each.task) for each in dataset.train]
            selector = TemplateSelector(services.annotator, schema, dataset.instruction)
            with track_usage(_PROJECT, "forms"):
                form = selector.select_template(question, examples[:N_SELECTION_TEXTS]).chosen
            prompt_context = PromptContext(templates={question.name: form})
            answers = []
            with Progress(console=console) as progress, track_usage(_PROJECT, "annotate"):
                starts = range(0, len(examples), _CHUNK)
                for start in progress.track(starts, description=f"{dataset.name}, {form}"):
                    answers += services.annotator.annotate(
                        schema,
                        dataset.instruction,
                        examples[start : start + _CHUNK],
                        prompt_context=prompt_context,
                    )
        finally:
            services.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        i=np.array([place_in_split(each) for each in dataset.train]),
        probabilities=posteriors(answers, len(dataset.labels)),
        labels=np.array(dataset.labels),
        form=np.array(form),
    )
