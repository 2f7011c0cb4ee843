"""An MLP on 8x8 digits."""
from zoo.config import *

def get_config(argument: str = "") -> Config:
    options = parse_options(argument, "quick")
    config = Config(
        model=ModelConfig("mlp", {"widths": (256,), "dropout": 0.3}),
        data=DataConfig("embedded:digits", transform="shift(1)|normalize(0.5, 0.5)"),
        optim=OptimConfig("adamw", 2e-3, schedule="cosine", warmup_steps=50, weight_decay=0.05),
        train=TrainConfig(batch_size=64, num_steps=1500, steps_per_call=25),
        checkpoint=CheckpointConfig(every_steps=500),
    )
    return quick(config) if "quick" in options else config
