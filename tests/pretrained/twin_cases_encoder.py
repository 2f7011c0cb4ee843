"""Twins of the encoders: BERT, ALBERT, ELECTRA, RoBERTa, DistilBERT.

One recorded case a kind of arithmetic; the other heads and variations are made where torch is.
"""

from __future__ import annotations

from typing import Any

LAYERS = ("ElectraLayer", "RobertaLayer", "XLMRobertaLayer", "TransformerBlock")  # DistilBERT's

BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "vocab_size": 50,
}
ALBERT = {**BERT, "num_hidden_layers": 3, "embedding_size": 8}
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "vocab_size": 30,
}
ELECTRA = {**SMALL, "embedding_size": 4}
ROBERTA = {**SMALL, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
DISTILBERT = {
    "dim": 8,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 16,
    "max_position_embeddings": 16,
    "vocab_size": 30,
}
FAMILIES = {
    "bert": ("Bert", BERT, "types"),
    "albert": ("Albert", ALBERT, "types"),
    "electra": ("Electra", ELECTRA, "types"),
    "roberta": ("Roberta", ROBERTA, "tokens"),
    "xlmr": ("XLMRoberta", ROBERTA, "tokens"),
    "distilbert": ("DistilBert", DISTILBERT, "tokens"),
}


def _case(name: str, head: str, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    if head == "ForMultipleChoice":
        fields["inputs"] = "choices"
    return name, head, fields


CASES = (
    _case("bert_headless", "Model", published=True),
    _case("bert_masked_lm", "ForMaskedLM"),
    _case("bert_classifier", "ForSequenceClassification", num_labels=3, layer_norm_eps=1e-5),
    _case("bert_tagger", "ForTokenClassification", num_labels=4, hidden_act="gelu_new"),
    _case("bert_answerer", "ForQuestionAnswering", hidden_act="relu"),
    _case("bert_one_type", "Model", type_vocab_size=1, hidden_act="silu", inputs="tokens"),
    _case("bert_untied", "ForMaskedLM", tie_word_embeddings=False),
    _case("bert_relu", "ForMaskedLM", hidden_act="relu", published=True, recorded=False),
    _case("albert_masked_lm", "ForMaskedLM", published=True),
    _case("albert_headless", "Model", hidden_act="gelu"),
    _case("albert_classifier", "ForSequenceClassification", num_labels=3),
    _case("albert_erf", "ForMaskedLM", hidden_act="gelu", layer_norm_eps=1e-5, recorded=False),
    _case("electra_discriminator", "ForPreTraining", published=True),
    _case("electra_generator", "ForMaskedLM", published=True),
    # One GELU is fixed, the other is not.
    _case(
        "electra_classifier",
        "ForSequenceClassification",
        num_labels=3,
        hidden_act="relu",
    ),
    _case(
        "electra_wide", "ForPreTraining", embedding_size=8, hidden_act="gelu_new", recorded=False
    ),
    _case(
        "electra_untied",
        "ForMaskedLM",
        tie_word_embeddings=False,
        layer_norm_eps=1e-6,
        recorded=False,
    ),
    _case("electra_headless", "Model", hidden_act="silu", recorded=False),
    _case("electra_wide_headless", "Model", embedding_size=8, recorded=False),
    _case("electra_tagger", "ForTokenClassification", num_labels=4, recorded=False),
    _case("electra_answerer", "ForQuestionAnswering", recorded=False),
    _case("electra_chooser", "ForMultipleChoice", hidden_act="relu", recorded=False),
    _case("roberta_masked_lm", "ForMaskedLM", published=True),
    _case(
        "roberta_classifier",
        "ForSequenceClassification",
        num_labels=3,
        published=True,
        recorded=False,
    ),
    _case("roberta_headless", "Model", hidden_act="gelu_new", recorded=False),
    _case("roberta_two_types", "Model", type_vocab_size=2, inputs="types", recorded=False),
    _case("roberta_tagger", "ForTokenClassification", num_labels=4, pad_token_id=2, recorded=False),
    _case("roberta_answerer", "ForQuestionAnswering", recorded=False),
    _case("roberta_chooser", "ForMultipleChoice", recorded=False),
    _case("xlmr_masked_lm", "ForMaskedLM", published=True, recorded=False),
    _case("xlmr_classifier", "ForSequenceClassification", recorded=False),
    _case("distilbert_masked_lm", "ForMaskedLM", activation="relu", published=True),
    _case("distilbert_classifier", "ForSequenceClassification", num_labels=3),
    _case("distilbert_headless", "Model", activation="gelu_new", recorded=False),
    _case(
        "distilbert_sines",
        "ForMaskedLM",
        sinusoidal_pos_embds=True,
        tie_word_embeddings=False,
        recorded=False,
    ),
    _case("distilbert_tagger", "ForTokenClassification", num_labels=4, recorded=False),
    _case("distilbert_answerer", "ForQuestionAnswering", recorded=False),
    _case("distilbert_chooser", "ForMultipleChoice", recorded=False),
    _case("bert_chooser", "ForMultipleChoice", **SMALL),
    _case("albert_chooser", "ForMultipleChoice", recorded=False),
)
