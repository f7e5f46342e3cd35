"""The sample that the project wrote itself and ships under its own licence."""
