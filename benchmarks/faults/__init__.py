"""Inject faults into a real round and count their cost."""
