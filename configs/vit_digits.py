from zoo.config import *

def get_config(argument: str = "") -> Config:
    options = parse_options(argument, "quick")
    config = Config(
        model=ModelConfig("vit_ti2", {"width": 96, "depth": 4, "num_heads": 4, "hidden": 192, "dropout": 0.1, "stochastic_depth": 0.1}),
        data=DataConfig("embedded:digits", transform="shift(1)|normalize(0.5, 0.5)"),
        optim=OptimConfig("adamw", 2e-3, schedule="cosine", warmup_steps=100, weight_decay=0.05, clip_norm=1.0, ema_decay=0.998),
        train=TrainConfig(batch_size=96, num_steps=1500, steps_per_call=10),
        checkpoint=CheckpointConfig(every_steps=500),
    )
    return quick(config) if "quick" in options else config
