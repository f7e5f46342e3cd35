"""Long texts are cut where sentences end, and spans are put back in their place."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from backend.domain.labels import Span
from backend.domain.span_student import SpanTrainingSet
from backend.self_training.text_pieces import TextPieces


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return AutoTokenizer.from_pretrained(tiny_base)


def test_short_and_empty_texts_stay_whole(tokenizer):
    pieces = TextPieces.cut(["", "a film", "b"], tokenizer, 8)
    assert pieces.texts == ("", "a film", "b")
    assert pieces.rows.tolist() == [0, 1, 2]


def test_pieces_fit_and_end_with_sentences_or_words(tokenizer):
    text = "one two three. four five six seven. eight nine ten eleven twelve thirteen"
    pieces = TextPieces.cut([text], tokenizer, 8)
    assert "".join(pieces.texts) == text
    assert pieces.texts[0] == "one two three. "
    assert all(len(tokenizer(piece)["input_ids"]) <= 8 for piece in pieces.texts)
    assert all(not piece[0].isspace() for piece in pieces.texts)


def test_a_text_without_any_blank_is_cut_between_two_tokens(tokenizer):
    text = "x.y" * 40
    pieces = TextPieces.cut([text], tokenizer, 10)
    assert "".join(pieces.texts) == text
    assert len(pieces.texts) > 3


def test_spans_go_into_their_piece_and_back(tokenizer):
    text = "one two three. four five six seven. eight nine ten eleven twelve thirteen"
    spans = (Span(4, 7, "a"), Span(text.index("ten"), text.index("ten") + 3, "b", 0.7))
    data = SpanTrainingSet((5, 6), (text, "b"), ("a", "b"), (spans, None), np.array([True, False]))
    pieces = TextPieces.cut(data.texts, tokenizer, 8)
    cut = pieces.of(data)
    assert cut.is_human.tolist() == [True] * (len(cut.texts) - 1) + [False]
    assert cut.spans[-1] is None
    named = [
        p[s.start : s.end] for p, own in zip(cut.texts, cut.spans, strict=True) for s in own or ()
    ]
    assert named == ["two", "ten"]
    assert pieces.joined([own or () for own in cut.spans]) == (spans, ())
    assert pieces.least(np.linspace(0.9, 0.2, len(cut.texts))).tolist() == pytest.approx(
        [np.linspace(0.9, 0.2, len(cut.texts))[-2], 0.2]
    )
