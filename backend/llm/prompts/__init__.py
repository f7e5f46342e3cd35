"""Prompt templates, their verbalizers, truncation to the context, and template selection."""
