"""Answer words, and posteriors from completions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.labels import Abstention, AbstentionReason
from backend.domain.ports import Completion
from backend.domain.questions import LabelDefinition
from backend.errors import UnsupportedLabelConfig
from backend.llm.prompts.verbalizer import (
    OPTION_LETTERS,
    build_verbalizer,
    read_posterior,
)


def labels(*names: str) -> list[LabelDefinition]:
    return [LabelDefinition(value=name, name=name) for name in names]


class Tokenizer:
    """Splits at hyphens; numbers tokens in the order of their first sight."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __call__(self, text: str) -> list[int]:
        return [self.ids.setdefault(part, len(self.ids)) for part in text.split("-") if part]


def test_names_that_begin_differently_are_the_answers():
    tokenize = Tokenizer()
    words = build_verbalizer(labels("Positive", "Very  Negative"), tokenize)
    assert words.words == ("positive", "very negative")
    assert words.token_ids == (tokenize(" positive")[0], tokenize(" very negative")[0])
    assert not words.are_letters


def test_names_that_begin_alike_become_option_letters():
    tokenize = Tokenizer()
    words = build_verbalizer(labels("non-fiction", "non-toxic", "fun"), tokenize)
    assert words.words == ("A", "B", "C")
    assert words.token_ids == tuple(tokenize(" " + letter)[0] for letter in "ABC")
    assert words.are_letters


def test_names_without_tokens_become_option_letters_too():
    words = build_verbalizer(labels("a", "b"), lambda t: [ord(t[-1])] if t[-1].isupper() else [])
    assert words.are_letters


def test_letters_that_are_no_single_tokens_or_the_same_one_are_passed_over():
    def tokenize(text: str) -> list[int]:
        if text == " B":
            return [1, 2]
        return [65] if text in (" A", " C") else [ord(text[-1])] if len(text) == 2 else [0]

    assert build_verbalizer(labels("one", "two"), tokenize).words == ("A", "D")


def test_more_labels_than_letters_are_refused_with_a_remedy():
    many = labels(*(f"x-{number}" for number in range(len(OPTION_LETTERS) + 1)))
    with pytest.raises(
        UnsupportedLabelConfig, match=f"53 labels.*at most {len(OPTION_LETTERS)}.*Use fewer"
    ):
        build_verbalizer(many, Tokenizer())


def test_as_many_labels_as_letters_are_told_apart():
    words = build_verbalizer(labels(*(f"x-{n}" for n in range(len(OPTION_LETTERS)))), Tokenizer())
    assert len(set(words.token_ids)) == len(OPTION_LETTERS)


def test_a_posterior_is_the_softmax_over_the_labels():
    completion = Completion(logprobs={5: math.log(0.3), 6: math.log(0.1), 7: math.log(0.5)})
    posterior = read_posterior(completion, (6, 5))
    assert posterior["probabilities"] == pytest.approx((0.25, 0.75))
    assert posterior["label_mass"] == pytest.approx(0.4)


def test_very_small_probabilities_keep_their_ratio():
    completion = Completion(logprobs={1: -20.0, 2: -21.0, 3: -800.0})
    posterior = read_posterior(completion, (1, 2, 3))
    assert posterior["probabilities"] == pytest.approx((0.7310586, 0.2689414, 0.0))


def test_a_label_that_was_not_reported_is_less_likely_than_all_that_were():
    completion = Completion(logprobs={5: -0.5, 8: -3.0, 9: -4.0})
    posterior = read_posterior(completion, (5, 6))
    assert posterior["probabilities"] == pytest.approx(
        (1 / (1 + math.exp(-4.5)), 0.0109869), abs=1e-6
    )
    assert posterior["label_mass"] == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {9: -0.1}, {5: math.nan}, {5: math.inf, 6: math.nan}, {5: 3.0}, {5: 1e300}],
    ids=str,
)
def test_no_usable_number_is_an_abstention(logprobs):
    read = read_posterior(Completion(text="positive", logprobs=logprobs), (5, 6))
    assert isinstance(read, Abstention)
    assert read.reason is AbstentionReason.UNREADABLE


def test_masked_tokens_are_no_answer():
    read = read_posterior(Completion(logprobs={5: -9999.0, 6: -9999.0}), (5, 6))
    assert isinstance(read, Abstention)


def test_no_answer_at_all_is_an_abstention():
    assert isinstance(read_posterior(Completion(failure="lost"), (5, 6)), Abstention)


@given(
    st.dictionaries(st.integers(0, 6), st.floats(allow_nan=True, allow_infinity=True)),
    st.integers(1, 6),
)
def test_reading_never_fails_and_a_posterior_sums_to_one(logprobs, n_labels):
    read = read_posterior(Completion(logprobs=logprobs), range(n_labels))
    if not isinstance(read, Abstention):
        assert len(read["probabilities"]) == n_labels
        assert math.fsum(read["probabilities"]) == pytest.approx(1.0)
        assert all(0.0 <= probability <= 1.0 for probability in read["probabilities"])
        assert 0.0 < read["label_mass"] <= 1.0


@given(st.lists(st.floats(-30, 0), min_size=2, max_size=8), st.floats(-10, 0))
def test_only_the_differences_between_labels_count(values, shift):
    plain = read_posterior(Completion(logprobs=dict(enumerate(values))), range(len(values)))
    moved = read_posterior(
        Completion(logprobs={i: v + shift for i, v in enumerate(values)}), range(len(values))
    )
    if not isinstance(plain, Abstention) and not isinstance(moved, Abstention):
        assert moved["probabilities"] == pytest.approx(plain["probabilities"], abs=1e-9)
