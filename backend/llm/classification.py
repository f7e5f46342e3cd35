"""Questions with labels: single label, multilabel, and over a shortlist of many labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, Example, WeakLabel
from backend.domain.ports import Completion, Conversation, Decoding, LanguageModelInfo
from backend.domain.questions import LabelDefinition, Question
from backend.errors import UnsupportedLabelConfig
from backend.label_model.multilabel import UNLISTED_PROBABILITY
from backend.llm.prompt_batch import FormatAnswer, LLMCall, ParseAnswer, PromptBatch, failure_of
from backend.llm.prompts.templates import (
    PromptTemplate,
    choice_layout,
    display_name,
    prompt_version,
    yes_no_layouts,
)
from backend.llm.prompts.token_texts import TokenReader, written_posterior
from backend.llm.prompts.truncation import TruncatedPrompt
from backend.llm.prompts.verbalizer import (
    Verbalizer,
    answer_names,
    build_verbalizer,
    read_posterior,
    written_verbalizer,
)
from backend.llm.prompts.written_answer import match_answer

Shortlist = Callable[[Question, Sequence[Example], int], list[tuple[int, ...]]]
"""Returns, for each example, the positions of the n most likely labels, most likely first."""

MAX_LABELS_AT_ONCE = 40
"""Above this a question is asked over a shortlist: a longer list of options is not read."""
N_SHORTLISTED = 20
SHORTLIST_PROBABILITY = 0.9
"""Assumed that the right label is on the shortlist; the other labels share the rest evenly."""
_MAX_TOKEN_IDS = 128
"""So many tokens' probabilities can be requested of vLLM at once."""
_MIN_ANSWER_TOKENS, _MAX_ANSWER_TOKENS = 24, 128
"""Room for a written answer: a label's name of some words, or a sentence around it."""
_TOO_MANY = (
    "{} labels without a shortlist; at most {} can be read at once. Use fewer labels, or give "
    "LLMAnnotator a shortlist"
)
_LabelAnswer = tuple[int, TruncatedPrompt, Completion | None]
"""A label's index with the prompt that asked about it and its completion."""
_YES, _NO = "yes", "no"
_YES_NO = (LabelDefinition(_YES, _YES), LabelDefinition(_NO, _NO))


def ask_single_label(
    call: LLMCall, question: Question, examples: Sequence[Example]
) -> list[WeakLabel]:
    """Return one weak label per example for a question with exactly one right label.

    Cost: one request of one token per example where the server reports probabilities, else a
    written answer.

    Raises:
        UnsupportedLabelConfig: the labels cannot be told apart.
    """
    template = call.template_for(question)
    if question.kind.compares_texts:  # its answers are named as the prompt names the texts
        labels = (replace(one, name=display_name(one.name)) for one in question.labels)
        question = replace(question, labels=tuple(labels))
    words = _verbalizer(call, question, template)
    layout = choice_layout(call.schema, question, call.instruction, template, words)
    n_shots = len(call.prompt_context.demonstrations.get(question.name, ()))
    suffix = f"-{n_shots}shots" if n_shots else ""
    batch = PromptBatch(call, question, prompt_version(question, template, suffix=suffix))
    decoding = _decoding(call.info, words, is_chat=template.is_chat)
    answer_word = _answer_word(question, words)
    prompts = batch.prompts(examples, layout, answer_word, call.truncator(decoding))
    completions = _complete(call, batch, prompts, words, is_chat=template.is_chat)
    return [
        batch.weak_label(example, prompt, completion, partial(_parse, words))
        for example, prompt, completion in zip(examples, prompts, completions, strict=True)
    ]


