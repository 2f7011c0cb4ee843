"""nanoGPT's CPU recipe on tiny-shakespeare, training iterations only, compilation left out.

Four layers, four heads, 128 wide, windows of 64 characters, 12 a batch, AdamW, clipping at 1.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import numpy as np

STEPS = 200


def _read() -> tuple[np.ndarray, int]:
    """The training part as numbers, and how many characters there are."""
    text = Path(os.environ["ZOO_DATA"], "tinyshakespeare", "input.txt").read_text()
    alphabet = sorted(set(text))
    codes = np.searchsorted([ord(c) for c in alphabet], [ord(c) for c in text])
    return codes[: int(0.9 * len(codes))], len(alphabet)


def ours(dtype: str = "float32"):
    """The recipe's own stream and program, 50 steps a call, read ahead as the loop reads."""
    import jax

    from zoo.config import make_config
    from zoo.data import read_ahead
    from zoo.memory import keep_freed_memory
    from zoo.parallel import place_batch
    from zoo.train.build import build

    keep_freed_memory()  # as `train.py` does
    config = make_config("configs/gpt_shakespeare.py", {"model.dtype": dtype})
    parts = build(config)
    state = parts.programs.init_state()
    parts.programs.train_program(50)

    def turn() -> float:
        nonlocal state
        blocks = read_ahead(parts.stream, 0, num_workers=0, prefetch=2)
        start = time.perf_counter()
        for _ in range(STEPS // 50):
            batch = place_batch(next(blocks), parts.programs.blocks_sharding)
            state, report = parts.programs.train(state, batch, 50)
        jax.block_until_ready(report)
        return (time.perf_counter() - start) / STEPS

    return turn


def ours_bf16():
    """Arithmetic in bfloat16, parameters in float32."""
    return ours("bfloat16")


def bare(dtype: str = "float32"):
    """The least JAX, 50 steps a call, windows cut beforehand a call at a time: see `bare.py`."""
    from zoo.memory import keep_freed_memory

    keep_freed_memory()
    import jax
    import jax.numpy as jnp
    import optax

    from workloads.bare import make_gpt, make_gpt_loss, make_step

    data, vocab = _read()
    data, rng = data.astype(np.int32), np.random.default_rng(0)
    rate = optax.warmup_cosine_decay_schedule(0, 1e-3, 100, 2000, 1e-4)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.99, weight_decay=0.1)
    )
    params = jax.tree.map(jnp.asarray, make_gpt(rng, vocab, 64, 128, 4, biases=True))
    carry = (params, optimizer.init(params))
    step = make_step(make_gpt_loss(4, dtype), optimizer)

    @partial(jax.jit, donate_argnums=0)
    def run(carry, tokens):
        carry, losses = jax.lax.scan(step, carry, (tokens,))
        return carry, losses[-1]

    def turn() -> float:
        nonlocal carry
        start = time.perf_counter()
        for _ in range(STEPS // 50):
            places = rng.integers(0, len(data) - 65, (50, 12, 1))
            carry, value = run(carry, data[places + np.arange(65)])
        jax.block_until_ready(value)
        return (time.perf_counter() - start) / STEPS

    return turn


def bare_bf16():
    """Arithmetic in bfloat16, parameters in float32."""
    return bare("bfloat16")


def torch(bf16: bool = False):
    """The same model and loop in PyTorch: fused qkv, scaled_dot_product_attention, no biases."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, width: int):
            super().__init__()
            self.norm1, self.norm2 = (
                nn.LayerNorm(width, bias=False),
                nn.LayerNorm(width, bias=False),
            )
            self.qkv, self.out = nn.Linear(width, 3 * width, False), nn.Linear(width, width, False)
            self.fc1 = nn.Linear(width, 4 * width, False)
            self.fc2 = nn.Linear(4 * width, width, False)

        def forward(self, x):
            b, t, d = x.shape
            heads = (
                y.view(b, t, 4, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(d, 2)
            )
            y = functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self, vocab: int, width: int = 128, depth: int = 4, length: int = 64):
            super().__init__()
            self.embed, self.pos = nn.Embedding(vocab, width), nn.Embedding(length, width)
            self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
            self.norm = nn.LayerNorm(width, bias=False)
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)

        def forward(self, tokens, targets):
            x = self.embed(tokens) + self.pos(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = self.norm(x) @ self.embed.weight.T
            return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    codes, vocab = _read()
    data = torch.from_numpy(codes)
    torch.manual_seed(0)
    model = GPT(vocab)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            places = torch.randint(len(data) - 65, (12,))
            tokens = torch.stack([data[p : p + 65] for p in places])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return (time.perf_counter() - start) / STEPS

    return turn


def torch_bf16():
    """Under bf16 autocast."""
    return torch(bf16=True)
