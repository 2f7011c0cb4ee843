"""The verb of predictions: predict."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.cli.words import DONE, FOUND, asks_help, pick_one, split_flags, to_number
from zoo.config import UserError
from zoo.console import align

PREDICT_HELP = """\
usage: zoo predict SOURCE FILE... [--text=TEXT [--pair=TEXT]] [--top=5] [--json[=FILE]]

What a trained or published model says of images, texts or rows of tables: labels with
probabilities, or values. SOURCE is a run's folder or what `zoo convert` takes.

  FILE         images; .txt, a text a line; .csv .tsv .jsonl .parquet .npz, a row an
               input; a folder is the files in it
  --text=TEXT  a text by itself, and --pair=TEXT the second of a pair; again for more
  --top=5      labels an input
  --json=FILE  one JSON object a line; --json alone: to the standard output
  --labels='a cat,a dog'   (or a file, one a line) names of the classes; of CLIP and
               SigLIP what is looked for, --template='a photo of a {}' around each
  --tokenizer=FILE --batch-size=32

exit codes: 0 done, 2 a mistake, 3 done, but an input could not be read (each is named)"""


def predict(argv: Sequence[str]) -> int:
    """`zoo predict SOURCE FILE...`."""
    if asks_help(argv):
        print(PREDICT_HELP)
        return DONE
    known = ("text", "pair", "top", "json", "labels", "template", "tokenizer", "batch-size")
    words, flags = split_flags(json_to_stdout(argv), known)
    inputs = gather_inputs("predict", words, flags)
    top, target = to_number(flags, "top"), pick_one(flags, "json")
    from zoo.use.inputs import collect_items
    from zoo.use.jobs import open_source
    from zoo.use.predict import make_predictor

    loaded = open_source(words[0], pick_one(flags, "tokenizer"))
    labels = split_labels(pick_one(flags, "labels"))
    template = pick_one(flags, "template")
    predictor = make_predictor(loaded, 5 if top is None else top, labels, template)
    check_texts(flags, predictor.job.wanted)
    items = collect_items(inputs, predictor.job.wanted)
    made = predictor.stream(items, **batch_size(flags))
    with show_progress(made, len(items)) as shown:
        if target is not None:
            return write_json(target, shown)
        predictions = list(shown)
    print_table(predictions)
    return tell_problems(predictions)


def json_to_stdout(argv: Sequence[str]) -> list[str]:
    """`--json` without a file is the standard output."""
    return ["--json=-" if word == "--json" else word for word in argv]


def gather_inputs(verb: str, words: Sequence[str], flags: dict[str, list[str]]) -> list[Any]:
    """Files behind the source, and the texts of flags. Raises UserError where there are none."""
    if not words:
        raise UserError(f"zoo {verb} SOURCE FILE...: the source is missing (see --help)")
    texts, seconds = flags.get("text", []), flags.get("pair", [])
    if seconds and len(seconds) != len(texts):
        raise UserError(
            f"--pair is the second text of a --text: {len(texts)} and {len(seconds)} were given"
        )
    given: list[Any] = list(zip(texts, seconds, strict=True)) if seconds else list(texts)
    inputs = [*map(Path, words[1:]), *given]
    if not inputs:
        raise UserError(f"zoo {verb} {words[0]} FILE...: name files, or give --text=TEXT")
    return inputs


def check_texts(flags: dict[str, list[str]], wanted: Any) -> None:
    """Raises UserError on --text for a source that takes none."""
    if flags.get("text") and wanted.takes != "text":
        shown = {"image": "images", "features": "rows of a table"}[wanted.takes]
        raise UserError(f"--text={flags['text'][0]!r}: {wanted.name} takes {shown}, no texts")


def split_labels(value: str | None) -> list[str] | None:
    """'a cat,a dog', or a file with one a line. Raises UserError on one that is empty."""
    if value is None:
        return None
    if os.path.isfile(value):
        try:
            found = Path(value).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--labels: cannot read {value}: {error}") from None
    else:
        found = value.split(",")
    labels = [label.strip() for label in found if label.strip()]
    if not labels:
        raise UserError(f"--labels={value!r} names no label")
    return labels


def batch_size(flags: dict[str, list[str]]) -> dict[str, int]:
    """The flag as an argument, where it is given."""
    size = to_number(flags, "batch-size")
    return {} if size is None else {"batch_size": size}


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
            print(json.dumps(one.to_dict(), ensure_ascii=False), flush=True)
            kept.append(one)
        return tell_problems(kept)
    path = Path(target).expanduser()
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as stream:
            for one in made:
                stream.write(json.dumps(one.to_dict(), ensure_ascii=False) + "\n")
                kept.append(one)
        draft.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return tell_problems(kept)


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
            (p.input, s.text, s.label or "", f"{s.score:.4f}", f"{s.start}-{s.end}")
            for p in sound
            for s in p.spans
        ]
    elif sound[0].values:
        names = list(sound[0].values)
        rows = [("input", *names)]
        rows += [(p.input, *(f"{p.values[name]:.6g}" for name in names)) for p in sound]
    else:
        rows = [("input", "label", "probability", "then")]
        for p in sound:
            first, *rest = p.labels
            then = ", ".join(f"{label} {number:.4f}" for label, number in rest)
            rows.append((p.input, first.label, f"{first.probability:.4f}", then))
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
