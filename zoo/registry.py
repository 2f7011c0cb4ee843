"""Names -> factories: exact names, patterns with fields in them, and names of the user's own."""

from __future__ import annotations

import fnmatch
import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from zoo.config import UserError, nearest


class Registry:
    """A table of named factories of one kind ('model', 'task', 'operation', ...)."""

    def __init__(self, kind: str):
        self.kind = kind
        self._exact: dict[str, Callable[..., Any]] = {}
        self._patterns: list[tuple[re.Pattern[str], Callable[..., Any]]] = []

    def add(self, name: str, factory: Callable[..., Any]) -> None:
        """Adds one row; a name is added once."""
        if name in self._exact:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._exact[name] = factory

    def add_pattern(self, pattern: str, factory: Callable[..., Any]) -> None:
        """Adds names by regex; its groups are the factory's first arguments."""
        self._patterns.append((re.compile(pattern), factory))

    def register(self, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """`add` as a decorator."""

        def decorate(factory: Callable[..., Any]) -> Callable[..., Any]:
            self.add(name, factory)
            return factory

        return decorate

    def names(self, glob: str = "*") -> list[str]:
        """The exact names that match a shell pattern, sorted."""
        return sorted(fnmatch.filter(self._exact, glob))

    def get(self, name: str) -> Callable[..., Any]:
        """The factory of a name, of a pattern it matches, or of 'module:attribute'.

        Raises UserError with the nearest name.
        """
        if name in self._exact:
            return self._exact[name]
        for pattern, factory in self._patterns:
            match = pattern.fullmatch(name)
            if match:
                groups = match.groups()
                return lambda *args, **kwargs: factory(*groups, *args, **kwargs)
        if ":" in name:
            return import_attribute(name, self.kind)
        raise UserError(f"no {self.kind} {name!r}{nearest(name, self._exact)}")


def import_attribute(name: str, kind: str) -> Callable[..., Any]:
    """Imports 'my_module:MyThing', the working directory included in the search."""
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{kind} {name!r}: cannot import {module_name!r}: {error}") from None
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(
            f"{kind} {name!r}: {module_name} has no {attribute!r}{nearest(attribute, public)}"
        )
    return getattr(module, attribute)
