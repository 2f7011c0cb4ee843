"""GPT-3 175B as published (Brown et al. 2020, table 2.1 and appendix B), for a pod.

    zoo plan configs/gpt3_175b.py v5p:8x16x16        # what it needs and takes, on any machine
    python train.py --config configs/gpt3_175b.py --workdir gs://BUCKET/gpt3 \\
        --config.data.source='text:gs://BUCKET/*.txt' --config.data.tokenizer=gpt2

300 billion tokens in 95,367 steps of 1,536 rows of 2,048, Adam at 6e-5 with 375 million tokens of
warm-up and a cosine to a tenth. Here full and not every other layer's attention is dense, and the
batch does not grow. Parameters and moments are float32, arithmetic bfloat16; blocks are computed
again on the way back. The text of this recipe is Python's own standard library in bytes: a stand-in
for your own. *Not run here*: only `:quick` was, and the whole step compiled (docs/scale.md).
"""

from __future__ import annotations

from zoo.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    TaskConfig,
    TrainConfig,
    parse_options,
    quick,
)


def get_config(argument: str = "") -> Config:
    """`quick`: a few steps of a small model on synthetic text."""
    options = parse_options(argument, "quick")
    small = {"width": 32, "depth": 2, "num_heads": 2} if "quick" in options else {}
    config = Config(
        model=ModelConfig(
            "gpt3_175b",
            {"vocab_size": 50257, **small},
            scan_layers=True,
            remat="full",
            dtype="float32" if small else "bfloat16",
        ),
        data=DataConfig("embedded:stdlib", tokenizer="bytes", length=2048, packing=True),
        # Logits at once: in parts each part gathers the embedding and adds up its gradient.
        task=TaskConfig("causal_lm", {"places": 0}),
        optim=OptimConfig(
            "adamw",
            6e-5,
            {"b2": 0.95},
            schedule="cosine",
            schedule_arguments={"final": 0.1},
            warmup_steps=119,
            weight_decay=0.1,
            clip_norm=1.0,
        ),
        train=TrainConfig(batch_size=1536, num_steps=95_367, eval_every_steps=1000),
        parallel=ParallelConfig() if small else ParallelConfig(data=1, fsdp=-1, tensor=8),
        checkpoint=CheckpointConfig(every_steps=500),
        log=LogConfig(every_steps=10),
    )
    return quick(config) if small else config
