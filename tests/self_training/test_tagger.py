"""Spans: words tagged, spans read off, learned from spans that miss some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from transformers import pipeline

from backend.domain.labels import Span
from backend.domain.span_student import SpanTrainingSet
from backend.domain.student import PLAIN, Recipe, TrainingHooks
from backend.errors import InvalidRequest, TrainingCancelled
from backend.self_training.classifier import TextClassifier
from backend.self_training.tagger import SpanTagger, TaggerSpec, Words, tag_words
from backend.self_training.tagger_training import SpanTrainer
from tests.self_training.conftest import BAD, GOOD, reviews

LABELS = ("praise", "blame")
FAST = {"n_epochs": 12, "batch_size": 16, "learning_rate": 5e-3, "max_tokens": 32}
RECIPE = Recipe(**FAST)


def spans_in(text: str) -> tuple[Span, ...]:
    found, at = [], 0
    for word in text.split(" "):
        if word in GOOD or word in BAD:
            found.append(Span(at, at + len(word), LABELS[word in BAD]))
        at += len(word) + 1
    return tuple(found)


def span_set(n: int) -> SpanTrainingSet:
    texts, _ = reviews(n)
    return SpanTrainingSet(
        tuple(range(n)),
        texts,
        LABELS,
        tuple(spans_in(text) for text in texts),
        np.zeros(n, dtype=bool),
    )


def places(spans):
    return [(span.start, span.end, span.label) for span in spans]


def test_a_words_tag_marks_whether_it_begins_a_span():
    words = Words(np.array([1, 2, 3]), np.array([[0, 3], [4, 8], [9, 12]]))
    spans = (Span(4, 12, "blame"), Span(0, 2, "unknown"))
    assert tag_words(words, spans, LABELS).tolist() == [0, 3, 4]
    assert tag_words(words, (Span(5, 6, "praise"),), LABELS).tolist() == [0, 1, 0]


def test_spans_are_read_off_tags(tiny_base):
    tagger = SpanTagger.create(TaggerSpec(LABELS, tiny_base), seed=0)
    words = Words(np.arange(4), np.array([[0, 1], [2, 3], [4, 5], [6, 7]]))
    tags = np.eye(5)[[1, 2, 1, 4]] * 0.8 + 0.04
    spans = tagger.decode(words, tags)
    assert places(spans) == [(0, 3, "praise"), (4, 5, "praise"), (6, 7, "blame")]
    assert spans[0].probability == pytest.approx(0.88)
    assert tagger.decode(Words(np.zeros(0, int), np.zeros((0, 2), int)), np.zeros((0, 5))) == ()


@pytest.mark.slow
def test_a_tagger_learns_spans_although_some_are_missing(tiny_base):
    data = span_set(200)
    gold = data.spans
    missing = tuple(() if row < 20 else spans for row, spans in enumerate(gold))
    _, output = SpanTrainer(tiny_base, recipe=RECIPE).fit(replace(data, spans=missing))
    right = [
        places(ours) == places(theirs) for ours, theirs in zip(output.predicted, gold, strict=True)
    ]
    assert np.mean(right) > 0.8
    assert (output.label_issues[:20] < 20).mean() > 0.7


def test_spans_by_people_are_kept_and_unlabelled_texts_answered(tiny_base):
    data = span_set(60)
    is_human = np.arange(60) < 10
    spans = tuple(None if row >= 50 else each for row, each in enumerate(data.spans))
    data = replace(data, spans=spans, is_human=is_human)
    _, output = SpanTrainer(tiny_base, recipe=RECIPE).fit(data)
    assert len(output.predicted) == 60
    assert set(output.label_issues) == set(range(50))
    assert (output.label_quality_score[50:] == 0.5).all()
    assert output.label_quality_score[:10].min() > 0.99


def test_texts_without_any_words_or_spans_are_read(tiny_base):
    data = SpanTrainingSet(
        (1, 2, 3), ("", "good " * 500, "the film"), LABELS, ((), (), ()), np.zeros(3, dtype=bool)
    )
    tagger, output = SpanTrainer(tiny_base, recipe=replace(RECIPE, n_epochs=1)).fit(data)
    assert np.isfinite(output.label_quality_score).all()
    assert tagger.predict([]) == []


def test_a_pool_without_any_label_is_refused():
    with pytest.raises(InvalidRequest, match="no text has spans"):
        SpanTrainingSet((1,), ("a",), LABELS, (None,), np.zeros(1, dtype=bool))


def test_a_tagger_stops_between_two_batches(tiny_base):
    seen = []
    hooks = TrainingHooks(on_progress=seen.append, should_stop=lambda: len(seen) >= 2)
    with pytest.raises(TrainingCancelled):
        SpanTrainer(tiny_base, recipe=RECIPE).fit(span_set(60), hooks=hooks)
    assert len(seen) == 2


def test_a_saved_tagger_predicts_the_same_here_and_in_a_plain_pipeline(tiny_base, folder):
    plain = replace(PLAIN, **FAST)
    data = span_set(100)
    tagger, _ = SpanTrainer(tiny_base, recipe=plain).fit(data)
    tagger.save(folder, card={"Data": "100 texts"})
    texts = list(data.texts[:5])
    expected = [places(spans) for spans in tagger.predict(texts)]
    assert [places(spans) for spans in SpanTagger.load(folder).predict(texts)] == expected
    find = pipeline("token-classification", model=str(folder), aggregation_strategy="first")
    theirs = [[(e["start"], e["end"], e["entity_group"]) for e in each] for each in find(texts)]
    assert theirs == expected
    with pytest.raises(InvalidRequest, match="no student of this project: 'kind'"):
        TextClassifier.load(folder)


def test_a_long_text_is_learned_and_read_in_pieces(tiny_base):
    data = span_set(60)
    n_long = 40
    long = " ".join(data.texts[:n_long])
    starts = np.cumsum([0, *(len(text) + 1 for text in data.texts[:n_long])])
    spans = tuple(
        replace(span, start=span.start + int(at), end=span.end + int(at))
        for at, each in zip(starts, data.spans[:n_long], strict=False)
        for span in each
    )
    joined = SpanTrainingSet(
        (1, 2, *range(3, 63)),
        (long, long, *data.texts),
        LABELS,
        (spans, None, *data.spans),
        np.zeros(62, dtype=bool),
    )
    tagger, output = SpanTrainer(tiny_base, recipe=RECIPE).fit(joined)
    assert len(output.predicted) == len(output.cross_fitted) == 62
    assert output.predicted[0] == output.predicted[1]
    assert output.predicted[0][-1].end > len(long) // 2
    assert all(long[s.start : s.end] in (*GOOD, *BAD) for s in output.predicted[0])
    assert tagger.predict([long]) == [output.predicted[0]]
    assert 0 < output.label_quality_score[0] <= 1
