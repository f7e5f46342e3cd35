"""Questions about regions: each span or each turn by itself, and relations between spans."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.domain.decisions import decide, is_shown, selected_labels
from backend.domain.labels import Abstention, AbstentionReason, Example, Span, WeakLabel
from backend.domain.questions import LabelDefinition, Question, TextField
from backend.llm.prompt_batch import LLMCall

Ask = Callable[[LLMCall, Question, Sequence[Example]], list[WeakLabel]]
"""Answers one question about examples."""
Answers = Mapping[str, tuple[Question, Sequence[WeakLabel]]]
"""The questions that were asked before and their weak labels, by the questions' names."""

_PIECE, _FIRST, _SECOND = "piece", "first", "second"
_CONTEXT_CHARS = 300
_MAX_PAIRS = 30
"""Pairs of spans that are asked about in a text, the nearest first."""
_NO_REGIONS = Abstention(AbstentionReason.NOT_SHOWN, "no regions to ask about were found")
_TURN = "turn"


@dataclass(frozen=True, slots=True)
class _Region:
    """A piece of the example at this position."""

    at: int
    span: Span


def ask_regions(
    call: LLMCall, question: Question, examples: Sequence[Example], before: Answers, ask: Ask
) -> list[WeakLabel]:
    """Return one weak label per example: spans that carry the answers about regions.

    Each region is asked about by itself, with what stands around it. Cost: that of the inner
    question per region.
    """
    inner = question.inner
    if inner is None:
        raise ValueError(f"the question {question.name!r} says nothing of its regions")
    regions = list(_regions(question, examples, before))
    others = tuple(one for one in question.fields if one != question.field)
    piece = TextField(_piece_name(question), "")
    fields = (piece, question.field, *others)
    per_region = replace(inner, fields=fields, headers=question.headers, conditions=())
    shown = [
        (number, region)
        for number, region in enumerate(regions)
        if _is_shown(inner, examples[region.at], region.span, before, region.at)
    ]
    items = [
        _with_pieces(examples[r.at], question, number, {piece.name: r.span}) for number, r in shown
    ]
    found = ask(call, per_region, items) if items else []
    by_example: dict[int, list[tuple[Span, WeakLabel]]] = {}
    for (_, region), label in zip(shown, found, strict=True):
        by_example.setdefault(region.at, []).append((region.span, label))
    return [
        _folded(call, question, per_region, example, by_example.get(at, ()))
        for at, example in enumerate(examples)
    ]


def ask_relations(
    call: LLMCall, question: Question, examples: Sequence[Example], before: Answers, ask: Ask
) -> list[WeakLabel]:
    """Return one weak label per example: which spans are related, as JSON.

    Each ordered pair of spans is a choice among the relations and "none". Cost: one request of
    one token per pair, at most `_MAX_PAIRS` a text.
    """
    if question.inner is None:
        raise ValueError(f"the question {question.name!r} says nothing of its pairs")
    fields = (question.field, TextField(_FIRST, ""), TextField(_SECOND, ""))
    between = replace(question.inner, fields=fields, headers=question.headers)
    spans = [_spans_of(question, before, at) for at in range(len(examples))]
    pairs = [(at, *pair) for at, some in enumerate(spans) for pair in _pairs(some or ())]
    items = [
        _with_pieces(examples[at], question, number, {_FIRST: one, _SECOND: other})
        for number, (at, one, other) in enumerate(pairs)
    ]
    found = ask(call, between, items) if items else []
    by_example: dict[int, list[tuple[Span, Span, WeakLabel]]] = {}
    for (at, one, other), label in zip(pairs, found, strict=True):
        by_example.setdefault(at, []).append((one, other, label))
    return [
        _linked(call, between, example, by_example.get(at, ()), has_spans=spans[at] is not None)
        for at, example in enumerate(examples)
    ]


def _regions(question: Question, examples: Sequence[Example], before: Answers) -> Iterator[_Region]:
    """Yield the regions that a question is about, example by example."""
    wanted = set(question.only)
    for at, example in enumerate(examples):
        spans = _spans_of(question, before, at) if question.region_of else _turns(question, example)
        places = set()
        for span in spans or ():
            if (not wanted or span.label in wanted) and (span.start, span.end) not in places:
                places.add((span.start, span.end))
                yield _Region(at, span)


def _spans_of(question: Question, before: Answers, at: int) -> tuple[Span, ...] | None:
    asked = before.get(question.region_of)
    return asked[1][at].spans if asked else None


