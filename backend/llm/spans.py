"""Questions about spans: the LLM lists the pieces as JSON, and they are searched in the text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, Example, Span, WeakLabel
from backend.domain.ports import Completion, Decoding, Prompt
from backend.domain.questions import Question
from backend.llm.prompt_batch import LLMCall, PromptBatch, failure_of
from backend.llm.prompts.extraction import extraction_prompt
from backend.llm.prompts.templates import slot_text
from backend.llm.span_answers import SpanFormat
from backend.llm.span_check import MIN_PROBABILITY, NamedSpan, can_check, check_spans
from backend.llm.text_search import Mention, align
from backend.llm.text_windows import Window, halve, merge_spans
from backend.llm.window_planning import PlannedText, WindowPlanner

_MAX_HALVINGS = 2
"""How often a text whose answer was cut is asked about in halves."""
_MIN_HALVED_CHARS = 80
_LOOP = 2
"""An answer that repeats each piece this often on average runs in circles."""
_UNKNOWN_PROBABILITY = 0.5
_NO_LIST = Abstention(AbstentionReason.UNREADABLE, "the model's answer is no list of pieces")


def ask_spans(call: LLMCall, question: Question, examples: Sequence[Example]) -> list[WeakLabel]:
    """Return one weak label per example, with the spans that the model's answers name.

    The answers name pieces as strings. These are searched in the text, so that nothing that is not
    in the text is ever labeled; what is named and not there lowers the confidence. A long text
    goes in overlapping windows, and where an answer is cut at its maximum length, its text is
    asked about again in halves. No entity is an answer; what cannot be parsed is an abstention.

    In chats each piece is then asked about by itself where the server reports probabilities: what
    the model itself does not hold for right is left out. The confidence is the lowest of these
    decisions and of the answers' mean probability per token; it is not calibrated. Cost: one
    request per window (most texts have one), and one token per piece.
    """
    return _SpanAsker(call, question, examples).ask()


@dataclass(frozen=True, slots=True)
class _Request:
    """A window of an example's text that is to be asked about."""

    at: int
    window: Window
    n_halvings: int = 0


@dataclass(slots=True)
class _AnswerSet:
    """What the answers about one example's windows say."""

    found: list[tuple[Window, Sequence[Span]]] = field(default_factory=list)
    failure: Abstention | None = None
    n_unread: int = 0
    why_unread: Abstention = _NO_LIST
    n_named: int = 0
    n_lost: int = 0
    is_partial: bool = False
    logprobs: list[tuple[float | None, int]] = field(default_factory=list)
    n_tokens_in: int = 0
    n_tokens_out: int = 0

    def add(self, text: str, window: Window, mentions: Sequence[Mention]) -> None:
        """Add the pieces that were named in a window."""
        spans, n_lost = align(text[window.start : window.end], mentions)
        moved = [replace(s, start=s.start + window.start, end=s.end + window.start) for s in spans]
        self.found.append((window, moved))
        self.n_named += len(set(mentions))
        self.n_lost += n_lost

    def spans(self, text: str) -> tuple[Span, ...]:
        """Return the spans of all windows once each; none where there is no answer."""
        return merge_spans(text, self.found) if self.failure is None else ()

    def answer(
        self, spans: Sequence[Span], checked: Mapping[Span, float | Abstention | None]
    ) -> Mapping[str, Any] | Abstention:
        """Return the fields of a weak label, or why there is none.

        Args:
            spans: all spans that were named.
            checked: the probability of those that were checked.
        """
        failures = (each for each in checked.values() if isinstance(each, Abstention))
        failure = self.failure or next(failures, None)
        if failure is not None:
            return failure
        if not self.found:
            return self.why_unread
        share = 1 - self.n_lost / max(1, self.n_named)
        share *= len(self.found) / (len(self.found) + self.n_unread)
        per_token = self._mean_probability()
        certainties = [] if per_token is None else [per_token]
        kept = []
        for span in spans:
            probability = checked.get(span)
            if isinstance(probability, float):
                certainties.append(max(probability, 1 - probability))
                if probability >= MIN_PROBABILITY:
                    kept.append(replace(span, probability=probability))
            else:
                kept.append(span if per_token is None else replace(span, probability=per_token))
        confidence = min(certainties, default=_UNKNOWN_PROBABILITY if share < 1 else None)
        answer: dict[str, Any] = {"spans": tuple(kept)}
        return answer if confidence is None else {**answer, "confidence": confidence * share}

    def _mean_probability(self) -> float | None:
        total, n_tokens = 0.0, 0
        for logprob, n in self.logprobs:
            if logprob is None or not math.isfinite(logprob):
                return None
            total, n_tokens = total + min(0.0, logprob) * max(n, 1), n_tokens + max(n, 1)
        return math.exp(total / n_tokens) if n_tokens else None


