"""From a recipe file and a command line to a checked `Config`."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.config.checks import check_config
from zoo.config.schema import Config, UserError, nearest


def parse_options(argument: str, *options: str) -> set[str]:
    """Splits a recipe's argument ('small,quick') and refuses what the recipe does not offer."""
    given = [word.strip() for word in argument.split(",") if word.strip()]
    for word in given:
        if word not in options:
            raise UserError(f"the recipe has no option {word!r}{nearest(word, options)}")
    return set(given)


def load_module(spec: str) -> tuple[pathlib.Path, types.ModuleType, str]:
    """The path, the module and the argument of a recipe, `spec` being 'FILE' or 'FILE:ARGUMENT'.

    Raises UserError when the file is missing.
    """
    file, _, argument = spec.partition(".py:")
    path = pathlib.Path(file if file.endswith(".py") else f"{file}.py")
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else pathlib.Path("configs")
        recipes = [str(p) for p in folder.glob("*.py")] if folder.is_dir() else []
        raise UserError(f"no recipe {str(path)!r}{nearest(str(path), recipes)}")
    module_spec = importlib.util.spec_from_file_location(f"zoo_recipe_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return path, module, argument


def load_recipe(spec: str) -> Config:
    """Runs `get_config(argument)` of a recipe, `spec` being 'FILE' or 'FILE:ARGUMENT'.

    Raises UserError when the file is missing, has no get_config, or returns a wrong type.
    """
    path, module, argument = load_module(spec)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(f"{path} has no function get_config(argument)")
    config = module.get_config(argument)
    if not isinstance(config, Config):
        raise UserError(f"{path}: get_config returned a {type(config).__name__}, not a Config")
    return _check_types(config)


def make_config(spec: str, values: Mapping[str, str]) -> Config:
    """A recipe with command-line values ('optim.learning_rate' -> '3e-4') set, checked whole."""
    return check_config(set_values(load_recipe(spec), values))


def set_values(config: Any, values: Mapping[str, Any]) -> Any:
    """Returns the dataclass with each dotted path replaced, converted to the field's type.

    Raises UserError on an unknown key or a value that does not convert.
    """
    for path, value in values.items():
        config = _replace(
            config, path.split("."), value, path, type(config), list(key_paths(type(config)))
        )
    return config


def key_paths(cls: type, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a config class."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        group = group_type(hints[field.name])
        if group is None:
            yield prefix + field.name
        else:
            yield from key_paths(group, f"{prefix}{field.name}.")


def group_type(hint: Any) -> type | None:
    """The dataclass in a hint (`Group` or `Group | None`), or None when it is a plain value."""
    for option in (hint, *typing.get_args(hint)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return option
    return None


def _replace(
    node: Any, parts: list[str], value: Any, path: str, cls: type, known: list[str]
) -> Any:
    """Walks one step of a dotted path; absent groups are made with their defaults."""
    node = cls() if node is None else node
    head, rest = parts[0], parts[1:]
    hints = typing.get_type_hints(cls)
    if head not in hints:
        raise UserError(f"no config key {path!r}{_nearest_key(path, known)}")
    hint, current = hints[head], getattr(node, head)
    group = group_type(hint)
    if group is not None:
        if not rest:
            example = next(key_paths(group, f"{path}."))
            raise UserError(f"{path!r} is a group: set one of its keys, e.g. {example}")
        new = _replace(current, rest, value, path, group, known)
    elif rest and typing.get_origin(hint) is dict:
        new = _set_entry(current, rest, value, typing.get_args(hint)[1], path)
    elif rest:
        raise UserError(
            f"no config key {path!r}: {head!r} is a plain value{_nearest_key(path, known)}"
        )
    else:
        new = convert(value, hint, path)
    return dataclasses.replace(node, **{head: new})


def _set_entry(
    current: dict[str, Any], rest: list[str], value: Any, kind: Any, path: str
) -> dict[str, Any]:
    """A dict with one entry replaced; of a dict of dicts, an entry of an entry."""
    if typing.get_origin(kind) is dict and len(rest) > 1:
        name, inner = rest[0], typing.get_args(kind)[1]
        new = _set_entry(current.get(name, {}), rest[1:], value, inner, path)
        return {**current, name: new}
    return {**current, ".".join(rest): convert(value, kind, path)}


def _nearest_key(path: str, known: list[str]) -> str:
    """Prefers a key of the same last name elsewhere, then the nearest spelling."""
    last = path.rsplit(".", 1)[-1]
    same = [k for k in known if k.rsplit(".", 1)[-1] == last]
    return f" (did you mean {same[0]!r}?)" if same else nearest(path, known)


def convert(value: Any, hint: Any, path: str) -> Any:
    """Converts a value, a string from the command line above all, to a field's declared type."""
    import pydantic

    if isinstance(value, str) and not _takes_text(hint):
        value = _parse_literal(value)
    elif isinstance(value, str) and value == "None" and type(None) in typing.get_args(hint):
        value = None
    try:
        adapter = pydantic.TypeAdapter(hint)
        if (
            isinstance(value, bool)
            and bool not in (hint, *typing.get_args(hint))
            and hint is not Any
        ):
            raise ValueError  # pydantic would take True for the number 1
        return adapter.validate_python(value)
    except (pydantic.ValidationError, ValueError):
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        guess = nearest(str(value), choices) if choices else _guess_tuple(value, hint, path)
        raise UserError(f"{path}={value!r} is not {describe_type(hint)}{guess}") from None


def _guess_tuple(value: Any, hint: Any, path: str) -> str:
    """The comma that a tuple of one item wants: 'f1' and ('^head', {...}) are an item alone."""
    item, *more = typing.get_args(hint) or (None,)
    if typing.get_origin(hint) is not tuple or more != [...]:
        return ""
    try:
        convert(value, item, path)
    except UserError:
        return ""
    return f" (did you mean {(value,)!r}?)"


def _takes_text(hint: Any) -> bool:
    """True for str, str | None and Literal of strings: there '1' stays text."""
    if typing.get_origin(hint) is typing.Literal:
        return True
    return hint is str or (
        str in typing.get_args(hint) and typing.get_origin(hint) is types.UnionType
    )


def _parse_literal(text: str) -> Any:
    """'3e-4' -> 0.0003, '(1, 2)' and '1,2' -> a tuple, 'true' -> True; anything else stays text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def describe_type(hint: Any) -> str:
    """A hint as a person writes it."""
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(repr, typing.get_args(hint)))
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace("typing.", "")
    )


def _check_types(config: Any, prefix: str = "") -> Any:
    """Dataclasses do not check what a recipe assigns: this does, by the same conversion."""
    hints = typing.get_type_hints(type(config))
    new = {}
    for field in dataclasses.fields(config):
        value, hint, path = getattr(config, field.name), hints[field.name], prefix + field.name
        if group_type(hint) is None:
            text_as_number = isinstance(value, str) and not _takes_text(hint) and hint is not Any
            if text_as_number:
                raise UserError(f"{path}={value!r} is not {describe_type(hint)}")
            new[field.name] = convert(value, hint, path)
        elif value is not None:
            new[field.name] = _check_types(value, path + ".")
    return dataclasses.replace(config, **new)


def parse_command(
    argv: Sequence[str], flags: Sequence[str], group: str = "config"
) -> dict[str, str]:
    """Splits '--flag=value' and '--flag value' into a dict; keys keep their dots.

    `flags` are the plain flags allowed beside `group` and `group.KEY`.
    Raises UserError on anything else.
    """
    parsed: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (
            name in flags or name == group or name.startswith(f"{group}.")
        ):
            known = [f"--{f}" for f in (group, *flags)]
            raise UserError(f"unknown argument {word!r}{nearest(word, known)}")
        if not equals:
            if not words:
                raise UserError(f"{word} needs a value")
            value = words.pop(0)
        if name in parsed:
            raise UserError(f"--{name} is given twice")
        parsed[name] = value
    return parsed
