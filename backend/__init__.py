"""FreeAL for Label Studio: label a text project with an LLM, a small model and its annotators."""

__version__ = "0.1.0"
