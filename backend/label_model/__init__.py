"""Combine several annotators into one label with a probability. numpy and scipy only."""
