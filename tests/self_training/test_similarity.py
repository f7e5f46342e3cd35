from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from backend.domain.labels import Abstention, AbstentionReason, Example
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.self_training.similarity import SimilarityAnnotator, SimilarityFit, definition_text
from tests.self_training.bag_of_words import BagOfWordsEncoder

LABELS = (
    LabelDefinition("s", "sport", "game team match"),
    LabelDefinition("m", "money", "bank market stock"),
)
FIELDS = (TextField("text", "text"),)
TOPIC = Question("topic", FIELDS, QuestionKind.SINGLE_CHOICE, LABELS)
POOL = [
    Example(i, {"text": f"{words} number {i}"})
    for i, words in enumerate(["the team won the match", "the bank and the market"] * 20)
]


@pytest.fixture
def annotator():
    return SimilarityAnnotator(BagOfWordsEncoder())


def annotate(annotator, question, examples):
    return annotator.annotate(TaskSchema((question,)), "", examples)


def test_texts_get_the_label_whose_definition_they_resemble(annotator):
    weak = annotate(annotator, TOPIC, POOL)
    assert [int(np.argmax(w.probabilities)) for w in weak] == [0, 1] * 20
    assert {w.annotator for w in weak} == {"similarity:bag-of-words"}
    assert all(sum(w.probabilities) == pytest.approx(1) for w in weak)


def test_one_text_alone_is_answered_as_in_its_pool():
    fit = SimilarityAnnotator(BagOfWordsEncoder()).fit(TOPIC, POOL, {})
    kept = SimilarityFit.from_json(json.loads(json.dumps(fit.to_json())))
    fitted = SimilarityAnnotator(BagOfWordsEncoder(), {"topic": kept})
    alone = [annotate(fitted, TOPIC, [example])[0] for example in POOL]
    together = annotate(fitted, TOPIC, POOL)
    np.testing.assert_allclose(
        [w.probabilities for w in alone], [w.probabilities for w in together], atol=1e-6
    )


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        (QuestionKind.SINGLE_CHOICE, ("sport", "money"), True),
        (QuestionKind.MULTIPLE_CHOICE, ("sport", "money"), True),
        (QuestionKind.SINGLE_CHOICE, ("\u4f53\u80b2", "\u91d1\u878d"), True),
        (QuestionKind.SINGLE_CHOICE, ("1", "2", "3"), False),
        (QuestionKind.SINGLE_CHOICE, ("A", "B"), False),
        (QuestionKind.RATING, ("1", "2", "3"), False),
        (QuestionKind.RATING, ("bad", "good"), False),
        (QuestionKind.NUMBER, ("0", "1"), False),
        (QuestionKind.PAIRWISE, ("left", "right"), False),
        (QuestionKind.SPANS, ("Person",), False),
    ],
)
def test_it_answers_only_where_labels_mean_something(annotator, kind, names, expected):
    asked = Question("q", FIELDS, kind, tuple(LabelDefinition(name, name) for name in names))
    assert annotator.can_answer(asked) is expected
    assert bool(annotator.learn(asked, POOL, {})) is expected
    (weak,) = annotate(annotator, asked, POOL[:1])
    assert (weak.abstention is None) is expected


def test_a_hint_gives_a_label_without_a_word_its_meaning(annotator):
    labels = (LabelDefinition("1", "1", "sport"), LabelDefinition("2", "2", "money"))
    assert annotator.can_answer(Question("q", FIELDS, QuestionKind.SINGLE_CHOICE, labels))


def test_human_labels_teach_what_the_definitions_do_not_say():
    pool = [Example(i, {"text": words}) for i, words in enumerate(["red", "blue"] * 60)]
    annotator = SimilarityAnnotator(BagOfWordsEncoder())
    fit = annotator.fit(TOPIC, pool, {i: i % 2 for i in range(80)})
    kept = SimilarityFit.from_json(json.loads(json.dumps(fit.to_json())))
    weak = annotate(SimilarityAnnotator(BagOfWordsEncoder(), {"topic": kept}), TOPIC, pool[80:])
    assert [int(np.argmax(w.probabilities)) for w in weak] == [0, 1] * 20


