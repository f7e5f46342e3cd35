"""Choose the tasks that the LLM is asked about when it cannot be asked about all of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from backend.active_learning.strategy_interface import PoolView
from backend.domain.chunks import Chunk
from backend.domain.holdout import holdout_seed
from backend.domain.llm_usage import STUDY, LLMBudget, track_usage
from backend.domain.projects import Project, Task
from backend.llm.prompts.templates import describe_task
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Guidelines, GuidelinesReader
from backend.pipeline.release import MakeStrategy
from backend.pipeline.status import LLM_BUDGET, read_llm_budget
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_NIGHT_S = 8 * 3600.0
_ALL = "the LLM labels every task"


@dataclass(frozen=True)
class LLMBudgetPlanner:
    """Leaves out what would take the LLM longer than a night, or all but `LLM_SHARE`.

    The query strategy chooses whom the LLM is asked about, so that they stand for the others (the
    published variant with a tenth of the pool draws them at random). Similarity and the probe label
    the rest, which the student learns from without a label; a round asks the LLM about those of
    them that stay the least certain.
    """

    ensemble: AnnotatorEnsemble
    guidelines: GuidelinesReader
    stores: Stores
    make_strategy: MakeStrategy
    share: float | None

    def plan(self, project: Project) -> dict[str, int]:
        """Decide about the tasks that are new; raises UnsupportedLabelConfig."""
        labels = self.stores.labels
        known = read_llm_budget(self.stores, project)
        last_id = labels.last_unlabeled(project)
        if last_id is None or last_id <= known.last_id:
            return {"n_left_out": 0}
        if not self.ensemble.state(project).similarity:
            return {"n_left_out": 0}
        guidelines = self.guidelines.read(project)
        share, why = self._share_of(project, guidelines, labels.progress(project).n_to_label)
        left_out: tuple[int, ...] = ()
        if share < 1:
            tasks = labels.unlabeled(project, Chunk(known.last_id, last_id))
            left_out = self._leave_out(project, guidelines, tasks, share)
        decided = LLMBudget(
            project.question_version, share, why, last_id, (*known.left_out, *left_out)
        )
        self.stores.state.put(project.id, LLM_BUDGET, asdict(decided))
        _LOG.info("project=%s %s", project.id, why)
        return {"n_left_out": len(left_out)}

    def _share_of(
        self, project: Project, guidelines: Guidelines, n_tasks: int
    ) -> tuple[float, str]:
        questions = guidelines.schema.questions
        similarity = self.ensemble.state(project).similarity
        if not all(similarity.get(question.name) for question in questions):
            return 1.0, f"{_ALL}: nobody else answers these questions"
        if self.share is not None:
            return self.share, f"the LLM labels {self.share:.0%} of the tasks, as LLM_SHARE says"
        # of the sample alone: the seconds of chunks that wait side by side add up to too many
        usage = [u for u in self.stores.llm_cache.usage(project.id) if u.scope.purpose == STUDY]
        n_asked = sum(each.n_prompts - each.n_cache_hits for each in usage)
        if n_asked <= 0:
            return 1.0, _ALL
        prompt_s = sum(each.seconds for each in usage) / n_asked
        n_prompts = sum(len(q.labels) if q.kind.is_multilabel else 1 for q in questions)
        needed_s = n_tasks * n_prompts * prompt_s
        if needed_s <= _NIGHT_S:
            return 1.0, _ALL
        share = _NIGHT_S / needed_s
        return share, (
            f"the LLM labels {share:.0%} of {n_tasks:,} tasks: all would take it "
            f"{needed_s / 3600:.0f} hours (LLM_SHARE=1 labels all)"
        )

    def _leave_out(
        self, project: Project, guidelines: Guidelines, tasks: Sequence[Task], share: float
    ) -> tuple[int, ...]:
        """Return the ids of the tasks that the strategy puts behind the share, ascending."""
        examples = self.guidelines.examples(guidelines, tasks)
        question = guidelines.schema.questions[0]
        pool = PoolView(
            example_ids=np.array([example.id for example in examples], dtype=np.int64),
            embeddings=self.ensemble.embed(question, examples),
            read_texts=lambda rows: [examples[row].text_of(question) for row in rows],
            label_names=tuple(label.name for label in question.labels),
        )
        strategy = self.make_strategy(describe_task(guidelines.schema, guidelines.instruction))
        with track_usage(project.id, "order"):
            ordering = strategy.order(pool, rng=np.random.default_rng(holdout_seed(project.id)))
        behind = ordering.example_ids(pool)[math.ceil(share * len(examples)) :]
        return tuple(sorted(int(i) for i in behind))
