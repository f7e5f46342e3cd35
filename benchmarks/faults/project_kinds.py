"""Kinds of projects that faults are injected into: config, texts with gold answers, and an LLM."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from backend.domain.labels import Region, region_values
from backend.launcher.environments import PROJECT_FOLDER
from benchmarks.datasets import read_rows
from benchmarks.faults.scripted_llm import ScriptedSentimentLLM, ScriptedSpansLLM
from benchmarks.faults.small_student import save_small_encoder
from tests.end_to_end.data import ENTITIES, Visit, visits
from tests.llm_server import ScriptedLlmServer

Result = Sequence[Region]
"""An annotation's regions, as Label Studio holds them."""


@dataclass(frozen=True, slots=True)
class AnsweredText:
    """A text and the annotation that is right."""

    text: str
    gold: Result


@dataclass(frozen=True, slots=True)
class ProjectKind:
    """A project with one question.

    Args:
        name: What `--question` calls it.
        title: What the page calls it.
        config: Its label config.
        student: Its rounds' student, for the page.
        texts: Returns so many texts, the same ones every time.
        altered: Returns another annotation than the given one, as a person changes it.
        scripted_llm: Starts an LLM server that knows these texts.
        round_mb: What a round's students and checkpoints take on the disk at most.
        save_encoder: Writes the encoder that rounds fine-tune into a folder, for these texts; None
            where they fine-tune none.
    """

    name: str
    title: str
    config: str
    student: str
    texts: Callable[[int], Sequence[AnsweredText]]
    altered: Callable[[Result], Result]
    scripted_llm: Callable[[Sequence[AnsweredText]], ScriptedLlmServer]
    round_mb: int
    save_encoder: Callable[[Path, Sequence[str]], None] | None = None


def answer_of(result: Result) -> tuple[str, ...]:
    """Return what an annotation says, in one writing: its regions as JSON, without their ids."""
    return tuple(sorted(json.dumps(pair, sort_keys=True) for pair in region_values(result)))


def _choice(label: str) -> Result:
    value = {"choices": [label]}
    return [{"from_name": "sentiment", "to_name": "text", "type": "choices", "value": value}]


def _reviews(n: int) -> Sequence[AnsweredText]:
    return [AnsweredText(row["text"], _choice(row["label"])) for row in read_rows(None)[:n]]


def _other_choice(result: Result) -> Result:
    (label,) = result[0]["value"]["choices"]
    return _choice("Negative" if label == "Positive" else "Positive")


def _sentiment_llm(texts: Sequence[AnsweredText]) -> ScriptedLlmServer:
    return ScriptedSentimentLLM(
        [{"text": each.text, "label": each.gold[0]["value"]["choices"][0]} for each in texts]
    )


def _notes(n: int) -> Sequence[AnsweredText]:
    return [AnsweredText(visit.text, _entities(visit)) for visit in visits(n)]


def _entities(visit: Visit) -> Result:
    spans = [*((*at, "Person") for at in visit.people), *((*at, "Place") for at in visit.places)]
    return [_region(start, end, visit.text[start:end], label) for start, end, label in spans]


def _region(start: int, end: int, words: str, label: str) -> Region:
    return {
        "id": f"piece-{start}",
        "from_name": "names",
        "to_name": "text",
        "type": "labels",
        "value": {"start": start, "end": end, "text": words, "labels": [label]},
    }


def _other_types(result: Result) -> Result:
    other = {"Person": "Place", "Place": "Person"}
    values = [region["value"] for region in result]
    return [_region(v["start"], v["end"], v["text"], other[v["labels"][0]]) for v in values]


def _spans_llm(texts: Sequence[AnsweredText]) -> ScriptedLlmServer:
    return ScriptedSpansLLM(
        {
            each.text: [(r["value"]["labels"][0], r["value"]["text"]) for r in each.gold]
            for each in texts
        }
    )


_KINDS = (
    ProjectKind(
        name="choice",
        title="A single choice",
        config=(PROJECT_FOLDER / "backend/launcher/sample/reviews.xml").read_text(encoding="utf-8"),
        student="the linear probe (`STUDENT_RECIPE=probe`)",
        texts=_reviews,
        altered=_other_choice,
        scripted_llm=_sentiment_llm,
        round_mb=4,
    ),
    ProjectKind(
        name="spans",
        title="Entities",
        config=ENTITIES,
        student="a tagger fine-tuned from the first layer of all-MiniLM-L6-v2, to take seconds",
        texts=_notes,
        altered=_other_types,
        scripted_llm=_spans_llm,
        round_mb=600,
        save_encoder=save_small_encoder,
    ),
)
KINDS: Mapping[str, ProjectKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""The kinds by name."""
