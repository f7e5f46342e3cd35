"""One data set as a project on an LLM server, and how fast its texts are labeled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import Example, PromptContext, WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.questions import QuestionKind, TaskSchema
from backend.services import Services
from benchmarks.datasets import Dataset, LabeledTask
from benchmarks.language_models import Call, DirectClient, RecordingLanguageModel

PROJECT = "benchmark"
N_TIMED = 256
"""Evaluated texts that the direct client sends as well."""
N_SEQUENTIAL = 40
N_SEQUENTIAL_SPANS = 2


@dataclass(frozen=True, slots=True)
class Bench:
    """One data set as a project, with its services; `direct` is the baseline of speed, if any."""

    data: Dataset
    services: Services
    recorder: RecordingLanguageModel
    schema: TaskSchema
    direct: DirectClient | None

    @property
    def is_generated(self) -> bool:
        """Return whether answers are generated, not read from one token."""
        return self.schema.questions[0].kind is QuestionKind.SPANS

    @property
    def is_multilabel(self) -> bool:
        """Return whether a text has any number of labels."""
        return self.schema.questions[0].kind is QuestionKind.MULTIPLE_CHOICE

    def examples(self, tasks: Sequence[LabeledTask]) -> list[Example]:
        """Convert tasks to the annotators' examples."""
        return [self.services.config.read_example(self.schema, each.task) for each in tasks]

    def annotate(
        self,
        examples: Sequence[Example],
        prompt_context: PromptContext | None = None,
        purpose: str = "annotate",
    ) -> list[WeakLabel]:
        """Return the LLM annotator's weak labels, its usage counted under `purpose`."""
        with track_usage(PROJECT, purpose):
            return self.services.annotator.annotate(
                self.schema, self.data.instruction, examples, prompt_context=prompt_context
            )

    def ask(self, examples: Sequence[Example], prompt_context: PromptContext) -> list[WeakLabel]:
        """Return the LLM annotator's weak labels, counted apart from those that are timed."""
        return self.annotate(examples, prompt_context, "templates")


def label_texts(
    bench: Bench, prompt_context: PromptContext, order: Sequence[int]
) -> tuple[list[WeakLabel], dict[str, Any]]:
    """Label all evaluated texts in chunks; return rates too where there is a direct client."""
    in_order = bench.examples(bench.data.evaluated)
    examples = [in_order[at] for at in order]
    if bench.direct is None:
        answers, rates = bench.annotate(examples, prompt_context), dict[str, Any]()
    else:
        answers, rates = _timed_labels(bench, bench.direct, examples, prompt_context)
    by_id = {weak.example_id: weak for weak in answers}
    return [by_id[example.id] for example in in_order], rates


def _timed_labels(
    bench: Bench, direct: DirectClient, examples: Sequence[Example], prompt_context: PromptContext
) -> tuple[list[WeakLabel], dict[str, Any]]:
    """Label texts in chunks, in turn with the direct client."""
    chunk = bench.services.settings.annotate_chunk
    answers: list[WeakLabel] = []
    ours_s = direct_s = n_lookups = n_hits = 0.0
    n_timed = 0
    last_calls: tuple[list[Call], int] = ([], 0)
    for start in range(0, len(examples), chunk):
        some = examples[start : start + chunk]
        bench.recorder.calls.clear()
        before = direct.prefix_cache_counts()
        started = time.perf_counter()
        answers += bench.annotate(some, prompt_context)
        seconds = time.perf_counter() - started
        after = direct.prefix_cache_counts()
        n_lookups, n_hits = n_lookups + after[0] - before[0], n_hits + after[1] - before[1]
        if bench.recorder.calls:
            last_calls = (list(bench.recorder.calls), len(some))
        if start < N_TIMED:
            ours_s += seconds
            direct_s += direct.batched_seconds(bench.recorder.calls)
            n_timed += len(some)
    return answers, {
        "labels_per_s": round(n_timed / ours_s, 2),
        "ceiling_labels_per_s": round(n_timed / direct_s, 2) if direct_s else None,
        "ratio": round(direct_s / ours_s, 3),
        "sequential_labels_per_s": _sequential_rate(
            direct, answers, *last_calls, is_generated=bench.is_generated
        ),
        "prefix_cache_hit_rate": round(n_hits / n_lookups, 4) if n_lookups else None,
    }


def _sequential_rate(
    direct: DirectClient,
    answers: Sequence[WeakLabel],
    calls: Sequence[Call],
    n_texts: int,
    *,
    is_generated: bool,
) -> float:
    """Return the texts per second when prompts are sent one after the other.

    Raises:
        RuntimeError: No chunk sent a prompt to the LLM.
    """
    if not calls:
        why = next((weak.abstention.detail for weak in answers if weak.abstention), "unknown")
        raise RuntimeError(f"the LLM was not asked about any text: {why}")
    n_prompts = sum(len(prompts) for prompts, _ in calls)
    prompts, decoding = calls[0]
    few = prompts[: N_SEQUENTIAL_SPANS if is_generated else N_SEQUENTIAL]
    seconds = direct.sequential_seconds([(few, decoding)])
    return round(len(few) / seconds * n_texts / n_prompts, 2)
