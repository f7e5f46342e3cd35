"""Show the prompts that the LLM gets about one task, as they would be sent now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from backend.domain.decisions import depends_on, parents_first
from backend.domain.labels import Example, PromptContext
from backend.domain.ports import Completion, Conversation, Decoding, LanguageModel, Prompt
from backend.domain.projects import Project
from backend.domain.questions import Question, TaskSchema
from backend.errors import EmbeddedModelError, InvalidRequest
from backend.llm.annotator import LLMAnnotator
from backend.llm.classification import Shortlist
from backend.llm.client.cache import cache_keys
from backend.llm.prompt_recorder import PromptRecorder, mask_demonstrations, mask_example
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.llm_prompts import LLMPrompter
from backend.pipeline.pool import Guidelines, GuidelinesReader

_PATIENCE_S = 5.0
_SECOND = "where the first answer is unsure"
_FIRST_LABELS = "with the labels nearest to the text, of which the first ones stand here"
Message = tuple[str, str]
"""Who speaks, and what is said."""


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """A prompt about a question; `note` says when, or how, it is sent otherwise."""

    question: str
    template: str
    note: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class _KeptShortlist:
    """The labels nearest to an unmasked example; the first ones where its vector is not kept."""

    shortlist: Shortlist
    example: Example
    unknown: set[str] = field(default_factory=set)

    def __call__(self, question: Question, _: Sequence[Example], n: int) -> list[tuple[int, ...]]:
        try:
            return self.shortlist(question, [self.example], n)
        except EmbeddedModelError:
            self.unknown.add(question.name)
            return [tuple(range(n))]


@dataclass(frozen=True)
class PromptPreview:
    """Writes prompts with the templates and demonstrations that were selected.

    Nothing is completed: questions that follow from other answers are written where these answers
    are stored. No model is loaded: of more labels than a prompt shows those that `shortlist`
    finds by kept vectors are written, else the first ones, which a note tells.
    """

    model: LanguageModel
    shortlist: Shortlist
    ensemble: AnnotatorEnsemble
    guidelines: GuidelinesReader

    def prompts(self, project: Project, task_id: int, *, has_text: bool) -> list[ShownPrompt]:
        """Return the prompts about a task; without `has_text` all texts of tasks are masked.

        Raises:
            InvalidRequest: the task is gone, or the label config asks nothing.
            LanguageModelError: the server does not answer, by which texts are cut to length.
        """
        tasks = self.guidelines.stores.tasks.get(project.id, [task_id])
        if not tasks:
            raise InvalidRequest(f"task {task_id} is not there, or not any more")
        guidelines = self.guidelines.read(project)
        (example,) = self.guidelines.examples(guidelines, tasks)
        reports = self.ensemble.state(project).reports
        first = LLMPrompter(self.ensemble.llm, reports).context()
        shown = self._written(guidelines, example, first, has_text=has_text)
        for question in guidelines.schema.questions:
            second = (reports.get(question.name) or {}).get("second")
            if second:
                again = PromptContext({question.name: second["template"]})
                only = guidelines.restrict(question)
                found = self._written(only, example, again, has_text=has_text)
                shown += [replace(one, note=_joined(_SECOND, one.note)) for one in found]
        return shown

    def _written(
        self, guidelines: Guidelines, example: Example, context: PromptContext, *, has_text: bool
    ) -> list[ShownPrompt]:
        """Return the prompts of each question, which are written one after the other."""
        recorder = PromptRecorder(self.model, self._known if has_text else _nothing)
        asked = example if has_text else mask_example(example)
        context = context if has_text else mask_demonstrations(context)

        shortlist = _KeptShortlist(self.shortlist, example)
        annotator = LLMAnnotator(recorder, shortlist=shortlist)
        seen: set[Prompt] = set()
        shown = []
        questions = guidelines.schema.questions
        for question in parents_first(questions):
            needed = depends_on(question, questions)
            before = [other for other in questions if other.name in needed]
            schema = TaskSchema((*before, question), guidelines.schema.headers)
            recorder.prompts.clear()
            annotator.annotate(
                schema,
                guidelines.instruction,
                [asked],
                prompt_context=context,
                deadline_s=_PATIENCE_S,
            )
            template = context.templates.get(question.name, "")
            new = [prompt for prompt in dict.fromkeys(recorder.prompts) if prompt not in seen]
            note = _FIRST_LABELS if question.name in shortlist.unknown else ""
            shown += [ShownPrompt(question.name, template, note, _messages(one)) for one in new]
            seen.update(new)
        return shown

    def _known(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Completion | None]:
        name = decoding.model or self.model.describe(deadline_s=_PATIENCE_S).name
        keys = cache_keys(name, prompts, decoding)
        found = self.guidelines.stores.llm_cache.find(keys)
        return [found.get(key) for key in keys]


def _nothing(prompts: Sequence[Prompt], decoding: Decoding) -> list[Completion | None]:
    return [None] * len(prompts)


def _joined(*notes: str) -> str:
    return ", ".join(note for note in notes if note)


def _messages(prompt: Prompt) -> tuple[Message, ...]:
    if not isinstance(prompt, Conversation):
        return (("text to complete", prompt),)
    speakers = ("user", "assistant")
    turns = [(speakers[at % 2], text) for at, text in enumerate(prompt.turns)]
    return (*([("system", prompt.system)] if prompt.system else []), *turns)
