"""Measure the annotators' accuracy, calibration and speed on one data set.

The services are composed as in the product, with the LLM server in LLM_BASE_URL. From evaluated
texts only unlabeled posteriors are learned from, as in a project.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from backend.domain.labels import Example, PromptContext, WeakLabel
from backend.domain.llm_usage import track_usage
from backend.domain.questions import Question, QuestionKind
from backend.factories import connect_language_model
from backend.llm.prompts.selection import TemplateReport
from backend.self_training.similarity import SimilarityAnnotator
from backend.services import Adapters, build_services
from backend.settings import Settings
from benchmarks.annotate_bench import N_TIMED, PROJECT, Bench, label_texts
from benchmarks.annotate_prompts import (
    prompt_context as picked_context,
)
from benchmarks.annotate_prompts import (
    score_templates,
    selection_notes,
    with_second_answers,
)
from benchmarks.datasets import load
from benchmarks.demonstrations import (
    FewShotPrompts,
    retrieve_gold_spans,
)
from benchmarks.label_aggregation import (
    LLM,
    N_DRAWS,
    SIMILARITY,
    MultilabelData,
    SingleLabelData,
    aggregate,
    aggregate_multilabel,
    aggregate_multilabel_with_labels,
    aggregate_with_labels,
    calibrate,
    calibrate_with_labels,
    calibration_error,
    mean_accuracy,
)
from benchmarks.language_models import DirectClient, RecordingLanguageModel, cached_language_model
from benchmarks.report import Report
from benchmarks.scores import (
    Score,
    posteriors,
    score_posteriors,
    score_spans,
    span_precision_recall,
)
from benchmarks.template_selection import select_as_in_project

SEED = 0
N_TRAIN = 400
"""Training texts: the pool from which demonstrations and human labels are drawn."""
N_WARM_UP = 32
N_TRAIN_SETS = 100
"""Training texts where each costs a request per label."""
N_WARM_UP_SPANS = 2
"""Spans are generated, not read from one token: seconds each on a small machine."""
N_HUMAN_LABELS = (20, 50)
NPROJECT_TEXTS = 1000
"""Texts of the project whose budget the selection of the prompt template has."""


def run(
    report: Report,
    *,
    console: Console,
    data: Path,
    limit: int | None,
    shots: int,
    answers: Path | None = None,
) -> None:
    """Measure one data set; not its speed where the LLM's answers are kept in a folder.

    Raises:
        ValueError: With `shots` for a question that takes no demonstrations.
    """
    dataset = load(data, limit=limit, n_train=N_TRAIN, seed=SEED)
    console.print(f"{dataset.name}: {len(dataset.evaluated)} texts, {len(dataset.labels)} labels")
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(Settings.from_env(), home=Path(folder), log_level="WARNING")
        server = connect_language_model(settings)
        model = server if answers is None else cached_language_model(server, answers)
        recorder = RecordingLanguageModel(model)
        services = build_services(settings, Adapters(language_model=recorder))
        schema = services.config.read_schema(dataset.label_config)
        if shots and not schema.questions[0].kind.has_spans:
            raise ValueError(f"--shots is for spans; of {dataset.name} a project decides by itself")
        direct = DirectClient(settings, server) if answers is None else None
        bench = Bench(dataset, services, recorder, schema, direct)
        try:
            _measure(report, bench, shots)
        finally:
            services.close()
            server.close()


def _measure(report: Report, bench: Bench, n_shots: int) -> None:
    pool = bench.examples(bench.data.train)
    if bench.is_multilabel:
        pool = pool[:N_TRAIN_SETS]
    bench.annotate(pool[: N_WARM_UP_SPANS if bench.is_generated else N_WARM_UP], purpose="warm-up")
    question = bench.schema.questions[0]
    selected = _select_template(report, bench, pool)
    shots, order, share = _few_shot_context(report, bench, pool, n_shots)
    prompt_context = replace(picked_context(question, selected), shots=shots.shots)
    answers, speeds = label_texts(bench, prompt_context, order)
    if question.kind.is_exclusive:
        evaluated = bench.examples(bench.data.evaluated)
        report.results |= score_templates(
            bench.services.annotator,
            question,
            selected,
            evaluated,
            [int(each.gold) for each in bench.data.evaluated],  # type: ignore[arg-type]
            _similarity_posteriors(bench, pool)[: len(evaluated)],
            bench.ask,
        )
        answers = with_second_answers(question, selected, evaluated, answers, bench.ask)
    of_pool = bench.annotate(pool, prompt_context, "pool") if not bench.is_generated else []
    if question.kind.is_exclusive:
        of_pool = with_second_answers(question, selected, pool, of_pool, bench.ask)
    is_capable = selected.has_alike_templates
    report.results |= _scores(report, bench, answers, pool, of_pool, is_capable=is_capable)
    report.results |= _counts(bench, answers) | speeds | {"max_demonstration_share": share}
    report.notes |= {
        "model": bench.services.language_model.describe().name,
        "split": bench.data.split,
        "n_texts": len(answers),
        "n_labels": len(bench.data.labels),
        "n_timed": min(N_TIMED, len(answers)),
        "prompt_version": answers[0].prompt_version,
        "label_mass": _mean([weak.label_mass for weak in answers if weak.label_mass is not None]),
        "truncated": sum(weak.is_truncated for weak in answers),
    }


def _select_template(report: Report, bench: Bench, pool: Sequence[Example]) -> TemplateReport:
    """Return what a project would select without labels."""
    with track_usage(PROJECT, "template selection"):
        selected = select_as_in_project(
            bench.services, bench.schema, bench.data.instruction, pool, NPROJECT_TEXTS
        )
    report.notes |= selection_notes(selected, NPROJECT_TEXTS)
    return selected


def _few_shot_context(
    report: Report, bench: Bench, pool: Sequence[Example], n_shots: int
) -> tuple[PromptContext, tuple[int, ...], float | None]:
    """Return the demonstrations, the order of requests and the largest share of one of them."""
    examples = bench.examples((*bench.data.evaluated, *bench.data.train))
    if n_shots == 0:
        return PromptContext(), tuple(range(len(bench.data.evaluated))), None
    with track_usage(PROJECT, "demonstrations"):
        shots = _retrieved(bench, pool, examples, n_shots)
    report.notes |= shots.notes
    n_evaluated = len(bench.data.evaluated)
    return (
        shots.prompt_context,
        tuple(at for at in shots.order if at < n_evaluated),
        round(shots.share, 4),
    )


def _retrieved(
    bench: Bench, pool: Sequence[Example], examples: Sequence[Example], n_shots: int
) -> FewShotPrompts:
    """Return training texts with their gold spans as demonstrations."""
    question = bench.schema.questions[0]
    gold = [each.gold for each in bench.data.train]
    labeled = [(e, spans) for e, spans in zip(pool, gold, strict=True) if isinstance(spans, tuple)]
    return retrieve_gold_spans(bench.services, question, labeled, examples, n_shots=n_shots)


def _scores(
    report: Report,
    bench: Bench,
    answers: Sequence[WeakLabel],
    pool: Sequence[Example],
    pool_labels: Sequence[WeakLabel],
    *,
    is_capable: bool,
) -> dict[str, Any]:
    question = bench.schema.questions[0]
    gold = [each.gold for each in bench.data.evaluated]
    if question.kind is QuestionKind.SPANS:
        precision, recall = span_precision_recall(answers, gold)
        report.notes |= {"precision": round(precision, 4), "recall": round(recall, 4)}
        return {"accuracy_raw": _note_score(report, "accuracy_raw", score_spans(answers, gold))}
    raw = posteriors(answers, len(question.labels))
    similarity = _similarity_posteriors(bench, pool)
    n = len(gold)
    rows_by_name = {"accuracy_raw": raw, "accuracy_embedding": similarity[:n]}
    results: dict[str, Any] = {}
    if question.kind.is_exclusive:
        of_pool = posteriors(pool_labels, len(question.labels))
        single_label = SingleLabelData(
            posteriors={LLM: np.vstack([raw, of_pool]), SIMILARITY: similarity},
            embeddings=_embeddings(bench, pool),
            n_evaluated=n,
            labels=np.array([each.gold for each in bench.data.train], dtype=np.intp),
            is_capable=is_capable,
        )
        rows_by_name |= {
            "accuracy_combined": aggregate(single_label),
            "accuracy_calibrated": calibrate(single_label),
        }
        classes = np.array(gold, dtype=np.intp)
        results = _score_with_labels(report, single_label, classes)
        results["ece_raw"] = round(calibration_error(raw, classes), 4)
        report.notes |= {
            f"ece_{name}": round(calibration_error(rows_by_name[f"accuracy_{name}"], classes), 4)
            for name in ("embedding", "combined", "calibrated")
        }
    if bench.is_multilabel:
        of_pool = posteriors(pool_labels, len(question.labels))
        multilabel = MultilabelData(
            {LLM: np.vstack([raw, of_pool]), SIMILARITY: similarity},
            n,
            [
                each.gold
                for each in bench.data.train[: len(pool)]
                if isinstance(each.gold, frozenset)
            ],
        )
        rows_by_name["accuracy_combined"] = aggregate_multilabel(multilabel)
        _note_multilabel(report, multilabel, gold, question)
    scores = {name: score_posteriors(rows, gold, question) for name, rows in rows_by_name.items()}
    return {name: _note_score(report, name, score) for name, score in scores.items()} | results


def _score_with_labels(report: Report, data: SingleLabelData, gold: Any) -> dict[str, Any]:
    """Score calibration and aggregation with draws of gold labels as human labels."""
    report.notes["n_draws"] = N_DRAWS
    for n_labels in N_HUMAN_LABELS:
        calibrated = calibrate_with_labels(data, n_labels, seed=SEED)
        aggregated = aggregate_with_labels(data, n_labels, seed=SEED)
        report.notes |= {
            f"accuracy_llm_{n_labels}": round(mean_accuracy(calibrated, gold), 4),
            f"accuracy_combined_{n_labels}": round(mean_accuracy(aggregated, gold), 4),
            f"ece_llm_{n_labels}": _mean([calibration_error(each, gold) for each in calibrated]),
            f"ece_combined_{n_labels}": _mean(
                [calibration_error(each, gold) for each in aggregated]
            ),
        }
    return {"ece_calibrated": report.notes[f"ece_combined_{N_HUMAN_LABELS[-1]}"]}


def _note_multilabel(
    report: Report, data: MultilabelData, gold: Sequence[Any], question: Question
) -> None:
    """Note the F1 with draws of human labels, and the mean number of labels per text."""
    report.notes["n_draws"] = N_DRAWS
    report.notes["labels_per_text"] = _mean([float(len(labels)) for labels in gold])
    assigned = aggregate_multilabel(data) >= 0.5
    report.notes["labels_per_text_combined"] = _mean(assigned.sum(axis=1).astype(float).tolist())
    for n_labels in N_HUMAN_LABELS:
        aggregated = aggregate_multilabel_with_labels(data, n_labels, seed=SEED)
        report.notes[f"accuracy_combined_{n_labels}"] = _mean(
            [score_posteriors(rows, gold, question).value for rows in aggregated]
        )


def _similarity_posteriors(bench: Bench, pool: Sequence[Example]) -> Any:
    """Return the similarity annotator's posteriors of evaluated texts, then of the pool."""
    question = bench.schema.questions[0]
    examples = [*bench.examples(bench.data.evaluated), *pool]
    fit = bench.services.similarity.fit(question, examples, {})
    annotator = SimilarityAnnotator(bench.services.encoder, {question.name: fit})
    weak = annotator.annotate(bench.schema, bench.data.instruction, examples)
    return posteriors(weak, len(question.labels))


