"""The small models: everything that needs torch."""
