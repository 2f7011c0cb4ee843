"""Twins of CLIP and SigLIP, both towers together and each alone; their inputs and outputs.

A twin of both towers has `images`, `tokens` and `mask`, logits `[images, texts]` as its output,
`image/embedding` and `text/embedding` (of length 1), `image/hidden/NN` and `text/hidden/NN`. That
of one tower has its embedding or, without a projection, its pooled vector as output; of a text
tower also `encoded`, its last hidden state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LAYERS = ("CLIPEncoderLayer", "SiglipEncoderLayer")
SIDES = {"vision_model": "image", "text_model": "text"}

SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
VISION = {**SIZES, "image_size": 8, "patch_size": 4}
TEXT = {**SIZES, "hidden_size": 12, "vocab_size": 30, "max_position_embeddings": 10}
OLD = {"bos_token_id": 0, "eos_token_id": 2}  # as OpenAI's files say
END = {"bos_token_id": 28, "eos_token_id": 20}
CLIP = {"projection_dim": 6, "vision_config": VISION, "text_config": {**TEXT, **OLD}}
SIGLIP_TEXT = {**TEXT, **END, "hidden_size": 8}
SIGLIP = {"vision_config": VISION, "text_config": SIGLIP_TEXT}

# The family, as the name's first word; class and config in transformers; config; inputs.
FAMILIES = {
    "clip": ("CLIP", CLIP, "towers"),
    "clipvision": ("CLIPVision", {**VISION, "projection_dim": 6}, "images"),
    "cliptext": ("CLIPText", {**TEXT, **END, "projection_dim": 6}, "texts"),
    "siglip": ("Siglip", SIGLIP, "towers"),
    "siglipvision": ("SiglipVision", VISION, "images"),
    "sigliptext": ("SiglipText", SIGLIP_TEXT, "texts"),
}
# The arguments of `_case` of twins.py.
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("clip_published", "Model", {"published": True}),
    ("clip_end", "Model", {"text_config": {**TEXT, **END}, "recorded": False}),
    # LAION's towers take the exact form of GELU.
    (
        "clip_gelu",
        "Model",
        {
            "vision_config": {**VISION, "hidden_act": "gelu"},
            "text_config": {**TEXT, **OLD, "hidden_act": "gelu"},
            "recorded": False,
        },
    ),
    ("clipvision_headless", "Model", {"recorded": False}),
    ("clipvision_projected", "ModelWithProjection", {"recorded": False}),
    ("cliptext_headless", "Model", {"recorded": False}),
    ("cliptext_projected", "ModelWithProjection", {}),
    # A pixel is behind the last whole patch, as in so400m at 384 pixels.
    (
        "siglip_pixels",
        "Model",
        {"vision_config": {**VISION, "image_size": 9}, "published": True},
    ),
    # The image tower of SigLIP 2's largest model is wider than its text tower.
    (
        "siglip_wide",
        "Model",
        {
            "vision_config": {**VISION, "hidden_size": 16},
            "text_config": {**SIGLIP_TEXT, "projection_size": 16},
            "recorded": False,
        },
    ),
    ("siglipvision_headless", "Model", {"recorded": False}),
    ("sigliptext_headless", "Model", {"recorded": False}),
)


def make_tower_inputs(case: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Two rows of tokens, the second padded, each with its end token; images for two towers."""
    config = case.arguments.get("text_config", case.arguments)
    tokens = random.integers(3, config["vocab_size"], (2, case.length)).astype(np.int32)
    mask = np.ones((2, case.length), np.uint8)
    mask[1, -3:] = 0
    if config["eos_token_id"] != OLD["eos_token_id"]:
        tokens[0, [4, 7]] = tokens[1, 5] = config["eos_token_id"]
    inputs = {"tokens": tokens * mask.astype(np.int32), "mask": mask}
    if case.inputs == "towers":
        side = case.arguments["vision_config"]["image_size"]
        images = 0.2 * random.normal(size=(2, side, side, 3))
        inputs["images"] = images.astype(np.float32)
    return inputs


def pick_tower_outputs(result: Any, case: Any) -> dict[str, Any]:
    """What a tower or two give, by our names; nothing of another family."""
    if case.config.removesuffix("Config") not in {family for family, *_ in FAMILIES.values()}:
        return {}
    if case.inputs == "towers":
        found = {"image/embedding": result.image_embeds, "text/embedding": result.text_embeds}
        return {"output": result.logits_per_image, **found}
    names = ("image_embeds", "text_embeds", "pooler_output")
    found = {"output": next(getattr(result, name) for name in names if hasattr(result, name))}
    return {**found, "encoded": result.last_hidden_state} if case.inputs == "texts" else found
