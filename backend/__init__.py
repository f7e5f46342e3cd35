"""FreeAL for Label Studio: label a text project with an LLM, a student and human annotators."""

__version__ = "0.1.0"
