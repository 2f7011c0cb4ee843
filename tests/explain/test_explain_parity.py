"""Attention maps beside transformers' own (`output_attentions`) on live twins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import zoo
from zoo.data.tokenizers import CharTokenizer

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]
TOKENIZER = CharTokenizer("abcdefghijkl")
# Class, config, and how our parts are called there.
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "vocab_size": 30}
TWINS = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30}),
    "gemma2": (
        "Gemma2ForCausalLM",
        {**SMALL, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32},
    ),
    "bert": ("BertForMaskedLM", {**SMALL, "intermediate_size": 32}),
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 30},
    ),
}
THEIRS = {
    "attention": "attentions",
    "encoder": "encoder_attentions",
    "decoder": "decoder_attentions",
    "cross": "cross_attentions",
}


@pytest.mark.parametrize("name", TWINS)
def test_maps_are_those_of_transformers(tmp_path, name):
    torch = pytest.importorskip("torch", reason="pip install -e '.[parity]'")
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[parity]'")
    kind, sizes = TWINS[name]
    cls = getattr(transformers, kind)
    torch.manual_seed(0)
    more = {"decoder_start_token_id": 0} if name == "t5" else {}
    config = cls.config_class(**sizes, **more, attn_implementation="eager")
    theirs = cls(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    theirs.save_pretrained(tmp_path)
    ours = dataclasses.replace(zoo.load_pretrained(tmp_path), tokenizer=TOKENIZER)
    text = "abcdefgab"
    ids = torch.tensor(TOKENIZER.encode(text).astype(np.int64))[None]
    inputs = {"input_ids": ids}
    if name == "t5":
        target = torch.tensor([[0, *TOKENIZER.encode("cab")]])
        inputs["decoder_input_ids"] = target
    with torch.no_grad():
        result = theirs(**inputs, output_attentions=True)
    found = zoo.explain(ours, text, target="cab" if name == "t5" else None)
    assert len(found.parts) == (3 if name == "t5" else 1)
    for part in found.parts:
        expected = torch.stack(getattr(result, THEIRS[part.name]))[:, 0].numpy()
        np.testing.assert_allclose(part.weights, expected, atol=1e-5, err_msg=part.name)
