"""Which question a control tag asks, or why this backend cannot label it.

A new kind of question is one more class in `_TAGS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.domain.questions import Question, TextField
from backend.labelstudio.label_config.choices import Choices, Taxonomy
from backend.labelstudio.label_config.scales import Number, Pairwise, Rating, TextArea
from backend.labelstudio.label_config.spans import HyperTextLabels, Labels, ParagraphLabels
from backend.labelstudio.label_config.tags import Control, QuestionTag, why_not_always_asked
from backend.labelstudio.label_config.texts import read_field

_TAGS: tuple[QuestionTag, ...] = (
    Choices(),
    Taxonomy(),
    Labels(),
    HyperTextLabels(),
    ParagraphLabels(),
    Rating(),
    Number(),
    Pairwise(),
    TextArea(),
)
_TAG_BY_NAME = {tag.tag.lower(): tag for tag in _TAGS}
SUPPORTED = f"{', '.join(tag.tag for tag in _TAGS)} over Text, HyperText or Paragraphs"


def tag_of(question: Question) -> QuestionTag:
    """Return what writes and reads this question's results."""
    return _TAG_BY_NAME[question.tag or question.kind.tag]


def read_question(control: Control, fields: Mapping[str, TextField | str]) -> Question | str:
    """Return the question that a control tag asks, or how to name it among the unsupported.

    `fields` are all texts of the config by the names of their object tags, in its order. Those
    that the control is about come first; the others are read too.
    """
    question_tag = _TAG_BY_NAME.get(control.tag.tag.lower())
    if question_tag is None:
        return control.title
    found = _why_not(control, question_tag, fields)
    if found is not None:
        return f"{control.title} ({found})"
    asked = question_tag.ask(control)
    if isinstance(asked, str):
        return f"{control.title} ({asked})"
    targets = [tag.name for tag in control.tag.objects]
    others = [name for name in fields if name not in targets]
    return Question(
        name=control.tag.name,
        fields=tuple(
            field for name in (*targets, *others) if isinstance(field := fields[name], TextField)
        ),
        kind=asked.kind,
        labels=asked.labels,
        bounds=asked.bounds,
        step=asked.step,
        tag=question_tag.tag.lower(),
    )


def _why_not(
    control: Control, question_tag: QuestionTag, fields: Mapping[str, TextField | str]
) -> str | None:
    why = why_not_always_asked(control)
    if why is not None:
        return why
    objects: list[Any] = control.tag.objects
    if len({tag.name for tag in objects}) != len(control.tag.to_name):
        return "over something that is not there"
    if len(objects) != question_tag.n_objects:
        return "over several tags" if question_tag.n_objects == 1 else "not over two tags"
    for tag in objects:
        if tag.tag.lower() not in (name.lower() for name in question_tag.over):
            return f"over {tag.tag}"
        field = fields[tag.name]
        if isinstance(field, str):
            return field
    return None


def read_fields(objects: list[Any]) -> dict[str, TextField | str]:
    """Return each object tag's text, or why it is none that can be read, by name in order."""
    return {tag.name: read_field(tag) for tag in objects}
