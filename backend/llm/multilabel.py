"""Multiple choice: one yes/no question per label, all in one list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.domain.labels import Abstention, Demonstration, Example, WeakLabel
from backend.domain.ports import Completion
from backend.domain.questions import LabelDefinition, Question
from backend.label_model.multilabel import UNLISTED_PROBABILITY
from backend.llm.prompt_batch import Ending, LLMCall, PromptBatch, Read, failure_of
from backend.llm.prompts.templates import prompt_version, yes_no_layout
from backend.llm.prompts.truncation import TruncatedPrompt
from backend.llm.prompts.verbalizer import Verbalizer, build_verbalizer
from backend.llm.single_label import decoding_for, reader_for, reads_tokens

_YES, _NO = "yes", "no"
_YES_NO = (LabelDefinition(_YES, _YES), LabelDefinition(_NO, _NO))


def ask_each_label(
    call: LLMCall,
    question: Question,
    examples: Sequence[Example],
    chosen: Sequence[Sequence[int]] | None = None,
) -> list[WeakLabel]:
    """Return one weak label per example with a probability for each label.

    `chosen` holds the positions of the labels to ask about, for each example; None for all. A label
    that is not asked about gets `UNLISTED_PROBABILITY`. The prompts of one label stand together,
    so that they share their beginning. Costs one request of one token per example and label asked
    about. An example with a label that has no answer abstains.
    """
    template = call.form_of(question)
    words = Verbalizer((_YES, _NO), ())
    if reads_tokens(call.info):
        words = build_verbalizer(_YES_NO, call.tokenize, is_chat=template.is_chat)
    suffix = "" if chosen is None else f"-top{max(map(len, chosen), default=0)}"
    asking = PromptBatch(call, question, prompt_version(question, template, suffix=suffix))
    decoding = decoding_for(call.info, words, is_chat=template.is_chat)
    truncator = call.truncator(decoding)
    cells: dict[tuple[int, int], TruncatedPrompt] = {}
    for index, label in enumerate(question.labels):
        positions = [at for at in range(len(examples)) if chosen is None or index in chosen[at]]
        layout = yes_no_layout(call.schema, question, call.instruction, label_index=index)
        some = [examples[at] for at in positions]
        truncated = asking.prompts(some, [layout] * len(some), _ending(label.value), truncator)
        cells |= {(at, index): one for at, one in zip(positions, truncated, strict=True)}
    asked = {cell: one.prompt for cell, one in cells.items() if one.abstention is None}
    answers = dict(zip(asked, call.complete(list(asked.values()), decoding), strict=True))
    of_example: list[list[_Cell]] = [[] for _ in examples]
    for (at, index), one in cells.items():
        of_example[at].append(_Cell(index, one, answers.get((at, index))))
    n_labels = len(question.labels)
    return [
        _label(asking, example, row, _Reading(reader_for(words), n_labels))
        for example, row in zip(examples, of_example, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Cell:
    """One label of one example: what was asked and what came back."""

    label_index: int
    truncated: TruncatedPrompt
    completion: Completion | None


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the answers to one example's labels become one posterior per label."""

    read: Read
    n_labels: int

    def together(self, cells: Sequence[_Cell]) -> Mapping[str, Any] | Abstention:
        """Return each label's probability of "yes" and the mean mass, or the first abstention."""
        probabilities = [UNLISTED_PROBABILITY] * self.n_labels
        masses = []
        for cell in cells:
            completion = cell.completion or Completion(failure="the model was not asked")
            answer = failure_of(completion) or self.read(completion)
            if isinstance(answer, Abstention):
                return answer
            probabilities[cell.label_index] = float(answer["probabilities"][0])
            masses.append(answer.get("label_mass"))
        known = [mass for mass in masses if mass is not None]
        return {
            "probabilities": tuple(probabilities),
            "label_mass": math.fsum(known) / len(known) if known else None,
        }


def _label(
    asking: PromptBatch, example: Example, cells: Sequence[_Cell], reading: _Reading
) -> WeakLabel:
    """Return one example's weak label out of its labels' answers."""
    given = [cell.completion for cell in cells if cell.completion is not None]
    abstentions = [
        cell.truncated.abstention for cell in cells if cell.truncated.abstention is not None
    ]
    whole = TruncatedPrompt(
        is_truncated=any(cell.truncated.is_truncated for cell in cells),
        abstention=abstentions[0] if abstentions else None,
    )
    if abstentions or not given:
        return asking.answered(example, whole, None, reading.read)
    tokens = Completion(
        n_tokens_in=sum(completion.n_tokens_in for completion in given),
        n_tokens_out=sum(completion.n_tokens_out for completion in given),
    )
    answer = reading.together(cells)
    return asking.answered(example, whole, tokens, lambda _: answer)


def _ending(value: str) -> Ending:
    def ending(shot: Demonstration) -> str | None:
        return _YES if value in shot.answer.labels else _NO

    return ending
