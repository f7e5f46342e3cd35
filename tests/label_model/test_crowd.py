"""One human label from several people's answers, by hand, at the edges and against crowd-kit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.labels import Answer, HumanLabel, Span
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TextField
from backend.label_model.crowd import HumanAnswer, estimate_consensus

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def question(kind=QuestionKind.SINGLE_CHOICE, labels="abc"):
    definitions = tuple(LabelDefinition(value, value) for value in labels)
    return Question("q", (TextField("text", "text"),), kind, definitions)


ONE_OF = question()
SOME_OF = question(QuestionKind.MULTIPLE_CHOICE)
SPANS = question(QuestionKind.SPANS, ("PER", "LOC"))
TEXT = question(QuestionKind.FREE_TEXT, ())


def human_answer(task, person, answer, *, minute=0, is_truth=False):
    """A string of labels stands for an answer with these labels."""
    number = 1000 * task + 10 * (person or 0) + minute
    label = HumanLabel(number, task, person, (), False, is_truth, START + timedelta(minutes=minute))
    return HumanAnswer(label, Answer(labels=tuple(answer)) if isinstance(answer, str) else answer)


def test_no_answers_have_no_consensus():
    for asked in (ONE_OF, SOME_OF, SPANS, TEXT):
        assert estimate_consensus(asked, []).labels == {}


def test_one_person_has_the_prior_accuracy():
    found = estimate_consensus(ONE_OF, [human_answer(1, 7, "b"), human_answer(2, 7, "a")])
    assert found.labels[1].answer == Answer(labels=("b",))
    assert found.labels[1].probabilities == pytest.approx((0.025, 0.95, 0.025))
    assert (found.labels[1].probability, found.labels[1].n_annotators) == (
        pytest.approx(0.95),
        1,
    )
    assert found.accuracies == {7: pytest.approx(0.95)}


def test_two_who_agree_are_surer_than_one():
    found = estimate_consensus(ONE_OF, [human_answer(1, 1, "a"), human_answer(1, 2, "a")])
    # accuracy x is where x = (19 + p) / 21 and p = x^2 / (x^2 + (1 - x)^2 / 2)
    accuracy = found.accuracies[1]
    right = accuracy**2 / (accuracy**2 + (1 - accuracy) ** 2 / 2)
    assert found.labels[1].probability == pytest.approx(right)
    assert accuracy == pytest.approx((19 + right) / 21)


def test_two_who_only_disagree_tie_and_the_newest_answer_is_taken():
    answers = [human_answer(n, 1, "a", minute=1) for n in range(40)] + [
        human_answer(n, 2, "b") for n in range(40)
    ]
    found = estimate_consensus(ONE_OF, answers)
    assert {label.answer.labels for label in found.labels.values()} == {("a",)}
    assert found.labels[0].probabilities[0] == pytest.approx(found.labels[0].probabilities[1])
    assert found.accuracies[1] == pytest.approx(found.accuracies[2])


def test_ground_truth_wins_against_any_majority_and_tells_who_was_wrong():
    answers = [human_answer(1, person, "a") for person in (1, 2, 3)] + [
        human_answer(1, 4, "b", is_truth=True)
    ]
    found = estimate_consensus(ONE_OF, answers)
    label = found.labels[1]
    assert (label.answer.labels, label.probability, label.is_ground_truth) == (("b",), 1.0, True)
    assert label.n_annotators == 4
    assert found.accuracies == {person: pytest.approx(19 / 21) for person in (1, 2, 3)}


def test_the_newest_of_two_ground_truths_counts():
    answers = [
        human_answer(1, 1, "a", is_truth=True),
        human_answer(1, 2, "b", is_truth=True, minute=1),
    ]
    assert estimate_consensus(ONE_OF, answers).labels[1].answer.labels == ("b",)


def test_skipped_and_copied_annotations_are_no_evidence():
    skipped, copied = human_answer(1, 1, "a"), human_answer(1, 2, "a")
    skipped = replace(skipped, label=replace(skipped.label, was_cancelled=True))
    copied = replace(copied, label=replace(copied.label, is_copied=True))
    assert estimate_consensus(ONE_OF, [skipped, copied]).labels == {}
    assert (
        estimate_consensus(ONE_OF, [skipped, copied, human_answer(1, 3, "b")])
        .labels[1]
        .n_annotators
        == 1
    )


def test_a_persons_newest_answer_replaces_the_older_one():
    found = estimate_consensus(ONE_OF, [human_answer(1, 1, "b", minute=5), human_answer(1, 1, "a")])
    assert (found.labels[1].answer.labels, found.labels[1].n_annotators) == (("b",), 1)


def test_annotations_without_an_annotator_are_by_different_people():
    answers = [
        human_answer(1, None, "b"),
        human_answer(1, None, "b", minute=1),
        human_answer(1, 3, "a", minute=2),
    ]
    found = estimate_consensus(ONE_OF, answers)
    assert (found.labels[1].answer.labels, found.labels[1].n_annotators) == (("b",), 3)
    assert len(found.accuracies) == 3


def test_labels_outside_the_label_space_are_left_out():
    assert (
        estimate_consensus(
            ONE_OF, [human_answer(1, 1, "z"), human_answer(2, 1, "ab"), human_answer(3, 1, "")]
        ).labels
        == {}
    )
    assert estimate_consensus(SOME_OF, [human_answer(1, 1, "az")]).labels == {}


def test_a_label_space_of_one_label_is_certain():
    found = estimate_consensus(question(labels="a"), [human_answer(1, 1, "a")])
    assert found.labels[1].probabilities == (1.0,)


def test_each_label_of_a_multiple_choice_is_decided_for_itself():
    answers = [
        human_answer(1, 1, "ab"),
        human_answer(1, 2, "a"),
        human_answer(1, 3, "ac"),
        human_answer(2, 1, ""),
    ]
    found = estimate_consensus(SOME_OF, answers)
    assert found.labels[1].answer.labels == ("a",)
    assert found.labels[1].probabilities[0] > 0.99 > 0.5 > found.labels[1].probabilities[1]
    assert found.labels[2].answer == Answer()
    assert found.labels[2].probability > 0.9


def test_a_span_needs_a_majority_for_its_exact_ends():
    first, longer, other = Span(0, 4, "PER"), Span(0, 5, "PER"), Span(9, 12, "LOC")
    answers = [
        human_answer(1, 1, Answer(spans=(first, other))),
        human_answer(1, 2, Answer(spans=(first,))),
        human_answer(1, 3, Answer(spans=(longer,))),
        human_answer(2, 1, Answer()),
    ]
    found = estimate_consensus(SPANS, answers)
    (kept,) = found.labels[1].answer.spans
    assert (kept.start, kept.end, kept.label) == (0, 4, "PER")
    assert found.labels[1].probabilities == ()
    assert found.labels[2].answer == Answer()
    assert found.labels[2].probability > 0.9


def test_between_two_who_mark_different_spans_the_newest_is_taken():
    answers = [
        human_answer(1, 1, Answer(spans=(Span(0, 4, "PER"),)), minute=1),
        human_answer(1, 2, Answer(spans=(Span(0, 5, "PER"),))),
    ]
    (kept,) = estimate_consensus(SPANS, answers).labels[1].answer.spans
    assert kept.end == 4
    assert kept.probability == pytest.approx(0.5)


def test_the_ground_truths_spans_are_taken_as_they_are():
    answers = [
        human_answer(1, 1, Answer(spans=(Span(0, 4, "PER"),))),
        human_answer(1, 2, Answer(spans=(Span(0, 4, "PER"),))),
        human_answer(1, 3, Answer(), is_truth=True),
    ]
    label = estimate_consensus(SPANS, answers).labels[1]
    assert (label.answer, label.probability) == (Answer(), 1.0)


def test_a_ground_truth_stands_although_its_author_answered_again():
    answers = [
        human_answer(1, 1, Answer(spans=(Span(0, 4, "PER"),)), is_truth=True),
        human_answer(1, 1, Answer(), minute=1),
    ]
    label = estimate_consensus(SPANS, answers).labels[1]
    assert [(span.start, span.end) for span in label.answer.spans] == [(0, 4)]
    assert label.is_ground_truth


def test_of_free_texts_the_newest_is_taken_unless_one_is_ground_truth():
    answers = [
        human_answer(1, 1, Answer(text="old")),
        human_answer(1, 2, Answer(text="new"), minute=1),
    ]
    label = estimate_consensus(TEXT, answers).labels[1]
    assert (label.answer.text, label.probability) == ("new", pytest.approx(0.475))
    answers.append(human_answer(1, 3, Answer(text="true"), minute=-1, is_truth=True))
    assert estimate_consensus(TEXT, answers).labels[1].answer.text == "true"


def simulated(accuracies, *, n_tasks, n_classes=3, seed=0):
    """Everybody answers everything; errors fall evenly on the other classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n_tasks)
    answers = []
    for person, accuracy in enumerate(accuracies, start=1):
        is_right = rng.random(n_tasks) < accuracy
        other = (truth + rng.integers(1, n_classes, size=n_tasks)) % n_classes
        given = np.where(is_right, truth, other)
        answers += [human_answer(task, person, "abc"[k]) for task, k in enumerate(given)]
    return truth, answers


