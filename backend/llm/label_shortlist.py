"""More labels than can be read at once: a shortlist per text, the rest of the mass spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.domain.labels import Abstention, Example, WeakLabel
from backend.domain.ports import Completion, Decoding
from backend.domain.questions import Question
from backend.llm.prompt_batch import LLMCall, PromptBatch, Read
from backend.llm.prompts.templates import choice_layout, prompt_version
from backend.llm.prompts.truncation import TruncatedPrompt
from backend.llm.prompts.verbalizer import Verbalizer
from backend.llm.single_label import (
    MAX_TOKEN_IDS,
    N_WRITTEN_TOKENS,
    answer_words,
    decoding_for,
    ending_for,
    reader_for,
)

Shortlist = Callable[[Question, Sequence[Example], int], list[tuple[int, ...]]]
"""Picks, for each example, the positions of the n labels that may be right, likeliest first."""

MAX_LABELS_AT_ONCE = 40
"""Above this a question is asked over a shortlist: a list of options that long is not read."""
N_SHORTLISTED = 20
SHORTLIST_PROBABILITY = 0.9
"""Taken for "the right label is on the shortlist"; the other labels share the rest evenly."""


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One example with its shortlist, the words for it and its prompt."""

    example: Example
    labels: tuple[int, ...]
    words: Verbalizer
    truncated: TruncatedPrompt


def ask_shortlist(
    call: LLMCall, question: Question, examples: Sequence[Example], shortlist: Shortlist
) -> list[WeakLabel]:
    """Return one weak label per example, read over at most `N_SHORTLISTED` labels each.

    `prompt_version` says "top20". Labels off the shortlist share what `SHORTLIST_PROBABILITY`
    leaves, so that they are unlikely and never impossible.
    """
    template = call.form_of(question)
    version = prompt_version(question, template, suffix=f"-top{N_SHORTLISTED}")
    asking = PromptBatch(call, question, version)
    truncator = call.truncator(Decoding(max_tokens=N_WRITTEN_TOKENS, is_chat=template.is_chat))
    sheets = []
    for example, chosen in zip(examples, shortlist(question, examples, N_SHORTLISTED), strict=True):
        labels = chosen[:N_SHORTLISTED]
        part = replace(question, labels=tuple(question.labels[at] for at in labels))
        words = answer_words(call, part, template)
        layout = choice_layout(call.schema, part, call.instruction, template, words)
        (truncated,) = asking.prompts([example], [layout], ending_for(part, words), truncator)
        sheets.append(_Sheet(example, labels, words, truncated))
    return [weak for group in _groups(sheets) for weak in _ask_group(call, asking, question, group)]


def spread(
    probabilities: Sequence[float], chosen: Sequence[int], n_labels: int
) -> tuple[float, ...]:
    """Return a posterior over all labels from one over the chosen ones; sums to 1."""
    n_others = n_labels - len(chosen)
    share = SHORTLIST_PROBABILITY if n_others else 1.0
    whole = [(1.0 - share) / n_others if n_others else 0.0] * n_labels
    for at, probability in zip(chosen, probabilities, strict=True):
        whole[at] = share * probability
    return tuple(whole)


def _groups(sheets: Sequence[_Sheet]) -> Iterator[list[_Sheet]]:
    """Yield runs of sheets that together ask for no more tokens than a server reads at once."""
    group: list[_Sheet] = []
    wanted: set[int] = set()
    for sheet in sheets:
        more = wanted | set(sheet.words.token_ids)
        if group and len(more) > MAX_TOKEN_IDS:
            yield group
            group, more = [], set(sheet.words.token_ids)
        group.append(sheet)
        wanted = more
    if group:
        yield group


def _ask_group(
    call: LLMCall, asking: PromptBatch, question: Question, group: Sequence[_Sheet]
) -> list[WeakLabel]:
    words = {word: None for sheet in group for word in sheet.words.words}
    token_ids = {token: None for sheet in group for token in sheet.words.token_ids}
    template = call.form_of(question)
    together = Verbalizer(tuple(words), tuple(token_ids))
    decoding = decoding_for(call.info, together, is_chat=template.is_chat)
    asked = [sheet for sheet in group if sheet.truncated.abstention is None]
    completions = iter(call.complete([sheet.truncated.prompt for sheet in asked], decoding))
    weak_labels = []
    for sheet in group:
        completion = None if sheet.truncated.abstention else next(completions)
        read = _reader(sheet, len(question.labels))
        weak_labels.append(asking.answered(sheet.example, sheet.truncated, completion, read))
    return weak_labels


def _reader(sheet: _Sheet, n_labels: int) -> Read:
    read = reader_for(sheet.words)

    def read_all(completion: Completion) -> Mapping[str, Any] | Abstention:
        answer = read(completion)
        if isinstance(answer, Abstention):
            return answer
        whole = spread(answer["probabilities"], sheet.labels, n_labels)
        return {**answer, "probabilities": whole}

    return read_all
