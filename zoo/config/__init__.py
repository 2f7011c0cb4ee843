"""The typed configuration: schema, recipes and command line (floor 0, imports nothing of zoo)."""

from zoo.config.expected import Expected, load_expected
from zoo.config.parse import load_recipe, make_config, parse_command, parse_options, set_values
from zoo.config.schema import (
    CACHE,
    CheckpointConfig,
    Config,
    DataConfig,
    DataError,
    LogConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    Remat,
    TaskConfig,
    TrainConfig,
    UserError,
    nearest,
    quick,
)
from zoo.config.show import show_config, to_dict

__all__ = [
    "CACHE",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "DataError",
    "Expected",
    "LogConfig",
    "ModelConfig",
    "OptimConfig",
    "ParallelConfig",
    "Remat",
    "TaskConfig",
    "TrainConfig",
    "UserError",
    "load_expected",
    "load_recipe",
    "make_config",
    "nearest",
    "parse_command",
    "parse_options",
    "quick",
    "set_values",
    "show_config",
    "to_dict",
]
