"""The use cases: the order of calls, nothing else. They reach the outside through ports."""
