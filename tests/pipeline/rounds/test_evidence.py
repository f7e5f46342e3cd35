"""Labels change on the evidence of annotators and people, and not against people's answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.domain.labels import AnnotatorKind
from backend.evaluation.gate import GateDecision
from backend.label_model.label_tables import Posteriors, aggregated_table
from backend.pipeline.pool import Pool
from backend.pipeline.rounds.evidence import ChangeRule
from tests.pipeline.conftest import House
from tests.pipeline.rounds.several_labels import pool_of_several_labels

N = 120
BY_AGREEMENT = GateDecision(True, "promoted: it agrees", {"n": 120.0})
KINDS = {
    "fake": AnnotatorKind.LLM,
    "similarity:fake": AnnotatorKind.SIMILARITY,
    "fake+shots": AnnotatorKind.LLM_DEMONSTRATIONS,
    "small-model:default": AnnotatorKind.STUDENT,
}


def by_people(won, lost, *, is_promoted=True):
    return GateDecision(is_promoted, "on 24 human labels", {"n_won": won, "n_lost": lost})


def posteriors(truth, share_right, rng, sure=0.85):
    """Return an annotator that errs by itself, with this share of right answers."""
    labels = np.where(rng.random(N) < share_right, truth, 1 - truth)
    return np.where(np.eye(2)[labels] == 1, sure, 1 - sure)


@pytest.fixture
def house(stores, tmp_path) -> House:
    return House(stores, folder=tmp_path, chunk=N)


@pytest.fixture
def case(house):
    """A pool whose served labels are the LLM's, and that three better annotators answered too."""
    project_id = house.labeled(N)
    pool: Pool = house.aggregator.pool(house.projects.get(project_id))
    (question,) = pool.questions
    rng, truth = np.random.default_rng(5), np.arange(N) % 2
    shares = {"fake": 0.7, "similarity:fake": 0.9, "fake+shots": 0.9, "small-model:default": 0.9}
    matrix = pool.matrices[question.name]
    for name, share in shares.items():
        matrix = matrix.with_annotator(name, posteriors(truth, share, rng), KINDS[name], "1")
    pool = pool.with_matrix(question, matrix)
    state = house.ensemble.fit(pool, is_saved=False)
    found = aggregated_table(
        question, pool.example_ids, house.ensemble.aggregate_question(pool, question, state)
    )
    served = Posteriors(pool.example_ids, matrix.posteriors["fake"])
    return pool, question, (served, found), truth


def decide(house, case, rule, gate=BY_AGREEMENT):
    pool, question, labels, _ = case
    return ChangeRule(house.ensemble, rule).decide(pool, question, labels, gate)


def test_without_people_labels_change_on_evidence_that_stands_in_the_reason(house, case):
    change = decide(house, case, "evidence")
    _, _, (served, found), truth = case
    differs = served.differs(found)
    changes = differs & ~change.is_kept
    assert change.is_any
    assert change.gain.low > 0
    n_served, n_all = int(changes.sum()), int(differs.sum())
    assert change.reason == f"expected {change.gain}: served, {n_served} of {n_all} changed texts"
    right = found.content.argmax(axis=1) == truth
    assert right[changes].mean() > 0.8


def test_where_the_first_annotators_agree_by_chance_nothing_changes_without_people(house, case):
    pool, question, labels, truth = case
    rng = np.random.default_rng(7)
    matrix = pool.matrices[question.name].with_annotator(
        "similarity:fake", posteriors(truth, 0.5, rng), KINDS["similarity:fake"], "1"
    )
    guessing = pool.with_matrix(question, matrix)
    change = decide(house, (guessing, question, labels, truth), "evidence")
    assert not change.is_any
    assert "agree too little (kappa" in change.reason
    asked = by_people(20, 2)
    assert (
        "kappa" not in decide(house, (guessing, question, labels, truth), "evidence", asked).reason
    )


