"""Small models with random parameters, as `zoo.load_pretrained` would return them."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from zoo.data.tokenizers import CharTokenizer
from zoo.models import create_model, param_shapes
from zoo.pretrained.load import Pretrained, load_pretrained
from zoo.pretrained.processor import Processor
from zoo.tree import map_named, stack_layers

TOKENIZER = CharTokenizer(" &<>abcdefghijklmnopqrst")
START = {"decoder_start_token_id": 0}
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
TEXT = "a cat & <s>"
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "decoder": ("gpt2", {"num_positions": 24}),
    "llama": ("llama_7b", {"num_positions": 24, "num_kv_heads": 1, "hidden": 24}),
    "encoder": ("bert_tiny", {"head": "masked_lm", "num_positions": 24, "hidden": 24}),
    "headless": ("bert_tiny", {"num_positions": 24, "hidden": 24}),
    "t5": ("t5_small", {"decoder_depth": 2, "head_dim": 6, "hidden": 24}),
    "vit": ("vit_s4", {"num_classes": 5, "image_size": (8, 8), "hidden": 24}),
    "mixer": ("mixer_s4", {"num_classes": 5, "image_size": (8, 8), "tokens_hidden": 8}),
}


def draw_params(model: Any) -> Any:
    """Parameters of a model, nothing among them zero or even; scales of norms are about one."""
    random = np.random.default_rng(0)

    def draw(path: str, leaf: Any) -> Any:
        middle = 1.0 if path.endswith("scale") else 0.0
        return (middle + 0.4 * random.normal(size=leaf.shape)).astype(np.float32)

    return map_named(lambda path, leaf: jnp.asarray(draw(path, leaf)), param_shapes(model))


@functools.cache
def load(name: str, scanned: bool = False) -> Pretrained:
    """A case of SIZES, or another with the same parameters in scanned layers."""
    model_name, sizes = SIZES[name]
    sizes = {"width": 12, "depth": 2, **sizes}
    if name != "mixer":
        sizes["num_heads"] = 2
    processor = None
    if name in ("vit", "mixer"):
        processor = Processor((8, 8))
    else:
        sizes["vocab_size"] = TOKENIZER.vocab_size
    model = create_model(model_name, **sizes)
    params = draw_params(model)
    if scanned:
        model, params = model.clone(scan_layers=True), stack_layers(params)
    config = START if name == "t5" else {}
    told = {"source": f"tests/{name}", "processor": processor, "config": config}
    card = dataclasses.replace(load_template().card, **told)
    tokenizer = None if processor is not None else TOKENIZER
    made = {"model": model, "params": params, "tokenizer": tokenizer, "processor": processor}
    return dataclasses.replace(load_template(), **made, card=card)


@functools.cache
def load_template() -> Pretrained:
    """A recorded twin, for what the cases have no need of."""
    return load_pretrained(pathlib.Path(__file__).parent.parent / "pretrained/twins/vit_published")
