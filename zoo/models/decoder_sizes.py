"""The published sizes of the decoders."""

from __future__ import annotations

from typing import Any

from zoo.models.rotary import RotaryScaling

# name -> width, depth, heads, positions; vocabulary 50,257 and feed-forward 4 * width throughout.
# GPT-2: the four published sizes. GPT-3: table 2.1 of Brown et al. 2020, dense attention in all
# layers; its 24 heads of 128 in a width of 2,048 (XL) and its width of 5,140 (13B) do not add up to
# the table's own totals, 16 heads and 5,120 do.
SIZES = {
    "gpt2": (768, 12, 12, 1024),
    "gpt2_medium": (1024, 24, 16, 1024),
    "gpt2_large": (1280, 36, 20, 1024),
    "gpt2_xl": (1600, 48, 25, 1024),
    "gpt3_125m": (768, 12, 12, 2048),
    "gpt3_350m": (1024, 24, 16, 2048),
    "gpt3_760m": (1536, 24, 16, 2048),
    "gpt3_1.3b": (2048, 24, 16, 2048),
    "gpt3_2.7b": (2560, 32, 32, 2048),
    "gpt3_6.7b": (4096, 32, 32, 2048),
    "gpt3_13b": (5120, 40, 40, 2048),
    "gpt3_175b": (12288, 96, 96, 2048),
}

# name -> width, depth, heads, key/value heads, feed-forward width, vocabulary, positions, rotary
# base, norm epsilon: the published config.json files of Llama 1, 2 and 3, and of SmolLM2, which
# shares their layout.
LLAMA_SIZES = {
    "llama_7b": (4096, 32, 32, 32, 11008, 32000, 2048, 10_000.0, 1e-6),
    "llama_13b": (5120, 40, 40, 40, 13824, 32000, 2048, 10_000.0, 1e-6),
    "llama_33b": (6656, 60, 52, 52, 17920, 32000, 2048, 10_000.0, 1e-6),
    "llama_65b": (8192, 80, 64, 64, 22016, 32000, 2048, 10_000.0, 1e-5),
    "llama2_7b": (4096, 32, 32, 32, 11008, 32000, 4096, 10_000.0, 1e-5),
    "llama2_13b": (5120, 40, 40, 40, 13824, 32000, 4096, 10_000.0, 1e-5),
    "llama2_70b": (8192, 80, 64, 8, 28672, 32000, 4096, 10_000.0, 1e-5),
    "llama3_8b": (4096, 32, 32, 8, 14336, 128256, 8192, 500_000.0, 1e-5),
    "llama3_70b": (8192, 80, 64, 8, 28672, 128256, 8192, 500_000.0, 1e-5),
    "llama3.1_8b": (4096, 32, 32, 8, 14336, 128256, 131072, 500_000.0, 1e-5),
    "llama3.1_70b": (8192, 80, 64, 8, 28672, 128256, 131072, 500_000.0, 1e-5),
    "llama3.1_405b": (16384, 126, 128, 8, 53248, 128256, 131072, 500_000.0, 1e-5),
    "llama3.2_1b": (2048, 16, 32, 8, 8192, 128256, 131072, 500_000.0, 1e-5),
    "llama3.2_3b": (3072, 28, 24, 8, 8192, 128256, 131072, 500_000.0, 1e-5),
    "smollm2_135m": (576, 30, 9, 3, 1536, 49152, 8192, 100_000.0, 1e-5),
    "smollm2_360m": (960, 32, 15, 5, 2560, 49152, 8192, 100_000.0, 1e-5),
    "smollm2_1.7b": (2048, 24, 32, 32, 8192, 49152, 8192, 130_000.0, 1e-5),
}
# What all of them have beside their size.
LLAMA: dict[str, Any] = {
    "positions": "rotary",
    "norm": "rms",
    "activation": "silu",
    "gated": True,
    "attention_bias": False,
    "mlp_bias": False,
    "tied": False,
}
# And what only some have.
OWN: dict[str, dict[str, Any]] = {
    "llama3.1": {"rotary_scaling": RotaryScaling("llama3", 8.0, 8192, fast=4.0)},
    "llama3.2": {"rotary_scaling": RotaryScaling("llama3", 32.0, 8192, fast=4.0), "tied": True},
    "smollm2": {"tied": True},
}