@pytest.mark.parametrize(("share", "is_guess"), [(0.0, True), (0.8, False)])
def test_several_labels_of_annotators_that_guess_do_not_change(house, share, is_guess):
    shares = {"fake": share, "similarity:fake": 0.9, "small-model:default": 0.9}
    pool, question = pool_of_several_labels(house, N, shares)
    own = pool.matrices[question.name].posteriors
    labels = tuple(
        Posteriors(pool.example_ids, own[name] + 0.2, is_exclusive=False)
        for name in ("similarity:fake", "small-model:default")
    )
    change = decide(house, (pool, question, labels, None), "evidence")
    assert ("agree too little (kappa" in change.reason) is is_guess


def test_the_true_gain_lies_in_the_interval(house, case):
    change = decide(house, case, "evidence")
    _, _, (served, found), truth = case
    changes = served.differs(found) & ~change.is_kept
    after = np.where(changes, found.content.argmax(axis=1), served.content.argmax(axis=1))
    gained = (after == truth).mean() - (served.content.argmax(axis=1) == truth).mean()
    assert change.gain.low <= gained <= change.gain.high


def test_a_change_that_annotators_speak_against_is_not_made(house, case):
    pool, question, (better, worse), truth = case
    change = decide(house, (pool, question, (worse, better), truth), "evidence")
    assert not change.is_any
    assert change.gain.value < 0
    assert change.reason == f"expected {change.gain}: not served"
    assert change.is_kept.sum() == better.differs(worse).sum()


@pytest.mark.parametrize("rule", ["people", "never"])
def test_the_setting_keeps_labels_as_they_are(house, case, rule):
    change = decide(house, case, rule)
    assert not change.is_any
    assert f"LABELS_CHANGE={rule}" in change.reason


@pytest.mark.parametrize("rule", ["evidence", "people"])
def test_nothing_changes_against_peoples_answers(house, case, rule):
    change = decide(house, case, rule, by_people(0, 5))
    assert not change.is_any
    assert change.reason == "on 24 human labels"
    _, _, (served, found), _ = case
    assert change.is_kept.sum() == served.differs(found).sum()


def test_people_alone_decide_where_the_setting_says_so(house, case):
    change = decide(house, case, "people", by_people(9, 3))
    assert (change.is_any, change.gain, change.reason) == (True, None, "on 24 human labels")
    assert not change.is_kept.any()


def test_the_evidence_decides_where_people_do_not_object(house, case):
    change = decide(house, case, "evidence", by_people(9, 3))
    assert change.is_any
    assert change.gain.low > 0
    assert change.reason.startswith(f"expected {change.gain}: served")


def test_people_decide_where_too_few_annotators_are_evidence(house, case):
    pool, question, labels, truth = case
    matrix = pool.matrices[question.name].without("fake+shots").without("small-model:default")
    two = (pool.with_matrix(question, matrix), question, labels, truth)
    change = decide(house, two, "evidence", by_people(9, 3))
    assert (change.is_any, change.gain, change.reason) == (True, None, "on 24 human labels")
    assert not decide(house, two, "evidence").is_any


def test_a_round_that_finds_the_served_labels_is_served_where_people_answered(house, case):
    pool, question, (_, found), truth = case
    same = (pool, question, (found, found), truth)
    change = decide(house, same, "evidence", by_people(0, 0))
    assert (change.is_any, change.reason) == (True, "on 24 human labels")
    assert not decide(house, same, "evidence").is_any


def test_peoples_answers_are_part_of_the_evidence(house, case):
    pool, question, labels, _ = case
    served, _ = labels
    said = served.content.argmax(axis=1)[: N // 2]
    ids = pool.example_ids[: N // 2].tolist()
    answered = replace(pool, human={question.name: dict(zip(ids, said.tolist(), strict=True))})
    assert decide(house, case, "evidence").is_any
    change = decide(house, (answered, question, labels, None), "evidence", by_people(5, 4))
    assert not change.is_any
    assert change.gain.value < 0


def test_nothing_changes_by_a_version_that_fell_apart_or_where_nothing_may(house, case):
    refused = GateDecision(False, "refused: it agrees less", {"n": 120.0})
    assert decide(house, case, "evidence", refused).reason == "refused: it agrees less"
    assert not decide(house, case, "evidence", refused).is_any
    assert not decide(house, case, "never", by_people(9, 0)).is_any
