"""A resolved config for people (`zoo config`) and for programs (`config.json`)."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from zoo.config.parse import describe_type, group_type
from zoo.config.schema import Config


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain dicts and lists, as JSON has them."""
    return {
        name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def deciding(config: Config) -> dict[str, Any]:
    """Dotted key -> value of what decides the arithmetic and so must not change on resume."""
    return {row.path: _plain(row.value) for row in rows(config) if row.decides}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """What `to_dict` made, by dotted key; dict-valued keys such as model.arguments stay whole."""
    keys = {row.path for row in rows(Config())}
    out: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix + name
        if isinstance(value, dict) and path not in keys:
            out |= flatten(value, path + ".")
        else:
            out[path] = value
    return out


@dataclasses.dataclass(frozen=True)
class Row:
    """One key of a config."""

    path: str
    value: Any
    type: str
    default: Any
    meaning: str
    decides: bool

    @property
    def changed(self) -> bool:
        return self.value != self.default


def rows(config: Any, default: Any = None, prefix: str = "") -> list[Row]:
    """Every key with value, type, default and meaning, in the order of the schema."""
    default = type(config)() if default is None else default
    hints = typing.get_type_hints(type(config))
    out = []
    for field in dataclasses.fields(config):
        value, base = getattr(config, field.name), getattr(default, field.name)
        if group_type(hints[field.name]) is not None:
            out += rows(value, base, f"{prefix}{field.name}.")
        else:
            meaning, decides = field.metadata["meaning"], field.metadata["decides"]
            kind = describe_type(hints[field.name])
            out.append(Row(prefix + field.name, value, kind, base, meaning, decides))
    return out


def show_config(config: Config) -> str:
    """The resolved config as text: '*' marks what differs from the default."""
    lines = []
    for row in rows(config):
        mark = "*" if row.changed else " "
        lines.append(f"{mark} {row.path} = {row.value!r}")
        default = f", default {row.default!r}" if row.changed else ""
        lines.append(f"      {row.type}{default}: {row.meaning}")
    return "\n".join([*lines, "", "* differs from the default"])
