"""The prompt that asks for spans says what counts, what form an answer has, and how none looks."""

from __future__ import annotations

import pytest

from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.llm.prompts.extraction import extraction_prompt
from backend.llm.span_answers import MAX_REQUIRED_LABELS, SpanFormat

FIELDS = (TextField("sentence", "s"), TextField("sourceNote", "n"))
LABELS = (LabelDefinition("P", "Person", "the name of a\nperson"), LabelDefinition("L", "Place"))


def prompt_for(labels=LABELS, *, is_chat):
    question = Question("entity", FIELDS, QuestionKind.SPANS, labels)
    schema = TaskSchema((question,), headers=("Mark the names.",))
    return extraction_prompt(
        schema, question, "Be <b>strict</b>.", SpanFormat(question), is_chat=is_chat
    )


RULES = (
    "Be strict.\nMark the names.\nTypes:\n- Person: the name of a person\n- Place\n\n"
    "List every entity of each type in the sentence, copied word for word. A type that is not in "
    "the sentence has an empty list. Answer as JSON, with the lists filled: "
    '{"Person":[],"Place":[]}'
)
SHOT = ({"sentence": "Ida spoke."}, '{"Person":["Ida"],"Place":[]}')


def test_a_chat_has_its_rules_once_and_demonstrations_as_turns():
    asked = prompt_for(is_chat=True).fill({"sentence": "Eva left.", "sourceNote": "x"}, [SHOT])
    assert "JSON alone" in asked.system
    assert asked.turns == (
        f'{RULES}\n\nSentence: "Ida spoke."',
        '{"Person":["Ida"],"Place":[]}',
        'Sentence: "Eva left."\nSource note: "x"',
    )


def test_a_text_to_complete_ends_where_the_answer_begins():
    prompt = prompt_for(is_chat=False)
    assert prompt.fill({"sentence": "Eva left."}, [SHOT]) == (
        f'{RULES}\n\nSentence: "Ida spoke."\nEntity in JSON: {SHOT[1]}'
        '\n\nSentence: "Eva left."\nEntity in JSON:'
    )


@pytest.mark.parametrize("is_chat", [True, False])
def test_with_many_labels_the_form_shows_one(is_chat):
    labels = tuple(LabelDefinition(f"L{at}", f"L{at}") for at in range(MAX_REQUIRED_LABELS + 1))
    rules = prompt_for(labels, is_chat=is_chat).rules
    assert rules.endswith('without any the answer is {}. Answer as JSON, such as: {"L0":["..."]}')


def test_the_version_tells_how_it_was_asked():
    chat, plain = (prompt_for(is_chat=is_chat) for is_chat in (True, False))
    assert chat.version(is_checked=True) == "spans/chat-json-check/2"
    assert plain.version(is_checked=False) == "spans/plain-json/2"
