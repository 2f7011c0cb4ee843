"""What the verbs share: exit codes, and a command line's words and flags."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from zoo.config import UserError, nearest

DONE, MISTAKE, FOUND, NON_FINITE, STOPPED = 0, 2, 3, 70, 75


def asks_help(argv: Sequence[str], empty: bool = True) -> bool:
    """Is help asked for? `empty`: by no words at all, too."""
    return bool(set(argv) & {"-h", "--help"}) or (empty and not argv)


def split_flags(
    argv: Sequence[str], known: Sequence[str], switches: Sequence[str] = ()
) -> tuple[list[str], dict[str, list[str]]]:
    """Words, and the values of flags written `--name=value` or `--name value`, each as often as it
    was given; a switch has no value and gives ''. After '--' all are words. A dash in a name is an
    underscore.

    Raises UserError on another flag, and on one without its value.
    """
    words: list[str] = []
    flags: dict[str, list[str]] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if word == "--":
            return [*words, *rest], flags
        if not word.startswith("--"):
            words.append(word)
            continue
        if name not in known and name not in switches:
            raise UserError(f"no flag --{name}{nearest(name, [*known, *switches])}")
        if name in switches and equals:
            raise UserError(f"--{name} takes no value, not {value!r}")
        if name in known and not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--{name} needs a value: --{name}=VALUE")
            value = rest.pop(0)
        flags.setdefault(name, []).append(value)
    return words, flags


def pick_one(flags: dict[str, list[str]], name: str) -> str | None:
    """The value of a flag that may be given once. Raises UserError on two."""
    values = flags.get(name, [])
    if len(values) > 1:
        raise UserError(f"--{name} is given twice")
    return values[0] if values else None


def print_json(row: Any) -> None:
    """One JSON object on a line of its own, which any program can read whatever the terminal
    shows."""
    plain = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    print(json.dumps(row, ensure_ascii=plain), flush=True)


def to_number(flags: dict[str, list[str]], name: str, kind: type[int] | type[float] = int) -> Any:
    """A flag's number, or None where it is not given. Raises UserError on what is none."""
    value = pick_one(flags, name)
    try:
        return None if value is None else kind(value)
    except ValueError:
        told = "a whole number" if kind is int else "a number"
        raise UserError(f"--{name}={value!r} is not {told}") from None