def test_multiple_choice_gives_one_probability_per_label(annotator):
    question = Question("topics", FIELDS, QuestionKind.MULTIPLE_CHOICE, LABELS)
    both = Example(99, {"text": "the team of the bank won the match at the stock market"})
    weak = annotate(annotator, question, [*POOL, both])
    probabilities = np.array([w.probabilities for w in weak])
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert probabilities[0, 0] > 0.5 > probabilities[0, 1]
    assert probabilities[-1].min() > probabilities[0, 1]


def test_both_texts_of_a_pair_are_read(annotator):
    fields = (TextField("a", "a"), TextField("b", "b"))
    question = Question("topic", fields, QuestionKind.SINGLE_CHOICE, LABELS)
    pairs = [Example(0, {"a": "x", "b": "team match"}), Example(1, {"a": "x", "b": "bank market"})]
    weak = annotate(annotator, question, pairs)
    assert [int(np.argmax(w.probabilities)) for w in weak] == [0, 1]


@pytest.mark.parametrize("kind", [QuestionKind.SPANS, QuestionKind.FREE_TEXT])
def test_it_abstains_on_spans_and_free_text(annotator, kind):
    weak = annotate(annotator, Question("q", FIELDS, kind, LABELS), POOL[:2])
    assert [w.abstention.reason for w in weak] == [AbstentionReason.REJECTED] * 2


def test_a_missing_text_is_an_abstention_with_its_own_reason(annotator):
    remote = Abstention(AbstentionReason.REMOTE_TEXT, "elsewhere")
    examples = [POOL[0], Example(7, {}, {"text": remote}), Example(8, {"text": " "}), POOL[1]]
    weak = annotate(annotator, TOPIC, examples)
    assert [w.example_id for w in weak] == [0, 7, 8, 1]
    assert weak[1].abstention == remote
    assert weak[2].abstention.reason is AbstentionReason.NO_TEXT
    assert weak[0].probabilities
    assert weak[3].probabilities


def test_questions_are_answered_example_by_example(annotator):
    spans = Question("spans", FIELDS, QuestionKind.SPANS, LABELS)
    weak = annotator.annotate(TaskSchema((TOPIC, spans)), "", POOL[:2])
    assert [(w.example_id, w.question) for w in weak] == [
        (0, "topic"),
        (0, "spans"),
        (1, "topic"),
        (1, "spans"),
    ]
    assert annotator.annotate(TaskSchema((TOPIC,)), "", []) == []


def test_a_question_with_one_label_is_answered_with_it(annotator):
    question = Question("q", FIELDS, QuestionKind.SINGLE_CHOICE, LABELS[:1])
    assert annotate(annotator, question, POOL[:2])[0].probabilities == (1.0,)


def test_a_shortlist_has_the_nearest_labels_first(annotator):
    labels = tuple(LabelDefinition(str(i), f"word{i}") for i in range(100))
    question = Question("intent", FIELDS, QuestionKind.SINGLE_CHOICE, labels)
    examples = [Example(0, {"text": "word7 word42"}), Example(1, {}), Example(2, {"text": "word3"})]
    shortlists = annotator.shortlist(question, examples, 5)
    assert set(shortlists[0][:2]) == {7, 42}
    assert shortlists[1] == (0, 1, 2, 3, 4)
    assert shortlists[2][0] == 3
    assert all(len(set(labels)) == 5 for labels in shortlists)
    assert annotator.shortlist(TOPIC, POOL[:1], 10) == [(0, 1)]


def test_a_definition_shows_its_path_and_hint():
    assert definition_text(LABELS[0]) == "sport: game team match"
    assert definition_text(LabelDefinition("c", "cat", path=("animal", "cat"))) == "animal, cat"


def test_importing_the_annotator_and_the_noise_estimates_loads_no_torch():
    names = "backend.self_training.similarity, backend.self_training.noise"
    code = f"import sys, {names}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
