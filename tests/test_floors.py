"""The house: imports point down, files and functions stay small."""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = {
    0: {"config", "tree", "registry", "gpu", "memory", "compilation"},
    1: {"models", "tasks", "optim", "data", "parallel", "metrics"},
    2: {"checkpoint", "pretrained"},
    3: {
        "train",
        "evaluation",
        "generation",
        "plan",
        "explanation",
        "compress",
        "export",
        "cli",
        "console",
        "info",
        "runs",
        "doctor",
        "look",
        "parity",
        "rehearse",
        "reproduce",
        "tokenizer",
        "use",
    },
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
FILES = sorted((ROOT / "zoo").rglob("*.py"))


def rooms_imported(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        found |= {n.split(".")[1] for n in names if n.startswith("zoo.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    room = path.relative_to(ROOT / "zoo").parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    floor = FLOOR_OF[room]
    for other in rooms_imported(path) - {room}:
        below = FLOOR_OF[other]
        sideways = floor == below == 1
        assert below <= floor, f"{room} (floor {floor}) imports {other} ({below})"
        assert not sideways, f"{room} imports {other} beside it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_only_checkpoint_imports_orbax():
    users = [
        p.name for p in FILES if "import orbax" in p.read_text() or "from orbax" in p.read_text()
    ]
    assert users == ["checkpoint.py"]


def test_recipes_import_only_the_config():
    for path in (ROOT / "configs").glob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert modules <= {"__future__", "zoo.config"}, path
        assert not any(isinstance(n, ast.Import) for n in ast.walk(tree)), path
