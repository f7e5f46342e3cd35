"""Read data sets, as rows or as a Label Studio project with tasks and their gold labels."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import yaml

from backend.domain.labels import Span
from backend.domain.projects import Task
from backend.domain.questions import QuestionKind

_FOLDER = Path(__file__).resolve().parent
_DEFINITIONS = _FOLDER / "definitions"
_SAMPLE = _FOLDER.parent / "backend/launcher/sample/reviews.jsonl"
_TEXT_KEYS = ("text", "text_a", "text_b", "aspect", "target")
_TEXT_KEY_OF = {"a": "text_a", "b": "text_b"}
_ROW = "row in the split"
_TRAIN_ID = 1_000_000
"""A training row's task id is this and its row in the training split; others count from 1."""

Gold = int | frozenset[int] | tuple[Span, ...]
"""A class index, a set of them, or spans."""


@dataclass(frozen=True, slots=True)
class LabeledTask:
    """A task and its gold label."""

    task: Task
    gold: Gold


@dataclass(frozen=True, slots=True)
class Dataset:
    """Label config, evaluated and training tasks of one file; only the latter are learned from."""

    name: str
    kind: QuestionKind
    label_config: str
    instruction: str
    labels: tuple[str, ...]
    split: str
    evaluated: tuple[LabeledTask, ...]
    train: tuple[LabeledTask, ...]


@dataclass(frozen=True, slots=True)
class _Definition:
    """Names, texts and descriptions that a user would give a data set's question."""

    question: str
    fields: Mapping[str, str]
    names: Mapping[str, str]
    hints: Mapping[str, str]
    instruction: str


def read_rows(path: Path | None, *, split: str | None = None) -> list[dict[str, Any]]:
    """Read a JSONL file's rows in order, of one split if rows name splits; None: the sample."""
    path = path or _SAMPLE
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    return [row for row in rows if split is None or row.get("split", split) == split]


def load(path: Path, *, limit: int | None, n_train: int, seed: int) -> Dataset:
    """Read a data set with drawn evaluated and training tasks.

    Evaluated is the test split, or the dev split where there is none. Training rows whose text
    is also an evaluated one are left out.

    Args:
        path: JSONL, plain or gzipped; NAME.meta.json beside it may name the labels in order.
        limit: Number of evaluated rows; None: all.
        n_train: Number of training rows.
        seed: Draws both.
    """
    rows = _with_row_numbers(read_rows(path))
    name = path.name.split(".", 1)[0]
    meta_file = path.with_name(f"{name}.meta.json")
    meta = json.loads(meta_file.read_text(encoding="utf-8")) if meta_file.exists() else {}
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if _is_labeled(row):
            by_split.setdefault(row.get("split", "test"), []).append(row)
    split = next(split for split in ("test", "dev", "train") if by_split.get(split))
    rng = np.random.default_rng(seed)
    evaluated = _drawn(by_split[split], limit, rng)
    seen = {_texts_of(row) for row in evaluated}
    rest = [row for row in by_split.get("train", []) if _texts_of(row) not in seen]
    train = _drawn(rest, n_train, rng)
    kind = _kind(rows[0])
    labels = _labels(meta, rows)
    definition = _definition(name, rows[0], labels)
    return Dataset(
        name=name,
        kind=kind,
        label_config=_label_config(kind, labels, definition),
        instruction=definition.instruction,
        labels=labels,
        split=split,
        evaluated=tuple(_task(row, at + 1, labels) for at, row in enumerate(evaluated)),
        train=tuple(_task(row, row[_ROW] + _TRAIN_ID, labels) for row in train),
    )


def read_definition(name: str) -> dict[str, Any]:
    """Read `definitions/NAME.yaml`: question, instruction and label names; {} without a file."""
    file = _DEFINITIONS / f"{name}.yaml"
    if not file.exists():
        return {}
    definition: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return definition


def row_in_split(task: LabeledTask) -> int:
    """Return a training task's row in the training split, counted from 0."""
    return task.task.id - _TRAIN_ID


