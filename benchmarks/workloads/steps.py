"""What the sides share: compiled steps of ours, a loop of PyTorch's."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def time_zoo_steps(config, dataset, num_steps: int) -> Callable[[], float]:
    """Seconds a step of the run's own compiled program, on one placed batch."""
    import jax

    from zoo.memory import keep_freed_memory
    from zoo.parallel import place_batch
    from zoo.train.build import build

    keep_freed_memory()  # as `train.py` does
    parts = build(config, dataset)
    batch = place_batch(parts.stream[0], parts.programs.blocks_sharding)
    state = parts.programs.init_state()

    def turn() -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(num_steps):
            state, report = parts.programs.train(state, batch, 1)
        jax.block_until_ready(report)
        return (time.perf_counter() - start) / num_steps

    return turn


def time_torch_steps(model, batch: dict, num_steps: int, bf16: bool) -> Callable[[], float]:
    """Seconds a step of AdamW on a transformers model that returns its loss."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(num_steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(**batch).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return (time.perf_counter() - start) / num_steps

    return turn


class RandomTokens:
    """A tokenizer in name only, for batches of random tokens."""

    end, token_bytes = None, None

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def to_json(self) -> str:
        return f"{self.vocab_size} random tokens"


def random_tokens(vocab_size: int, count: int, length: int):
    """A dataset of random windows."""
    from zoo.data import ArraySource, Dataset

    tokens = np.random.default_rng(0).integers(0, vocab_size, (count, length + 1), np.int32)
    source = ArraySource({"tokens": tokens})
    return Dataset("random", {"train": source}, tokenizer=RandomTokens(vocab_size))
