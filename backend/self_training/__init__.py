"""Train the student on noisy labels, and embed texts: the only package that needs torch."""