def test_accuracies_are_found_and_used_without_any_ground_truth():
    accuracies = (0.95, 0.85, 0.6, 0.4, 0.4)
    truth, answers = simulated(accuracies, n_tasks=400)
    found = estimate_consensus(ONE_OF, answers)
    learned = [found.accuracies[person] for person in range(1, 6)]
    assert learned == pytest.approx(accuracies, abs=0.06)
    taken = np.array(["abc".index(found.labels[n].answer.labels[0]) for n in range(400)])
    by_count = np.array(
        [
            np.bincount(
                ["abc".index(v.answer.labels[0]) for v in answers if v.label.task_id == n]
            ).argmax()
            for n in range(400)
        ]
    )
    assert (taken == truth).mean() > (by_count == truth).mean() + 0.05


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # crowd-kit's use of pandas
def test_with_much_data_the_labels_are_those_of_crowd_kit():
    pd = pytest.importorskip("pandas")
    OneCoinDawidSkene = pytest.importorskip("crowdkit.aggregation").OneCoinDawidSkene
    _, answers = simulated((0.9, 0.8, 0.7, 0.6), n_tasks=300, seed=1)
    ours = estimate_consensus(ONE_OF, answers).labels
    rows = [(v.label.task_id, v.label.annotator_id, v.answer.labels[0]) for v in answers]
    table = pd.DataFrame(rows, columns=["task", "worker", "label"])
    reference = OneCoinDawidSkene(n_iter=100).fit_predict(table)
    assert np.mean([ours[n].answer.labels[0] == reference[n] for n in range(300)]) >= 0.99


