"""Twins of the decoders: what `twins.py` makes cases of."""

from __future__ import annotations

from typing import Any

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
# A window is longer than the padding: where a query sees no key, theirs gives NaN.
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "mistral": ("Mistral", {**TINY, "num_key_value_heads": 1, "sliding_window": 4}, "tokens"),
    "qwen2": ("Qwen2", {**TINY, "num_key_value_heads": 1}, "tokens"),
    "qwen3": ("Qwen3", {**TINY, "num_key_value_heads": 1}, "tokens"),
}
CONFIGS = {"Gemma3": "Gemma3Text"}
GEMMA = {**TINY, "num_key_value_heads": 1}
GEMMA2 = {**GEMMA, "sliding_window": 4, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 3.0}
GEMMA3 = {
    **GEMMA,
    "sliding_window": 4,
    "query_pre_attn_scalar": 20,
    "rope_local_base_freq": 20.0,
    "rope_theta": 100.0,
}
FAMILIES |= {
    "mixtral": (
        "Mixtral",
        {**TINY, "num_key_value_heads": 1, "num_local_experts": 3, "num_experts_per_tok": 2},
        "tokens",
    ),
    "gemma": ("Gemma", GEMMA, "tokens"),
    "gemma2": ("Gemma2", {**GEMMA2, "final_logit_softcapping": 2.0}, "tokens"),
    "gemma3": ("Gemma3", GEMMA3, "tokens"),
}
FAMILIES["qwen2"][1].pop("head_dim")
LAYERS = ("MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")
LAYERS += ("GemmaDecoderLayer", "Gemma2DecoderLayer", "Gemma3DecoderLayer", "MixtralDecoderLayer")

UNCAPPED = {"attn_logit_softcapping": None, "final_logit_softcapping": None}

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
    ("mistral_lm", "ForCausalLM", {"published": True}),
    ("mistral_classifier", "ForSequenceClassification", {"pad_token_id": 0, **LIVE}),
    ("mistral_headless", "Model", {"head_dim": 4, "rope_theta": 1e6, **LIVE}),
    ("qwen2_tied", "ForCausalLM", {"tie_word_embeddings": True, "published": True}),
    (  # the first layer looks at all places, the second at four
        "qwen2_windows",
        "ForCausalLM",
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, **LIVE},
    ),
    (
        "qwen2_old_windows",
        "Model",
        {
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "published": True,
            **LIVE,
        },
    ),
    ("qwen3_lm", "ForCausalLM", {}),
    (
        "qwen3_biased",
        "ForCausalLM",
        {"attention_bias": True, "tie_word_embeddings": True, "published": True, **LIVE},
    ),
    ("qwen3_headless", "Model", {"rope_theta": 1e6, "rms_norm_eps": 1e-5, **LIVE}),
    ("gemma_lm", "ForCausalLM", {"published": True}),
    ("gemma_old", "ForCausalLM", {"hidden_act": "gelu", "published": True, **LIVE}),
    ("gemma_headless", "Model", {"attention_bias": True, **LIVE}),
    ("gemma2_lm", "ForCausalLM", {"published": True}),
    ("gemma2_uncapped", "ForCausalLM", {**UNCAPPED, "num_hidden_layers": 3, **LIVE}),
    ("gemma2_classifier", "ForSequenceClassification", {"pad_token_id": 0, **LIVE}),
    ("gemma3_lm", "ForCausalLM", {"sliding_window_pattern": 2, "published": True}),
    (
        "gemma3_new",
        "ForCausalLM",
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 9.0},
            },
            "final_logit_softcapping": 2.0,
            **LIVE,
        },
    ),
    ("gemma3_headless", "TextModel", {"sliding_window_pattern": 2, **LIVE}),
    ("gemma3_classifier", "TextForSequenceClassification", {"pad_token_id": 0, **LIVE}),
    ("mixtral_lm", "ForCausalLM", {"published": True}),
    ("mixtral_windowed", "Model", {"sliding_window": 4, "num_experts_per_tok": 1, **LIVE}),
]
