"""What the verbs of predictions show and write: a bar, JSON, tables, what was left out."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.cli.words import DONE, FOUND, print_json
from zoo.config import UserError
from zoo.console import align


@contextlib.contextmanager
def show_progress(made: Iterable[Any], count: int) -> Iterator[Iterator[Any]]:
    """The same one by one, with a bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=count)

        def advance() -> Iterator[Any]:
            for one in made:
                bar.advance(task)
                yield one

        yield advance()


def write_json(target: str, made: Iterable[Any]) -> int:
    """One JSON object a line, to a file (in one move, when all are made) or '-', stdout. Returns
    the exit code."""
    kept = []
    if target == "-":
        for one in made:
            print_json(one.to_dict())
            kept.append(one)
        return tell_problems(kept)
    path = Path(target).expanduser()
    with open_draft(path) as stream:
        for one in made:
            stream.write(
                (json.dumps(one.to_dict(), ensure_ascii=False) + "\n").encode(
                    errors="backslashreplace"
                )
            )
            kept.append(one)
    return tell_problems(kept)


@contextlib.contextmanager
def open_draft(path: Path) -> Iterator[Any]:
    """A binary stream that becomes the file when all is written, and nothing otherwise. Raises
    UserError where it cannot be written."""
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("wb") as stream:
            yield stream
        draft.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)


def cut(name: str, most: int = 60) -> str:
    """A name of at most so many characters; of a file its end counts, of a text its beginning."""
    line = " ".join(name.split())
    if len(line) <= most:
        return line
    return (
        f"...{line[3 - most :]}" if os.sep in line and " " not in line else f"{line[: most - 3]}..."
    )


def print_table(predictions: Sequence[Any]) -> None:
    """For people: a line an input; of one input alone a line a label."""
    sound = [p for p in predictions if p.problem is None]
    rows: list[tuple[str, ...]]
    if not sound:
        return
    if len(predictions) == 1 and sound[0].labels:
        rows = [("label", "probability")]
        rows += [(label, f"{number:.4f}") for label, number in sound[0].labels]
    elif any(p.spans for p in sound):
        rows = [("input", "text", "label", "score", "place")]
        rows += [
            (cut(p.input), s.text, s.label or "", f"{s.score:.4f}", f"{s.start}-{s.end}")
            for p in sound
            for s in p.spans
        ]
    elif sound[0].values:
        names = list(sound[0].values)
        rows = [("input", *names)]
        rows += [(cut(p.input), *(f"{p.values[name]:.6g}" for name in names)) for p in sound]
    else:
        rows = [("input", "label", "probability", "then")]
        for p in sound:
            first, *rest = p.labels
            then = ", ".join(f"{label} {number:.4f}" for label, number in rest)
            rows.append((cut(p.input), first.label, f"{first.probability:.4f}", then))
    for line in align(rows):
        print(line)


def tell_problems(done: Sequence[Any]) -> int:
    """Names on stderr what was left out and what was changed; returns the exit code."""
    notes: dict[str, list[str]] = {}
    for one in done:
        if one.note:
            notes.setdefault(one.note, []).append(one.input)
    for note, names in notes.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        print(f"{names[0]}{more}: {note}", file=sys.stderr)
    broken = [one for one in done if one.problem]
    for one in broken:
        print(f"left out: {one.input}: {one.problem}", file=sys.stderr)
    if broken:
        print(f"{len(broken)} of {len(done)} inputs left out", file=sys.stderr)
    return FOUND if broken else DONE


def print_cosines(made: Sequence[Any], vectors: Any) -> None:
    """How alike the inputs are: their names, then a row each of the cosines of all."""
    numbers = [str(i + 1) for i in range(len(made))]
    rows = [("", "input", *numbers)]
    for number, one, row in zip(numbers, made, vectors @ vectors.T, strict=True):
        rows.append((number, cut(one.input), *(f"{cosine:.3f}" for cosine in row)))
    for line in align(rows, range(2, len(rows[0]))):
        print(line)


def print_filled(made: Sequence[Any]) -> None:
    """For each mask token of each text its likeliest tokens."""
    rows = [("input", "mask", "token", "probability")]
    for one in made:
        for number, tokens in enumerate(one.masks, 1):
            rows += [(cut(one.input), str(number), t.token, f"{t.probability:.4f}") for t in tokens]
    for line in align(rows) if len(rows) > 1 else ():
        print(line)
