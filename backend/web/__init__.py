"""The HTTP side: the ML backend's routes and the metrics."""
