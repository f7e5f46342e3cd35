"""Serve the ML backend routes and the metrics with Flask."""
