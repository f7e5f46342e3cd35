"""A data set as a Label Studio project: its label config, its tasks and their right answers."""

from __future__ import annotations

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
from benchmarks.data import read_rows

_DEFINITIONS = Path(__file__).resolve().parent / "definitions"
_TEXT_KEYS = ("text", "text_a", "text_b", "aspect", "target")
_SPOKEN_KEYS = {"a": "text_a", "b": "text_b"}
_PLACE = "place in the split"
_TRAIN_ID = 1_000_000
"""A training row's task id is this and its place in the training split; others count from 1."""

Gold = int | frozenset[int] | tuple[Span, ...]
"""A class index, a set of them, or spans."""


@dataclass(frozen=True, slots=True)
class LabelledTask:
    """A task and what is right about it."""

    task: Task
    gold: Gold


@dataclass(frozen=True, slots=True)
class DataSet:
    """Evaluated tasks and training tasks of one file; nothing is ever learned from the former."""

    name: str
    kind: QuestionKind
    label_config: str
    instruction: str
    labels: tuple[str, ...]
    split: str
    evaluated: tuple[LabelledTask, ...]
    train: tuple[LabelledTask, ...]


@dataclass(frozen=True, slots=True)
class _Definition:
    """What a user would write about a data set's question."""

    question: str
    fields: Mapping[str, str]
    names: Mapping[str, str]
    hints: Mapping[str, str]
    instruction: str


def load(path: Path, *, limit: int | None, n_train: int, seed: int) -> DataSet:
    """Read a file; `limit` evaluated and `n_train` training rows are drawn with the seed.

    Evaluated is the test split, or the dev split where there is none. Training rows whose text
    stands among the evaluated ones are left out.
    """
    rows = _numbered(read_rows(path))
    name = path.name.split(".", 1)[0]
    meta_file = path.with_name(f"{name}.meta.json")
    meta = json.loads(meta_file.read_text(encoding="utf-8")) if meta_file.exists() else {}
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if _is_labelled(row):
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
    return DataSet(
        name=name,
        kind=kind,
        label_config=_label_config(kind, labels, definition),
        instruction=definition.instruction,
        labels=labels,
        split=split,
        evaluated=tuple(_task(row, at + 1, labels) for at, row in enumerate(evaluated)),
        train=tuple(_task(row, row[_PLACE] + _TRAIN_ID, labels) for row in train),
    )


def written_definition(name: str) -> dict[str, Any]:
    """Return what was written about a data set's question; nothing where there is no file."""
    file = _DEFINITIONS / f"{name}.yaml"
    if not file.exists():
        return {}
    written: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return written


def place_in_split(task: LabelledTask) -> int:
    """Return which row of the training split a training task is, counted from 0."""
    return task.task.id - _TRAIN_ID


def spans_of(tokens: Sequence[str], tags: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """Return the tokens as a text with single spaces, and the BIO tags as spans of it."""
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


def _numbered(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with their places in their splits."""
    places: Counter[str] = Counter()
    numbered: list[dict[str, Any]] = []
    for row in rows:
        split = row.get("split", "test")
        numbered.append({**row, _PLACE: places[split]})
        places[split] += 1
    return numbered


def _is_labelled(row: Mapping[str, Any]) -> bool:
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
    known = written_definition(name)
    field = known.get("field", "text")
    spoken = {"text": field} if isinstance(field, str) else dict(field)
    keys = [key for key in _TEXT_KEYS if row.get(key) is not None] or ["text"]
    fields = {key: key.replace("_", " ") for key in keys}
    fields |= {key: said for name, said in spoken.items() if (key := _SPOKEN_KEYS.get(name, name))}
    spoken_labels = {label: label.replace("_", " ") for label in labels}
    return _Definition(
        question=known.get("question", "entity" if "tags" in row else "answer"),
        fields={key: said for key, said in fields.items() if key in keys},
        names=spoken_labels | {str(k): str(v) for k, v in known.get("names", {}).items()},
        hints={str(k): str(v) for k, v in known.get("labels", {}).items()},
        instruction=known.get("instruction", ""),
    )


def _label_config(kind: QuestionKind, labels: Sequence[str], definition: _Definition) -> str:
    texts = "".join(
        f"<Text name={quoteattr(said)} value={quoteattr('$' + key)}/>"
        for key, said in definition.fields.items()
    )
    first = next(iter(definition.fields.values()))
    about = f"name={quoteattr(definition.question)} toName={quoteattr(first)}"
    tag = "Label" if kind is QuestionKind.SPANS else "Choice"
    options = "".join(
        f"<{tag} value={quoteattr(definition.names[label])} alias={quoteattr(label)}"
        + (f" hint={quoteattr(definition.hints[label])}" if label in definition.hints else "")
        + "/>"
        for label in labels
    )
    if kind is QuestionKind.SPANS:
        return f"<View><Labels {about}>{options}</Labels>{texts}</View>"
    choice = "multiple" if kind is QuestionKind.MULTIPLE_CHOICE else "single"
    return f'<View>{texts}<Choices {about} choice="{choice}">{options}</Choices></View>'


def _task(row: Mapping[str, Any], number: int, labels: Sequence[str]) -> LabelledTask:
    if "tags" in row:
        text, spans = spans_of(row["tokens"], row["tags"])
        return LabelledTask(Task(number, {"text": text}), spans)
    data = {key: row[key] for key in _TEXT_KEYS if row.get(key) is not None}
    if "labels" in row:
        return LabelledTask(
            Task(number, data), frozenset(labels.index(label) for label in row["labels"])
        )
    return LabelledTask(Task(number, data), labels.index(row["label"]))


def _texts_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    words = row.get("tokens") or [str(row.get(key, "")) for key in _TEXT_KEYS]
    return tuple(" ".join(word.lower().split()) for word in words)
