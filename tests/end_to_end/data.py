"""Texts with gold labels for the end-to-end tests."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from itertools import cycle, islice

from backend.launcher.environments import PROJECT_FOLDER

SAMPLE = PROJECT_FOLDER / "backend" / "launcher" / "sample" / "reviews.jsonl"
SAMPLE_CONFIG = PROJECT_FOLDER / "backend" / "launcher" / "sample" / "reviews.xml"
_SST2 = PROJECT_FOLDER.parent / "shared" / "data" / "sst2.jsonl.gz"

ENTITIES = """
<View>
  <Header value="Mark the people and the places that are named."/>
  <Labels name="names" toName="text"><Label value="Person"/><Label value="Place"/></Labels>
  <Text name="text" value="$text"/>
</View>
"""
"""A question about `visits`."""


@dataclass(frozen=True, slots=True)
class Review:
    """A text, and "Positive" or "Negative"."""

    text: str
    label: str


def reviews(n: int, *, start: int = 0) -> list[Review]:
    """Return n reviews: SST-2's training sentences where they are at hand, else our own sample."""
    source = _sst2() if _SST2.exists() else sample()
    return list(islice(cycle(source), start, start + n))


def sample() -> list[Review]:
    """Return the project's own sample."""
    return [_review(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def _sst2() -> list[Review]:
    with gzip.open(_SST2, "rt", encoding="utf-8") as file:
        return [_review(line) for line in file if json.loads(line)["split"] == "train"]


def _review(line: str) -> Review:
    row = json.loads(line)
    return Review(row["text"], row["label"].capitalize())


@dataclass(frozen=True, slots=True)
class Visit:
    """A made-up note about a visit, with what it holds by construction.

    `people` and `places` are (start, end) of names, `topics` what it speaks of, `label` "Positive"
    or "Negative".
    """

    text: str
    people: tuple[tuple[int, int], ...]
    places: tuple[tuple[int, int], ...]
    topics: tuple[str, ...]
    label: str


_PEOPLE = ("Ada Berg", "Tomas Lind", "Mira Okafor", "Jonas Weil", "Lucia Ferro", "Ivan Petrov")
_PLACES = ("Oslo", "Lisbon", "Nairobi", "Kyoto", "Montreal", "Vienna", "Cape Town")
_OPENINGS = (
    "{person} from {place} writes: ",
    "{person} stayed with us in {place}. ",
    "After the trip to {place}, {person} told us: ",
    "A guest in {place} writes: ",
    "{person} writes: ",
)
_CLAUSES = {
    "price": ("the price was very fair", "the bill was far too high"),
    "staff": ("the staff was kind and quick", "the staff was rude and slow"),
    "food": ("the food was delicious", "the food was cold and stale"),
    "room": ("the room was bright and clean", "the room was dark and dirty"),
}


def visits(n: int) -> list[Visit]:
    """Return n different notes, the same ones every time."""
    rng = random.Random(0)  # noqa: S311
    return [_visit(rng, number) for number in range(n)]


def _visit(rng: random.Random, number: int) -> Visit:
    person, place = rng.choice(_PEOPLE), rng.choice(_PLACES)
    opening = rng.choice(_OPENINGS).format(person=person, place=place)
    topics = tuple(sorted(rng.sample(sorted(_CLAUSES), rng.choice((1, 1, 2)))))
    is_good = rng.random() < 0.5
    said = " and ".join(_CLAUSES[topic][0 if is_good else 1] for topic in topics)
    text = f"{opening}{said} (visit {number})."

    def named(name: str) -> tuple[tuple[int, int], ...]:
        start = text.find(name)
        return ((start, start + len(name)),) if start >= 0 else ()

    return Visit(text, named(person), named(place), topics, "Positive" if is_good else "Negative")
