"""Ask an LLM to label: prompts, answers, spans, free text, synthetic demonstrations."""
