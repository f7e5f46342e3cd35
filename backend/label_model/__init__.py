"""Aggregate the labels of several annotators, or people, into one with a probability."""
