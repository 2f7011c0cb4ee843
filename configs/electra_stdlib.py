"""ELECTRA on Python's own standard library: which tokens has a small generator replaced?

    python train.py --config configs/electra_stdlib.py:small --workdir runs/electra_stdlib

The counterpart of `bert_stdlib`, whose text, tokens and rows it has, at equal compute. The default
is ELECTRA-base as published (Clark et al. 2020): 766,000 steps beside BERT's million, a generator
of a third of the width. `small` has the model of `bert_stdlib:small` and a generator of a quarter
of its width; 2,730 steps of it cost as many floating-point operations as 3,000 of that one, by
XLA's count of the compiled steps (1.10 times as many a step). Its rate is half of that one's, with
a longer warm-up: at 1e-3 after 27 steps the discriminator had flagged nothing by step 930.

To compare the two, fine-tune both alike, from some seeds each (needs ZOO_DATA):

    python train.py --config configs/minilm_sst2.py:8k --config.init_from=./runs/electra_stdlib \\
        --config.model.name=pretrained --workdir runs/electra_sst2

and the same from ./runs/bert_stdlib; `minilm_cola` likewise. What leaves the run is the
discriminator alone.
Reached (`small`, one seed, 80 minutes of one CPU core): of the replaced tokens of held-out packages
11 % are found, at a precision of 0.66. Fine-tuned on 8,000 pieces of SST-2 (seeds 0-2) 0.615; from
`bert_stdlib:small` 0.647, from scratch 0.622. On CoLA none of the three learns anything.
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
    """`small`: for 2 cores; `quick`: a few steps on synthetic text."""
    options = parse_options(argument, "small", "quick")
    small = bool(options & {"small", "quick"})
    both = {"embedding_width": 128, "num_positions": 128} if small else {}
    size = {"width": 256, "depth": 4, "num_heads": 4, "hidden": 1024}
    beside = {"width": 64, "depth": 4, "num_heads": 1, "hidden": 256}
    length, tokens, steps, rate = (128, 4096, 2730, 5e-4) if small else (512, 30522, 766_000, 2e-4)
    if "quick" in options:
        tokens, size["depth"], beside["depth"] = 600, 1, 1
    more = {**size, **both} if small else {"dropout": 0.1}
    generator = {
        "name": "electra_base_generator",
        "arguments": {**beside, **both} if small else {"dropout": 0.1},
    }
    config = Config(
        model=ModelConfig("electra_base", more),
        data=DataConfig(
            "embedded:stdlib",
            tokenizer=f"wordpiece:{tokens}",
            length=length,
            transform="mask_tokens(0.15, mask=1, random=0)",
        ),
        task=TaskConfig("replaced_token", models={"generator": generator}),
        optim=OptimConfig(
            "adamw",
            rate,
            schedule="linear",
            warmup_steps=steps // (10 if small else 100),
            weight_decay=0.01,
            clip_norm=1.0,
        ),
        train=TrainConfig(
            batch_size=32 if small else 256,
            num_steps=steps,
            steps_per_call=10,
            eval_every_steps=steps // 2,
        ),
        checkpoint=CheckpointConfig(every_steps=500 if small else 10_000),
        log=LogConfig(every_steps=50),
    )
    return quick(config) if "quick" in options else config
