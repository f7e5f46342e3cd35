"""Start Label Studio, a vLLM server and the demo on this machine."""
