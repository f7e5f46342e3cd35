"""Demonstrations that the LLM writes, and near-duplicates."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Abstention, AbstentionReason, Example, WeakLabel
from backend.domain.ports import Completion
from backend.domain.questions import LabelDefinition, Question, QuestionKind, TaskSchema, TextField
from backend.llm.generation import (
    GenerationRequest,
    can_generate,
    generate_demonstrations,
    ngram_overlap,
)
from tests.fakes import FakeLanguageModel

QUESTION = Question(
    "sentiment",
    (TextField("review", "review"),),
    QuestionKind.SINGLE_CHOICE,
    (
        LabelDefinition("pos", "Positive", "the reviewer likes it"),
        LabelDefinition("neg", "Negative"),
    ),
)
SCHEMA = TaskSchema((QUESTION,), headers=("What does the reviewer think?",))
POOL = tuple(
    Example(at, {"review": text})
    for at, text in enumerate(
        ["it was a long evening", "we saw it on a Monday", "two hours in the dark", "so it went"]
    )
)


class WritingModel(FakeLanguageModel):
    """Writes what a function of the prompt says."""

    def __init__(self, writes):
        super().__init__(n_context_tokens=2000)
        self.writes = writes
        self.decodings = []

    def complete(self, prompts, decoding, *, deadline_s=None):
        self.decodings.append(decoding)
        completions = super().complete(prompts, decoding, deadline_s=deadline_s)
        said = [self.writes(prompt) for prompt in prompts]
        return [
            text if isinstance(text, Completion) else replace(completion, text=text)
            for completion, text in zip(completions, said, strict=True)
        ]


class WordAnnotator:
    """Gives "pos" `likely` if a text says "good", else 1 - `likely`; `shift` leans it to "pos"."""

    def __init__(self, *, likely=0.9, shift=0.0):
        self.likely, self.shift = likely, shift

    def annotate(self, schema, instruction, examples, *, prompt_context=None, deadline_s=None):
        return [self.label(schema.questions[0], example) for example in examples]

    def label(self, question, example):
        text = " ".join(example.texts.values())
        base = WeakLabel(example.id, question.name, "fake", "1", text="")
        if "odd" in text:
            lost = Abstention(AbstentionReason.UNREADABLE)
            return replace(base, text=None, abstention=lost)
        p = (self.likely if "good" in text else 1 - self.likely) + self.shift
        return replace(base, text=None, probabilities=(p, 1 - p))


def generate(writes, *, annotator=None, n_per_class=3, examples=POOL, question=QUESTION, seed=0):
    model = WritingModel(writes)
    request = GenerationRequest(
        replace(SCHEMA, questions=(question,)), question, "Be fair.", examples, n_per_class
    )
    generated = generate_demonstrations(
        model, annotator or WordAnnotator(), request, rng=np.random.default_rng(seed)
    )
    return generated, model


def labels_of(generated):
    return [one.answer.labels[0] for one in generated.demonstrations]


def different(*tones):
    """Write each of the tones in turn, with words that no two texts share."""
    numbers = itertools.count()

    def write(prompt):
        at = next(numbers)
        return f"{tones[at % len(tones)]} w{at} x{at} y{at} z{at}"

    return write


def by_label():
    """Write a new text each time that has the tone of the label."""
    numbers = itertools.count()

    def write(prompt):
        at = next(numbers)
        tone = "good" if "Sentiment: Positive" in prompt else "bad"
        return f'{tone} v{at} w{at} x{at} y{at} z{at}" and more'

    return write


def test_each_label_gets_as_many_texts_as_asked_for():
    generated, model = generate(by_label())
    assert sorted(labels_of(generated)) == ["neg"] * 3 + ["pos"] * 3
    assert all(one.source == "generated" for one in generated.demonstrations)
    assert all(one.example_id is None for one in generated.demonstrations)
    assert "and more" not in generated.demonstrations[0].texts["review"]
    assert generated.counts["n_kept"] == 6
    assert generated.counts["n_asked"] == len(model.prompts) == 12


def test_a_prompt_shows_the_style_and_asks_for_one_label():
    _, model = generate(by_label())
    prompt = model.prompts[0]
    assert prompt.startswith("Be fair.\nWhat does the reviewer think?\n")
    assert prompt.count('Review: "') == len(POOL) + 1
    assert prompt.endswith('Sentiment: Positive (the reviewer likes it)\nReview: "')
    asked = [one.count("Sentiment: Positive") for one in model.prompts]
    assert sum(asked) == len(asked) / 2


def test_every_outcome_is_counted():
    outcomes = [
        "good a b c d e f",
        "good a b c d e f",
        "",
        "it was a long evening",
        "bad n o p q r",
    ]
    cycle = itertools.cycle(outcomes)
    generated, _ = generate(lambda prompt: next(cycle), n_per_class=2)
    counts = generated.counts
    parts = (
        counts["n_unreadable"]
        + counts["n_duplicates"]
        + counts["n_rejected"]
        + counts["n_surplus"]
        + counts["n_kept"]
    )
    assert parts == counts["n_asked"]
    assert counts["n_unreadable"] > 0
    assert counts["n_duplicates"] > 0
    assert counts["n_kept"] == len(generated.demonstrations) <= 2


def test_texts_that_the_annotator_labels_otherwise_are_rejected():
    generated, _ = generate(different("good"), n_per_class=2, annotator=WordAnnotator(shift=0.0))
    # every text says "good": over their mean, none is more "neg" than another
    assert "neg" not in labels_of(generated)
    assert generated.counts["n_rejected"] > 0


def test_the_posterior_of_a_biased_annotator_is_divided_by_its_mean():
    leaning = WordAnnotator(likely=0.6, shift=0.3)
    generated, _ = generate(by_label(), annotator=leaning)
    assert sorted(labels_of(generated)) == ["neg"] * 3 + ["pos"] * 3


def test_an_abstention_keeps_nothing():
    numbers = itertools.count()
    generated, _ = generate(lambda prompt: f"odd w{next(numbers)} x{next(numbers)}")
    assert generated.demonstrations == ()


def test_copies_of_pool_texts_and_pieces_of_them_are_dropped():
    copies = itertools.cycle(["we saw it on a monday", "saw it on a"])
    generated, _ = generate(lambda prompt: next(copies))
    assert generated.demonstrations == ()
    assert generated.counts["n_duplicates"] == generated.counts["n_asked"]


@pytest.mark.parametrize(
    "lost",
    [
        Completion(failure="lost"),
        Completion(text="good a b c", finish_reason="length"),
        Completion(text='" good'),
    ],
)
def test_what_is_no_whole_text_is_unreadable(lost):
    generated, _ = generate(lambda prompt: lost)
    assert generated.counts["n_unreadable"] == generated.counts["n_asked"] > 0


def test_the_same_seed_asks_the_same():
    (_, first), (_, second), (_, other) = (generate(by_label(), seed=seed) for seed in (1, 1, 2))
    assert first.prompts == second.prompts != other.prompts
    assert first.decodings == second.decodings
    assert first.decodings[0].temperature > 0


def test_without_a_text_to_learn_the_style_from_nothing_is_asked():
    generated, model = generate(by_label(), examples=[Example(1, {})])
    assert generated.demonstrations == ()
    assert model.prompts == []


def test_both_texts_of_a_pair_are_written():
    pair = replace(QUESTION, fields=(TextField("a", "a"), TextField("b", "b")))
    examples = [Example(at, {"a": f"left {at}", "b": f"right {at}"}) for at in range(4)]
    numbers = itertools.count()

    def write(prompt):
        tone = "good" if "Sentiment: Positive" in prompt else "bad"
        at = next(numbers)
        return f'{tone} q{at} r{at} s{at}"\nB: "t{at} u{at} v{at}"'

    generated, model = generate(write, question=pair, examples=examples)
    assert len(generated.demonstrations) == 6
    assert generated.demonstrations[0].texts["b"].startswith("t")
    assert model.decodings[0].stop == ("\n\n",)


def test_half_a_pair_is_unreadable():
    pair = replace(QUESTION, fields=(TextField("a", "a"), TextField("b", "b")))
    examples = [Example(1, {"a": "left", "b": "right"})]
    generated, _ = generate(lambda prompt: 'good a b c"', question=pair, examples=examples)
    assert generated.counts["n_unreadable"] == generated.counts["n_asked"]


def test_a_label_of_several_is_kept_when_it_is_likelier_than_not():
    several = replace(QUESTION, kind=QuestionKind.MULTIPLE_CHOICE)
    generated, _ = generate(by_label(), question=several)
    assert sorted(labels_of(generated)) == ["neg"] * 3 + ["pos"] * 3


@pytest.mark.parametrize("kind", [QuestionKind.SPANS, QuestionKind.FREE_TEXT])
def test_texts_are_written_for_whole_text_labels_only(kind):
    question = replace(QUESTION, kind=kind)
    assert not can_generate(question)
    with pytest.raises(ValueError, match=f"kind {kind}"):
        generate(by_label(), question=question)


def weak(example_id, *probabilities):
    if not probabilities:
        lost = Abstention(AbstentionReason.UNREADABLE)
        return WeakLabel(example_id, "sentiment", "fake", "1", abstention=lost)
    return WeakLabel(example_id, "sentiment", "fake", "1", probabilities=probabilities)


def units(n):
    angles = np.linspace(0, 3, n)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def test_shared_ngrams_are_counted_over_all_and_over_the_text_s_own():
    # "a good film" has 6 1- to 3-grams; "a good play" shares a, good, "a good"
    jaccard, containment = ngram_overlap(["a good film"], ["a good play", "A good film!"])
    assert jaccard[0].tolist() == pytest.approx([3 / 9, 1.0])
    assert containment[0].tolist() == pytest.approx([3 / 6, 1.0])


def test_a_piece_cut_out_of_a_text_is_contained_and_not_similar():
    jaccard, containment = ngram_overlap(
        ["good film"], ["a very good film that I saw twice this week"]
    )
    assert containment[0, 0] == 1.0
    assert jaccard[0, 0] < 0.2


@pytest.mark.parametrize(("n", "m"), [(0, 2), (2, 0)])
def test_no_texts_overlap_with_none(n, m):
    jaccard, containment = ngram_overlap(["x"] * n, ["x"] * m)
    assert jaccard.shape == containment.shape == (n, m)


@given(st.lists(st.text(), min_size=1, max_size=4), st.lists(st.text(), min_size=1, max_size=4))
def test_both_measures_lie_between_0_and_1(texts, others):
    for measure in ngram_overlap(texts, others):
        assert np.all((measure >= 0.0) & (measure <= 1.0))
