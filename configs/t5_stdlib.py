"""T5's spans on Python's own standard library: what was cut out of a text is written again.

    python train.py --config configs/t5_stdlib.py --workdir runs/t5               # T5-small
    python train.py --config configs/t5_stdlib.py:small --workdir runs/t5_small   # 2 cores

By default T5-small in the setting of Raffel et al. 2020: 60 M parameters, 32,000 pieces and 100
sentinels, rows of 512 tokens of which 15 % in spans of 3 are cut out, 128 rows a batch, Adafactor
with the inverse square root of the step after 10,000, 524,288 steps. That is for accelerators and
for more text than this. `small`: three layers a side, 128 wide, 2,000 pieces, rows of 128, 16 a
batch: 1.6 M parameters. Whole packages are held out as 'val'. `zoo eval` tells the loss in nats a
token of what was cut out, for no text is a translation of another here.
`small` has Adafactor too: an embedding drawn at a deviation of 1 hardly moves under AdamW at 2e-3.
Reached (`small`, one seed, 23 minutes on 2 CPU cores with other work beside it): 3.88 nats a token
on held-out packages; of the text's own tokens, without sentinels, 5.02, the best unigram 6.19.
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

SMALL = {"width": 128, "depth": 3, "num_heads": 4, "head_dim": 32, "hidden": 512}


def get_config(argument: str = "") -> Config:
    """`small`: a model for 2 cores; `quick`: a few steps of it on synthetic text."""
    options = parse_options(argument, "small", "quick")
    small = bool(options)
    pieces = 100 if "quick" in options else 2000 if small else 32000
    optim = OptimConfig(
        "adafactor",
        1e-2,
        schedule="inverse_square_root",
        schedule_arguments={"constant_steps": 10_000},
    )
    if small:
        optim = OptimConfig("adafactor", 2e-2, schedule="cosine", warmup_steps=100, clip_norm=1.0)
    train = TrainConfig(batch_size=128, num_steps=2**19, eval_every_steps=5000)
    if small:
        train = TrainConfig(batch_size=16, num_steps=4000, steps_per_call=10, eval_every_steps=1000)
    config = Config(
        model=ModelConfig("t5_small", SMALL if small else {}),
        data=DataConfig(
            "embedded:stdlib",
            tokenizer=f"unigram:{pieces}+100",
            length=128 if small else 512,
            transform="corrupt_spans(0.15, 3.0)",
        ),
        task=TaskConfig("seq2seq"),
        optim=optim,
        train=train,
        checkpoint=CheckpointConfig(every_steps=1000),
        log=LogConfig(every_steps=100),
    )
    return quick(config) if "quick" in options else config
