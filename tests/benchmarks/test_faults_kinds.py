"""The projects of the fault benchmark: their annotations, their scripted LLMs and cache keys."""

from __future__ import annotations

import json
from contextlib import closing
from typing import get_args, get_type_hints

import numpy as np
import pytest
from transformers import AutoTokenizer

from backend.domain.labels import Example, Span, WeakLabel
from backend.domain.questions import QuestionKind
from backend.domain.span_student import SpanTrainingSet
from backend.labelstudio.label_config.reader import LabelConfigReader
from backend.llm.annotator import LLMAnnotator
from backend.llm.client.cache import CachedLanguageModel
from backend.llm.client.server import LLMClient
from backend.llm.span_answers import SpanFormat
from backend.self_training.encoder_files import embedded_encoder_folder
from backend.self_training.tagger import SpanTagger, TaggerSpec
from backend.self_training.tagger_training import SpanTrainer
from backend.store.database import Database
from backend.store.llm_cache import LLMCache
from benchmarks.__main__ import faults
from benchmarks.faults.case_run import stored_keys, weak_answer
from benchmarks.faults.llm_proxy import LLMProxy
from benchmarks.faults.project_kinds import KINDS, answer_of
from tests.llm_server import prompts_in

N_TEXTS = 60
READER = LabelConfigReader(lambda url, _: url)
SPANS = KINDS["spans"]
(QUESTION,) = READER.read_schema(SPANS.config).questions


def gold(each):
    """Return a text's pieces by its annotation."""
    values = [region["value"] for region in each.gold]
    return {(value["start"], value["end"], *value["labels"]) for value in values}


def pieces(label):
    return {(span.start, span.end, span.label) for span in label.spans}


def test_the_command_offers_the_kinds():
    option = get_type_hints(faults, include_extras=False)["question"]
    assert get_args(option) == tuple(KINDS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_annotations_answer_the_question_rightly_and_changed_ones_otherwise(kind):
    schema = READER.read_schema(kind.config)
    texts = kind.texts(N_TEXTS)
    assert len({each.text for each in texts}) == N_TEXTS
    for each in texts:
        other = kind.altered(each.gold)
        right, wrong = READER.read_answers(schema, each.gold), READER.read_answers(schema, other)
        assert list(right) == list(wrong) == [schema.questions[0].name]
        assert right != wrong
        assert answer_of(each.gold) != answer_of(other)
        assert answer_of(kind.altered(other)) == answer_of(each.gold)


def test_an_answer_has_one_writing_whatever_the_order_and_the_ids_of_its_regions():
    note = next(each for each in SPANS.texts(N_TEXTS) if len(each.gold) == 2)
    stored = [{**region, "id": f"x{at}"} for at, region in enumerate(reversed(note.gold))]
    assert answer_of(stored) == answer_of(note.gold)
    assert len(set(answer_of([*note.gold, *note.gold]))) == 2


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ({"spans": (Span(0, 3, "Person", 0.8),), "confidence": 0.5}, [0.5, [0, 3, "Person", 0.8]]),
        ({"spans": ()}, [None]),
        ({"probabilities": (0.25, 0.75)}, [0.25, 0.75]),
    ],
)
def test_a_weak_answer_is_compared_with_its_probabilities(label, expected):
    assert json.loads(json.dumps(weak_answer(WeakLabel(1, "names", "llm", **label)))) == expected


class Labeled:
    def __init__(self, llm, proxy, client, database, texts):
        self.llm, self.proxy, self.client, self.texts = llm, proxy, client, texts
        self.cache = LLMCache(database)
        self.cached = CachedLanguageModel(client, self.cache)

    def labels(self, model):
        schema = READER.read_schema(SPANS.config)
        examples = [Example(at, {"text": each.text}) for at, each in enumerate(self.texts)]
        return LLMAnnotator(model).annotate(schema, "", examples)


