"""Write a project's labels to a file: JSON lines, CSV, or tasks that Label Studio imports."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
_COLUMNS = (
    "task_id",
    "question",
    "label",
    "spans",
    "text",
    "source",
    "probability",
    "annotators",
    "issues",
)

WriteResult = Callable[[Sequence[WeakLabel], Task], Prediction | None]
"""Puts one task's labels into Label Studio's form; None when there is no answer in them."""


@dataclass(frozen=True, slots=True)
class ExportRow:
    """The final answer to one question about one task, with its source.

    `labels`, `spans` or `text` hold the answer, as in `Answer`, and `probabilities` (K,) the
    posterior that `labels` come from. `source` is "human" or "fused"; `probability` in [0, 1] is
    that the answer is right, None if unknown; `annotators` are those who answered; `issues` are
    probable errors, as `LabelIssue.to_json` writes them.
    """

    task_id: int
    data: Mapping[str, Any]
    question: Question
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] | None = None
    text: str | None = None
    source: str = "fused"
    probability: float | None = None
    probabilities: tuple[float, ...] = ()
    annotators: tuple[str, ...] = ()
    issues: tuple[Mapping[str, Any], ...] = ()


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


def export_csv(rows: Iterable[ExportRow], path: Path, *, data_keys: Sequence[str]) -> None:
    """Write one line per answer, then the task's values under `data_keys`.

    Several labels and spans are JSON. A cell that a spreadsheet would run as a formula (it starts
    with =, +, -, @ or a control character, and is no number) gets an apostrophe in front: task
    texts come from anywhere. Raises ExportFailed.
    """
    with _replacing(path) as file:
        writer = csv.writer(file)
        writer.writerow([*_COLUMNS, *(_cell(f"data.{key}") for key in data_keys)])
        for row in rows:
            entry = _as_object(row)
            entry["label"] = ", ".join(row.labels)
            if row.question.kind.is_multilabel:
                entry["label"] = list(row.labels)
            entry["annotators"] = ", ".join(row.annotators)
            entry["issues"] = entry["issues"] or None
            values = [entry.get(column) for column in _COLUMNS]
            writer.writerow([_cell(v) for v in (*values, *map(row.data.get, data_keys))])


def export_label_studio(rows: Iterable[ExportRow], path: Path, write: WriteResult) -> int:
    """Write tasks as Label Studio imports them; return how many. Raises ExportFailed.

    Human labels become annotations and all others predictions, with the lowest probability as
    score. The rows of a task must follow each other. Task numbers are not kept by an import; they
    stand under `meta`.
    """
    n_tasks = 0
    with _replacing(path) as file:
        file.write("[")
        for _, group in groupby(rows, key=lambda row: row.task_id):
            task = _as_task(list(group), write)
            file.write(",\n" if n_tasks else "\n")
            file.write(json.dumps(task, ensure_ascii=False))
            n_tasks += 1
        file.write("\n]\n")
    return n_tasks


def as_weak_label(row: ExportRow) -> WeakLabel | None:
    """Return a row as the weak label that a prediction is written from; None without an answer."""
    has_spans = row.question.kind.has_spans
    if not has_spans and row.text is None and not row.probabilities:
        return None
    confidence = 1.0 if row.probability is None else row.probability
    return WeakLabel(
        example_id=row.task_id,
        question=row.question.name,
        annotator=row.source,
        probabilities=() if has_spans or row.text is not None else row.probabilities,
        spans=row.spans or () if has_spans else None,
        text=None if has_spans else row.text,
        confidence=confidence if has_spans or row.text is not None else None,
    )


def _as_object(row: ExportRow) -> dict[str, Any]:
    spans = row.spans
    return {
        "task_id": row.task_id,
        "question": row.question.name,
        "labels": list(row.labels),
        "spans": None if spans is None else [asdict(span) for span in spans],
        "text": row.text,
        "source": row.source,
        "probability": row.probability,
        "annotators": list(row.annotators),
        "issues": [dict(issue) for issue in row.issues],
        "data": dict(row.data),
    }


def _as_task(rows: Sequence[ExportRow], write: WriteResult) -> dict[str, Any]:
    first = rows[0]
    source = Task(first.task_id, first.data)
    task: dict[str, Any] = {"data": dict(first.data), "meta": {"task_id": first.task_id}}
    for key, is_human in (("annotations", True), ("predictions", False)):
        chosen = [row for row in rows if (row.source == HUMAN) is is_human]
        weak_labels = [label for label in map(as_weak_label, chosen) if label is not None]
        prediction = write(weak_labels, source) if weak_labels else None
        if prediction is None:
            continue
        entry: dict[str, Any] = {"result": list(prediction.result)}
        if not is_human:
            entry |= {"score": prediction.score, "model_version": prediction.model_version}
        task[key] = [entry]
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
