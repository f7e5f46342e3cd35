"""The served small model's word on texts that came after its round."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backend.domain.labels import Example, WeakLabel
from backend.domain.projects import Project
from backend.domain.rounds import RoundRecipe
from backend.domain.student import FittedStudent, PoolTexts
from backend.errors import BackendError
from backend.pipeline.guidelines import Guidelines
from backend.pipeline.release import LABELS_FROM, MODEL_FROM, RECIPE
from backend.pipeline.rounds.artifacts import RoundArtifacts
from backend.pipeline.rounds.context import SMALL_MODEL, as_votes, question_of
from backend.pipeline.rounds.train import StudentFactory
from backend.store import Stores

_LOG = logging.getLogger(__name__)
_RECIPE: RoundRecipe = "default"


class StudentPredictor:
    """Loads the small model that the served version was made with; keeps the last one loaded."""

    def __init__(self, stores: Stores, folder: Path, make: StudentFactory) -> None:
        self._stores = stores
        self._folder = folder
        self._make = make
        self._loaded: tuple[Path, FittedStudent] | None = None

    def votes(
        self, project: Project, guidelines: Guidelines, examples: Sequence[Example]
    ) -> list[WeakLabel]:
        """Return the model's votes on texts that it did not learn from.

        Empty while the served labels come from no round, so that it has no vote on the other texts
        either and nobody knows how far to trust it, and where its files cannot be read any more.
        FreeAL as published learns no trust.
        """
        made_from = self._stores.releases.provenance(project.id, project.model_version)
        question = question_of(guidelines.schema)
        is_heard = made_from.get(RECIPE) == _RECIPE and {LABELS_FROM, MODEL_FROM} <= set(made_from)
        if not is_heard or question is None or not examples:
            return []
        number, cycle = made_from[MODEL_FROM]
        folder = RoundArtifacts(self._folder / project.id / str(number)).model(cycle)
        try:
            model = self._model(folder)
        except (BackendError, OSError) as exc:
            _LOG.warning("project=%s the small model of round %s: %s", project.id, number, exc)
            return []
        if model.labels != tuple(label.value for label in question.labels):
            return []
        ids = np.array([example.id for example in examples], dtype=np.int64)
        texts = PoolTexts(
            tuple(int(i) for i in ids), tuple(example.text_of(question) for example in examples)
        )
        answers = model.predict(texts).probabilities
        name = f"{SMALL_MODEL}{_RECIPE}"
        return as_votes(ids, answers, question, name, version=f"round {number}")

    def _model(self, folder: Path) -> FittedStudent:
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = None  # two models at a time would be one too many on a small machine
            self._loaded = (folder, self._make(_RECIPE).load(folder))
        return self._loaded[1]
