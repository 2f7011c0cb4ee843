"""Rotary positions in config.json: `rope_parameters` (transformers 5), or `rope_theta` and
`rope_scaling` (before), which both versions read and we write."""

from __future__ import annotations

import math
from typing import Any

from zoo.config import UserError
from zoo.models.decoder import Decoder
from zoo.models.rotary import RotaryScaling
from zoo.pretrained.family import TheirConfig


def read_rotary(config: TheirConfig, length: int) -> dict[str, Any]:
    """Fields of a Decoder; `length` is `max_position_embeddings`.

    Raises UserError on a scaling that we lack, or one without its numbers.
    """
    given = config.get("rope_scaling", {}) or config.get("rope_parameters", {})
    own = TheirConfig({**config.values, **given}, config.place)
    own.only("partial_rotary_factor", 1.0, None)
    scaling = read_scaling(given, config, length)
    if scaling is not None and scaling.kind == "dynamic":
        length = round(length * scaling.factor)  # as far as it is meant to go
    base = own.get("rope_theta", 10_000.0)
    return {"num_positions": length, "rotary_base": base, "rotary_scaling": scaling}


def read_scaling(given: dict[str, Any], config: TheirConfig, length: int) -> RotaryScaling | None:
    """The scaling that `given`, one table of rotary parameters, asks for."""
    own = TheirConfig(given, f"{config.place}: rotary positions")
    kind = own.get("rope_type", own.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "dynamic", "llama3", "yarn"):
        raise UserError(
            f"{config.place}: scaled rotary positions ({kind!r}) are not supported, only "
            "'default', 'linear', 'dynamic', 'llama3' and 'yarn'"
        )
    if kind == "linear":
        return RotaryScaling(kind, _ask(own, "factor"))
    if kind == "dynamic":
        return RotaryScaling(kind, _ask(own, "factor"), length)
    trained = own.get("original_max_position_embeddings", length)
    trained = config.get("original_max_position_embeddings", trained)
    if kind == "llama3":
        turns = _ask(own, "low_freq_factor"), _ask(own, "high_freq_factor")
        return RotaryScaling(kind, _ask(own, "factor"), trained, *turns)
    own.only("truncate", True)
    factor = own.get("factor", length / trained)
    turns = own.get("beta_slow", 1.0) or 1.0, own.get("beta_fast", 32.0) or 32.0
    return RotaryScaling(kind, factor, trained, *turns, magnitude=_find_magnitude(own, factor))


def _ask(own: TheirConfig, key: str) -> float:
    """A number that must be there."""
    value = own.get(key, None, float)
    if value is None:
        raise UserError(f"{own.place}: {key} is missing")
    return value


def _find_magnitude(own: TheirConfig, factor: float) -> float:
    """YaRN's, as the file says or as the paper advises."""

    def advise(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    whole, shared = own.get("mscale", 0.0), own.get("mscale_all_dim", 0.0)
    advised = advise(whole) / advise(shared) if whole and shared else advise(1.0)
    return own.get("attention_factor", advised)


def write_rotary(model: Decoder) -> dict[str, Any]:
    """What `read_rotary` reads."""
    scaling, length = model.rotary_scaling, model.num_positions
    values: dict[str, Any] = {"rope_theta": model.rotary_base}
    if scaling is not None:
        values["rope_scaling"] = write_scaling(scaling)
        length = scaling.length if scaling.kind == "dynamic" else length
    return {"max_position_embeddings": length, **values}


def write_scaling(scaling: RotaryScaling) -> dict[str, Any]:
    """One table of rotary parameters."""
    values = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("llama3", "yarn"):
        values["original_max_position_embeddings"] = scaling.length
    if scaling.kind == "llama3":
        values |= {"low_freq_factor": scaling.slow, "high_freq_factor": scaling.fast}
    if scaling.kind == "yarn":
        values |= {"beta_slow": scaling.slow, "beta_fast": scaling.fast}
        values["attention_factor"] = scaling.magnitude
    return values
