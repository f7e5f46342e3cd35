"""A label config that asks one question about a text, and its reader."""

from __future__ import annotations

from backend.domain.labels import Abstention
from backend.labelstudio.label_config import LabelConfigReader

CHOICES = (
    '<Choices name="sentiment" toName="text" choice="single">'
    '<Choice value="Positive" alias="pos" hint="they like it"/>'
    '<Choice value="Negative"/><Choice value="Neutral" hint=" "/></Choices>'
)


def config(*tags: str, text: str = '<Text name="text" value="$text"/>') -> str:
    return f"<View>{text}{''.join(tags)}</View>"


def no_fetch(url: str, task_id: int) -> str | Abstention:
    raise AssertionError(f"fetched {url}")


reader = LabelConfigReader(no_fetch)
SCHEMA = reader.read_schema(config(CHOICES))
