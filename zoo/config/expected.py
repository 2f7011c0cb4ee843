"""The number that a recipe states, in the form that a program reads."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.config.parse import load_module
from zoo.config.schema import UserError, nearest


@dataclass(frozen=True)
class Expected:
    """`metric` ('test/accuracy') ends at `value`, or at most `tolerance` worse. A recipe states
    them in `EXPECTED: dict[str, Expected]`, by its options ('' is none, '1k,scratch' two)."""

    metric: str
    value: float
    tolerance: float
    lower_is_better: bool = False

    def is_reached(self, found: float) -> bool:
        """Is a number no worse than stated, less the tolerance? NaN never is."""
        worse = found - self.value if self.lower_is_better else self.value - found
        return worse <= self.tolerance + 1e-9


def load_expected(spec: str) -> Expected:
    """What the recipe 'FILE' or 'FILE:OPTIONS' states. Raises UserError where it states nothing."""
    path, module, argument = load_module(spec)
    table = getattr(module, "EXPECTED", {})
    if not isinstance(table, dict) or not all(isinstance(e, Expected) for e in table.values()):
        raise UserError(f"{path}: EXPECTED is no dict of options -> Expected(metric, value, ...)")
    named = {_sort(options): expected for options, expected in table.items()}
    if not named:
        raise UserError(f"{path} states no number to compare with (it has no EXPECTED)")
    if _sort(argument) not in named:
        options = [f"{path}:{name}" if name else str(path) for name in named]
        raise UserError(f"{spec} states no number to compare with{nearest(spec, options)}")
    return named[_sort(argument)]


def _sort(options: str) -> str:
    return ",".join(sorted(word.strip() for word in options.split(",") if word.strip()))
