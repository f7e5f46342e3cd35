"""Label configs over one text, and how a question in them is asked, written and read."""

from __future__ import annotations

from typing import Any

from backend.domain.labels import Answer, WeakLabel
from backend.domain.projects import Prediction, Task
from backend.domain.questions import LabelDefinition, Question
from backend.labelstudio.label_config import read_answers
from tests.labelstudio.choices_config import reader

TEXT = '<Text name="text" value="$text"/>'
TOPICS = (
    '<Choices name="topics" toName="text" choice="multiple"><Choice value="Sport" alias="s"/>'
    '<Choice value="Politics"/><Choice value="Science"/></Choices>'
)
TREE = (
    '<Choice value="Online"><Choice value="Blog" hint="a diary"/><Choice value="Paid" alias="p">'
    '<Choice value="Daily"/><Choice value="Other"/></Choice></Choice><Choice value="Other"/>'
)
NESTED = f'<Choices name="media" toName="text" allowNested="true">{TREE}</Choices>'
TAXONOMY = f'<Taxonomy name="media" toName="text">{TREE}</Taxonomy>'
LEAVES = (
    LabelDefinition("Online / Blog", "Blog", "a diary", ("Online", "Blog")),
    LabelDefinition("Online / p / Daily", "Daily", None, ("Online", "p", "Daily")),
    LabelDefinition("Online / p / Other", "Online / Paid / Other", None, ("Online", "p", "Other")),
    LabelDefinition("Other", "Other", None, ("Other",)),
)
ENTITIES = '<Label value="Person" alias="PER" hint="a human being"/><Label value="Place"/>'
LABELS = f'<Labels name="ner" toName="text">{ENTITIES}</Labels>'


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


def only_question(*tags: str) -> Question:
    (question,) = reader.read_schema(config(*tags)).questions
    return question


def unsupported(*tags: str) -> tuple[str, ...]:
    """Return what is named beside a question that can be labelled."""
    fine = '<Rating name="fine" toName="text"/>'
    text = "" if 'name="text"' in "".join(tags) else TEXT
    return reader.read_schema(config(text, fine, *tags)).unsupported


def weak_label(question: str, *probabilities: float, **answer: Any) -> WeakLabel:
    return WeakLabel(7, question, "llm", "p1", probabilities=probabilities, **answer)


def write(xml: str, *labels: WeakLabel, data: dict[str, Any] | None = None) -> Prediction:
    """Write a prediction that Label Studio's SDK takes."""
    task = None if data is None else Task(7, data)
    prediction = reader.write_prediction(reader.read_schema(xml), labels, "v1", task)
    assert prediction is not None
    assert reader.errors(xml, prediction) == []
    return prediction


def region_values(prediction: Prediction) -> list[dict[str, Any]]:
    return [region["value"] for region in prediction.result]


def read(xml: str, *values: dict[str, Any], name: str, data: Any = None) -> Answer | None:
    result = [{"from_name": name, "to_name": "text", "value": value} for value in values]
    return read_answers(reader.read_schema(xml), result, data).get(name)
