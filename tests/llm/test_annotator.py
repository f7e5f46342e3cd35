"""LLMAnnotator over a fake language model."""

from __future__ import annotations

import time

import pytest

from backend.domain.labels import Abstention, AbstentionReason, Example
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.errors import LanguageModelRejected, LanguageModelUnavailable
from backend.llm.annotator import LLMAnnotator
from tests.fakes import FakeLanguageModel

TEXT = TextField("text", "text")


def question(name: str, *labels: str, field: TextField = TEXT) -> Question:
    definitions = tuple(LabelDefinition(value=label, name=label) for label in labels)
    return Question(name, (field,), QuestionKind.SINGLE_CHOICE, definitions)


SENTIMENT = question("sentiment", "Positive", "Negative")
TOPIC = question("topic", "Sport", "Politics", "Music")
SCHEMA = TaskSchema((SENTIMENT,), headers=("What does the reviewer think?",))


def example(number: int, text: str) -> Example:
    return Example(number, {"text": text})


def by_words(prompt: str) -> dict[str, float]:
    if "awful" in prompt:
        return {"positive": 0.1, "negative": 0.3}
    return {"positive": 0.3, "negative": 0.1}


@pytest.fixture
def model() -> FakeLanguageModel:
    return FakeLanguageModel(by_words)


def annotate(model, texts, schema=SCHEMA, **settings):
    examples = [example(number, text) for number, text in enumerate(texts)]
    return LLMAnnotator(model).annotate(schema, "", examples, **settings)


def reasons(weak_labels):
    return [weak.abstention and weak.abstention.reason for weak in weak_labels]


def test_each_example_gets_a_posterior_in_the_order_of_the_labels(model):
    good, bad = annotate(model, ["a good film", "an awful film"])
    assert (good.example_id, good.question) == (0, "sentiment")
    assert good.probabilities == pytest.approx((0.75, 0.25))
    assert bad.probabilities == pytest.approx((0.25, 0.75))
    assert good.label_mass == pytest.approx(0.4)
    assert good.annotator == "llm:fake"
    assert good.prompt_version == "choice/plain-options/1"
    assert (good.n_tokens_in > 0, good.n_tokens_out, good.is_truncated) == (True, 1, False)


def test_all_examples_of_a_question_go_out_in_one_call(model):
    annotate(model, ["one", "two", "three"])
    assert [len(what) for call, what in model.calls if call == "complete"] == [3]


def test_several_questions_are_answered_example_by_example(model):
    schema = TaskSchema((SENTIMENT, TOPIC))
    weak_labels = annotate(model, ["one", "two"], schema)
    assert [(weak.example_id, weak.question) for weak in weak_labels] == [
        (0, "sentiment"),
        (0, "topic"),
        (1, "sentiment"),
        (1, "topic"),
    ]
    assert [len(weak.probabilities) for weak in weak_labels] == [2, 3, 2, 3]


def test_nothing_to_do_asks_nothing(model):
    assert annotate(model, []) == []
    assert annotate(model, ["x"], TaskSchema(())) == []
    assert model.calls == []


def test_answer_words_are_read_once_per_model_and_question(model):
    annotator = LLMAnnotator(model)
    annotator.annotate(SCHEMA, "", [example(1, "one")])
    model.calls.clear()
    annotator.annotate(SCHEMA, "", [example(2, "two")])
    assert [call for call, _ in model.calls] == ["describe", "complete"]
    model.name = "another"
    annotator.annotate(SCHEMA, "", [example(3, "three")])
    assert "tokenize" in [call for call, _ in model.calls]


def test_instruction_headers_and_text_reach_the_prompt(model):
    examples = [example(1, "a good film")]
    LLMAnnotator(model).annotate(SCHEMA, "<p>Be <b>strict</b>.</p>", examples)
    (prompt,) = model.prompts
    assert "Be strict." in prompt
    assert "What does the reviewer think?" in prompt
    assert prompt.endswith('Text: "a good film"\nSentiment:')


def test_examples_without_a_text_abstain_with_their_reason_and_cost_nothing(model):
    remote = Abstention(AbstentionReason.REMOTE_TEXT, "host not allowed")
    examples = [
        Example(1, {}, {"text": remote}),
        Example(2, {}),
        example(3, " \n\t\x00"),
        example(4, "a good film"),
    ]
    weak_labels = LLMAnnotator(model).annotate(SCHEMA, "", examples)
    assert reasons(weak_labels) == [
        AbstentionReason.REMOTE_TEXT,
        AbstentionReason.NO_TEXT,
        AbstentionReason.NO_TEXT,
        None,
    ]
    assert weak_labels[0].abstention is remote
    assert len(model.prompts) == 1


def test_only_texts_that_could_be_too_long_are_tokenized(model):
    weak_labels = annotate(model, ["short", "word " * 500, "brief"])
    assert [weak.is_truncated for weak in weak_labels] == [False, True, False]
    assert reasons(weak_labels) == [None] * 3
    assert len([call for call, _ in model.calls if call == "truncate"]) == 1


def test_a_long_text_that_fits_after_all_is_not_called_truncated(model):
    (weak,) = annotate(model, ["extraordinarily " * 30])
    assert weak.abstention is None
    assert not weak.is_truncated


def test_a_text_of_many_bytes_and_few_characters_is_tokenized_too(model):
    annotate(model, ["\N{SNOWMAN}" * 100])
    assert "truncate" in [call for call, _ in model.calls]


def test_a_prompt_that_fills_the_context_alone_is_rejected_with_a_remedy(model):
    model.n_context_tokens = 30
    (weak,) = annotate(model, ["word " * 100])
    assert weak.abstention.reason is AbstentionReason.REJECTED
    assert "shorten" in weak.abstention.detail


