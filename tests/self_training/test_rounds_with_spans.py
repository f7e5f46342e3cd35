"""A round with the real tagger: it learns an annotator's spans, and aggregated ones are kept."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.rounds import RoundState
from backend.domain.student import Recipe
from backend.pipeline.rounds.context import artifacts
from backend.self_training.tagger import SpanTagger
from backend.self_training.tagger_training import SpanTrainer
from tests.pipeline.conftest import LARGE_CHUNK, House
from tests.self_training.conftest import GOOD, reviews

CONFIG = (
    '<View><Text name="text" value="$text"/><Labels name="parts" toName="text">'
    '<Label value="praise"/><Label value="blame"/></Labels></View>'
)
N_TEXTS = 80
RECIPE = Recipe(n_epochs=12, batch_size=16, learning_rate=5e-3, max_tokens=32)


@pytest.fixture
def house(stores, tmp_path, tiny_base) -> House:
    house = House(stores, folder=tmp_path, orders_queue=True, chunk=4 * LARGE_CHUNK)
    house.tagger = SpanTrainer(tiny_base, recipe=RECIPE)
    return house


def text_of(number: int) -> str:
    """Return a review whose praise is capitalized, which is what the annotator marks."""
    words = reviews(N_TEXTS)[0][number].split(" ")
    return " ".join(word.capitalize() if word in GOOD else word for word in words)


@pytest.mark.slow
def test_the_tagger_learns_and_its_spans_are_aggregated_with_the_llm_s(house, tmp_path):
    project_id = house.connected(N_TEXTS, CONFIG, text_of=text_of)
    house.round(project_id)
    (made,) = house.rounds.history(project_id)
    assert made.state is RoundState.RELEASED
    project = house.projects.get(project_id)
    question = house.guidelines.read(project).schema.questions[0]
    files = artifacts(tmp_path / project_id / "1", question)
    fused = files.read("fused-1")
    assert len(fused["ids"]) == N_TEXTS
    model = files.model(files.n_cycles)
    tagger = SpanTagger.load(model)
    found = tagger.predict([text_of(number) for number in range(N_TEXTS)])
    is_right = [
        [text_of(row)[s.start : s.end].lower() in GOOD and s.label == "praise" for s in spans]
        for row, spans in enumerate(found)
    ]
    assert np.mean([right for of_text in is_right for right in of_text]) > 0.8
    assert sum(map(len, is_right)) > 0.5 * N_TEXTS / 2
    card = (model / "README.md").read_text()
    assert "A span tagger for the question `parts`" in card
    assert 'pipeline("token-classification"' in card
