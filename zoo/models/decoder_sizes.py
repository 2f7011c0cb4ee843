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
# base, norm epsilon, by the published config.json files. SmolLM2 shares Llama's layout.
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
MISTRAL_SIZES = {
    "mistral_7b_v0.1": (4096, 32, 32, 8, 14336, 32000, 32768, 10_000.0, 1e-5),
    "mistral_7b_v0.2": (4096, 32, 32, 8, 14336, 32000, 32768, 1_000_000.0, 1e-5),
    "mistral_7b_v0.3": (4096, 32, 32, 8, 14336, 32768, 32768, 1_000_000.0, 1e-5),
}
QWEN_SIZES = {
    "qwen2_0.5b": (896, 24, 14, 2, 4864, 151936, 131072, 1_000_000.0, 1e-6),
    "qwen2_1.5b": (1536, 28, 12, 2, 8960, 151936, 131072, 1_000_000.0, 1e-6),
    "qwen2_7b": (3584, 28, 28, 4, 18944, 152064, 131072, 1_000_000.0, 1e-6),
    "qwen2_72b": (8192, 80, 64, 8, 29568, 152064, 131072, 1_000_000.0, 1e-5),
    "qwen2.5_0.5b": (896, 24, 14, 2, 4864, 151936, 32768, 1_000_000.0, 1e-6),
    "qwen2.5_1.5b": (1536, 28, 12, 2, 8960, 151936, 131072, 1_000_000.0, 1e-6),
    "qwen2.5_3b": (2048, 36, 16, 2, 11008, 151936, 32768, 1_000_000.0, 1e-6),
    "qwen2.5_7b": (3584, 28, 28, 4, 18944, 152064, 131072, 1_000_000.0, 1e-6),
    "qwen2.5_14b": (5120, 48, 40, 8, 13824, 152064, 131072, 1_000_000.0, 1e-5),
    "qwen2.5_32b": (5120, 64, 40, 8, 27648, 152064, 131072, 1_000_000.0, 1e-5),
    "qwen2.5_72b": (8192, 80, 64, 8, 29568, 152064, 131072, 1_000_000.0, 1e-5),
    "qwen3_0.6b": (1024, 28, 16, 8, 3072, 151936, 40960, 1_000_000.0, 1e-6),
    "qwen3_1.7b": (2048, 28, 16, 8, 6144, 151936, 40960, 1_000_000.0, 1e-6),
    "qwen3_4b": (2560, 36, 32, 8, 9728, 151936, 40960, 1_000_000.0, 1e-6),
    "qwen3_8b": (4096, 36, 32, 8, 12288, 151936, 40960, 1_000_000.0, 1e-6),
    "qwen3_14b": (5120, 40, 40, 8, 17408, 151936, 40960, 1_000_000.0, 1e-6),
    "qwen3_32b": (5120, 64, 64, 8, 25600, 151936, 40960, 1_000_000.0, 1e-6),
}
# Of Gemma 3 from 4b on: the text part.
GEMMA_SIZES = {
    "gemma_2b": (2048, 18, 8, 1, 16384, 256000, 8192, 10_000.0, 1e-6),
    "gemma_7b": (3072, 28, 16, 16, 24576, 256000, 8192, 10_000.0, 1e-6),
    "gemma2_2b": (2304, 26, 8, 4, 9216, 256000, 8192, 10_000.0, 1e-6),
    "gemma2_9b": (3584, 42, 16, 8, 14336, 256000, 8192, 10_000.0, 1e-6),
    "gemma2_27b": (4608, 46, 32, 16, 36864, 256000, 8192, 10_000.0, 1e-6),
    "gemma3_270m": (640, 18, 4, 1, 2048, 262144, 32768, 1_000_000.0, 1e-6),
    "gemma3_1b": (1152, 26, 4, 1, 6912, 262144, 32768, 1_000_000.0, 1e-6),
    "gemma3_4b": (2560, 34, 8, 4, 10240, 262208, 131072, 1_000_000.0, 1e-6),
    "gemma3_12b": (3840, 48, 16, 8, 15360, 262208, 131072, 1_000_000.0, 1e-6),
    "gemma3_27b": (5376, 62, 32, 16, 21504, 262208, 131072, 1_000_000.0, 1e-6),
}
MIXTRAL_SIZES = {
    "mixtral_8x7b": (4096, 32, 32, 8, 14336, 32000, 32768, 1_000_000.0, 1e-5),
    "mixtral_8x22b": (6144, 56, 48, 8, 16384, 32000, 65536, 1_000_000.0, 1e-5),
}
ROTARY_SIZES = (LLAMA_SIZES, MISTRAL_SIZES, MIXTRAL_SIZES, QWEN_SIZES, GEMMA_SIZES)
# What each of a family has beside its size, by the name before the first `_`.
LLAMA: dict[str, Any] = {
    "positions": "rotary",
    "norm": "rms",
    "activation": "silu",
    "gated": True,
    "attention_bias": False,
    "mlp_bias": False,
    "tied": False,
}
LLAMA31 = {**LLAMA, "rotary_scaling": RotaryScaling("llama3", 8.0, 8192, fast=4.0)}
LLAMA32 = {
    **LLAMA,
    "rotary_scaling": RotaryScaling("llama3", 32.0, 8192, fast=4.0),
    "tied": True,
}
QWEN2 = {**LLAMA, "attention_bias": True, "out_bias": False}
QWEN3 = {**LLAMA, "query_key_norm": True, "head_dim": 128}
GEMMA = {
    **LLAMA,
    "norm": "rms_plus_one",
    "activation": "gelu_tanh",
    "scaled_embedding": True,
    "tied": True,
    "head_dim": 256,
}
GEMMA2 = {
    **GEMMA,
    "post_norms": True,
    "score_width": 256,
    "score_cap": 50.0,
    "logit_cap": 30.0,
    "window": 4096,
    "layer_pattern": ("local", "global"),
}
GEMMA3 = {
    **GEMMA,
    "post_norms": True,
    "score_width": 256,
    "query_key_norm": True,
    "local_rotary_base": 10_000.0,
    "window": 1024,
    "layer_pattern": (*("local",) * 5, "global"),
    "rotary_scaling": RotaryScaling("linear", 8.0),
}
STYLES = {
    "llama": LLAMA,
    "llama2": LLAMA,
    "llama3": LLAMA,
    "llama3.1": LLAMA31,
    "llama3.2": LLAMA32,
    "smollm2": {**LLAMA, "tied": True},
    "mistral": LLAMA,
    "mixtral": {**LLAMA, "num_experts": 8},
    "qwen2": QWEN2,
    "qwen2.5": QWEN2,
    "qwen3": QWEN3,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3": GEMMA3,
}
# And what one has alone.
OWN: dict[str, dict[str, Any]] = {
    "mistral_7b_v0.1": {"window": 4096},
    "gemma2_27b": {"head_dim": 128, "score_width": 144},
    "gemma3_270m": {"window": 512, "rotary_scaling": None},
    "gemma3_1b": {"window": 512, "rotary_scaling": None},
    "gemma3_27b": {"head_dim": 128, "score_width": 168},
    **{name: {"tied": True} for name in ("qwen2_0.5b", "qwen2_1.5b")},
    **{name: {"tied": True} for name in ("qwen2.5_0.5b", "qwen2.5_1.5b", "qwen2.5_3b")},
    **{name: {"tied": True} for name in ("qwen3_0.6b", "qwen3_1.7b", "qwen3_4b")},
}
