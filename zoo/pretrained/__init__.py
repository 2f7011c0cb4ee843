"""Published weights in and out, strict both ways.

`bridge.py` is the engine; a file a family holds its key table; `sources.py` finds weights.
"""

from zoo.pretrained.adapt import adapt_params
from zoo.pretrained.adapter_save import save_adapter
from zoo.pretrained.load import Pretrained, load_pretrained
from zoo.pretrained.save import convert, save_pretrained

__all__ = [
    "Pretrained",
    "adapt_params",
    "convert",
    "load_pretrained",
    "save_adapter",
    "save_pretrained",
]
