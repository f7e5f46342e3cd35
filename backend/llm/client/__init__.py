"""An OpenAI-compatible LLM server over HTTP: capabilities, batching, caching, usage."""
