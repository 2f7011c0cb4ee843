"""Self-distillation without labels (DINO) on MNIST; what it is worth is a vote of neighbours.

    python train.py --config configs/dino_mnist.py --workdir runs/dino     # needs ZOO_DATA
    python -m zoo eval runs/dino --data files:mnist --probe knn

A ViT 96 wide and 4 deep, patches of 4x4 pixels, two global views of 28 pixels and four local ones
of 16, for which the positions are resized. The paper (Caron et al. 2021) has ImageNet in mind: here
are 1,024 prototypes for its 65,536, no mirror image (a mirrored digit is none), no colours, and the
last layer of the head waits for the first 200 steps. The teacher's momentum grows to 1 over
`task.arguments.num_steps`, here those of the run: where a config leaves it out, the momentum stays
0.996; with another `train.num_steps` set both. `small` trains on the 5,000 images of
`embedded:mnist_5k`, which need no file.
Not run to its end yet: no number is claimed.
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
    """`small`: on 5,000 images that need no file; `quick`: a few steps on synthetic ones."""
    options = parse_options(argument, "small", "quick")
    num_steps = 1000 if "small" in options else 4000
    depth, wait = (1, 2) if "quick" in options else (4, 200)
    if "small" in options:
        data = DataConfig("embedded:mnist_5k", validation_fraction=0.1, test_split="")
    else:
        data = DataConfig("files:mnist", train_split="train[:55000]", val_split="train[55000:]")
    task: dict[str, object] = {
        "prototypes": 1024,
        "hidden": 256,
        "bottleneck": 64,
        "num_steps": num_steps,
    }
    task |= {"local_views": 4, "local_size": 16, "local_area": (0.1, 0.4), "flip": False}
    task |= {"jitter": 0.2, "warmup_steps": num_steps // 3, "teacher_temperature": 0.07}
    if "quick" in options:
        task |= {"prototypes": 64, "hidden": 32, "local_views": 1}
    config = Config(
        model=ModelConfig("vit_ti4", {"width": 96, "depth": depth, "num_heads": 4, "hidden": 384}),
        data=DataConfig(**{**vars(data), "transform": "normalize(0.5, 0.5)"}),
        task=TaskConfig("self_distillation", task),
        optim=OptimConfig(
            "adamw",
            5e-4,
            schedule="cosine",
            warmup_steps=200,
            weight_decay=0.04,
            clip_norm=3.0,
            rules=(("^companions/head/prototypes/", {"from_step": wait}),),
        ),
        train=TrainConfig(
            batch_size=128, num_steps=num_steps, steps_per_call=10, eval_every_steps=500
        ),
        checkpoint=CheckpointConfig(every_steps=1000),
        log=LogConfig(every_steps=50),
    )
    return quick(config) if "quick" in options else config
