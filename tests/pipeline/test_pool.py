"""What annotators and models get to read of a task."""

from __future__ import annotations

from backend.domain.projects import Task
from backend.labelstudio.label_config import LabelConfigReader
from backend.pipeline.pool import Guidelines, GuidelinesReader
from tests.conftest import SENTIMENT


def test_texts_over_the_character_limit_are_cut_before_anybody_reads_them(stores):
    config = LabelConfigReader(lambda url, _: url)
    reader = GuidelinesReader(config, stores, max_text_chars=6)
    guidelines = Guidelines(config.read_schema(SENTIMENT), "")
    cut, whole = reader.examples(
        guidelines, [Task(1, {"text": "a good one"}), Task(2, {"text": "a bad"})]
    )
    assert (cut.texts, cut.truncated) == ({"text": "a good"}, {"text"})
    assert (whole.texts, whole.truncated) == ({"text": "a bad"}, frozenset())