def ask_multilabel(
    call: LLMCall,
    question: Question,
    examples: Sequence[Example],
    chosen: Sequence[Sequence[int]] | None = None,
) -> list[WeakLabel]:
    """Return one weak label per example with a probability for each label: one yes/no per label.

    The prompts of one label stand together, so that they share a prefix. An example abstains if one
    of its labels has no answer. Cost: one request of one token per example and label asked about.
    Labels that are not in an example's `chosen` positions (None: all) get `UNLISTED_PROBABILITY`.
    """
    template = call.template_for(question)
    words = _yes_no_words(call, is_chat=template.is_chat)
    suffix = "" if chosen is None else f"-top{max(map(len, chosen), default=0)}"
    batch = PromptBatch(call, question, prompt_version(question, template, suffix=suffix))
    decoding = _decoding(call.info, words, is_chat=template.is_chat)
    truncator = call.truncator(decoding)
    cells: list[tuple[int, int]] = []
    prompts: list[TruncatedPrompt] = []
    layouts = yes_no_layouts(call.schema, question, call.instruction, template)
    for index, (label, layout) in enumerate(zip(question.labels, layouts, strict=True)):
        rows = [row for row in range(len(examples)) if chosen is None or index in chosen[row]]
        asked = [examples[row] for row in rows]
        prompts += batch.prompts(asked, layout, _yes_or_no(label.value), truncator)
        cells += [(row, index) for row in rows]
    answers: list[list[_LabelAnswer]] = [[] for _ in examples]
    completions = _complete(call, batch, prompts, words, is_chat=template.is_chat)
    for (row, index), prompt, completion in zip(cells, prompts, completions, strict=True):
        answers[row].append((index, prompt, completion))
    read = partial(call.read, parse=partial(_parse, words))
    return [
        batch.weak_label(example, *_combined(of_example, read, len(question.labels)))
        for example, of_example in zip(examples, answers, strict=True)
    ]


def ask_shortlist(
    call: LLMCall, question: Question, examples: Sequence[Example], shortlist: Shortlist
) -> list[WeakLabel]:
    """Return one weak label per example, read over at most `N_SHORTLISTED` labels each.

    `prompt_version` says "top20". Labels off the shortlist share `1 - SHORTLIST_PROBABILITY`, so
    that they are unlikely and never impossible.
    """
    template = call.template_for(question)
    version = prompt_version(question, template, suffix=f"-top{N_SHORTLISTED}")
    batch = PromptBatch(call, question, version)
    n_answer_tokens = _n_answer_tokens(answer_names(question.labels))
    truncator = call.truncator(Decoding(max_tokens=n_answer_tokens))
    rows = []
    for example, chosen in zip(examples, shortlist(question, examples, N_SHORTLISTED), strict=True):
        labels = chosen[:N_SHORTLISTED]
        part = replace(question, labels=tuple(question.labels[at] for at in labels))
        words = _verbalizer(call, part, template)
        layout = choice_layout(call.schema, part, call.instruction, template, words)
        (prompt,) = batch.prompts([example], layout, _answer_word(part, words), truncator)
        rows.append(_ShortlistRow(example, labels, words, prompt))
    weak_labels = []
    for group in _groups(rows):
        all_words = dict.fromkeys(word for row in group for word in row.words.words)
        token_ids = dict.fromkeys(token for row in group for token in row.words.token_ids)
        together = Verbalizer(tuple(all_words), tuple(token_ids))
        asked = [row.prompt for row in group]
        completions = _complete(call, batch, asked, together, is_chat=template.is_chat)
        for row, completion in zip(group, completions, strict=True):
            parse = partial(row.parse, len(question.labels))
            weak_labels.append(batch.weak_label(row.example, row.prompt, completion, parse))
    return weak_labels


def yes_probabilities(
    call: LLMCall, prompts: Sequence[Conversation]
) -> list[float | Abstention | None]:
    """Return the probability of "yes" for each question that is to be answered with yes or no.

    None where the answer is neither, or the prompt was refused; an abstention where none came in
    time. Equal prompts are sent once. Cost: one request of one token per prompt.
    """
    if not prompts:
        return []
    words = _yes_no_words(call, is_chat=True)
    decoding = _decoding(call.info, words, is_chat=True)
    different = list(dict.fromkeys(prompts))
    completions = call.model.complete(different, decoding, deadline_s=call.deadline.left_s())
    found: dict[Conversation, float | Abstention | None] = {}
    for prompt, completion in zip(different, completions, strict=True):
        answer = _parse(words, completion)
        found[prompt] = failure_of(completion) if not completion.was_refused else None
        if completion.failure is None and not isinstance(answer, Abstention):
            found[prompt] = float(answer["probabilities"][0])
    return [found[prompt] for prompt in prompts]