class _SpanAsker:
    """Asks about the spans of many examples, window by window."""

    def __init__(self, call: LLMCall, question: Question, examples: Sequence[Example]) -> None:
        self._call, self._field, self._examples = call, question.field, examples
        self._format = SpanFormat(question)
        self._prompt = extraction_prompt(
            call.schema, question, call.instruction, self._format, is_chat=call.info.has_chat
        )
        self._question = question
        version = self._prompt.version(is_checked=can_check(call))
        self._batch = PromptBatch(call, question, version)
        self._texts = [example.texts.get(question.field.name, "") for example in examples]
        self._answers = [_AnswerSet() for _ in examples]
        self._plans = self._planned()

    def _planned(self) -> list[PlannedText]:
        planner = WindowPlanner(self._call, self._prompt, self._field.name)
        plans = []
        for example, text in zip(self._examples, self._texts, strict=True):
            shown = self._batch.texts(example)
            if isinstance(shown, Abstention):
                plans.append(PlannedText(abstention=shown))
                continue
            plan = planner.plan(text, shown, self._batch.shots(example, self._format.demonstration))
            is_cut = plan.is_truncated or not example.truncated.isdisjoint(shown)
            plans.append(replace(plan, is_truncated=is_cut))
        return plans

    def ask(self) -> list[WeakLabel]:
        """Return one weak label per example."""
        requests = [
            _Request(at, window) for at, plan in enumerate(self._plans) for window in plan.windows
        ]
        while requests:
            by_room: dict[int, list[_Request]] = {}
            for request in requests:
                n_tokens = self._plans[request.at].n_answer_tokens(self._text(request))
                by_room.setdefault(n_tokens, []).append(request)
            requests = [
                again for n, some in sorted(by_room.items()) for again in self._send(some, n)
            ]
        spans = [
            answers.spans(text) for answers, text in zip(self._answers, self._texts, strict=True)
        ]
        checked = self._checked(spans)
        return [self._weak_label(at, spans[at], checked[at]) for at in range(len(spans))]

    def _checked(
        self, spans: Sequence[Sequence[Span]]
    ) -> list[dict[Span, float | Abstention | None]]:
        """Return, per example, the probability of each span that the model was asked about."""
        checked: list[dict[Span, float | Abstention | None]] = [{} for _ in spans]
        if can_check(self._call):
            named = [NamedSpan(at, span) for at, some in enumerate(spans) for span in some]
            found = check_spans(self._call, self._question, self._texts, named)
            for each, probability in zip(named, found, strict=True):
                checked[each.at][each.span] = probability
        return checked

    def _send(self, requests: Sequence[_Request], max_tokens: int) -> list[_Request]:
        """Ask about windows and read the answers; return what is to be asked about again."""
        decoding = Decoding(
            max_tokens=max_tokens,
            model=self._call.info.name,
            stop=() if self._prompt.is_chat else ("\n\n",),
            json_schema=self._format.json_schema(),
            n_logprobs=int(self._call.has_logprobs),
        )
        completions = self._call.model.complete(
            [self._filled(request) for request in requests],
            decoding,
            deadline_s=self._call.deadline.left_s(),
        )
        again: list[_Request] = []
        for request, completion in zip(requests, completions, strict=True):
            again += self._read(request, completion)
        return again

    def _filled(self, request: _Request) -> Prompt:
        plan = self._plans[request.at]
        window = slot_text(self._text(request), self._field.format)
        return self._prompt.fill({**(plan.others or {}), self._field.name: window}, plan.shots)

    def _read(self, request: _Request, completion: Completion) -> list[_Request]:
        """Keep what an answer says; return the halves of a window that need an answer each."""
        answers, window = self._answers[request.at], request.window
        answers.n_tokens_in += completion.n_tokens_in
        answers.n_tokens_out += completion.n_tokens_out
        failure = failure_of(completion)
        if failure is not None:
            answers.failure = failure
            return []
        parsed = self._format.parse(completion.text)
        mentions = parsed.mentions if parsed else ()
        is_cut = completion.finish_reason == "length"
        if parsed is None and not is_cut:
            answers.n_unread += 1
            answers.why_unread = self._call.unread(completion, _NO_LIST)
            return []
        answers.logprobs.append((completion.mean_logprob, completion.n_tokens_out))
        if mentions or not is_cut:
            answers.add(self._texts[request.at], window, mentions)
        is_loop = len(mentions) >= _LOOP * len(set(mentions)) > 0
        is_long = window.end - window.start >= _MIN_HALVED_CHARS
        if is_cut and is_long and not is_loop and request.n_halvings < _MAX_HALVINGS:
            halves = halve(self._texts[request.at], window)
            return [_Request(request.at, half, request.n_halvings + 1) for half in halves]
        answers.is_partial |= is_cut or (parsed is not None and parsed.is_partial)
        return []

    def _text(self, request: _Request) -> str:
        return self._texts[request.at][request.window.start : request.window.end]

    def _weak_label(
        self, at: int, spans: Sequence[Span], checked: Mapping[Span, float | Abstention | None]
    ) -> WeakLabel:
        plan, answers, example = self._plans[at], self._answers[at], self._examples[at]
        if plan.abstention is not None:
            return self._batch.label(example, plan.abstention)
        return replace(
            self._batch.label(example, answers.answer(spans, checked)),
            is_truncated=plan.is_truncated or answers.is_partial or answers.n_unread > 0,
            n_tokens_in=answers.n_tokens_in,
            n_tokens_out=answers.n_tokens_out,
        )
