"""`Labels`, `HyperTextLabels` and `ParagraphLabels`: pieces of a text, exact to the character."""

from __future__ import annotations

from backend.domain.labels import Answer, Span, WeakLabel
from backend.domain.questions import Question, QuestionKind, TextFormat
from backend.errors import InvalidRequest
from backend.labelstudio.label_config.tags import (
    UNKNOWN_CONFIDENCE,
    ControlElement,
    ControlTag,
    RegionSet,
    RegionValues,
    TaskData,
    UnsupportedTag,
    check_fixed,
    listed_labels,
)
from backend.labelstudio.label_config.texts import SpanText, check_offsets, read_span_text


class _SpanTag(ControlTag):
    """A tag whose labels lie on pieces of a text; a result's key is the tag's name."""

    kinds = (QuestionKind.SPANS,)

    def __init__(self, name: str, over: tuple[str, ...]) -> None:
        self.name, self.over = name, over

    def question(self, element: ControlElement) -> Question:
        check_fixed(element)
        check_offsets(element.parsed.objects[0])
        labels = listed_labels(element)
        if not labels:
            raise UnsupportedTag("no labels")
        return Question(element.parsed.name, (), QuestionKind.SPANS, labels)

    def write(self, question: Question, weak_label: WeakLabel, data: TaskData) -> RegionSet | None:
        text = None if weak_label.spans is None else _text_of(question, data)
        if text is None or weak_label.spans is None:
            return None
        known = {label.value for label in question.labels}
        regions, places = [], []
        for span in weak_label.spans:
            is_piece = span.label in known and 0 <= span.start < span.end
            value = text.write_span(span.start, span.end) if is_piece else None
            if value is not None:
                value[self.name.lower()] = [span.label]
                regions.append((value, span.probability))
                places.append((span.start, span.end))
        confidence = weak_label.confidence
        if confidence is None:
            confidence = min((each for _, each in regions), default=UNKNOWN_CONFIDENCE)
        return RegionSet(tuple(regions), confidence, tuple(places))

    def read(self, question: Question, values: RegionValues, data: TaskData) -> Answer | None:
        text = _text_of(question, data)
        if text is None:
            return None
        order = {label.value: index for index, label in enumerate(question.labels)}
        spans: set[Span] = set()
        for value in values:
            place = text.read_span(value)
            labels = value.get(self.name.lower())
            if place is not None and isinstance(labels, list):
                known = [label for label in labels if isinstance(label, str) and label in order]
                spans.update(Span(*place, label) for label in known)
        if not spans:
            return None
        return Answer(spans=tuple(sorted(spans, key=lambda s: (s.start, s.end, order[s.label]))))


TAGS = (
    _SpanTag("Labels", ("Text", "HyperText")),
    _SpanTag("HyperTextLabels", ("HyperText",)),
    _SpanTag("ParagraphLabels", ("Paragraphs",)),
)


def _text_of(question: Question, data: TaskData) -> SpanText | None:
    """Return the text that spans lie in; None where their offsets cannot be told exactly."""
    field = question.field
    if data is None and field.format is not TextFormat.PLAIN:
        raise InvalidRequest(
            f"the task's data are needed for {question.name!r}: places in a {field.format} text "
            "depend on it; give the task"
        )
    return read_span_text(field, data or {})
