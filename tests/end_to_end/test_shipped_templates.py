"""Every template that Label Studio ships: accepted or refused in words, its predictions stored."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from backend.domain.labels import Span, WeakLabel
from backend.domain.projects import Task
from backend.domain.questions import Question, TaskSchema
from backend.errors import UnsupportedLabelConfig
from backend.labelstudio.admin import LabelStudioAdmin
from backend.labelstudio.client import LabelStudioPlatform
from backend.labelstudio.label_config import LabelConfigReader
from backend.launcher.label_studio_server import LabelStudioServer
from backend.llm.annotator import LLMAnnotator
from tests.end_to_end.label_config_samples import GUIDE
from tests.end_to_end.stack import Workplace
from tests.fakes import FakeLanguageModel

pytestmark = pytest.mark.e2e

VERSION = "shipped-1"
BEGIN, END = "<!-- shipped templates -->", "<!-- end of shipped templates -->"
N_TEMPLATES = 40
"""Label Studio ships more than this many."""
SAMPLE = re.compile(r"<!--\s*([{\[].*[}\]])\s*-->", re.DOTALL)
READER = LabelConfigReader(lambda url, _: f"the text behind {url}")
TALK = [
    {"role": "user", "content": "My parcel is lost.", "author": "Mia", "text": "Hello!"},
    {"role": "assistant", "content": "A new one is on its way.", "author": "Jo", "text": "Hi."},
]
ITEMS = [{"id": "a", "title": "First", "body": "one"}, {"id": "b", "title": "Second"}]
CHOICES = [{"value": "first"}, {"value": "second"}]


@dataclass(frozen=True, slots=True)
class Template:
    """A template's name, its config, and data of a task for it."""

    name: str
    config: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class House:
    """Label Studio as our adapters and an administrator reach it."""

    platform: LabelStudioPlatform
    admin: LabelStudioAdmin
    api: httpx.Client


@pytest.fixture(scope="module")
def house(label_studio: LabelStudioServer) -> Iterator[House]:
    access = (label_studio.url, label_studio.credentials.token)
    headers = {"Authorization": f"Token {label_studio.credentials.token}"}
    with (
        closing(LabelStudioPlatform(*access)) as platform,
        closing(LabelStudioAdmin(*access)) as admin,
        httpx.Client(base_url=label_studio.url, headers=headers, trust_env=False) as api,
    ):
        yield House(platform, admin, api)


@pytest.fixture(scope="module")
def templates(workplace: Workplace) -> list[Template]:
    """The templates of the Label Studio that is installed, with data for a task each."""
    pattern = "label-studio/lib/python*/site-packages/label_studio/annotation_templates/*/*/"
    found = sorted((workplace.home / "envs").resolve().glob(f"{pattern}config.y*ml"))
    return [_template(path) for path in found]


def _template(path: Path) -> Template:
    config = str(yaml.safe_load(path.read_text("utf-8"))["config"])
    sample = {key: value for key, value in _sample(config).items() if value}
    return Template(path.parent.name, config, {**_made_up(config), **sample})


def _sample(config: str) -> dict[str, Any]:
    """Return the data in a template's own comment, {} without any."""
    for text in SAMPLE.findall(config):
        try:
            sample = json.loads(text)
        except ValueError:
            continue
        task = sample[0] if isinstance(sample, list) else sample
        return dict(task.get("data", task))
    return {}


def _made_up(config: str) -> dict[str, Any]:
    """Return data for every field that a config names."""
    data: dict[str, Any] = {}
    for tag, attributes in re.findall(r"<(\w+)\s([^>]*)>", config):
        for key in re.findall(r'value="\$(\w+)"', attributes):
            made_up = {"Chat": TALK, "Paragraphs": TALK, "List": ITEMS, "Choices": CHOICES}
            made_up |= {"Table": {"name": "Ada", "place": "Oslo"}}
            data.setdefault(key, made_up.get(tag, f"Ada Berg likes the {key} of Oslo."))
    return data


def table(templates: list[Template]) -> str:
    """Return the documentation's table of what is asked and left alone in each template."""
    rows = ["| template | what is predicted | left alone, and why |", "|---|---|---|"]
    for template in templates:
        try:
            schema = READER.read_schema(template.config)
        except UnsupportedLabelConfig as exc:
            found = str(exc).partition("found: ")[2].partition("); it labels ")[0]
            rows.append(f"| {template.name} | nothing | {_shown(found)} |")
            continue
        asked = ", ".join(f"`{q.name}` ({_kind(q)})" for q in schema.questions)
        rows.append(f"| {template.name} | {asked} | {_shown(', '.join(schema.unsupported))} |")
    return "\n".join(rows)


def _kind(question: Question) -> str:
    per_region = question.kind.is_per_region and question.inner is not None
    kind = question.inner.kind if per_region and question.inner else question.kind
    return f"{kind.value}{' per region' if per_region else ''}".replace("_", " ")


def _shown(reasons: str) -> str:
    """Return reasons as a cell of a table: without the comments that change them."""
    return re.sub(r"; <!--.*?-->[^)]*", "", reasons)


