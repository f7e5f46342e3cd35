"""Template selection: figures of templates that agree, answer at random, or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.domain.labels import Example
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.selection import (
    TemplatePosteriors,
    TemplateReport,
    TemplateSelector,
    center_posteriors,
    compare_templates,
    template_score,
)
from backend.llm.prompts.templates import DEFAULT_TEMPLATE
from tests.fakes import FakeLanguageModel

QUESTION = Question(
    "sentiment",
    (TextField("text", "text"),),
    QuestionKind.SINGLE_CHOICE,
    (LabelDefinition("positive", "positive"), LabelDefinition("negative", "negative")),
)
EXAMPLES = [
    Example(n, {"text": f"a {'good' if n % 2 else 'bad'} film, number {n}"}) for n in range(24)
]
GOLD = {n: "positive" if n % 2 else "negative" for n in range(24)}


def understands(prompt: str) -> dict[str, float]:
    """Answer well in words and always alike in letters, with a bias to "positive"."""
    if prompt.endswith("Answer:") and "A: positive" in prompt:
        return {"A": 0.5, "B": 0.2}
    is_good = '"a good' in prompt
    return {"positive": 0.3 if is_good else 0.15, "negative": 0.05 if is_good else 0.1}


def select(thinks=understands, question=QUESTION, **rest) -> TemplateReport:
    annotator = LLMAnnotator(FakeLanguageModel(thinks))
    return TemplateSelector(annotator, TaskSchema((question,)), "").select_template(
        question, EXAMPLES, **rest
    )


def test_the_default_template_stays_unless_another_is_clearly_better():
    sure = np.tile([[0.9, 0.1], [0.1, 0.9]], (12, 1))
    nearly, worse = sure.copy(), sure.copy()
    nearly[0], worse[:6] = nearly[1], worse[:6, ::-1]
    mass = np.full(len(sure), 0.5)
    templates = {"plain-hints": sure, "plain-answer": sure}
    others = [TemplatePosteriors(template, rows, mass) for template, rows in templates.items()]
    close = compare_templates(
        QUESTION, EXAMPLES, [*others, TemplatePosteriors(DEFAULT_TEMPLATE, nearly, mass)], {}
    )
    far = compare_templates(
        QUESTION, EXAMPLES, [*others, TemplatePosteriors(DEFAULT_TEMPLATE, worse, mass)], {}
    )
    assert (close.chosen, far.chosen) == (DEFAULT_TEMPLATE, "plain-hints")


def test_a_template_that_agrees_with_the_others_wins_over_one_that_does_not():
    report = select()
    by_template = {row.template: row for row in report.figures}
    assert report.chosen == "plain-options"
    assert by_template["plain-hints"].agreement > by_template["plain-letters"].agreement
    assert [row.template for row in report.figures][-1] == "plain-letters"
    assert report.n_texts == 24
    assert "agreement" in report.why


def test_human_labels_overrule_agreement():
    def contrary(prompt: str) -> dict[str, float]:
        answer = understands(prompt)
        if prompt.endswith("Answer:") and "A: positive" in prompt:
            is_good = '"a good' in prompt
            return {"A": 0.3 if is_good else 0.1, "B": 0.1 if is_good else 0.3}
        return {"positive": answer["negative"], "negative": answer["positive"]}

    assert select(contrary).chosen != "plain-letters"
    report = select(contrary, human_labels=GOLD)
    assert report.chosen == "plain-letters"
    assert (report.figures[0].accuracy, report.figures[0].n_human) == (1.0, 24)
    assert "24 human labels" in report.why


def test_few_human_labels_are_not_a_measurement():
    some = {n: GOLD[n] for n in range(19)}
    assert all(row.accuracy is None for row in select(human_labels=some).figures)


def test_labels_that_the_question_does_not_know_are_passed_over():
    assert all(row.n_human == 0 for row in select(human_labels={1: "so so"}).figures)


def test_a_template_that_gets_no_answer_is_not_chosen():
    model = FakeLanguageModel(understands)
    model.loses = lambda prompt: None if prompt.endswith("Answer:") else "lost"
    report = TemplateSelector(LLMAnnotator(model), TaskSchema((QUESTION,)), "").select_template(
        QUESTION, EXAMPLES
    )
    assert report.chosen in ("plain-answer", "plain-letters")


def test_no_answer_at_all_leaves_the_default():
    model = FakeLanguageModel(understands)
    model.refuses = lambda prompt: "never"
    report = TemplateSelector(LLMAnnotator(model), TaskSchema((QUESTION,)), "").select_template(
        QUESTION, EXAMPLES
    )
    assert (report.chosen, report.why) == ("plain-options", "no template got an answer")


def test_no_text_leaves_the_default():
    annotator = LLMAnnotator(FakeLanguageModel(understands))
    report = TemplateSelector(annotator, TaskSchema((QUESTION,)), "").select_template(QUESTION, [])
    assert (report.chosen, report.n_texts) == ("plain-options", 0)


def test_questions_without_one_right_label_keep_the_default():
    many = Question("topics", QUESTION.fields, QuestionKind.MULTIPLE_CHOICE, QUESTION.labels)
    report = select(question=many)
    assert (report.chosen, report.figures) == ("plain-options", ())


def test_chat_templates_are_left_out_where_the_server_has_no_chat():
    assert {row.template.split("-")[0] for row in select().figures} == {"plain"}


def test_a_report_is_plain_json():
    report = select(human_labels=GOLD)
    assert json.loads(json.dumps(report.to_json()))["chosen"] == report.chosen


def test_centered_posteriors_by_hand():
    posteriors = np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [np.nan, np.nan]])
    calibrated = center_posteriors(posteriors)
    # the geometric means are 0.8^(2/3) 0.2^(1/3) and 0.2^(2/3) 0.8^(1/3): their ratio is 4^(1/3)
    assert calibrated[0, 0] / calibrated[0, 1] == pytest.approx(4 / 4 ** (1 / 3))
    assert calibrated[2, 1] / calibrated[2, 0] == pytest.approx(4 * 4 ** (1 / 3))
    assert np.isnan(calibrated[3]).all()


@given(
    arrays(float, (5, 3), elements=st.floats(0.01, 1.0)),
    arrays(float, 3, elements=st.floats(0.1, 10.0)),
)
def test_a_bias_of_the_prompt_changes_nothing(weights, bias):
    def normalised(values):
        return values / values.sum(axis=1, keepdims=True)

    plain, biased = (
        center_posteriors(normalised(weights)),
        center_posteriors(normalised(weights * bias)),
    )
    assert biased == pytest.approx(plain, abs=1e-6)


def test_a_score_by_hand():
    assert template_score(0.8, None, None, 0) == pytest.approx(0.8)
    assert template_score(0.8, 0.05, None, 0) == pytest.approx(0.8 * 0.95)
    assert template_score(0.8, 1.0, 0.6, 60) == pytest.approx((60 * 0.6 + 20 * 0.8) / 80)
