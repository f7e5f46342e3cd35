"""What `make demo`, `make e2e` and `python -m backend llm` start on this machine.

The backend's neighbours are set up and started here: the virtual environments that they live in
(`environments`), the embedded language model (`embedded_llm`), the vLLM server (`vllm_server`) and
Label Studio (`label_studio_server`), as child processes that never outlive us (`processes`).
"""
