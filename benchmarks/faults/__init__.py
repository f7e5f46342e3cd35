"""Faults made on purpose around a real round, and what they have cost."""