def _embeddings(bench: Bench, pool: Sequence[Example]) -> Any:
    examples = [*bench.examples(bench.data.evaluated), *pool]
    fields = [field.name for field in bench.schema.questions[0].fields]
    texts = ["\n".join(example.texts.get(name, "") for name in fields) for example in examples]
    return bench.services.encoder.embed(texts).astype(float)


def _note_score(report: Report, name: str, score: Score) -> float:
    report.notes |= score.as_notes(name)
    return round(score.value, 4)


def _counts(bench: Bench, answers: Sequence[WeakLabel]) -> dict[str, Any]:
    usage = [
        u for u in bench.services.stores.llm_cache.usage(PROJECT) if u.scope.purpose == "annotate"
    ]
    return {
        "n_abstentions": sum(weak.abstention is not None for weak in answers),
        "n_invalid": _n_invalid(bench, answers),
        "tokens_in": sum(each.n_tokens_in for each in usage),
        "tokens_out": sum(each.n_tokens_out for each in usage),
    }


def _n_invalid(bench: Bench, answers: Sequence[WeakLabel]) -> int:
    """Return the number of answers that Label Studio's own validation rejects."""
    n_invalid = 0
    tasks = {each.task.id: each.task for each in bench.data.evaluated}
    for weak in answers:
        if weak.abstention is not None:
            continue
        prediction = bench.services.config.write_prediction(
            bench.schema, [weak], "benchmark", tasks[weak.example_id]
        )
        if prediction is not None:
            errors = bench.services.config.errors(bench.data.label_config, prediction)
            n_invalid += bool(errors)
    return n_invalid


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 5) if values else None
