"""Plain aligned text for people; it stays readable in a pipe and in a file."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence


def terminal_width() -> int:
    """Columns of the terminal (or of the variable COLUMNS); 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def align(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Rows of equal length as lines with straight columns; those numbered in `right` end there."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def show_count(number: int | float) -> str:
    """35127656448 -> '35.1 G': three digits and a decimal prefix."""
    prefixes = ["", "K", "M", "G", "T", "P"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}".rstrip()


def show_bytes(number: int | float) -> str:
    """346270624 -> '330.2 MiB'."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:.{0 if units[0] == 'B' else 1}f} {units[0]}"


def show_time(seconds: float) -> str:
    """0.0123 -> '12.3 ms', 7200 -> '2 h': three digits and a unit, days at most."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "days": 86400.0}
    fitting = [unit for unit in units.items() if seconds >= 0.9995 * unit[1]]
    name, size = fitting[-1] if fitting else ("us", 1e-6)
    return f"{seconds / size:.3g} {name}"
