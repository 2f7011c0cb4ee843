"""Numbers as JSON holds them."""

from __future__ import annotations

import math

from zoo.metrics import Interval


def interval_to_dict(interval: Interval) -> dict[str, float | None]:
    """An interval; None in the place of what is not finite."""
    return {name: finite(getattr(interval, name)) for name in ("value", "low", "high")}


def finite(number: float) -> float | None:
    """JSON has no NaN."""
    return float(number) if math.isfinite(number) else None
