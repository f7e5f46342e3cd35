"""Read a parsed config into questions, and name every control that is left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

from backend.domain.questions import Question, QuestionKind, TaskSchema, TextField
from backend.labelstudio.label_config.markup import Markup, text_of
from backend.labelstudio.label_config.tags import (
    VARIABLE,
    ControlElement,
    ControlTag,
    UnsupportedTag,
    control_tags,
)
from backend.labelstudio.label_config.texts import is_text, read_field, read_value
from backend.labelstudio.label_config.visibility import (
    Visibility,
    check_is_ours,
    read_visibility,
)

_MIN_WORDS = 4
"""A text that is the same in every task counts as an instruction from here on."""
_NOT_A_TEXT = "it asks for something else than a label, a span or a text"


@dataclass
class SchemaReader:
    """Reads the questions of one config.

    Args:
        markup: the config's elements.
        interface: what Label Studio's SDK makes of them.
    """

    markup: Markup
    interface: Any
    _questions: list[Question] = field(default_factory=list)
    _unsupported: list[str] = field(default_factory=list)

    def read(self) -> TaskSchema:
        """Return what the config asks; questions about regions are read after what marks these."""
        headers, of_control = _headers(self.markup, {c.name for c in self.interface.controls})
        controls = [(c, read_visibility(self.markup, c.element)) for c in self._controls()]
        for is_late in (False, True):
            for control, visibility in controls:
                if _is_late(control, visibility) is is_late:
                    self._add(control, visibility, of_control.get(control.element, ()))
        self._drop_unreachable()
        order = {control.element.get("name"): at for at, (control, _) in enumerate(controls)}
        self._questions.sort(key=lambda question: order.get(question.name, len(order)))
        return TaskSchema(tuple(self._questions), headers, tuple(self._unsupported))

    def _add(
        self, control: ControlElement, visibility: Visibility, headers: tuple[str, ...]
    ) -> None:
        """Add the question that a control asks, or name the control with the reason."""
        try:
            if visibility.is_per_region:
                question = self._regional(control, visibility)
            else:
                question = self._question(control, visibility)
        except UnsupportedTag as exc:
            self._unsupported.append(f"{control.title} ({str(exc) or _NOT_A_TEXT})")
        else:
            self._questions.append(replace(question, headers=headers))

    def _controls(self) -> Iterator[ControlElement]:
        """Yield the controls that can be read; name those that cannot."""
        elements = {e.get("name"): e for e in self.markup.root.iter() if e.get("toName")}
        parsed = {control.name: control for control in self.interface.controls}
        known = {tag.name for tag in control_tags().values()}
        for element in self.markup.root.iter():
            name = element.get("name")
            if name in parsed and elements.get(name) is element and _is_control(element):
                yield ControlElement(parsed[name], element)
            elif str(element.tag) in known and element.get("toName") is None:
                tag = control_tags()[str(element.tag).lower()]
                if tag.needs_no_target:
                    yield ControlElement(None, element)
                else:
                    self._unsupported.append(f"{ControlElement(None, element).title} (no toName)")

    def _question(self, control: ControlElement, visibility: Visibility) -> Question:
        """Return the question that a control asks about a task; raises UnsupportedTag."""
        tag = _tag_of(control)
        check_is_ours(self.markup, control.element, is_box=QuestionKind.FREE_TEXT in tag.kinds)
        if visibility.needs_region:
            raise UnsupportedTag("shown only while a region is selected, and not perRegion")
        return replace(self._asked(control, tag), conditions=visibility.conditions)

    def _regional(self, control: ControlElement, visibility: Visibility) -> Question:
        """Return the question that a control asks about each region; raises UnsupportedTag."""
        tag = _tag_of(control)
        check_is_ours(self.markup, control.element, is_box=QuestionKind.FREE_TEXT in tag.kinds)
        inner = self._asked(control, tag)
        if not (inner.labels or inner.kind.is_free_text or inner.kind.is_numeric):
            raise UnsupportedTag('perRegion="true"')
        if inner.kind.is_from_task or inner.kind.has_spans:
            raise UnsupportedTag('perRegion="true"')
        region_of = ""
        if not inner.field.has_messages:
            named = [q for q in self._questions if q.kind.has_spans and q.field == inner.field]
            named = [q for q in named if visibility.region_of in ("", q.name)]
            if not named:
                raise UnsupportedTag('perRegion="true", and no regions are marked in its text')
            region_of = named[0].name
        return Question(
            inner.name,
            inner.fields,
            QuestionKind.REGION,
            inner.labels,
            tag=inner.tag,
            inner=replace(inner, conditions=visibility.conditions),
            region_of=region_of,
            only=visibility.only,
        )

    def _asked(self, control: ControlElement, tag: ControlTag) -> Question:
        """Return what a control asks and of which texts: its own first, then all others."""
        if (control.attribute("perItem") or "false").lower() != "false":
            raise UnsupportedTag('perItem="true"')
        if tag.needs_no_target:
            return tag.question_about(control, self._questions)
        targets: list[Any] = control.parsed.objects
        if len({target.name for target in targets}) != len(control.parsed.to_name):
            raise UnsupportedTag("over something that is not there")
        if len(targets) != tag.n_objects:
            raise UnsupportedTag("over several tags" if tag.n_objects == 1 else "not over two tags")
        for target in targets:
            if target.tag not in tag.over:
                raise UnsupportedTag(f"over {target.tag}")
        fields = self._fields(targets)
        return replace(tag.question(control), fields=fields, tag=tag.name.lower())

    def _fields(self, targets: Sequence[Any]) -> tuple[TextField, ...]:
        """Return the texts that an answer needs; raises UnsupportedTag where one is no text."""
        fields = {target.name: read_field(target) for target in targets}
        for other in self.interface.objects:
            if other.name in fields or other.name.lower() in self.markup.notes.ignore:
                continue
            if is_text(other):
                try:
                    fields[other.name] = read_field(other)
                except UnsupportedTag:
                    continue
            elif _is_needed(other):
                raise UnsupportedTag(
                    f'beside {other.tag} "{other.name}", which is not read; '
                    f"<!-- freeal: ignore={other.name} --> if nobody needs it to answer"
                )
        shown = {one.template or f"${one.key}" for one in fields.values()}
        for element in self.markup.root.iter():
            for extra in _extra_fields(element):
                if (extra.template or f"${extra.key}") not in shown:
                    shown.add(extra.template or f"${extra.key}")
                    name = extra.name if extra.name not in fields else f"{extra.name} (header)"
                    fields[name] = replace(extra, name=name)
        return tuple(fields.values())

    def _drop_unreachable(self) -> None:
        """Leave out questions that are shown only for answers to what is left alone."""
        while True:
            asked = {q.name for q in self._questions if q.labels or q.kind.is_from_task}
            lost = next((q for q in self._questions if not _parents(q) <= asked), None)
            if lost is None:
                return
            self._questions.remove(lost)
            missing = ", ".join(sorted(_parents(lost) - asked))
            tag = control_tags()[lost.tag].name
            why = f'shown only for an answer to "{missing}", which is not asked'
            self._unsupported.append(f'{tag} "{lost.name}" ({why})')


def _parents(question: Question) -> set[str]:
    conditions = (question.inner or question).conditions
    return {c.question for c in conditions if c.question} | {question.region_of} - {""}


def _tag_of(control: ControlElement) -> ControlTag:
    tag = control_tags().get(str(control.element.tag).lower())
    if tag is None and control.element.tag == "Chat":
        raise UnsupportedTag("its messages are read, and written by people alone")
    if tag is None:
        raise UnsupportedTag
    return tag


def _is_late(control: ControlElement, visibility: Visibility) -> bool:
    tag = control_tags().get(str(control.element.tag).lower())
    return visibility.is_per_region or (tag is not None and tag.needs_no_target)


def _is_control(element: ElementTree.Element) -> bool:
    """Return whether an element takes answers, and does not only search among labels."""
    return str(element.tag) != "Filter"


def _is_needed(tag: Any) -> bool:
    """Return whether an object that is no text may be what the answer depends on.

    What is the same in every task is decoration; a recording beside its transcript is not needed.
    """
    varies = bool(VARIABLE.search(str(tag.value or "")))
    return varies and tag.tag.lower() != "header" and not tag.get_attr("sync")


def _extra_fields(element: ElementTree.Element) -> Iterator[TextField]:
    """Yield texts that come with the task in a header or as a label's meaning."""
    if element.tag == "Header":
        value = text_of(element, "value")
        if VARIABLE.search(value):
            key, template = read_value(value)
            yield TextField(key, key, template=template)
    elif element.tag in ("Choice", "Label"):
        hint = element.get("hint") or ""
        if VARIABLE.search(hint):
            key, template = read_value(hint)
            name = element.get("value") or key
            yield TextField(f"meaning of {name}", key, template=template)


