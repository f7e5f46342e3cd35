"""Select in-context examples: a pool per class, and which of it each prompt shows."""
