"""Parse a label config's XML as Label Studio's editor does: names in any case, comments apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.label_config.tags import control_tags

_NOTE = "freeal:"
_WORDS = re.compile(r"\b(skip|ask|ignore)\s*=\s*(.*?)(?=\b(?:skip|ask|ignore)\s*=|;|$)", re.DOTALL)
_TAGS = (
    "View", "Header", "Text", "HyperText", "Paragraphs", "Chat", "Table", "List", "Image", "Audio",
    "Video", "TimeSeries", "Choice", "Label", "Relation", "Bucket", "Style", "Filter", "Shortcut",
    "Collapse", "Panel",
)  # fmt: skip
_ATTRIBUTES = (
    "name", "toName", "value", "valueType", "valueList", "alias", "hint", "html", "choice",
    "perRegion", "perItem", "visibleWhen", "whenTagName", "whenChoiceValue", "whenLabelValue",
    "whenRole", "maxUsages", "maxRating", "allowNested", "nameKey", "textKey", "contextScroll",
    "encoding", "inline", "min", "max", "step", "only", "format", "required", "style", "labeling",
    "apiUrl", "title", "default", "sync",
)  # fmt: skip
_MAX_CHARACTERS = 500_000
_MAX_ELEMENTS = 20_000
_MAX_ATTRIBUTES = 200  # of one element
_MAX_CONTROLS = 200
_MAX_NAME = 200  # characters, of a control tag
_ATTRIBUTE_NAMES = {name.lower(): name for name in _ATTRIBUTES}


@dataclass(frozen=True, slots=True)
class Notes:
    """What a config's comments and the settings tell this backend, by tags' names in lower case.

    Args:
        skip: controls that are left to people.
        ask: controls that are asked although they look like an annotator's own.
        ignore: objects that nobody needs in order to answer.
    """

    skip: frozenset[str] = frozenset()
    ask: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Markup:
    """A config's tree with names in their usual case, and each element's parent."""

    root: ElementTree.Element
    notes: Notes
    parents: dict[ElementTree.Element, ElementTree.Element] = field(default_factory=dict)

    def path_to(self, element: ElementTree.Element) -> list[ElementTree.Element]:
        """Return the elements from the root to this one."""
        path = [element]
        while path[-1] in self.parents:
            path.append(self.parents[path[-1]])
        return path[::-1]


def parse_markup(label_config: str, skip: frozenset[str] = frozenset()) -> Markup:
    """Return a config's elements; raises UnsupportedLabelConfig.

    A document type declaration is refused before any parser sees what it declares: without one, XML
    has no entities that could expand ("billion laughs") or be fetched.
    """
    if len(label_config) > _MAX_CHARACTERS:
        raise unreadable(f"it has {len(label_config):,} characters, {_MAX_CHARACTERS:,} at most")
    try:
        notes = _read_notes(_comments(label_config), skip)
        root = ElementTree.fromstring(label_config)  # noqa: S314
    except (expat.ExpatError, ElementTree.ParseError, RecursionError, ValueError) as exc:
        raise unreadable(str(exc)) from exc
    _normalize(root)
    _check_size(root)
    parents = {child: parent for parent in root.iter() for child in parent}
    return Markup(root, notes, parents)


def _check_size(root: ElementTree.Element) -> None:
    """Refuse what takes longer to read than the next request can wait; raises."""
    elements = list(root.iter())
    names = [element.get("name", "") for element in elements if element.get("toName")]
    for found, limit, what in (
        (len(elements), _MAX_ELEMENTS, "elements"),
        (max(len(element.attrib) for element in elements), _MAX_ATTRIBUTES, "attributes in a tag"),
        (len(names), _MAX_CONTROLS, "control tags"),
        (max(map(len, names), default=0), _MAX_NAME, "characters in a control tag's name"),
    ):
        if found > limit:
            raise unreadable(f"it has {found:,} {what}, {limit:,} at most")


def unreadable(why: str) -> UnsupportedLabelConfig:
    """Return the error of a config that cannot be read at all."""
    detail = " ".join(why.split())[:300] or "it is empty"
    return UnsupportedLabelConfig(
        f"the label config cannot be read: {detail}; correct it in the project's labeling "
        "interface settings, or see docs/label-configs.md"
    )


def text_of(element: ElementTree.Element, *names: str) -> str:
    """Return an element's first attribute that says something, else what stands in it."""
    found = (" ".join((element.get(name) or "").split()) for name in names)
    return next((text for text in found if text), " ".join((element.text or "").split()))


def _comments(label_config: str) -> list[str]:
    """Return what stands in comments; raises ValueError for a document type declaration."""

    def refuse(*_: Any) -> None:
        raise ValueError("it has a document type declaration, which is not allowed")

    comments: list[str] = []
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.CommentHandler = comments.append
    parser.Parse(label_config, True)
    return comments


def _normalize(root: ElementTree.Element) -> None:
    """Give tags and attributes the case in which Label Studio's own SDK knows them."""
    tags = _tag_names()
    for element in root.iter():
        element.tag = tags.get(str(element.tag).lower(), element.tag)
        for name in list(element.attrib):
            usual = _ATTRIBUTE_NAMES.get(name.lower(), name)
            if usual != name:
                value = element.attrib.pop(name)
                element.attrib.setdefault(usual, value)


@cache
def _tag_names() -> dict[str, str]:
    return {name.lower(): name for name in (*_TAGS, *(t.name for t in control_tags().values()))}


def _read_notes(comments: Sequence[str], skip: frozenset[str]) -> Notes:
    """Return the names in comments such as `<!-- freeal: skip=comments, notes -->`."""
    found: dict[str, set[str]] = {"skip": set(), "ask": set(), "ignore": set()}
    found["skip"].update(name.lower() for name in skip)
    for comment in map(str.strip, comments):
        if not comment.startswith(_NOTE):
            continue
        for word, names in _WORDS.findall(comment.removeprefix(_NOTE)):
            found[word].update(name.strip().lower() for name in names.split(",") if name.strip())
    return Notes(**{word: frozenset(names) for word, names in found.items()})
