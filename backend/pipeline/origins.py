"""Tell which annotator and prompt made a label, and whether they would answer otherwise now."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from backend.domain.labels import AnnotatorKind, LabelOrigin, WeakLabel
from backend.domain.projects import Project, ProjectId
from backend.domain.questions import Question
from backend.llm.prompts.extraction import EXTRACTION_TEMPLATES
from backend.llm.prompts.templates import TEMPLATES
from backend.pipeline.pool import Guidelines
from backend.store import Stores

LLM_NAME, SIMILARITY_NAME, GUIDELINES = "llm_name", "similarity_name", "guidelines"
"""States of the annotators that answer now, and of what a project's annotators are told."""
_DIGEST_SIZE = 4
_MARK = "#"
_VERSIONS = {**{t.name: t.version for t in TEMPLATES.values()}, **EXTRACTION_TEMPLATES}


@dataclass(frozen=True, slots=True)
class PresentAnnotators:
    """The annotators that answer now, and by question a digest of the guidelines they get.

    What is not known (None, or no digest) has not changed.
    """

    llm: str | None = None
    similarity: str | None = None
    guidelines: Mapping[str, str] = field(default_factory=dict)

    def name(self, kind: AnnotatorKind) -> str | None:
        """Return the name in weak labels of the annotator of a kind."""
        return self.llm if kind.is_llm else self.similarity

    def outdated(self, origins: Iterable[LabelOrigin]) -> frozenset[LabelOrigin]:
        """Return the origins that another annotator or another prompt has taken the place of."""
        return frozenset(one for one in origins if self._is_other(one) or self._asks_other(one))

    def changes(self, outdated: Iterable[LabelOrigin]) -> list[str]:
        """Return in words what has changed since the labels of these origins were made."""
        others = {str(self.name(o.annotator_kind)) for o in outdated if self._is_other(o)}
        words = [f"{name} answers now" for name in sorted(others)]
        if any(self._asks_other(origin) for origin in outdated):
            words.append("the prompt is another one now, by its template or its guidelines")
        return words

    def _is_other(self, origin: LabelOrigin) -> bool:
        return self.name(origin.annotator_kind) not in (None, origin.annotator)

    def _asks_other(self, origin: LabelOrigin) -> bool:
        version, _, digest = origin.prompt_version.partition(_MARK)
        present = self.guidelines.get(origin.question)
        return not _is_worded_so(version) or bool(digest and present and digest != present)


def _is_worded_so(version: str) -> bool:
    """Return whether a stored version, "choice/plain-options-top20/1+b", is its template's."""
    path, _, number = version.partition("+")[0].rpartition("/")
    name = path.rpartition("/")[2]
    known = [template for template in _VERSIONS if name.startswith(template)]
    return not known or number == str(_VERSIONS[max(known, key=len)])


def labeled_by(origins: Mapping[LabelOrigin, int]) -> dict[str, int]:
    """Return how many tasks each annotator has labeled, the busiest first.

    Of several questions that counts with which it has labeled the most tasks.
    """
    n_labels: Counter[tuple[str, str]] = Counter()
    for origin, n in origins.items():
        n_labels[origin.annotator, origin.question] += n
    n_tasks: dict[str, int] = {}
    for (annotator, _), n in n_labels.items():
        n_tasks[annotator] = max(n, n_tasks.get(annotator, 0))
    return dict(sorted(n_tasks.items(), key=lambda item: (-item[1], item[0])))


def guidelines_digest(question: Question, instruction: str) -> str:
    """Return 8 characters that tell the instruction and the labels' meanings from others."""
    meanings = [[label.value, label.hint] for label in question.labels if label.hint]
    content = json.dumps([instruction, meanings]).encode()
    return blake2b(content, digest_size=_DIGEST_SIZE).hexdigest()


def guidelines_digests(guidelines: Guidelines) -> dict[str, str]:
    """Return the digest of each question's guidelines."""
    questions = guidelines.schema.questions
    return {q.name: guidelines_digest(q, guidelines.instruction) for q in questions}


def stamped(guidelines: Guidelines, labels: Sequence[WeakLabel]) -> list[WeakLabel]:
    """Return weak labels whose prompt versions tell the guidelines too."""
    digests = guidelines_digests(guidelines)
    return [
        replace(one, prompt_version=f"{one.prompt_version}{_MARK}{digests[one.question]}")
        for one in labels
    ]


def note_guidelines(stores: Stores, project: Project, guidelines: Guidelines) -> None:
    """Record what a project's annotators are told now, for those who do not read its config."""
    found = {
        "question_version": project.question_version,
        "digests": guidelines_digests(guidelines),
    }
    if stores.state.current(project, GUIDELINES) != found:
        stores.state.put(project.id, GUIDELINES, found)


def noted_annotators(stores: Stores, project: Project) -> PresentAnnotators:
    """Return the annotators and guidelines that the worker has recorded."""
    nobody = ProjectId("")
    told = stores.state.current(project, GUIDELINES) or {}
    return PresentAnnotators(
        stores.state.get(nobody, LLM_NAME),
        stores.state.get(nobody, SIMILARITY_NAME),
        told.get("digests", {}),
    )