def _headers(
    markup: Markup, controls: set[str]
) -> tuple[tuple[str, ...], Mapping[ElementTree.Element, tuple[str, ...]]]:
    """Return the instructions for all questions, and those of each control.

    A header right above a control is about it, and about those after it up to the next header. One
    above a text is about everything, and so is one that has no control below it.
    """
    shared: list[str] = []
    waiting: list[str] = []
    own: tuple[str, ...] = ()
    found: dict[ElementTree.Element, tuple[str, ...]] = {}
    for element in markup.root.iter():
        if element.get("toName") and element.get("name") in controls and _is_control(element):
            own = tuple(waiting) or own
            waiting = []
            found[element] = own
        elif element.tag == "Header" or _is_instruction(element):
            text = text_of(element, "value")
            if text and not VARIABLE.search(text):
                waiting.append(text)
        elif element.get("name") and VARIABLE.search(element.get("value") or ""):
            shared += waiting
            waiting, own = [], ()
    if len({own for own in found.values()}) == 1:
        shared += [text for text in next(iter(found.values())) if text not in shared]
        found = {}
    return tuple([*shared, *waiting]), found


def _is_instruction(element: ElementTree.Element) -> bool:
    """Return whether an element is a text that says the same in every task, and at some length."""
    value = element.get("value") or ""
    words = [word for word in value.split() if any(char.isalpha() for char in word)]
    is_fixed = element.tag in ("Text", "Markdown") and not VARIABLE.search(value)
    return is_fixed and len(words) >= _MIN_WORDS