def _turns(question: Question, example: Example) -> Iterator[Span]:
    """Yield the turns of a dialogue as spans that carry their speakers' names."""
    start = 0
    for line in example.texts.get(question.field.name, "").split("\n"):
        speaker, colon, said = line.partition(": ")
        begin = start + (len(speaker) + 2 if colon else 0)
        if (said if colon else line).strip():
            yield Span(begin, start + len(line), speaker if colon else "")
        start += len(line) + 1


def _is_shown(inner: Question, example: Example, span: Span, before: Answers, at: int) -> bool:
    """Return whether a question is shown for a region beside what was said about it."""
    chosen: dict[str, list[LabelDefinition]] = {}
    for name, (question, labels) in before.items():
        if labels[at].spans is None:
            chosen[name] = selected_labels(question, labels[at]) or []
            continue
        chosen[name] = [
            LabelDefinition(one.label, one.label)
            for one in labels[at].spans or ()
            if (one.start, one.end) == (span.start, span.end)
        ]
    return is_shown(inner, chosen)


def _with_pieces(
    example: Example, question: Question, number: int, pieces: Mapping[str, Span]
) -> Example:
    """Return an example whose text is what stands around pieces of it, with these beside it."""
    text = example.texts.get(question.field.name, "")
    start = max(0, min(span.start for span in pieces.values()) - _CONTEXT_CHARS)
    end = max(span.end for span in pieces.values()) + _CONTEXT_CHARS
    shown = {name: text[span.start : span.end] for name, span in pieces.items()}
    texts = {**example.texts, question.field.name: text[start:end], **shown}
    return replace(example, id=-1 - number, texts=texts)


def _folded(
    call: LLMCall,
    question: Question,
    per_region: Question,
    example: Example,
    answers: Sequence[tuple[Span, WeakLabel]],
) -> WeakLabel:
    """Return one weak label for the answers about an example's regions."""
    if not answers:
        return _abstention(call, question, example)
    spans: list[Span] = []
    confidences = []
    for span, label in answers:
        if label.abstention is not None and label.abstention.reason.is_transient:
            return replace(label, example_id=example.id, question=question.name)
        decision = decide(per_region, label)
        if decision is not None:
            chosen, confidence = [one.value for one in decision[0]], decision[1]
        else:
            chosen = [label.text] if label.text else []
            confidence = label.confidence or 0.5
        spans += [replace(span, label=value, probability=confidence) for value in chosen]
        confidences.append(confidence)
    labels = [label for _, label in answers]
    return WeakLabel(
        example.id,
        question.name,
        labels[0].annotator,
        prompt_version=labels[0].prompt_version,
        spans=tuple(spans),
        confidence=min(confidences),
        n_tokens_in=sum(label.n_tokens_in for label in labels),
        n_tokens_out=sum(label.n_tokens_out for label in labels),
    )


def _linked(
    call: LLMCall,
    between: Question,
    example: Example,
    answers: Sequence[tuple[Span, Span, WeakLabel]],
    *,
    has_spans: bool,
) -> WeakLabel:
    """Return one weak label for the answers about an example's pairs of spans."""
    if not has_spans:
        return _abstention(call, between, example)
    links, confidences = [], [1.0]
    for one, other, label in answers:
        decision = decide(between, label)
        if label.abstention is not None and label.abstention.reason.is_transient:
            return replace(label, example_id=example.id)
        if decision is not None:
            (chosen,), confidence = decision
            confidences.append(confidence)
            if chosen.value:
                links.append([one.start, one.end, other.start, other.end, chosen.value])
    labels = [label for *_, label in answers]
    return WeakLabel(
        example.id,
        between.name,
        f"llm:{call.info.name}",
        prompt_version=labels[0].prompt_version if labels else "",
        text=json.dumps(links, ensure_ascii=False),
        confidence=min(confidences),
        n_tokens_in=sum(label.n_tokens_in for label in labels),
        n_tokens_out=sum(label.n_tokens_out for label in labels),
    )


def _pairs(spans: Sequence[Span]) -> list[tuple[Span, Span]]:
    """Return ordered pairs of different spans, the nearest first."""
    pairs = [(one, other) for one in spans for other in spans if one != other]
    pairs.sort(key=lambda pair: abs(pair[0].start - pair[1].start))
    return pairs[:_MAX_PAIRS]


def _piece_name(question: Question) -> str:
    return _PIECE if question.region_of else _TURN


def _abstention(call: LLMCall, question: Question, example: Example) -> WeakLabel:
    why = example.why_not_asked(question) or _NO_REGIONS
    annotator = f"llm:{call.info.name}"
    return WeakLabel(example.id, question.name, annotator, abstention=why)
