"""ViT-S/16 on ImageNet-1k, the plain recipe of Beyer et al. 2022 ("Better plain ViT baselines").

    python train.py --config configs/vit_s16_imagenet.py --workdir gs://BUCKET/vit_s16

Published: 76.5 % top-1 after 90 epochs, about 6.5 hours on a TPU v3-8. *Not run here*: only
`:quick` (synthetic images), and the full-size step compiles. Our distortions are the fourteen of
the RandAugment paper, through Pillow; the authors' list differs slightly.
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
    """`quick`: a few steps on synthetic images."""
    options = parse_options(argument, "quick")
    num_examples, batch_size, num_epochs = 1_281_167, 1024, 90
    config = Config(
        model=ModelConfig(
            "vit_s16",
            {"pooling": "mean", "positions": "sincos"},
            scan_layers=True,
            dtype="bfloat16",
        ),
        data=DataConfig(
            "tfds:imagenet2012",
            train_split="train[:99%]",
            test_split="validation",
            transform="random_resized_crop(224)|flip|randaugment(2, 10)|normalize(0.5, 0.5)",
            eval_transform="resize(256)|central_crop(224)|normalize(0.5, 0.5)",
            num_workers=16,
        ),
        task=TaskConfig("classification", {"mixup": 0.2}),
        optim=OptimConfig(
            "adamw",
            1e-3,
            schedule="cosine",
            warmup_steps=10_000,
            weight_decay=0.1,  # decoupled and times the rate: 1e-4 at the peak, as published
            clip_norm=1.0,
        ),
        train=TrainConfig(
            batch_size, num_steps=num_epochs * num_examples // batch_size, eval_batch_size=1024
        ),
        parallel=ParallelConfig(fsdp=1),
        checkpoint=CheckpointConfig(every_steps=2_500, keep_last=2),
        log=LogConfig(every_steps=100),
    )
    if "quick" not in options:
        return config
    return quick(config)
