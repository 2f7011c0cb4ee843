"""How sentence-transformers makes one vector of a text: modules.json and N_Pooling/config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from etils import epath

from zoo.config import UserError
from zoo.pretrained.sources import read_json

# Their switches -> our names. 'last' is the last real token.
MODES = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
SHORT = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}


@dataclass(frozen=True)
class Pooling:
    """`mode` is 'first', 'mean', 'max' or 'last' of a text's tokens; `longest` the most tokens."""

    mode: str
    longest: int | None = None


def read_pooling(folder: epath.Path) -> Pooling | None:
    """What the files say; None where there are none.

    Raises UserError on a pooling, or a further layer, that we do not have.
    """
    path = folder / "modules.json"
    if not path.exists():
        return None
    try:
        modules = json.loads(path.read_text())
        kinds = [(str(m["type"]).rpartition(".")[2], str(m["path"])) for m in modules]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is no list of modules") from None
    others = [kind for kind, _ in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if others:
        raise UserError(
            f"{path}: a layer {others[0]!r} comes behind the model, which is not followed: "
            "pooling='mean' takes the model alone"
        )
    told = next(
        (folder / place / "config.json" for kind, place in kinds if kind == "Pooling"), None
    )
    if told is None or not told.exists():
        return None
    mode = find_mode(read_json(told), str(told))
    limits = folder / "sentence_bert_config.json"
    longest = read_json(limits).get("max_seq_length") if limits.exists() else None
    return Pooling(mode, longest if isinstance(longest, int) and longest > 0 else None)


def find_mode(values: dict[str, Any], place: str) -> str:
    """The one pooling that a file switches on. Raises UserError on several, and on another."""
    short = values.get("pooling_mode")
    on = [key for key, value in values.items() if key.startswith("pooling_mode_") and value is True]
    found = [SHORT.get(str(short))] if isinstance(short, str) else [MODES.get(key) for key in on]
    if len(found) != 1 or found[0] is None:
        told = short or ", ".join(on) or "none"
        raise UserError(f"{place}: pooling {told} is none of {', '.join(MODES.values())}")
    return found[0]
