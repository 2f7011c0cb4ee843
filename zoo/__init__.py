"""zoo: the classic models in JAX, with one trainer.

Names are imported when first used, so that `import zoo` and `train.py --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.evaluation import Evaluation, evaluate
    from zoo.evaluation.probes import few_shot, probe
    from zoo.explanation import Explanation, explain
    from zoo.generation import Generation, generate
    from zoo.models import create_model, init_params, list_models
    from zoo.models.lora import merge_lora
    from zoo.pretrained import convert, load_pretrained, save_adapter, save_pretrained
    from zoo.train import Result, fit
    from zoo.use import embed, fill_mask, predict

_HOMES = {
    "create_model": "zoo.models",
    "init_params": "zoo.models",
    "list_models": "zoo.models",
    "merge_lora": "zoo.models.lora",
    "load_pretrained": "zoo.pretrained",
    "save_adapter": "zoo.pretrained",
    "save_pretrained": "zoo.pretrained",
    "convert": "zoo.pretrained",
    "generate": "zoo.generation",
    "Generation": "zoo.generation",
    "evaluate": "zoo.evaluation",
    "Evaluation": "zoo.evaluation",
    "probe": "zoo.evaluation.probes",
    "few_shot": "zoo.evaluation.probes",
    "explain": "zoo.explanation",
    "Explanation": "zoo.explanation",
    "fit": "zoo.train",
    "Result": "zoo.train",
    "predict": "zoo.use",
    "embed": "zoo.use",
    "fill_mask": "zoo.use",
}
__all__ = [
    "Evaluation",
    "Explanation",
    "Generation",
    "Result",
    "convert",
    "create_model",
    "embed",
    "evaluate",
    "explain",
    "few_shot",
    "fill_mask",
    "fit",
    "generate",
    "init_params",
    "list_models",
    "load_pretrained",
    "merge_lora",
    "predict",
    "probe",
    "save_adapter",
    "save_pretrained",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