def _yes_no_words(call: LLMCall, *, is_chat: bool) -> Verbalizer:
    if call.has_logprobs and call.info.names_token_ids:
        return build_verbalizer(_YES_NO, call.tokenize, is_chat=is_chat)
    return Verbalizer((_YES, _NO), ())


def spread(
    probabilities: Sequence[float], chosen: Sequence[int], n_labels: int
) -> tuple[float, ...]:
    """Return a posterior over all labels from one over the chosen ones; sums to 1."""
    n_others = n_labels - len(chosen)
    share = SHORTLIST_PROBABILITY if n_others else 1.0
    posterior = [(1.0 - share) / n_others if n_others else 0.0] * n_labels
    for at, probability in zip(chosen, probabilities, strict=True):
        posterior[at] = share * probability
    return tuple(posterior)


def _combined(
    answers: Sequence[_LabelAnswer], parse: ParseAnswer, n_labels: int
) -> tuple[TruncatedPrompt, Completion | None, ParseAnswer]:
    """Return prompt, completion and parser as if one prompt had asked about all labels."""
    abstentions = [prompt.abstention for _, prompt, _ in answers if prompt.abstention is not None]
    whole = TruncatedPrompt(
        is_truncated=any(prompt.is_truncated for _, prompt, _ in answers),
        abstention=abstentions[0] if abstentions else None,
    )
    given = [(index, completion) for index, _, completion in answers if completion is not None]
    if abstentions or not given:
        return whole, None, parse

    def parse_all(_: Completion) -> Mapping[str, Any] | Abstention:
        probabilities = [UNLISTED_PROBABILITY] * n_labels
        masses = []
        read = [(index, parse(completion)) for index, completion in given]
        for index, answer in read:
            if isinstance(answer, Abstention):
                return answer
            probabilities[index] = float(answer["probabilities"][0])
            masses.append(answer.get("label_mass"))
        known = [mass for mass in masses if mass is not None]
        mean_mass = math.fsum(known) / len(known) if known else None
        return {"probabilities": tuple(probabilities), "label_mass": mean_mass}

    n_in = sum(completion.n_tokens_in for _, completion in given)
    n_out = sum(completion.n_tokens_out for _, completion in given)
    return whole, Completion(n_tokens_in=n_in, n_tokens_out=n_out), parse_all


@dataclass(frozen=True, slots=True)
class _ShortlistRow:
    """One example with its shortlist, their words and its prompt."""

    example: Example
    labels: tuple[int, ...]
    words: Verbalizer
    prompt: TruncatedPrompt

    def parse(self, n_labels: int, completion: Completion) -> Mapping[str, Any] | Abstention:
        """Return a posterior over all labels, or an abstention."""
        answer = _parse(self.words, completion)
        if isinstance(answer, Abstention):
            return answer
        return {**answer, "probabilities": spread(answer["probabilities"], self.labels, n_labels)}


def _groups(rows: Sequence[_ShortlistRow]) -> Iterator[list[_ShortlistRow]]:
    """Yield runs of rows that together need no more tokens than a server reports at once."""
    group: list[_ShortlistRow] = []
    wanted: set[int] = set()
    for row in rows:
        more = wanted | set(row.words.token_ids)
        if group and len(more) > _MAX_TOKEN_IDS:
            yield group
            group, more = [], set(row.words.token_ids)
        group.append(row)
        wanted = more
    if group:
        yield group


