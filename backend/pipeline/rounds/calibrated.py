"""What annotators say by themselves, without their preference for labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from backend.domain.labels import AnnotatorKind
from backend.domain.questions import Question
from backend.label_model.latent_class import Floats
from backend.label_model.multilabel import label_scores
from backend.pipeline.ensemble import AnnotatorEnsemble
from backend.pipeline.pool import Pool


def calibrated_scores(
    ensemble: AnnotatorEnsemble,
    pool: Pool,
    question: Question,
    is_wanted: Callable[[AnnotatorKind], bool],
) -> Mapping[str, Floats]:
    """Return the scores (n, K) of annotators of some kinds; NaN rows are abstentions.

    The highest score of a text is of the annotator's likeliest label, whatever label its prompt or
    its definitions prefer: calibrated by a label model of these annotators alone
    (`LabelModel.annotator_posterior`), or of several labels the one that stands out most above its
    usual level (`label_scores`). People's answers play no part.

    Args:
        ensemble: fits the label model.
        pool: with the annotators' labels.
        question: about whole texts.
        is_wanted: tells the kinds.
    """
    matrix = pool.matrices[question.name].select(is_wanted)
    if question.kind.is_multilabel:
        return {name: label_scores(given) for name, given in matrix.posteriors.items()}
    pool = pool.restrict(question).with_matrix(question, matrix).without_human(question)
    fitted = ensemble.fit(pool, is_saved=False)
    return ensemble.aggregate_question(pool, question, fitted).annotator_posteriors