def test_a_refused_prompt_is_rejected_alone(model):
    model.refuses = lambda prompt: "not today" if "bad luck" in prompt else None
    weak_labels = annotate(model, ["good", "bad luck", "fine"])
    assert reasons(weak_labels) == [None, AbstentionReason.REJECTED, None]
    assert weak_labels[1].abstention.detail == "not today"


def test_a_lost_answer_is_unreachable_alone(model):
    model.loses = lambda prompt: "connection broke" if "lost" in prompt else None
    assert reasons(annotate(model, ["good", "lost"])) == [None, AbstentionReason.UNREACHABLE]


def test_what_has_no_answer_by_the_deadline_is_unreachable(model):
    model.seconds_per_prompt = 1.0
    weak_labels = annotate(model, ["one", "two", "three"], deadline_s=2.5)
    assert reasons(weak_labels) == [None, None, AbstentionReason.UNREACHABLE]


def test_a_deadline_is_shared_by_all_questions(model):
    model.seconds_per_prompt = 0.0
    annotate(model, ["one"], TaskSchema((SENTIMENT, TOPIC)), deadline_s=60.0)
    started_at = time.monotonic()
    annotate(model, ["one"], TaskSchema((SENTIMENT, TOPIC)), deadline_s=0.0)
    assert time.monotonic() - started_at < 1


def test_numbers_that_say_nothing_are_an_abstention_that_may_pass(model):
    model.n_top_logprobs = 5
    model.thinks = lambda prompt: {"hello": 0.5}
    (weak,) = annotate(model, ["one"])
    assert weak.abstention.reason is AbstentionReason.UNREADABLE
    assert weak.abstention.reason.is_transient
    assert weak.n_tokens_in > 0


def test_likeliest_tokens_serve_where_named_ones_cannot_be_asked(model):
    model.n_top_logprobs = 5
    (weak,) = annotate(model, ["one"])
    assert weak.probabilities == pytest.approx((0.75, 0.25))


def test_too_many_labels_that_begin_alike_abstain_and_the_other_questions_go_on(model):
    crowd = question("crowd", *(f"no {number}" for number in range(60)))
    weak_labels = annotate(model, ["one"], TaskSchema((crowd, SENTIMENT)))
    assert reasons(weak_labels) == [AbstentionReason.REJECTED, None]
    assert "60 labels" in weak_labels[0].abstention.detail


@pytest.mark.parametrize(
    "error", [LanguageModelUnavailable("down"), LanguageModelRejected("set LLM_API_KEY")]
)
def test_a_model_that_fails_altogether_is_an_error(model, error):
    model.failure = error
    with pytest.raises(type(error)):
        annotate(model, ["one"])


def test_a_question_that_fails_leaves_the_others_their_answers(model):
    honest = model.complete

    def failing(prompts, decoding, **rest):
        if "Topic:" in prompts[0]:
            raise LanguageModelUnavailable("went down")
        return honest(prompts, decoding, **rest)

    model.complete = failing
    weak_labels = annotate(model, ["one"], TaskSchema((SENTIMENT, TOPIC)))
    assert reasons(weak_labels) == [None, AbstentionReason.UNREACHABLE]


def test_a_tokenizer_that_fails_costs_the_long_texts_only(model):
    annotator = LLMAnnotator(model)
    annotator.annotate(SCHEMA, "", [example(0, "warm up")])
    asked = []

    def failing(text, n_tokens, **rest):
        asked.append(text)
        raise LanguageModelUnavailable("hangs")

    model.truncate = failing
    texts = ["word " * 500, "short", "word " * 501]
    weak_labels = annotator.annotate(SCHEMA, "", [example(i, t) for i, t in enumerate(texts)])
    unreachable = AbstentionReason.UNREACHABLE
    assert reasons(weak_labels) == [unreachable, None, unreachable]
    assert len(asked) == 1


def test_a_text_that_the_tokenizer_refuses_is_rejected(model):
    def refusing(text, n_tokens, **rest):
        raise LanguageModelRejected("no such character")

    model.truncate = refusing
    weak_labels = annotate(model, ["word " * 500, "short"])
    assert reasons(weak_labels) == [AbstentionReason.REJECTED, None]


def test_questions_over_another_field_read_that_field(model):
    title = question("tone", "Calm", "Angry", field=TextField("title", "title"))
    examples = [Example(1, {"text": "body", "title": "heading"})]
    LLMAnnotator(model).annotate(TaskSchema((SENTIMENT, title)), "", examples)
    first, second = model.prompts
    assert 'Text: "body"\n' in first
    assert 'Title: "heading"\nTone:' in second


def test_an_answer_that_cannot_be_read_is_dropped_and_shown_masked(model):
    model.n_top_logprobs = 0
    model.thinks = lambda prompt: {"<html>502 Bad gateway of Ann</html>": 0.9}
    dropped = []
    annotator = LLMAnnotator(model, discard=dropped.extend)
    (weak,) = annotator.annotate(SCHEMA, "", [example(1, "nice")])
    assert weak.abstention.reason is AbstentionReason.UNREADABLE
    assert weak.abstention.detail.endswith(": <xxxx>000 xxx xxxxxxx xx xxx</xxxx>")
    assert [completion.text for completion in dropped] == ["<html>502 Bad gateway of Ann</html>"]


def test_answers_that_can_be_read_are_kept(model):
    dropped = []
    LLMAnnotator(model, discard=dropped.extend).annotate(SCHEMA, "", [example(1, "nice")])
    assert dropped == []
