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
