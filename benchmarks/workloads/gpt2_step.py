"""GPT-2 124M, 2 x 256 tokens, one AdamW step."""

from __future__ import annotations

from workloads.steps import random_tokens, time_torch_steps, time_zoo_steps

BATCH, LENGTH, STEPS = 2, 256, 2


def ours(dtype: str = "float32"):
    """The step as `train.py` compiles it."""
    from zoo.config import Config, ModelConfig, OptimConfig, TaskConfig, TrainConfig

    config = Config(
        model=ModelConfig("gpt2", dtype=dtype),
        task=TaskConfig("causal_lm"),
        optim=OptimConfig("adamw", 1e-4, weight_decay=0.01),
        train=TrainConfig(batch_size=BATCH, num_steps=1000),
    )
    return time_zoo_steps(config, random_tokens(50257, BATCH, LENGTH), STEPS)


def ours_bf16():
    """Arithmetic in bfloat16, parameters in float32."""
    return ours("bfloat16")


def bare(dtype: str = "float32"):
    """The least JAX: see `bare.py`."""
    from zoo.memory import keep_freed_memory

    keep_freed_memory()
    import numpy as np

    from workloads.bare import make_gpt, make_gpt_loss, time_bare_steps

    rng = np.random.default_rng(0)
    params = make_gpt(rng, 50257, 1024, 768, 12, biases=True)
    tokens = rng.integers(0, 50257, (BATCH, LENGTH + 1), np.int32)
    return time_bare_steps(make_gpt_loss(12, dtype), params, (tokens,), STEPS)


def bare_bf16():
    """Arithmetic in bfloat16, parameters in float32."""
    return bare("bfloat16")


def transformers(bf16: bool = False):
    """GPT2LMHeadModel with its defaults but dropout."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))
    tokens = torch.randint(0, 50257, (BATCH, LENGTH))
    return time_torch_steps(model, {"input_ids": tokens, "labels": tokens}, STEPS, bf16)


def transformers_bf16():
    """Under bf16 autocast."""
    return transformers(bf16=True)
