"""LoRA: the small GPT of Python's standard library moved to Shakespeare by small corrections.

    python train.py --config configs/gpt_stdlib.py --workdir runs/stdlib
    python train.py --config configs/lora_shakespeare.py --workdir runs/lora    # needs ZOO_DATA
    python train.py --config configs/lora_shakespeare.py:full --workdir runs/full

Begins from the run `runs/stdlib` (or that of --config.init_from) and keeps its tokens. Rank 16 at
every dense layer of the blocks; `full` trains all parameters in as many steps. `val` is the last
tenth of the text. The rate is gpt_stdlib's own; nothing was tuned. The corrections are 184,320 of
1,769,920 parameters.
Reached: 2.629 bits a byte on 'val', `full` 2.259; six minutes each on 2 busy CPU cores.
"""

from __future__ import annotations

from zoo.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TaskConfig,
    TrainConfig,
    parse_options,
    quick,
)


def get_config(argument: str = "") -> Config:
    """`full`: all parameters train; `quick`: a few steps of a small model without the base run,
    and so without LoRA, on synthetic text."""
    options = parse_options(argument, "full", "quick")
    whole = bool(options & {"full", "quick"})
    lora = {} if whole else {"rank": 16, "alpha": 32.0, "targets": "attn/|mlp/"}
    small = {"width": 64, "depth": 2, "num_heads": 2, "num_positions": 32}
    config = Config(
        init_from="./runs/stdlib",
        model=ModelConfig("gpt2", small)
        if "quick" in options
        else ModelConfig("pretrained", lora=lora),
        data=DataConfig("files:tinyshakespeare", tokenizer="init_from", length=128),
        task=TaskConfig("causal_lm"),
        optim=OptimConfig(
            "adamw",
            2e-3,
            {"b2": 0.99},
            schedule="cosine",
            schedule_arguments={"final": 0.1},
            warmup_steps=50,
            clip_norm=1.0,
        ),
        train=TrainConfig(batch_size=12, num_steps=1000, steps_per_call=10, eval_every_steps=500),
        checkpoint=CheckpointConfig(every_steps=500),
        log=LogConfig(every_steps=50),
    )
    return quick(config) if "quick" in options else config
