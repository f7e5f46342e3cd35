"""The use cases: sync, prelabel, rounds, publish, predict, export and status."""