@pytest.fixture
def labeled(tmp_path):
    """Weak labels by the scripted LLM through proxy and cache, with the means to ask again."""
    texts = SPANS.texts(N_TEXTS)
    database = Database(f"sqlite:///{tmp_path / 'freeal.db'}")
    database.migrate()
    recording = tmp_path / "answers.json"
    with (
        closing(SPANS.scripted_llm(texts)) as llm,
        closing(LLMProxy(port=0, recording=recording, label_config=SPANS.config)) as proxy,
        closing(database),
    ):
        proxy.upstream = llm.url
        proxy.reset(tmp_path / "freeal.db")
        with closing(LLMClient(proxy.base_url)) as client:
            yield Labeled(llm, proxy, client, database, texts)


def test_the_scripted_llm_lists_pieces_of_which_some_are_wrong(labeled):
    assert QUESTION.kind is QuestionKind.SPANS
    labels = labeled.labels(labeled.cached)
    assert all(label.abstention is None for label in labels)
    is_right = [
        pieces(label) == gold(each) for label, each in zip(labels, labeled.texts, strict=True)
    ]
    assert 0.65 < sum(is_right) / N_TEXTS < 0.95
    found = set().union(*({label for *_, label in pieces(one)} for one in labels))
    assert found == {"Person", "Place"}
    assert any(pieces(one) - gold(each) for one, each in zip(labels, labeled.texts, strict=True))
    assert any(gold(each) - pieces(one) for one, each in zip(labels, labeled.texts, strict=True))
    assert all(0.7 <= span.probability < 1 for label in labels for span in label.spans)
    assert list(map(pieces, labels)) == list(map(pieces, labeled.labels(labeled.cached)))


def test_its_answers_are_held_to_the_grammar_and_parse(labeled):
    labeled.labels(labeled.cached)
    form = SpanFormat(QUESTION)
    listed = [
        labeled.llm.choice("chat", body, at)["message"]["content"]
        for _, body in labeled.llm.requests
        if "grammar" in body.get("structured_outputs", {})
        for at, prompt in enumerate(prompts_in(body))
        if labeled.llm.text_in(prompt)
    ]
    assert len(listed) == N_TEXTS
    assert all(set(json.loads(answer)) == set(form.names) for answer in listed)
    assert all(form.parse(answer) is not None for answer in listed)


def test_the_proxy_knows_the_key_of_each_stored_answer_about_spans(labeled, tmp_path):
    labeled.labels(labeled.cached)
    n_prompts = labeled.proxy.n_prompts
    stored = stored_keys(tmp_path / "freeal.db")
    assert len(stored) > 2 * N_TEXTS
    assert stored <= labeled.proxy.keys
    assert labeled.proxy.n_paid_twice == 0
    labeled.labels(labeled.cached)
    assert labeled.proxy.n_prompts == n_prompts
    labeled.labels(labeled.client)
    assert labeled.proxy.n_paid_twice == len(stored)


def test_the_small_encoder_splits_texts_as_the_embedded_one_and_learns_in_seconds(tmp_path):
    texts = [each.text for each in SPANS.texts(N_TEXTS)]
    SPANS.save_encoder(tmp_path / "encoder", texts)
    small = SpanTagger.create(TaggerSpec(("Person", "Place"), str(tmp_path / "encoder")), seed=0)
    embedded = AutoTokenizer.from_pretrained(str(embedded_encoder_folder()))
    assert [small.tokenizer.tokenize(text) for text in texts] == [
        embedded.tokenize(text) for text in texts
    ]
    data = SpanTrainingSet(
        tuple(range(N_TEXTS)),
        tuple(texts),
        ("Person", "Place"),
        tuple(tuple(Span(*piece) for piece in sorted(gold(each))) for each in SPANS.texts(N_TEXTS)),
        np.zeros(N_TEXTS, dtype=bool),
    )
    _, output = SpanTrainer(str(tmp_path / "encoder")).fit(data)
    is_right = [
        {(s.start, s.end, s.label) for s in found} == {(s.start, s.end, s.label) for s in given}
        for found, given in zip(output.predicted, data.spans, strict=True)
    ]
    assert np.mean(is_right) > 0.9
