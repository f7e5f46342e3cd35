"""Write a project's labels to a file: JSON lines, CSV, or tasks that Label Studio imports."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from backend.domain.labels import Span, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import Question
from backend.errors import ExportFailed
from backend.files import replacing_file

HUMAN = "human"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_COLUMNS = ("task_id", "question", "label", "spans", "text", "source", "probability", "annotators")

WriteResult = Callable[[Sequence[WeakLabel], Task], Prediction | None]
"""Puts one task's labels into Label Studio's form; None when there is no answer in them."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """The final answer to one question about one task, and where it comes from.

    `labels`, `spans` or `text` hold the answer, as in `Answer`. `source` is "human" for what people
    said, else the name of what decided ("fused", "llm", ...); `probability` in [0, 1] is that the
    answer is right, None if unknown; `annotators` are the people and models that were heard.
    """

    task_id: int
    data: Mapping[str, Any]
    question: Question
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] | None = None
    text: str | None = None
    source: str = "fused"
    probability: float | None = None
    annotators: tuple[str, ...] = ()


def export_jsonl(rows: Iterable[ExportRow], path: Path) -> int:
    """Write one JSON object per answer; return how many. Raises ExportFailed.

    Rows are written as they come, to a temporary name that takes `path`'s place at the end: a stop
    half-way leaves the former file whole. So do the other two.
    """
    n_rows = 0
    with _replacing(path) as file:
        for row in rows:
            file.write(json.dumps(_as_object(row), ensure_ascii=False) + "\n")
            n_rows += 1
    return n_rows


def export_csv(rows: Iterable[ExportRow], path: Path, *, data_keys: Sequence[str]) -> int:
    """Write one line per answer, then the task's values under `data_keys`; return how many.

    Several labels and spans are JSON. A cell that a spreadsheet would run as a formula (it starts
    with =, +, -, @ or a control character, and is no number) gets an apostrophe in front: task
    texts come from anywhere. Raises ExportFailed.
    """
    n_rows = 0
    with _replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *(_cell(f"data.{key}") for key in data_keys)])
        for row in rows:
            entry = _as_object(row)
            entry["label"] = ", ".join(row.labels)
            if row.question.kind.is_multilabel:
                entry["label"] = list(row.labels)
            entry["annotators"] = ", ".join(row.annotators)
            values = [entry.get(column) for column in _COLUMNS]
            writer.writerow([_cell(v) for v in (*values, *map(row.data.get, data_keys))])
            n_rows += 1
    return n_rows


def export_label_studio(
    rows: Iterable[ExportRow], path: Path, write: WriteResult, *, as_annotations: bool = False
) -> int:
    """Write tasks as Label Studio imports them; return how many. Raises ExportFailed.

    What people said becomes annotations and everything else predictions, with the lowest
    probability as score; `as_annotations` makes annotations of all. The rows of a task must follow
    each other. Task numbers are not kept by an import; they stand under `meta`.
    """
    n_tasks = 0
    with _replacing(path) as file:
        file.write("[")
        for _, group in groupby(rows, key=lambda row: row.task_id):
            task = _as_task(list(group), write, as_annotations=as_annotations)
            file.write(",\n" if n_tasks else "\n")
            file.write(json.dumps(task, ensure_ascii=False))
            n_tasks += 1
        file.write("\n]\n")
    return n_tasks


def as_weak_label(row: ExportRow) -> WeakLabel | None:
    """Return a row in the words that predictions are written from; None when it has no answer.

    A posterior is made of the answer and its probability; what is left over is spread evenly.
    """
    question, known = row.question, [label.value for label in row.question.labels]
    sure = 1.0 if row.probability is None else row.probability
    probabilities: tuple[float, ...] = ()
    spans = text = None
    if question.kind.has_spans:
        spans = row.spans or ()
    elif row.text is not None:
        text = row.text
    elif question.kind.is_exclusive and len(row.labels) == 1 and row.labels[0] in known:
        sure = max(sure, 1 / len(known) + 1e-6)  # the answer stays the likeliest
        rest = (1 - sure) / max(len(known) - 1, 1)
        probabilities = tuple(sure if value in row.labels else rest for value in known)
    elif question.kind.is_multilabel and known:
        sure = max(sure, 0.5 + 1e-6)  # half is where a label counts as given
        probabilities = tuple(sure if value in row.labels else 1 - sure for value in known)
    else:
        return None
    return WeakLabel(
        example_id=row.task_id,
        question=question.name,
        annotator=row.source,
        prompt_version="",
        probabilities=probabilities,
        spans=spans,
        text=text,
        confidence=sure if spans is not None or text is not None else None,
    )


def _as_object(row: ExportRow) -> dict[str, Any]:
    spans = row.spans
    return {
        "task_id": row.task_id,
        "question": row.question.name,
        "labels": list(row.labels),
        "spans": None if spans is None else [_as_span(span) for span in spans],
        "text": row.text,
        "source": row.source,
        "probability": row.probability,
        "annotators": list(row.annotators),
        "data": dict(row.data),
    }


def _as_span(span: Span) -> dict[str, Any]:
    return {
        "start": span.start,
        "end": span.end,
        "label": span.label,
        "probability": span.probability,
    }


def _as_task(
    rows: Sequence[ExportRow], write: WriteResult, *, as_annotations: bool
) -> dict[str, Any]:
    first = rows[0]
    source = Task(first.task_id, first.data)
    task: dict[str, Any] = {"data": dict(first.data), "meta": {"task_id": first.task_id}}
    is_human = {id(row): as_annotations or row.source == HUMAN for row in rows}
    for key, wanted in (("annotations", True), ("predictions", False)):
        chosen = [row for row in rows if is_human[id(row)] is wanted]
        weak_labels = [label for label in map(as_weak_label, chosen) if label is not None]
        written = write(weak_labels, source) if weak_labels else None
        if written is None:
            continue
        found: dict[str, Any] = {"result": list(written.result)}
        if not wanted:
            found |= {"score": written.score, "model_version": written.model_version}
        task[key] = [found]
    return task


def _cell(value: object) -> object:
    """Return a value as a cell that no spreadsheet takes for a formula."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if text.lstrip(" ").startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """Yield a file that takes `path`'s place when the block ends well, and is gone otherwise.

    Lone surrogates, which UTF-8 cannot hold, are written as JSON escapes them.
    """
    try:
        with (
            replacing_file(path, fsync=True) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            yield file
    except OSError as exc:
        raise ExportFailed(
            f"cannot write {path}: {exc.strerror or exc}; check that its folder exists, is "
            "writable and has space left"
        ) from exc
