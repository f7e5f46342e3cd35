"""What differs between two versions of a question's labels, decision by decision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from backend.domain.labels import Span
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.evaluation.expected_gain import expected_gain
from backend.label_model.changes import changed_decisions
from backend.label_model.label_tables import Posteriors, SpanTable
from backend.label_model.single_label import aggregate, fit_label_model

FIELDS = (TextField("text", "text"),)
TOPICS = tuple(LabelDefinition(name, name) for name in ("Sport", "Trade", "Arts"))
NAN = (np.nan, np.nan, np.nan)


def question(kind):
    return Question("topic", FIELDS, kind, TOPICS)


def question_of(n_labels):
    labels = tuple(LabelDefinition(str(at), str(at)) for at in range(n_labels))
    return Question("topic", FIELDS, QuestionKind.SINGLE_CHOICE, labels)


def table(*rows, is_exclusive=True):
    return Posteriors(np.arange(len(rows)), np.array(rows, dtype=float), is_exclusive)


def test_a_single_label_is_one_decision_of_the_texts_that_both_label():
    served = table((0.8, 0.1, 0.1), (0.8, 0.1, 0.1), NAN, (0.1, 0.1, 0.8))
    found = table((0.1, 0.7, 0.2), (0.6, 0.3, 0.1), (0.1, 0.8, 0.1), NAN)
    changed = changed_decisions(
        question(QuestionKind.SINGLE_CHOICE), served, found, [found, served]
    )
    assert changed.texts.tolist() == [0]
    assert changed.n_decisions == 2
    assert changed.found == pytest.approx(np.array([[0.7], [0.1]]))
    assert changed.served == pytest.approx(np.array([[0.1], [0.8]]))


def test_a_referee_without_an_answer_knows_nothing():
    served, found = table((0.8, 0.1, 0.1)), table((0.1, 0.8, 0.1))
    changed = changed_decisions(question(QuestionKind.SINGLE_CHOICE), served, found, [table(NAN)])
    assert changed.found == pytest.approx(changed.served)
    assert changed.leads == pytest.approx([0.0])


def test_each_label_of_a_multiple_choice_is_a_decision():
    served = table((0.9, 0.2, 0.8), (0.1, 0.1, 0.1), is_exclusive=False)
    found = table((0.9, 0.7, 0.4), (0.1, 0.1, 0.1), is_exclusive=False)
    changed = changed_decisions(question(QuestionKind.MULTIPLE_CHOICE), served, found, [found])
    assert changed.texts.tolist() == [0, 0]
    assert changed.n_decisions == 6
    assert changed.found == pytest.approx(np.array([[0.7, 0.3]]))  # 0.6 x half: it may go if wrong
    assert changed.served == pytest.approx(np.array([[0.15, 0.4]]))


def test_each_span_that_either_version_has_is_a_decision():
    served = SpanTable(np.arange(2), ((Span(0, 4, "Sport", 0.9), Span(6, 9, "Arts", 0.6)), None))
    found = SpanTable(np.arange(2), ((Span(0, 4, "Sport", 0.9), Span(10, 12, "Arts", 0.8)), ()))
    spans = question(QuestionKind.SPANS)
    changed = changed_decisions(spans, served, found, [found])
    assert changed.texts.tolist() == [0, 0]
    assert changed.n_decisions == 3
    assert changed.found == pytest.approx(np.array([[0.375, 0.8]]))  # the span at 6 was left out


def test_equal_labels_change_nothing():
    same = table((0.8, 0.1, 0.1), (0.1, 0.8, 0.1))
    changed = changed_decisions(question(QuestionKind.SINGLE_CHOICE), same, same, [same] * 4)
    assert changed.found.shape == (4, 0)
    assert changed.n_decisions == 2


def made_round(seed, *, shared):
    """Return true classes, served, found and the referees' labels of annotators that err together.

    `shared` in [0, 1] is the share of the errors' variance that all annotators have in common.
    """
    rng, n, n_classes = np.random.default_rng(seed), 200, 2 + seed % 3
    truth = rng.choice(n_classes, size=n, p=rng.dirichlet(np.full(n_classes, 4.0)))
    is_true, common = np.eye(n_classes)[truth], rng.normal(size=(n, n_classes))

    def annotator(lowest, highest):
        own = rng.normal(size=(n, n_classes))
        noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        return softmax(2 * (rng.uniform(lowest, highest) * is_true + noise), axis=1)

    def aggregated(posteriors):
        return aggregate(posteriors, fit_label_model(posteriors)).probabilities

    llm, similarity = annotator(0.8, 2.0), annotator(0.5, 1.5)
    served = aggregated({"llm": llm, "similarity": similarity})
    echo = softmax(annotator(0.6, 1.8) + 0.5 * np.log(served + 1e-3), axis=1)
    own = {"llm": llm, "similarity": similarity, "shots": annotator(0.8, 2.2), "student": echo}
    referees = [own, *({n: p for n, p in own.items() if n != name} for name in own)]
    tables = [Posteriors(np.arange(n), aggregated(each)) for each in referees]
    return truth, Posteriors(np.arange(n), served), tables[0], tables


@pytest.mark.parametrize("shared", [0.0, 0.3, 0.6])
def test_the_true_gain_lies_in_the_interval_whether_annotators_err_alone_or_together(shared):
    n_covered, n_runs = 0, 15
    for seed in range(n_runs):
        truth, served, found, referees = made_round(seed, shared=shared)
        single = question_of(len(found.content[0]))
        gain = expected_gain(changed_decisions(single, served, found, referees))
        before, after = (table.content.argmax(axis=1) == truth for table in (served, found))
        n_covered += gain.low <= after.mean() - before.mean() <= gain.high
    assert n_covered >= 0.8 * n_runs
