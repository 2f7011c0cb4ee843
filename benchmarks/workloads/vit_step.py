"""ViT-Ti/16 on 224 x 224 images, batch 16, one AdamW step."""

from __future__ import annotations

import numpy as np

from workloads.steps import time_torch_steps, time_zoo_steps

BATCH, STEPS = 16, 4


def ours(dtype: str = "float32"):
    """The step as `train.py` compiles it."""
    from zoo.config import Config, ModelConfig, OptimConfig, TrainConfig
    from zoo.data import ArraySource, Dataset

    images = np.random.default_rng(0).normal(size=(BATCH, 224, 224, 3)).astype(np.float32)
    source = ArraySource({"image": images, "label": np.arange(BATCH, dtype=np.int32)})
    config = Config(
        model=ModelConfig("vit_ti16", dtype=dtype),
        optim=OptimConfig("adamw", 1e-4, weight_decay=0.01),
        train=TrainConfig(batch_size=BATCH, num_steps=1000),
    )
    return time_zoo_steps(config, Dataset("random", {"train": source}, 1000), STEPS)


def ours_bf16():
    """Arithmetic in bfloat16, parameters in float32."""
    return ours("bfloat16")


def bare(dtype: str = "float32"):
    """The least JAX: see `bare.py`."""
    from zoo.memory import keep_freed_memory

    keep_freed_memory()
    import jax.numpy as jnp

    from workloads.bare import (
        cross_entropy,
        dense,
        make_layers,
        make_norm,
        norm,
        run_layers,
        time_bare_steps,
    )

    rng, width = np.random.default_rng(0), 192

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.02, shape).astype(np.float32)

    params = {
        "embed": {"w": draw(768, width), "b": np.zeros(width, np.float32)},
        "cls": draw(1, 1, width),
        "pos": draw(197, width),
        "layers": make_layers(rng, width, 12, biases=True),
        "norm": make_norm(width, bias=True),
        "head": {"w": draw(width, 1000), "b": np.zeros(1000, np.float32)},
    }

    def loss(p, images, labels):
        patches = images.reshape(BATCH, 14, 16, 14, 16, 3).transpose(0, 1, 3, 2, 4, 5)
        x = dense(p["embed"], patches.reshape(BATCH, 196, 768).astype(dtype))
        first = jnp.broadcast_to(p["cls"].astype(dtype), (BATCH, 1, width))
        x = jnp.concatenate([first, x], 1) + p["pos"].astype(dtype)
        x = run_layers(p["layers"], x, 3, causal=False, epsilon=1e-6, by_tanh=False)
        return cross_entropy(dense(p["head"], norm(p["norm"], x, 1e-6)[:, 0]), labels)

    images = rng.normal(size=(BATCH, 224, 224, 3)).astype(np.float32)
    return time_bare_steps(loss, params, (images, np.arange(BATCH, dtype=np.int32)), STEPS)


def bare_bf16():
    """Arithmetic in bfloat16, parameters in float32."""
    return bare("bfloat16")


def transformers(bf16: bool = False):
    """ViTForImageClassification at the same size."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    size = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
    model = ViTForImageClassification(ViTConfig(**size, num_labels=1000))
    batch = {"pixel_values": torch.randn(BATCH, 3, 224, 224), "labels": torch.arange(BATCH)}
    return time_torch_steps(model, batch, STEPS, bf16)


def transformers_bf16():
    """Under bf16 autocast."""
    return transformers(bf16=True)
