"""The LLM as an annotator: one weak label, or an abstention with a reason, per example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from backend.domain.decisions import is_shown, parents_first, selected_labels
from backend.domain.labels import (
    Abstention,
    AbstentionReason,
    Demonstration,
    Example,
    PromptContext,
    WeakLabel,
)
from backend.domain.ports import Completion, LanguageModel
from backend.domain.questions import LabelDefinition, Question, TaskSchema
from backend.errors import LanguageModelError, UnsupportedLabelConfig
from backend.llm.classification import (
    MAX_LABELS_AT_ONCE,
    N_SHORTLISTED,
    Shortlist,
    ask_multilabel,
    ask_shortlist,
    ask_single_label,
)
from backend.llm.generation import GenerationRequest, generate_demonstrations
from backend.llm.prompt_batch import (
    LLMCall,
    PromptBatch,
    annotator_name,
)
from backend.llm.prompts.templates import (
    available_templates,
    prompt_version,
)
from backend.llm.prompts.truncation import Deadline
from backend.llm.regions import Answers, ask_regions, ask_relations
from backend.llm.spans import ask_spans
from backend.llm.task_labels import ask_ranking, ask_task_choice
from backend.llm.values import ask_free_text

_MAX_CACHED_TEXTS = 4096
_NOT_SHOWN = Abstention(AbstentionReason.NOT_SHOWN, "not shown beside the other answers")


class LLMAnnotator:
    """The `Annotator` port over any language model.

    One `complete` call per question holds all examples, so that batches are full.

    Args:
        shortlist: picks the labels to show where a question has more than `MAX_LABELS_AT_ONCE`;
            without it such a question is abstained from.
        discard: forgets stored completions; called with those that cannot be read, so that the
            next attempt does not get them again.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        shortlist: Shortlist | None = None,
        discard: Callable[[Sequence[Completion]], None] = lambda completions: None,
    ) -> None:
        self._model = model
        self._shortlist = shortlist
        self._discard = discard
        self._tokens: dict[tuple[str, str], tuple[int, ...]] = {}

    def annotate(
        self,
        schema: TaskSchema,
        instruction: str,
        examples: Sequence[Example],
        *,
        prompt_context: PromptContext | None = None,
        deadline_s: float | None = None,
    ) -> list[WeakLabel]:
        """Answer every question about every example, example by example in the given order.

        Raises:
            LanguageModelUnavailable: the model cannot be reached for any question.
            LanguageModelRejected: it refuses the key or the model's name.
        """
        if not examples or not schema.questions:
            return []
        deadline = Deadline(deadline_s)
        call = LLMCall(
            model=self._model,
            info=self._model.describe(deadline_s=deadline.left_s()),
            schema=schema,
            instruction=instruction,
            prompt_context=prompt_context or PromptContext(),
            deadline=deadline,
            tokens=self._tokens,
        )
        answers: dict[str, tuple[Question, Sequence[WeakLabel]]] = {}
        errors = []
        for question in parents_first(schema.questions):
            try:
                labels = self._ask_where_shown(call, question, examples, answers)
            except (UnsupportedLabelConfig, LanguageModelError) as exc:
                reason = AbstentionReason.REJECTED
                if isinstance(exc, LanguageModelError):
                    reason = AbstentionReason.UNREACHABLE
                    errors.append(exc)
                version = prompt_version(question, call.template_for(question))
                batch = PromptBatch(call, question, version)
                labels = batch.abstain(Abstention(reason, str(exc)), examples)
            answers[question.name] = (question, labels)
        if call.unreadable:
            self._discard(call.unreadable)
        if len(self._tokens) > _MAX_CACHED_TEXTS:
            self._tokens.clear()
        if len(errors) == len(schema.questions):
            raise errors[0]
        columns = [answers[question.name][1] for question in schema.questions]
        return [label for of_example in zip(*columns, strict=True) for label in of_example]

    def name(self, *, deadline_s: float | None = None) -> str:
        """Return the annotator's name in weak labels; raises LanguageModelError."""
        return annotator_name(self._model.describe(deadline_s=deadline_s))

    def templates(self, question: Question, *, deadline_s: float | None = None) -> tuple[str, ...]:
        """Return the names of the prompt templates that word a question for the model's server."""
        return available_templates(self._model.describe(deadline_s=deadline_s), question)

    def write_demonstrations(
        self,
        schema: TaskSchema,
        question: Question,
        instruction: str,
        examples: Sequence[Example],
        n_per_class: int,
    ) -> tuple[Demonstration, ...]:
        """Return texts that the model writes for each label, in the style of the examples.

        Raises:
            LanguageModelError: the model cannot be reached.
        """
        request = GenerationRequest(schema, question, instruction, examples, n_per_class)
        rng = np.random.default_rng(len(examples))
        return generate_demonstrations(self._model, self, request, rng=rng).demonstrations

    def _ask_where_shown(
        self, call: LLMCall, question: Question, examples: Sequence[Example], before: Answers
    ) -> list[WeakLabel]:
        """Ask about those examples for which the answers so far show the question.

        Conditions on questions that are not in this call are taken to hold.
        """
        known = tuple(c for c in question.conditions if c.question in before or not c.question)
        at_hand = replace(question, conditions=known)
        shown = [
            at
            for at in range(len(examples))
            if is_shown(at_hand, {name: _selected(*of, at) for name, of in before.items()})
        ]
        asked = [examples[at] for at in shown]
        part = {name: (of[0], [of[1][at] for at in shown]) for name, of in before.items()}
        if question.kind.is_per_region:
            found = ask_regions(call, question, asked, part, self._ask)
        elif question.kind.links_regions:
            found = ask_relations(call, question, asked, part, self._ask)
        else:
            found = self._ask(call, question, asked)
        labels = dict(zip(shown, found, strict=True))
        batch = PromptBatch(call, question, "")
        return [
            labels[at] if at in labels else batch.label(example, _NOT_SHOWN)
            for at, example in enumerate(examples)
        ]

    def _ask(
        self, call: LLMCall, question: Question, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        if not examples:
            return []
        if question.kind.has_spans:
            return ask_spans(call, question, examples)
        if question.kind.is_ranked:
            return ask_ranking(call, question, examples, self._ask)
        if question.kind.is_from_task:
            return ask_task_choice(call, question, examples)
        if question.kind.is_free_text or not question.labels:
            return ask_free_text(call, question, examples)
        is_long = len(question.labels) > MAX_LABELS_AT_ONCE and not question.kind.is_ordinal
        shortlist = self._shortlist if is_long else None
        if question.kind.is_multilabel:
            chosen = shortlist and shortlist(question, examples, N_SHORTLISTED)
            return ask_multilabel(call, question, examples, chosen)
        if shortlist is not None:
            return ask_shortlist(call, question, examples, shortlist)
        return ask_single_label(call, question, examples)


def _selected(question: Question, labels: Sequence[WeakLabel], at: int) -> list[LabelDefinition]:
    return selected_labels(question, labels[at]) or []
