"""What the annotator that needs no LLM says of a data set, whose labels a file may define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.labels import Example
from backend.domain.ports import Encoder
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.self_training.similarity import SimilarityAnnotator

_FIELD = "text"


def similarity_posteriors(
    encoder: Encoder, texts: Sequence[str], labels: Sequence[str], written: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Return the posteriors (n, K) of texts, NaN where similarity has no answer."""
    names, hints = written.get("names", {}), written.get("labels", {})
    definitions = tuple(
        LabelDefinition(label, str(names.get(label, label)).replace("_", " "), hints.get(label))
        for label in labels
    )
    field = TextField(_FIELD, _FIELD)
    question = Question("label", (field,), QuestionKind.SINGLE_CHOICE, definitions)
    examples = [Example(at, {_FIELD: text}) for at, text in enumerate(texts)]
    weak = SimilarityAnnotator(encoder).annotate(TaskSchema((question,)), "", examples)
    nothing = (np.nan,) * len(labels)
    return np.array([label.probabilities or nothing for label in weak])
