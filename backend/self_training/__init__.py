"""Train the student on noisy labels and embed texts: the only package that imports torch.

`similarity` and `noise` run without torch, so that the web process can import them. The span tagger
and its training (`tagger`, `tagger_training`) are finished and tested, and used by the benchmarks
alone: no round trains a tagger yet.
"""
