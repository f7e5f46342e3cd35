"""Template selection: templates that agree, answer at random, or not at all, within a budget."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from backend.domain.labels import Answer, Demonstration, Example, WeakLabel
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.errors import LanguageModelUnavailable
from backend.llm.annotator import LLMAnnotator
from backend.llm.prompts.comparison import SelectionEvidence
from backend.llm.prompts.selection import PromptBudget, TemplateReport, TemplateSelector
from tests.fakes import FakeLanguageModel

QUESTION = Question(
    "sentiment",
    (TextField("text", "text"),),
    QuestionKind.SINGLE_CHOICE,
    (
        LabelDefinition("positive", "positive", "content"),
        LabelDefinition("negative", "negative", "not content"),
    ),
)
EXAMPLES = [
    Example(n, {"text": f"a {'good' if n % 2 else 'bad'} film, number {n}"}) for n in range(120)
]
GOLD = {n: frozenset({0 if n % 2 else 1}) for n in range(120)}
SIMILARITY = [
    WeakLabel(
        n,
        "sentiment",
        "similarity",
        probabilities=(0.7, 0.3) if n % 2 or n % 5 == 0 else (0.4, 0.6),
    )
    for n in range(120)
]
BUDGET = PromptBudget(1000, 1.5)


def understands(prompt: str) -> dict[str, float]:
    """Answer always alike to "Choose the", well to other words, with a bias to "positive"."""
    if "Choose the" in prompt:
        return {"positive": 0.5, "negative": 0.2}
    is_good = '"a good' in prompt
    return {"positive": 0.3 if is_good else 0.15, "negative": 0.05 if is_good else 0.1}


def select(
    thinks: Callable[[str], dict[str, float]] = understands,
    question: Question = QUESTION,
    evidence: SelectionEvidence | None = None,
    budget: PromptBudget = BUDGET,
) -> TemplateReport:
    model = FakeLanguageModel(thinks, has_chat=True, n_context_tokens=2048)
    selector = TemplateSelector(LLMAnnotator(model), TaskSchema((question,)), "")
    evidence = SelectionEvidence({}, SIMILARITY) if evidence is None else evidence
    return selector.select_template(question, EXAMPLES, evidence, budget)


def test_a_template_that_agrees_with_the_others_wins_over_one_that_does_not():
    report = select()
    assert report.chosen != "chat-choose"
    assert report.figures[-1].template == "chat-choose"
    assert report.figures[0].agreement > report.figures[-1].agreement + 0.2
    assert "labeled as the other evidence says" in report.why


def test_fewer_templates_are_asked_about_more_texts():
    figures = select().figures
    n_texts = [row.n_texts for row in figures]
    assert n_texts == sorted(n_texts, reverse=True)
    assert n_texts[0] == n_texts[1] > n_texts[2]


@pytest.mark.parametrize("n_texts", [40, 200, 1000])
def test_choosing_costs_less_than_labeling(n_texts):
    report = select(budget=PromptBudget(n_texts, 1.5))
    assert 0 < report.n_unused <= max(20, 2 * n_texts // 3)
    assert report.n_unused <= 420


def test_other_annotators_tell_apart_templates_that_share_an_error():
    def errs_unless_asked(prompt: str) -> dict[str, float]:
        right = understands(prompt.replace("Choose the", ""))
        if "Choose the" in prompt or prompt.count("1") + prompt.count("2") == 0:
            return right
        return {"positive": right["negative"], "negative": right["positive"]}

    evidence = SelectionEvidence({}, [*SIMILARITY, *_renamed(SIMILARITY, "student")])
    assert select(errs_unless_asked, evidence=evidence).chosen == "chat-choose"


def _renamed(labels: list[WeakLabel], annotator: str) -> list[WeakLabel]:
    probabilities = [(0.8, 0.2) if label.example_id % 2 else (0.2, 0.8) for label in labels]
    return [
        WeakLabel(label.example_id, "sentiment", annotator, probabilities=p)
        for label, p in zip(labels, probabilities, strict=True)
    ]


def test_human_labels_overrule_agreement():
    def contrary(prompt: str) -> dict[str, float]:
        right = understands(prompt.replace("Choose the", ""))
        if "Choose the" in prompt:
            return right
        return {"positive": right["negative"], "negative": right["positive"]}

    assert select(contrary, evidence=SelectionEvidence()).chosen != "chat-choose"
    report = select(contrary, evidence=SelectionEvidence(GOLD))
    assert report.chosen == "chat-choose"
    assert report.figures[0].accuracy == 1.0
    assert report.figures[0].n_human == report.figures[0].n_texts
    assert "labels by people" in report.why


def test_a_template_that_gets_no_answer_is_not_chosen():
    model = FakeLanguageModel(understands, has_chat=True, n_context_tokens=2048)
    model.loses = lambda prompt: None if "Choose the" in str(prompt) else "lost"
    selector = TemplateSelector(LLMAnnotator(model), TaskSchema((QUESTION,)), "")
    report = selector.select_template(QUESTION, EXAMPLES, SelectionEvidence(), BUDGET)
    assert report.chosen == "chat-choose"


def test_no_answer_at_all_leaves_the_first():
    model = FakeLanguageModel(understands)
    model.refuses = lambda prompt: "never"
    selector = TemplateSelector(LLMAnnotator(model), TaskSchema((QUESTION,)), "")
    report = selector.select_template(QUESTION, EXAMPLES, SelectionEvidence(), BUDGET)
    assert (report.chosen, report.why) == ("plain-options", "no template got an answer")


@pytest.mark.parametrize("n_answered", [0, 30])
def test_nothing_is_chosen_while_the_model_is_gone(n_answered):
    model = FakeLanguageModel(understands, has_chat=True, n_context_tokens=2048)
    n_asked = itertools.count()
    model.loses = lambda prompt: "gone" if next(n_asked) >= n_answered else None
    selector = TemplateSelector(LLMAnnotator(model), TaskSchema((QUESTION,)), "")
    with pytest.raises(LanguageModelUnavailable, match="could not be compared"):
        selector.select_template(QUESTION, EXAMPLES, SelectionEvidence(), BUDGET)


def test_no_text_leaves_the_first():
    annotator = LLMAnnotator(FakeLanguageModel(understands))
    selector = TemplateSelector(annotator, TaskSchema((QUESTION,)), "")
    report = selector.select_template(QUESTION, [], SelectionEvidence(), BUDGET)
    assert (report.chosen, report.second) == ("plain-options", None)


def test_a_multilabel_question_is_worded_by_the_route_that_agrees_with_similarity():
    topics = Question("topics", QUESTION.fields, QuestionKind.MULTIPLE_CHOICE, QUESTION.labels)

    def thinks(prompt: str) -> dict[str, float]:
        is_good, is_chat = '"a good' in prompt, "a right topics" in prompt
        holds = is_good if "Topics positive:" in prompt else not is_good
        return {"yes": 0.6, "no": 0.2} if holds == is_chat else {"yes": 0.1, "no": 0.6}

    model = FakeLanguageModel(thinks, has_chat=True)
    selector = TemplateSelector(LLMAnnotator(model), TaskSchema((topics,)), "")
    similarity = [
        WeakLabel(n, "topics", "similarity", probabilities=(0.8, 0.1) if n % 2 else (0.1, 0.8))
        for n in range(120)
    ]
    report = selector.select_template(topics, EXAMPLES, SelectionEvidence({}, similarity), BUDGET)
    assert [row.template for row in report.figures] == ["chat-options", "plain-options"]
    assert report.second is None


def test_chat_templates_are_left_out_where_the_server_has_no_chat():
    selector = TemplateSelector(LLMAnnotator(FakeLanguageModel()), TaskSchema((QUESTION,)), "")
    report = selector.select_template(QUESTION, EXAMPLES, SelectionEvidence(), BUDGET)
    assert {row.template for row in report.figures} == {"plain-options", "plain-hints"}


def test_a_report_is_plain_json():
    report = select(evidence=SelectionEvidence(GOLD, SIMILARITY))
    assert json.loads(json.dumps(report.to_json()))["chosen"] == report.chosen


def test_the_budget_leaves_the_rest_to_second_answers():
    assert PromptBudget(1000, 1.5).second_share(180) == pytest.approx(0.32)
    assert PromptBudget(1000, 1.0).second_share(180) == 0
    assert PromptBudget(200, 3.0).second_share(0) == 1


def shots_of(prompt: str) -> int:
    return prompt.count("number ") - 1


def test_demonstrations_that_make_answers_better_are_kept():
    def learns(prompt: str) -> dict[str, float]:
        if prompt.endswith('"'):  # a text is to be written
            return {}
        number = int(prompt.rsplit("number ", 1)[1].split('"')[0])
        is_good = '"a good' in prompt.rsplit("\nText:", 1)[1]
        knows = shots_of(prompt) > 3 or number % 3 > 0
        return (
            {"positive": 0.6, "negative": 0.2}
            if is_good == knows
            else {"positive": 0.2, "negative": 0.6}
        )

    report = select(learns)
    assert {label for one in report.demonstrations for label in one.answer.labels} == {
        "positive",
        "negative",
    }
    figures = {row.template: row for row in report.trial}
    assert figures["8 shots"].score > figures["no shots"].score
    assert json.loads(json.dumps(report.to_json()))["demonstrations"]


def test_demonstrations_that_make_answers_worse_are_not():
    def is_misled(prompt: str) -> dict[str, float]:
        is_good = '"a good' in prompt.rsplit("\nText:", 1)[1]
        if shots_of(prompt) > 0:
            return {"positive": 0.6, "negative": 0.3}
        return {"positive": 0.6, "negative": 0.2} if is_good else {"positive": 0.2, "negative": 0.6}

    report = select(is_misled)
    assert report.demonstrations == ()
    assert report.trial[0].score > max(row.score for row in report.trial[1:])


@pytest.mark.parametrize("is_capable", [True, False])
def test_demonstrations_that_cost_a_little_are_kept_by_a_capable_model_alone(is_capable):
    def errs_a_little(prompt: str) -> dict[str, float]:
        if prompt.endswith('"'):  # a text is to be written
            return {}
        own = prompt.rsplit("\nText:", 1)[1]
        number = int(own.rsplit("number ", 1)[1].split('"')[0])
        is_good = '"a good' in own
        if shots_of(prompt) > 0:
            is_good ^= number % 22 == 0
        if not is_capable and "Choose" in prompt:
            is_good = number % 7 > 3
        return {"positive": 0.6, "negative": 0.2} if is_good else {"positive": 0.2, "negative": 0.6}

    report = select(errs_a_little)
    assert bool(report.demonstrations) == is_capable


def test_demonstrations_are_not_kept_for_their_label_mass():
    def is_won_over(prompt: str) -> dict[str, float]:
        if prompt.endswith('"'):  # a text is to be written
            return {}
        own = prompt.rsplit("\nText:", 1)[1]
        is_good = '"a good' in own
        if shots_of(prompt) > 0:
            is_good ^= int(own.rsplit("number ", 1)[1].split('"')[0]) % 9 == 0
            sure, unsure = 0.8, 0.1
        else:
            sure, unsure = 0.02, 0.01
        return {"positive": sure if is_good else unsure, "negative": unsure if is_good else sure}

    report = select(is_won_over)
    none, *shown = report.trial
    assert max(row.score for row in shown) > none.score - 0.05
    assert report.demonstrations == ()


def test_no_text_is_asked_about_with_its_own_answer():
    model = FakeLanguageModel(understands, has_chat=True, n_context_tokens=2048)
    selector = TemplateSelector(LLMAnnotator(model), TaskSchema((QUESTION,)), "")
    selector.select_template(QUESTION, EXAMPLES, SelectionEvidence({}, SIMILARITY), BUDGET)
    for prompt in model.prompts:
        numbers = [part.split('"')[0] for part in prompt.split("number ")[1:]]
        assert len(numbers) == len(set(numbers))


def test_small_projects_are_spared_the_trial():
    assert select(budget=PromptBudget(60, 1.5)).trial == ()


def test_texts_that_the_model_writes_are_tried_where_nobody_labeled():
    class Writer(LLMAnnotator):
        def write_demonstrations(self, schema, question, instruction, examples, n_per_class):
            return tuple(
                Demonstration({"text": f"made {n}"}, Answer((label.value,)), "generated")
                for label in question.labels
                for n in range(n_per_class)
            )

    def selected(evidence: SelectionEvidence) -> TemplateReport:
        model = FakeLanguageModel(understands, has_chat=True, n_context_tokens=2048)
        selector = TemplateSelector(Writer(model), TaskSchema((QUESTION,)), "")
        return selector.select_template(QUESTION, EXAMPLES, evidence, BUDGET)

    names = [row.template for row in selected(SelectionEvidence({}, SIMILARITY)).trial]
    assert names == ["no shots", "8 shots", "4 shots", "8 self-made shots"]
    names = [row.template for row in selected(SelectionEvidence(GOLD, SIMILARITY)).trial]
    assert names == ["no shots", "8 shots", "4 shots"]


def test_a_small_project_tries_one_number_of_demonstrations():
    report = select(budget=PromptBudget(300, 1.5))
    assert [row.template for row in report.trial] == ["no shots", "8 shots"]
