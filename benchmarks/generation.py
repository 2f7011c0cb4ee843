"""`zoo.generate` beside transformers' `generate`: greedy, float32, the same random weights.

    python benchmarks/generation.py [ROUNDS]        # extra: bench

GPT-2 124M and a model of 4 layers (128 wide, 65 tokens, as `gpt_shakespeare`), 1 and 8 rows, in
turns; prompts of 32 tokens, 64 (of the small one 30) new ones, no end. Prints tokens a second, the
median ratio, and what reading all parameters once a step would allow: at one row a step is little
but that reading, whoever does it. Checks that both say the same tokens.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import zoo
from zoo.tree import count_params

MODELS = {
    "gpt2 124M": ({}, 32, 64),
    "4 layers": ({"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 65}, 32, 30),
}


def make_pair(fields: dict[str, Any], folder: str) -> tuple[Any, Any]:
    """(transformers' model, ours) of the same random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(**ends, **fields)).save_pretrained(folder)
    return GPT2LMHeadModel.from_pretrained(folder).eval(), zoo.load_pretrained(folder)


def make_sides(
    theirs: Any, ours: Any, prompts: np.ndarray, count: int
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """What each side does; each returns the new tokens `[b, n]`."""
    import torch

    tokens = torch.tensor(prompts)

    def run_theirs() -> np.ndarray:
        made = theirs.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        return made[:, prompts.shape[1] :].numpy()

    def run_ours() -> np.ndarray:
        made = zoo.generate(ours, list(prompts), max_new_tokens=count, min_new_tokens=count)
        return np.array([one.tokens for one in made])

    return run_theirs, run_ours


def time_once(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_reading() -> float:
    """Bytes a second of a product of one row with matrices of 1 GB in all."""
    matrices = [jax.numpy.ones((2048, 8192)) for _ in range(16)]

    @jax.jit
    def multiply(x: Any, matrices: Any) -> Any:
        return sum((x @ matrix).sum() for matrix in matrices)

    x = jax.numpy.ones((1, 2048))
    multiply(x, matrices).block_until_ready()
    best = min(time_once(lambda: multiply(x, matrices).block_until_ready()) for _ in range(5))
    return sum(matrix.nbytes for matrix in matrices) / best


def main(rounds: int) -> None:
    for name, (fields, length, count) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            theirs, ours = make_pair(fields, folder)
        num_bytes = 4 * count_params(ours.params)
        random = np.random.default_rng(0)
        for rows in (1, 8):
            prompts = random.integers(1, ours.model.vocab_size, (rows, length))
            run_theirs, run_ours = make_sides(theirs, ours, prompts, count)
            same = np.array_equal(run_theirs(), run_ours())
            pairs = [(time_once(run_theirs), time_once(run_ours)) for _ in range(rounds)]
            a, b = (rows * count / statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(x / y for x, y in pairs)
            most = rows * measure_reading() / num_bytes
            print(
                f"{name}, {rows} row{'s' * (rows > 1)}: transformers {a:,.0f} tokens/s, "
                f"zoo {b:,.0f}, ratio {ratio:.2f}; reading alone {most:,.0f}; "
                f"{'the same tokens' if same else 'OTHER TOKENS'}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
