"""Translate label configs into questions, and labels into Label Studio results."""

from backend.labelstudio.label_config.reader import LabelConfigReader
from backend.labelstudio.label_config.results import read_answers
from backend.labelstudio.label_config.texts import FetchText

__all__ = ["FetchText", "LabelConfigReader", "read_answers"]