def _verbalizer(call: LLMCall, question: Question, template: PromptTemplate) -> Verbalizer:
    """Return the labels' answer words under this template, with tokens if the server reads any.

    The values of an ordinal scale are never called by letters where their answer is written out.
    Raises UnsupportedLabelConfig when other labels cannot be told apart, or are too many to read.
    """
    info, is_ordinal = call.info, question.kind.is_ordinal
    by_text = call.has_logprobs and not info.names_token_ids and not is_ordinal
    written = written_verbalizer(question.labels, by_first_token=by_text)
    if not (call.has_logprobs and info.names_token_ids):
        return written
    try:
        if len(question.labels) > _MAX_TOKEN_IDS:
            raise UnsupportedLabelConfig(_TOO_MANY.format(len(question.labels), _MAX_TOKEN_IDS))
        return build_verbalizer(
            question.labels,
            call.tokenize,
            is_chat=template.is_chat,
        )
    except UnsupportedLabelConfig:
        if is_ordinal:
            return written
        raise


def _decoding(
    info: LanguageModelInfo, words: Verbalizer, *, is_chat: bool, is_held: bool = False
) -> Decoding:
    """Return the decoding: one token whose probabilities are read, or a written answer.

    Likely first tokens that come by their text are asked for with the answer, which says what a
    token begins. Other written answers (or all, if `is_held`) are constrained to the words where
    the server can do so. Answers in plain prompts end with a line.
    """
    if words.token_ids:
        return Decoding(token_ids=words.token_ids, model=info.name)
    choices: tuple[str, ...] = ()
    n_logprobs = 0 if is_held or info.names_token_ids else info.n_top_logprobs
    if info.constrains_choices and not n_logprobs:
        choices = words.words if is_chat else tuple(f" {word}" for word in words.words)
    return Decoding(
        max_tokens=_n_answer_tokens(words.names or words.words),
        model=info.name,
        choices=choices,
        stop=() if is_chat or choices else ("\n",),
        n_logprobs=n_logprobs,
    )


def _n_answer_tokens(names: Sequence[str]) -> int:
    """Return the room for a written answer: a name takes at most a token for every other byte."""
    longest = max((len(name.encode()) for name in names), default=0)
    return min(_MAX_ANSWER_TOKENS, max(_MIN_ANSWER_TOKENS, longest // 2 + 8))


def _complete(
    call: LLMCall,
    batch: PromptBatch,
    prompts: Sequence[TruncatedPrompt],
    words: Verbalizer,
    *,
    is_chat: bool,
) -> list[Completion | None]:
    """Return the completions; those that cannot be read are made again, held to the words."""
    decoding = _decoding(call.info, words, is_chat=is_chat)
    completions = batch.complete(prompts, decoding)
    if not decoding.n_logprobs or not call.info.constrains_choices:
        return completions
    unread = [
        at
        for at, one in enumerate(completions)
        if one and not failure_of(one) and isinstance(_parse(words, one), Abstention)
    ]
    held = _decoding(call.info, words, is_chat=is_chat, is_held=True)
    again = batch.complete([prompts[at] for at in unread], held)
    for at, second in zip(unread, again, strict=True):
        first = completions[at]
        if first and second:
            completions[at] = replace(
                second,
                n_tokens_in=first.n_tokens_in + second.n_tokens_in,
                n_tokens_out=first.n_tokens_out + second.n_tokens_out,
            )
    return completions


def _parse(words: Verbalizer, completion: Completion) -> Mapping[str, Any] | Abstention:
    if words.token_ids:
        return read_posterior(completion, words.token_ids)
    if completion.text_logprobs:
        return TokenReader(words.words, words.names).read(completion)
    is_cut = completion.finish_reason == "length"
    index = match_answer(completion.text, words.words, words.names, is_cut=is_cut)
    if index is None:
        return Abstention(AbstentionReason.UNREADABLE, "the model's answer is none of the labels")
    return {"probabilities": written_posterior(index, len(words.words))}


def _answer_word(question: Question, words: Verbalizer) -> FormatAnswer:
    values = (label.value for label in question.labels)
    by_value = dict(zip(values, words.words, strict=True))
    return lambda shot: by_value.get(shot.answer.labels[0]) if shot.answer.labels else None


def _yes_or_no(value: str) -> FormatAnswer:
    return lambda shot: _YES if value in shot.answer.labels else _NO
