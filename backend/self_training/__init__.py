"""Train the student on noisy labels and embed texts; `similarity` and `noise` need no torch.
The span tagger (`tagger`, `tagger_training`) is used by benchmarks alone: no round trains one yet.
"""
