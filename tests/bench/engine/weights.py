"""Random weights in safetensors for a folder that has a config.json and a tokenizer: a checkpoint of real size to load.

python3 weights.py FOLDER        # needs torch and transformers; makes them on the GPU, writes them in files of 4 GB
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def main(folder: str) -> None:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4GB", safe_serialization=True)
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")


if __name__ == "__main__":
    main(sys.argv[1])
