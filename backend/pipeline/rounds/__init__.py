"""A FreeAL round: the durable workflow and its steps."""
