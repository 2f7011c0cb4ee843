"""The encoder-decoders' part of `twins.py`'s table."""

from __future__ import annotations

from typing import Any

LAYERS = (
    "T5Block",
    "MT5Block",
    "MarianEncoderLayer",
    "MarianDecoderLayer",
    "BartEncoderLayer",
    "BartDecoderLayer",
    "MBartEncoderLayer",
    "MBartDecoderLayer",
)
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 50,
    "decoder_start_token_id": 0,
    "initializer_factor": 0.05,  # the noise is what counts, as in the other families
}
BART = {
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 12,
    "vocab_size": 30,
    # Of the padding's embedding torch takes no gradient; among the inputs it is masked 0s that pad.
    "pad_token_id": 1,
}
MARIAN = {
    **BART,
    "activation_function": "swish",
    "scale_embedding": True,
    "decoder_start_token_id": 0,
    "eos_token_id": 2,
}
# Family -> prefix of its classes, config, kind of inputs.
FAMILIES = {
    "t5": ("T5", T5, "pair"),
    "mt5": ("MT5", T5, "pair"),
    "marian": ("Marian", MARIAN, "pair"),
    "bart": ("Bart", BART, "pair"),
    "mbart": ("MBart", {**BART, "scale_embedding": True}, "pair"),
}
LM = "ForConditionalGeneration"
GATED = {"feed_forward_proj": "gated-gelu"}
UNTIED = {"tie_word_embeddings": False}
FAR = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}
LIVE = {"recorded": False}
OLD = {"normalize_before": False, "add_final_layer_norm": False}
OWN_TARGET = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 36}

# name, head, what `_case` takes.
CASES: tuple[tuple[Any, ...], ...] = (
    ("t5_v1", LM, {"published": True}),
    ("t5_v1_1", LM, {**GATED, **UNTIED, "published": True}),
    # As transformers 5 writes a v1.1 made from its config: tied after all, and yet not scaled.
    ("t5_unscaled", LM, {**GATED, **UNTIED}),
    ("t5_silu", LM, {"feed_forward_proj": "gated-silu", "d_kv": 6, "num_decoder_layers": 3}),
    ("t5_far", LM, {**FAR, "length": 15}),
    # Distances 16 and 32 fall on the edges of the usual buckets.
    ("t5_edges", LM, {"length": 35}),
    ("t5_headless", "Model", {"d_kv": 12}),
    ("t5_gated_headless", "Model", {**GATED, "num_layers": 3, "num_decoder_layers": 2, **LIVE}),
    ("mt5_lm", LM, {**GATED, **UNTIED, "published": True, **LIVE}),
    ("mt5_headless", "Model", {**GATED, **LIVE}),
    ("marian_mt", "MTModel", {"published": True, **OLD, "static_position_embeddings": True}),
    ("marian_two_vocabularies", "MTModel", {**OWN_TARGET, **UNTIED, "decoder_layers": 1}),
    ("marian_tied_target", "MTModel", {**OWN_TARGET, "activation_function": "relu", **LIVE}),
    ("marian_gelu", "MTModel", {"activation_function": "gelu", "scale_embedding": False, **LIVE}),
    ("bart_lm", LM, {"published": True, **OLD}),
    ("bart_classifier", "ForSequenceClassification", {"inputs": "shifted"}),
    ("bart_answerer", "ForQuestionAnswering", {"inputs": "shifted", "decoder_layers": 1, **LIVE}),
    ("bart_headless", "Model", {"activation_function": "gelu_new", **LIVE}),
    ("bart_relu", LM, {"activation_function": "relu", "scale_embedding": True, **LIVE}),
    ("mbart_lm", LM, {}),
    ("mbart_headless", "Model", {"activation_function": "relu", **LIVE}),
    ("mbart_classifier", "ForSequenceClassification", {"inputs": "shifted", **LIVE}),
)