def test_the_documentation_says_of_every_template_what_is_predicted(templates: list[Template]):
    before, _, rest = GUIDE.read_text("utf-8").partition(BEGIN)
    documented, end, after = rest.partition(END)
    expected = f"\n{table(templates)}\n"
    if os.environ.get("UPDATE_IMAGES"):
        GUIDE.write_text(f"{before}{BEGIN}{expected}{end}{after}", "utf-8")
        documented = expected
    assert documented == expected, "make pictures writes it anew"


def answers(schema: TaskSchema, task: Task) -> list[WeakLabel]:
    """Return an answer to each question that can be asked about a task."""
    example = READER.read_example(schema, task)
    labels: list[WeakLabel] = []
    for question in schema.questions:
        if example.why_not_asked(question) is None:
            given = _answer(question, task, example.texts[question.field.name], labels)
            if given is not None:
                labels.append(WeakLabel(task.id, question.name, "hand", **given))
    return labels


def _answer(
    question: Question, task: Task, text: str, before: list[WeakLabel]
) -> dict[str, Any] | None:
    options = READER.read_example(TaskSchema((question,)), task).options.get(question.name, ())
    words = [Span(found.start(), found.end(), "") for found in re.finditer(r"\w+", text)][:2]
    if question.kind.is_ranked:
        assert question.inner is not None
        bucket = question.name if question.inner.kind.is_ordinal else question.inner.labels[0].value
        return {"text": json.dumps({bucket: [option.value for option in options][::-1]})}
    if question.kind.is_from_task:
        return {"text": options[-1].value} if options else None
    if question.kind.is_per_region:
        value = question.labels[-1].value if question.labels else "words"
        spans = next((one.spans for one in before if one.question == question.region_of), None)
        start = text.index(": ") + 2 if not question.region_of else 0
        end = (text + "\n").index("\n")
        turn = Span(start, end, value)
        return {"spans": tuple(Span(s.start, s.end, value) for s in spans or ()) or (turn,)}
    if question.kind.links_regions:
        one, other = words
        link = [one.start, one.end, other.start, other.end, question.labels[0].value]
        return {"text": json.dumps([link])}
    if question.kind.has_spans:
        label = question.labels[-1].value
        return {"spans": tuple(Span(word.start, word.end, label) for word in words)}
    if question.labels:
        n_labels = len(question.labels)
        return {"probabilities": (0.9, *[0.1 / max(1, n_labels - 1)] * (n_labels - 1))}
    return {"text": "2021-03-04" if question.kind.is_dated else "7"}


def test_every_template_is_accepted_or_refused_in_words(house: House, templates: list[Template]):
    assert len(templates) > N_TEMPLATES
    stored, refused = {}, {}
    for template in templates:
        try:
            schema = READER.read_schema(template.config)
        except UnsupportedLabelConfig as exc:
            refused[template.name] = str(exc)
            continue
        assert all("(" in named for named in schema.unsupported), template.name
        stored[template.name] = _stored(house, template, schema)
        _asked(schema, template)
    assert all("found: " in why and "label-configs.md" in why for why in refused.values())
    assert {"chat_llm_eval", "chat_red_team", "chat_rlhf", "llm-ranker", "serp-ranking"} <= set(
        stored
    )
    assert all(stored.values()), [name for name, count in stored.items() if not count]


def _stored(house: House, template: Template, schema: TaskSchema) -> int:
    """Return how many regions Label Studio has stored for a task; -1: it cannot be answered."""
    number = house.admin.create_project(template.name[:50], template.config)
    house.admin.import_tasks(number, [template.data])
    (task,) = house.platform.tasks(number)
    given = answers(schema, task)
    if not given:
        _explained(schema, task)
        return -1
    prediction = READER.write_prediction(schema, given, VERSION, task)
    assert prediction is not None, template.name
    assert READER.errors(template.config, prediction) == [], template.name
    assert house.platform.import_predictions(number, [prediction]) == 1, template.name
    (stored,) = house.api.get("/api/predictions/", params={"task": task.id}).json()
    assert stored["result"] == list(prediction.result), template.name
    house.platform.serve_model_version(number, VERSION)
    return len(stored["result"])


def _explained(schema: TaskSchema, task: Task) -> None:
    """Expect a reason why each question is not asked, such as a picture in place of a text."""
    example = READER.read_example(schema, task)
    for question in schema.questions:
        why = example.why_not_asked(question)
        assert (why and why.detail) or not example.options.get(question.name)


def _asked(schema: TaskSchema, template: Template) -> None:
    """Ask all questions of a model that says yes, and expect an answer or a reason to each."""
    model = FakeLanguageModel(lambda prompt: {"yes": 0.9, "no": 0.1}, n_context_tokens=4096)
    example = READER.read_example(schema, Task(1, template.data))
    labels = LLMAnnotator(model).annotate(schema, "", [example])
    assert [label.question for label in labels] == [question.name for question in schema.questions]
    READER.write_prediction(schema, labels, VERSION, Task(1, template.data))
