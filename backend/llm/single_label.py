"""Questions with one right label out of a few: a posterior from one token of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.domain.labels import Abstention, AbstentionReason, Demonstration, Example, WeakLabel
from backend.domain.ports import Completion, Decoding, LanguageModelInfo
from backend.domain.questions import Question
from backend.errors import UnsupportedLabelConfig
from backend.llm.prompt_batch import Ending, LLMCall, PromptBatch, Read
from backend.llm.prompts.templates import PromptTemplate, choice_layout, prompt_version
from backend.llm.prompts.text import spoken_name
from backend.llm.prompts.verbalizer import (
    Verbalizer,
    answer_names,
    build_verbalizer,
    read_posterior,
    read_word,
    written_posterior,
)

MAX_TOKEN_IDS = 128
"""So many tokens' probabilities can be asked of vLLM at once."""
_TOO_MANY = (
    "{} labels without a shortlist; at most {} can be read at once. Use fewer labels, or give "
    "LLMAnnotator a shortlist"
)
N_WRITTEN_TOKENS = 24
"""Room for a written answer: a label's name of some words."""
_NOT_A_LABEL = "the model's answer is none of the labels"


def ask_exclusive(
    call: LLMCall, question: Question, examples: Sequence[Example]
) -> list[WeakLabel]:
    """Return one weak label per example for a question with few labels.

    Costs one request of one token per example where the server tells probabilities, else a
    written answer. Raises UnsupportedLabelConfig when the labels cannot be told apart.
    """
    template = call.form_of(question)
    if question.kind.compares_texts:
        question = _called_like_its_texts(question)
    words = answer_words(call, question, template)
    layout = choice_layout(call.schema, question, call.instruction, template, words)
    asking = PromptBatch(call, question, prompt_version(question, template))
    decoding = decoding_for(call.info, words, is_chat=template.is_chat)
    truncator = call.truncator(decoding)
    layouts = [layout] * len(examples)
    truncated = asking.prompts(examples, layouts, ending_for(question, words), truncator)
    return asking.ask(examples, truncated, decoding, reader_for(words))


def _called_like_its_texts(question: Question) -> Question:
    """Return a comparison whose answers are called as the prompt calls the texts."""
    labels = (replace(one, name=spoken_name(one.name)) for one in question.labels)
    return replace(question, labels=tuple(labels))


def reads_tokens(info: LanguageModelInfo) -> bool:
    """Return whether the server tells how probable the labels' tokens are."""
    return info.reads_token_ids or info.n_top_logprobs > 0


def answer_words(call: LLMCall, question: Question, template: PromptTemplate) -> Verbalizer:
    """Return what the model is to write for each label under this form.

    Words are told apart by a token where the server reads tokens, else as written out; so are the
    values of a long scale. Raises UnsupportedLabelConfig when other labels cannot be told apart,
    or are too many to read.
    """
    written = Verbalizer(answer_names(question.labels), ())
    if not reads_tokens(call.info):
        return written
    try:
        if len(question.labels) > MAX_TOKEN_IDS:
            raise UnsupportedLabelConfig(_TOO_MANY.format(len(question.labels), MAX_TOKEN_IDS))
        return build_verbalizer(
            question.labels,
            call.tokenize,
            wants_marks=template.uses_marks,
            is_chat=template.is_chat,
        )
    except UnsupportedLabelConfig:
        if question.kind.is_ordinal:
            return written
        raise


def decoding_for(info: LanguageModelInfo, words: Verbalizer, *, is_chat: bool) -> Decoding:
    """Return how the answer is made: one token that is read, or a few that are held to the words.

    Written answers end with their line; a server that cannot hold them to the words is parsed.
    """
    if words.token_ids:
        return Decoding(token_ids=words.token_ids, model=info.name, is_chat=is_chat)
    choices: tuple[str, ...] = ()
    if info.constrains_choices:
        choices = words.words if is_chat else tuple(f" {word}" for word in words.words)
    return Decoding(
        max_tokens=N_WRITTEN_TOKENS,
        model=info.name,
        is_chat=is_chat,
        choices=choices,
        stop=() if is_chat or choices else ("\n",),
    )


def reader_for(words: Verbalizer) -> Read:
    """Return what reads an answer in these words."""

    def read(completion: Completion) -> Mapping[str, Any] | Abstention:
        if words.token_ids:
            posterior = read_posterior(completion, words.token_ids)
            if isinstance(posterior, Abstention):
                return posterior
            return {
                "probabilities": posterior.probabilities,
                "label_mass": posterior.label_mass,
            }
        index = read_word(completion.text, words.words)
        if index is None:
            return Abstention(AbstentionReason.UNREADABLE, _NOT_A_LABEL)
        return {"probabilities": written_posterior(index, len(words.words))}

    return read


def ending_for(question: Question, words: Verbalizer) -> Ending:
    """Return what writes a demonstration's label as one of the words."""
    by_value = {label.value: word for label, word in zip(question.labels, words.words, strict=True)}

    def ending(shot: Demonstration) -> str | None:
        return by_value.get(shot.answer.labels[0]) if shot.answer.labels else None

    return ending
