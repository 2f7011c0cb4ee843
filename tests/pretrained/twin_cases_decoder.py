"""Twins of the decoders: what `twins.py` makes cases of."""

from __future__ import annotations

from typing import Any

FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {}
LAYERS: tuple[str, ...] = ()
LIVE = {"recorded": False}
TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 32,
    "vocab_size": 30,
}

# (name, head, what else `_case` takes)
CASES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "llama_3.1",
        "ForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 50.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
            **TINY,
        },
    ),
    (
        "llama_yarn",
        "ForCausalLM",
        {
            "rope_theta": 100.0,
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 8,
                "beta_fast": 2.0,
                "beta_slow": 0.25,
            },
            **TINY,
            "published": True,
        },
    ),
    (
        "llama_yarn_scaled",
        "ForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 8,
                "mscale": 0.7,
                "mscale_all_dim": 0.4,
            },
            **LIVE,
        },
    ),
    (
        "llama_linear",
        "ForCausalLM",
        {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "published": True, **LIVE},
    ),
    (  # within the trained length, and beyond it
        "llama_dynamic_short",
        "ForCausalLM",
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "published": True, **LIVE},
    ),
    (
        "llama_dynamic_long",
        "ForCausalLM",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 50.0},
            "max_position_embeddings": 6,
            **LIVE,
        },
    ),
]
