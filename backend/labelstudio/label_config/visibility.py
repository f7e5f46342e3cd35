"""When a control is shown, of which regions it speaks, and whether it is left to people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from backend.domain.questions import Condition
from backend.labelstudio.label_config.markup import Markup
from backend.labelstudio.label_config.tags import UnsupportedTag

_REMARKS = re.compile(
    r"(?:^|[\W_])(?:comments?|notes?|remarks?|kommentare?|bemerkung(?:en)?|anmerkung(?:en)?"
    r"|commentaires?|remarques?|comentarios?|commenti|opmerkingen|комментари[ий]|примечани[ея]"
    r"|备注|评论|コメント|備考)(?:$|[\W_])",
    re.IGNORECASE,
)
_OWN_CONFIDENCE = re.compile(
    r"(?:^|[\W_])(?:(?:annotator|labell?ing|labell?er|my|your|own)[\W_]*)?confidence$",
    re.IGNORECASE,
)
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Visibility:
    """When a control is shown.

    Args:
        conditions: of answers to other controls.
        is_per_region: the control belongs to each region, and not to the whole task.
        region_of: the control that marks these regions; "": whichever does.
        only: labels of the regions, or roles of a chat's messages, to which it belongs; none: all.
        needs_region: it is shown only while a region is selected.
    """

    conditions: tuple[Condition, ...] = ()
    is_per_region: bool = False
    region_of: str = ""
    only: tuple[str, ...] = ()
    needs_region: bool = False


def read_visibility(markup: Markup, element: ElementTree.Element) -> Visibility:
    """Return when a control is shown: what it and the elements around it say.

    As in Label Studio's editor `whenTagName` alone says nothing, and `whenChoiceValue` without
    `visibleWhen` is about whichever choice.
    """
    conditions: list[Condition] = []
    region_of, needs_region = "", False
    only: tuple[str, ...] = ()
    for outer in markup.path_to(element):
        when = (outer.get("visibleWhen") or "").lower()
        tag, values = outer.get("whenTagName") or "", outer.get("whenChoiceValue") or ""
        if when in ("choice-selected", "choice-unselected"):
            chosen = _listed(values) if tag else ()
            conditions.append(Condition(tag, chosen, is_selected=when == "choice-selected"))
        elif when == "region-selected":
            needs_region = True
            region_of = tag or region_of
            only = _listed(outer.get("whenLabelValue") or outer.get("whenRole") or "") or only
        elif not when and values and outer.get("perRegion") is None:
            conditions.append(Condition("", (values,)))
    is_per_region = _is_true(element, "perRegion")
    if is_per_region and element.get("whenLabelValue"):
        only = (str(element.get("whenLabelValue")),)
    return Visibility(tuple(conditions), is_per_region, region_of, only, needs_region)


def check_is_ours(markup: Markup, element: ElementTree.Element, *, is_box: bool) -> None:
    """Raise UnsupportedTag for a control that is left to people; `is_box`: it takes free text."""
    name = element.get("name") or ""
    if name.lower() in markup.notes.ask:
        return
    if name.lower() in markup.notes.skip:
        raise UnsupportedTag("left to people: skip")
    if any(_HIDDEN.search(outer.get("style") or "") for outer in markup.path_to(element)):
        raise UnsupportedTag("hidden from annotators: display:none")
    words = _WORD_START.sub("_", name)
    if is_box and _REMARKS.search(words) and not _is_true(element, "required"):
        raise UnsupportedTag(
            f"left to people: a box for their own remarks; <!-- freeal: ask={name} --> fills it"
        )
    if _OWN_CONFIDENCE.search(words):
        raise UnsupportedTag(
            f"left to people: how sure they are themselves; <!-- freeal: ask={name} --> fills it"
        )


def _listed(values: str) -> tuple[str, ...]:
    return tuple(value.strip() for value in values.split(",") if value.strip())


def _is_true(element: ElementTree.Element, name: str) -> bool:
    return (element.get(name) or "").lower() == "true"
