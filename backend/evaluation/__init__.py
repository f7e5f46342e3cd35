"""Measure labels and models: metrics with intervals, the promotion gate, stopping rules."""