answers = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from("abc"), st.booleans()),
    max_size=30,
)


@settings(deadline=None)
@given(answers, st.randoms(use_true_random=False))
def test_probabilities_are_a_posterior_in_any_order_of_the_answers(drawn, random):
    answers = [
        human_answer(task, person, label, minute=number, is_truth=is_truth)
        for number, (task, person, label, is_truth) in enumerate(drawn)
    ]
    found = estimate_consensus(ONE_OF, answers)
    assert set(found.labels) == {task for task, *_ in drawn}
    for label in found.labels.values():
        assert sum(label.probabilities) == pytest.approx(1.0)
        assert label.probability == pytest.approx(max(label.probabilities))
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert estimate_consensus(ONE_OF, shuffled) == found


def test_people_are_compared_with_the_others_who_answered_the_same_tasks():
    said = [(1, 7, "a"), (1, 8, "a"), (2, 7, "b"), (2, 8, "a"), (2, 9, "b"), (3, 7, "c")]
    answers = [human_answer(task, person, label) for task, person, label in said]
    answers.append(human_answer(3, None, "c"))
    found = {one.person: one for one in estimate_consensus(ONE_OF, answers).people}
    assert {person: (one.n_answers, one.n_shared) for person, one in found.items()} == {
        **{7: (3, 3), 8: (2, 2), 9: (1, 1)}
    }
    assert found[7].agreement == pytest.approx((1 + 0.5 + 1) / 3)
    assert found[8].agreement == pytest.approx((1 + 0) / 2)
    assert found[9].agreement == pytest.approx(0.5)
    assert found[7].accuracy > found[8].accuracy
    assert estimate_consensus(ONE_OF, []).people == ()
