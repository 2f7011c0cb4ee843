"""Twins of the image families beside ViT: DeiT, DINOv2, MAE. Read by `twins.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

LAYERS = ("DeiTLayer", "Dinov2Layer", "Dinov2WithRegistersLayer", "ViTMAELayer")
INPUTS = ("images", "masked", "noise")

BASE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
DEIT = {**BASE, "intermediate_size": 32}
DINOV2 = {**BASE, "mlp_ratio": 2}
MAE = {
    **BASE,
    "image_size": 16,
    "intermediate_size": 24,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 20,
}
FAMILIES = {
    "mae": ("ViTMAE", MAE, "noise"),
    "deit": ("DeiT", DEIT, "images"),
    "dinov2": ("Dinov2", DINOV2, "images"),
    "registers": ("Dinov2WithRegisters", DINOV2, "images"),
}
GATED = {"use_swiglu_ffn": True}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("deit_taught", "ForImageClassificationWithTeacher", {"num_labels": 5}),
    ("deit_classifier", "ForImageClassification", {"num_labels": 5, "recorded": False}),
    ("deit_headless", "Model", {"published": True, "recorded": False}),
    ("dinov2_headless", "Model", {"inputs": "masked", "published": True}),
    ("dinov2_classifier", "ForImageClassification", {"num_labels": 5, "recorded": False}),
    ("dinov2_bare", "Model", {"use_mask_token": False, "qkv_bias": False, "recorded": False}),
    ("dinov2_oblong", "Model", {"hidden_act": "relu", "patch_size": [4, 2], "recorded": False}),
    ("registers_gated", "ForImageClassification", {"num_labels": 5, **GATED}),
    ("registers_headless", "Model", {"num_register_tokens": 3, "recorded": False}),
    ("mae_pixels", "ForPreTraining", {"published": True}),
    ("mae_half", "ForPreTraining", {"mask_ratio": 0.5, "qkv_bias": False, "recorded": False}),
    ("mae_headless", "Model", {"layer_norm_eps": 1e-6, "recorded": False}),
    ("dinov2_gated", "Model", {**GATED, "recorded": False}),
]


def make_inputs(case: Any, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Two images, which patches are masked, or the noise that masks."""
    size, patch = as_pair(case.arguments["image_size"]), as_pair(case.arguments["patch_size"])
    shape = (2, *size, case.arguments.get("num_channels", 3))
    # Faint images: before the first norm the epsilon must be seen.
    inputs = {"images": 0.2 * random.normal(size=shape).astype(np.float32)}
    num_patches = (size[0] // patch[0]) * (size[1] // patch[1])
    if case.inputs == "masked":
        inputs["masked"] = (np.arange(num_patches) % 3 == [[1], [2]]).astype(np.uint8)
    if case.inputs == "noise":
        inputs["noise"] = random.uniform(size=(2, num_patches)).astype(np.float32)
    return inputs


def as_pair(size: Any) -> tuple[int, int]:
    return tuple(size) if isinstance(size, list) else (size, size)


def name_inputs(inputs: dict[str, np.ndarray], dtype: Any) -> dict[str, Any]:
    """Our names to theirs."""
    import torch

    named = {"pixel_values": torch.tensor(inputs["images"].transpose(0, 3, 1, 2), dtype=dtype)}
    if "masked" in inputs:
        named["bool_masked_pos"] = torch.tensor(inputs["masked"]).bool()
    if "noise" in inputs:
        named["noise"] = torch.tensor(inputs["noise"])
    return named


def name_side(path: str) -> str:
    """Whose hidden state a layer of an autoencoder gives."""
    return "decoder/hidden" if path.startswith("decoder") else "encoder/hidden"


def rename_as_published(path: Any) -> None:
    """transformers 5 saves a MAE's decoder under keys that no published file has."""
    arrays = load_file(path)
    made = {k.replace("decoder_encoder.layer.", "decoder_layers."): v for k, v in arrays.items()}
    if made.keys() != arrays.keys():
        save_file(made, path, metadata={"format": "pt"})
