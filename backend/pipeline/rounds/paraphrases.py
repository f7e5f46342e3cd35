"""Where the second wordings of a pool's texts come from, if from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.domain.llm_usage import track_usage
from backend.domain.questions import Question
from backend.pipeline.aggregate import Pool

FREE, REWORDED = "", "paraphrase"
Reword = Callable[[Sequence[str]], Sequence[str | None]]


class Paraphrases:
    """Wordings by the LLM ("paraphrase"), from a field of the tasks (its name), or none ("")."""

    def __init__(self, source: str, reword: Reword) -> None:
        self._source = source
        self._reword = reword

    def of(self, pool: Pool, question: Question) -> tuple[str | None, ...] | None:
        """Return a second wording of each text, None for one without; None when there are none.

        Asks the LLM once in a text's life: its answers are kept. Raises LanguageModelError.
        """
        if self._source == FREE:
            return None
        if self._source == REWORDED:
            texts = [example.text_of(question) for example in pool.examples]
            with track_usage(pool.project.id, "rewording"):
                return tuple(self._reword(texts))
        given = [task.data.get(self._source) for task in pool.tasks]
        return tuple(view if isinstance(view, str) else None for view in given)
