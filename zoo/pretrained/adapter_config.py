"""adapter_config.json of peft: read strictly, so that nothing of it is passed over in silence."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.config import UserError
from zoo.pretrained.family import TheirConfig

# `task_type` -> our head.
HEADS = {
    "CAUSAL_LM": "lm",
    "SEQ_2_SEQ_LM": "lm",
    "SEQ_CLS": "sequence",
    "TOKEN_CLS": "token",
    "QUESTION_ANS": "span",
    "FEATURE_EXTRACTION": "none",
}
READ = {"peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora"}
READ |= {"rank_pattern", "alpha_pattern", "init_lora_weights"}
# What decided how the adapter began or was trained, or which layers have one: its tensors tell.
SPENT = {"auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout"}
SPENT |= {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"}
SPENT |= {"modules_to_save", "fan_in_fan_out", "megatron_core", "qalora_group_size"}
SPENT |= {"eva_config", "loftq_config", "corda_config", "lora_ga_config"}
# Ways to begin that leave the base as it is; the others (PiSSA, OLoRA, CorDA, LoftQ) change it.
BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class AdapterConfig:
    """What decides how an adapter is merged."""

    place: str
    base: str | None
    head: str | None  # None: the one that the base has
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool

    def settings(self, module: str) -> tuple[int, float]:
        """(rank, scale) of a module by its name. Raises UserError on a pattern that is no regex."""
        rank = self._find(self.rank_pattern, module, self.rank)
        alpha = self._find(self.alpha_pattern, module, self.alpha)
        # Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA"
        return rank, alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def _find(self, patterns: Mapping[str, Any], module: str, default: Any) -> Any:
        try:
            found = (v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", module))
            return next(found, default)
        except re.error as error:
            raise UserError(f"{self.place}: a pattern is no regex: {error}") from None


def read_adapter_config(values: Mapping[str, Any], place: str) -> AdapterConfig:
    """Raises UserError on another kind of adapter than LoRA, and on every setting that changes what
    an adapter computes and that we do not know."""
    config = TheirConfig(values, place)
    kind = values.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{place}: peft_type={kind!r} is not supported, only 'LORA'")
    for key, value in values.items():
        if key not in READ | SPENT and value and value != "none":
            raise UserError(f"{place}: {key}={value!r} is not supported")
    beginning = values.get("init_lora_weights", True)
    if beginning not in BEGINNINGS:
        raise UserError(
            f"{place}: init_lora_weights={beginning!r} is not supported: it changes the base"
        )
    task = config.get("task_type", None, str)
    if task is not None and task not in HEADS:
        raise UserError(f"{place}: task_type={task!r} is none of {', '.join(HEADS)}")
    ranks, alphas = (
        TheirConfig(config.get(key, {}), f"{place}: {key}")
        for key in ("rank_pattern", "alpha_pattern")
    )
    return AdapterConfig(
        place,
        config.get("base_model_name_or_path", None, str),
        None if task is None else HEADS[task],
        config.get("r", 8),
        config.get("lora_alpha", 8.0),
        {pattern: ranks.get(pattern, 1) for pattern in ranks.values},
        {pattern: alphas.get(pattern, 1.0) for pattern in alphas.values},
        config.get("use_rslora", False),
    )