def spans_of(tokens: Sequence[str], tags: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """Join tokens by single spaces and convert their BIO tags to spans of that text."""
    spans: list[Span] = []
    end = -1
    is_open = False
    for token, tag in zip(tokens, tags, strict=True):
        start, end = end + 1, end + 1 + len(token)
        position, _, label = tag.partition("-")
        if position == "I" and is_open and spans[-1].label == label:
            spans[-1] = Span(spans[-1].start, end, label)
        elif position in ("B", "I"):
            spans.append(Span(start, end, label))
        is_open = position in ("B", "I")
    return " ".join(tokens), tuple(spans)


def _with_row_numbers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row its number within its split."""
    n_rows: Counter[str] = Counter()
    numbered: list[dict[str, Any]] = []
    for row in rows:
        split = row.get("split", "test")
        numbered.append({**row, _ROW: n_rows[split]})
        n_rows[split] += 1
    return numbered


def _is_labeled(row: Mapping[str, Any]) -> bool:
    return any(row.get(key) is not None for key in ("label", "labels", "tags"))


def _drawn(
    rows: list[dict[str, Any]], limit: int | None, rng: np.random.Generator
) -> list[dict[str, Any]]:
    if limit is None or limit >= len(rows):
        return rows
    chosen = rng.choice(len(rows), size=limit, replace=False)
    return [rows[at] for at in sorted(chosen.tolist())]


def _kind(row: Mapping[str, Any]) -> QuestionKind:
    if "tags" in row:
        return QuestionKind.SPANS
    return QuestionKind.MULTIPLE_CHOICE if "labels" in row else QuestionKind.SINGLE_CHOICE


def _labels(meta: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found: set[str] = set()
    for row in rows:
        if "tags" in row:
            found.update(tag[2:] for tag in row["tags"] if tag != "O")
        else:
            found.update(row["labels"] if "labels" in row else [row["label"]])
    found.discard(None)
    names = [str(name) for name in meta.get("label_names", ()) if str(name) in found]
    return tuple(names) if set(names) == found else tuple(sorted(found))


def _definition(name: str, row: Mapping[str, Any], labels: Sequence[str]) -> _Definition:
    known = read_definition(name)
    field = known.get("field", "text")
    field_names = {"text": field} if isinstance(field, str) else dict(field)
    keys = [key for key in _TEXT_KEYS if row.get(key) is not None] or ["text"]
    fields = {key: key.replace("_", " ") for key in keys}
    fields |= {_TEXT_KEY_OF.get(key, key): title for key, title in field_names.items()}
    display_names = {label: label.replace("_", " ") for label in labels}
    return _Definition(
        question=known.get("question", "entity" if "tags" in row else "answer"),
        fields={key: title for key, title in fields.items() if key in keys},
        names=display_names | {str(k): str(v) for k, v in known.get("names", {}).items()},
        hints={str(k): str(v) for k, v in known.get("labels", {}).items()},
        instruction=known.get("instruction", ""),
    )


def _label_config(kind: QuestionKind, labels: Sequence[str], definition: _Definition) -> str:
    texts = "".join(
        f"<Text name={quoteattr(title)} value={quoteattr('$' + key)}/>"
        for key, title in definition.fields.items()
    )
    first = next(iter(definition.fields.values()))
    attributes = f"name={quoteattr(definition.question)} toName={quoteattr(first)}"
    tag = "Label" if kind is QuestionKind.SPANS else "Choice"
    options = "".join(
        f"<{tag} value={quoteattr(definition.names[label])} alias={quoteattr(label)}"
        + (f" hint={quoteattr(definition.hints[label])}" if label in definition.hints else "")
        + "/>"
        for label in labels
    )
    if kind is QuestionKind.SPANS:
        return f"<View><Labels {attributes}>{options}</Labels>{texts}</View>"
    choice = "multiple" if kind is QuestionKind.MULTIPLE_CHOICE else "single"
    return f'<View>{texts}<Choices {attributes} choice="{choice}">{options}</Choices></View>'


def _task(row: Mapping[str, Any], number: int, labels: Sequence[str]) -> LabeledTask:
    if "tags" in row:
        text, spans = spans_of(row["tokens"], row["tags"])
        return LabeledTask(Task(number, {"text": text}), spans)
    data = {key: row[key] for key in _TEXT_KEYS if row.get(key) is not None}
    if "labels" in row:
        return LabeledTask(
            Task(number, data), frozenset(labels.index(label) for label in row["labels"])
        )
    return LabeledTask(Task(number, data), labels.index(row["label"]))


def _texts_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    words = row.get("tokens") or [str(row.get(key, "")) for key in _TEXT_KEYS]
    return tuple(" ".join(word.lower().split()) for word in words)
