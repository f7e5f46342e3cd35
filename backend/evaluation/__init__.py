"""Measure labels and models: metrics, intervals, the promotion gate, stopping rules."""
