"""`Ranker`: the items of a `List` in order, or in buckets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from backend.domain.labels import Answer, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    ControlElement,
    ControlTag,
    RegionSet,
    RegionValues,
    TaskData,
    UnsupportedTag,
)
from backend.labelstudio.label_config.task_labels import task_labels

_GRADES = 5
_LEFT = "_"
"""Label Studio's own bucket of the items that are in none."""


class Ranker(ControlTag):
    """`<Ranker>`. Results hold the items' ids by bucket, or under the tag's name."""

    name = "Ranker"
    kinds = (QuestionKind.RANKING,)
    over = ("List",)

    def question(self, element: ControlElement) -> Question:
        """Return the question, whose `inner` is asked about each item: a grade or a bucket."""
        name = element.parsed.name
        buckets = [
            LabelDefinition(bucket.get("name") or "", (bucket.get("title") or "").strip())
            for bucket in element.element.iter("Bucket")
        ]
        if any(not bucket.value for bucket in buckets):
            raise UnsupportedTag("a Bucket without a name")
        if not buckets:
            hints = {1: "worst", _GRADES: "best"}
            grades = tuple(
                LabelDefinition(str(n), str(n), hints.get(n)) for n in range(1, _GRADES + 1)
            )
            bounds = (1.0, float(_GRADES))
            inner = Question(name, (), QuestionKind.RATING, grades, bounds)
            return Question(name, (), QuestionKind.RANKING, inner=inner)
        labels = [LabelDefinition(one.value, one.name or one.value) for one in buckets]
        if not any(bucket.get("default") for bucket in element.element.iter("Bucket")):
            labels.append(LabelDefinition(_LEFT, "none of these"))
        if len(labels) < 2:
            raise UnsupportedTag("fewer than two buckets")
        inner = Question(name, (), QuestionKind.SINGLE_CHOICE, tuple(labels))
        return Question(name, (), QuestionKind.RANKING, inner=inner)

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        """Write the items that the task still has; items that are not ranked come last."""
        ranked = _ranked(weak_label.text)
        ids = [label.value for label in task_labels(question, data or {})]
        if ranked is None or not ids or question.inner is None:
            return None
        kept = {name: [one for one in some if one in ids] for name, some in ranked.items()}
        if question.inner.kind.is_ordinal:
            order = kept.get(question.name, [])
            kept = {question.name: [*order, *(one for one in ids if one not in order)]}
        else:
            names = [one.value for one in question.inner.labels if one.value != _LEFT]
            kept = {name: kept.get(name, []) for name in names}
        confidence = weak_label.confidence
        confidence = UNKNOWN_CONFIDENCE if confidence is None else confidence
        return RegionSet((({"ranker": kept}, confidence),), confidence)

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        """Read the ids by bucket, as JSON."""
        ranker = values[0].get("ranker") if len(values) == 1 else None
        if not isinstance(ranker, Mapping):
            return None
        kept = {str(name): ids for name, ids in ranker.items() if name != _LEFT}
        return Answer(text=json.dumps(kept, ensure_ascii=False, sort_keys=True))


TAGS = (Ranker(),)


def _ranked(text: str | None) -> dict[str, list[str]] | None:
    """Return the ids by bucket that are written as JSON; None where there are none."""
    try:
        ranked: Any = json.loads(text or "")
    except ValueError:
        return None
    if not isinstance(ranked, dict):
        return None
    return {str(name): [str(one) for one in ids] for name, ids in ranked.items() if ids}
