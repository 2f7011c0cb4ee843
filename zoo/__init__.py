"""zoo: the classic models in JAX, with one trainer.

Names are imported when first used, so that `import zoo` and `train.py --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.explain import Explanation, explain
    from zoo.models import create_model, init_params, list_models
    from zoo.pretrained import convert, load_pretrained, save_pretrained
    from zoo.train import Result, fit

_HOMES = {
    "create_model": "zoo.models",
    "init_params": "zoo.models",
    "list_models": "zoo.models",
    "load_pretrained": "zoo.pretrained",
    "save_pretrained": "zoo.pretrained",
    "convert": "zoo.pretrained",
    "explain": "zoo.explain",
    "Explanation": "zoo.explain",
    "fit": "zoo.train",
    "Result": "zoo.train",
}
__all__ = [
    "Explanation",
    "Result",
    "convert",
    "create_model",
    "explain",
    "fit",
    "init_params",
    "list_models",
    "load_pretrained",
    "save_pretrained",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
