"""Translate label configs into questions, and labels into Label Studio results."""

from backend.labelstudio.label_config.reader import LabelConfigReader
from backend.labelstudio.label_config.results import read_answers

__all__ = ["LabelConfigReader", "read_answers"]
