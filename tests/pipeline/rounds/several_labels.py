"""A pool of a multiple choice with made annotators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backend.domain.labels import AnnotatorKind
from backend.domain.questions import Question
from backend.pipeline.pool import Pool
from tests.pipeline.conftest import House

TOPICS = (
    '<View><Text name="text" value="$text"/>'
    '<Choices name="topics" toName="text" choice="multiple"><Choice value="price"/>'
    '<Choice value="staff"/><Choice value="food"/><Choice value="room"/></Choices></View>'
)
KINDS = {
    "fake": AnnotatorKind.LLM,
    "fake+shots": AnnotatorKind.LLM_DEMONSTRATIONS,
    "similarity:fake": AnnotatorKind.SIMILARITY,
    "small-model:default": AnnotatorKind.STUDENT,
}


def pool_of_several_labels(
    house: House, n_texts: int, shares: Mapping[str, float]
) -> tuple[Pool, Question]:
    """Return a pool where each annotator knows the label of so many of the texts, else guesses."""
    project_id = house.labeled(n_texts, TOPICS, text_of=lambda i: f"text {i}")
    pool = house.aggregator.pool(house.projects.get(project_id))
    (question,) = pool.questions
    rng, truth = np.random.default_rng(3), np.arange(n_texts) % 4
    matrix = pool.matrices[question.name]
    for name, share in shares.items():
        named = np.where(rng.random(n_texts) < share, truth, rng.integers(0, 4, n_texts))
        matrix = matrix.with_annotator(
            name, np.where(np.eye(4)[named] == 1, 0.4, 0.1), KINDS[name], "1"
        )
    return pool.with_matrix(question, matrix), question
