"""The verb eval: a model's metrics on data that it has not seen."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.cli.words import DONE, asks_help, pick_one, print_json, split_flags, to_number
from zoo.config import UserError, nearest

EVAL_HELP = """\
usage: zoo eval SOURCE [--data=DATA] [--split=test] [--by=FIELD,...] [--against=SOURCE]

The metrics of a model on a split, each with a bootstrap 95 % interval; a table, and
eval.json. SOURCE: a run's folder, a published folder, OWNER/NAME on the hub.

  --data=DATA        what data.source takes: csv:FILE, jsonl:FILE, folder:PATH, text:FILES,
                     hf:NAME, embedded:digits, ... (of a run: its own)
  --split=test       also sliced: 'train[:100]' (default: test, else val, else train)
  --columns=text=review,label=stars         what a table's columns are
  --metrics=f1_macro,matthews               (default: those that fit)
  --against=SOURCE   another model on the same examples, by a paired test
  --by=length,label,COLUMN --worst=20       by slices; the examples of the largest loss
  --confusion=FILE.png                      which class is taken for which
  --labels=neg,pos   names of the model's classes, where it has none
  --template='a photo of a {}.'             of CLIP and SigLIP: the text of a class
  --generate         a decoder's texts too (T5's always); --num_beams=4 --max_new_tokens=64
                     --length_penalty=1.0 --stop=TEXT ... as of zoo generate
  --probe=knn|linear|few_shot               a classifier on frozen features instead of the
                     head, learned from --train_split=train; --shots=1,5,10 --pooling=NAME
  --task=NAME --tokenizer=FILE --length=N --batch_size=N --samples=1000
  --out=FILE.json    (default: eval.json, of probes eval_knn.json, ..., in a run's folder,
                     else here); --json: to the standard output, in the place of the table

exit codes: 0 done, 2 a mistake"""

WORDS = ("data", "split", "columns", "metrics", "against", "by", "confusion", "labels", "task",
         "tokenizer", "out", "template", "probe", "train_split", "shots", "pooling")  # fmt: skip
NUMBERS = ("worst", "length", "batch_size", "samples")

GENERATION: dict[str, Any] = {
    **dict.fromkeys(("max_new_tokens", "min_new_tokens", "num_beams"), int),
    **dict.fromkeys(("length_penalty", "repetition_penalty"), float),
    **dict.fromkeys(("early_stopping", "stop"), str),
}

PROBES = ("knn", "linear", "few_shot")
ONLY: dict[str, tuple[str | None, ...]] = {  # options that not every way has
    **dict.fromkeys(("labels", "task", "template", "worst", "length", "generation"), (None,)),
    **dict.fromkeys(("train_split", "pooling"), PROBES),
    **dict.fromkeys(("by", "against", "samples"), ("knn", "linear", None)),
    "shots": ("few_shot",),
}


def evaluate(argv: Sequence[str]) -> int:
    """`zoo eval SOURCE --data=DATA`."""
    if asks_help(argv):
        print(EVAL_HELP)
        return DONE
    words, flags = split_flags(argv, [*WORDS, *NUMBERS, *GENERATION], ["json", "generate"])
    if len(words) != 1:
        told = f", not {' '.join(words[:3])!r} (data is --data=DATA)" if words else ""
        raise UserError(f"zoo eval takes one source{told}: zoo eval SOURCE --data=DATA")
    given = {name: pick_one(flags, name) for name in WORDS}
    numbers = {name: to_number(flags, name) for name in NUMBERS}
    options: dict[str, Any] = {k: v for k, v in numbers.items() if v is not None}
    for name in ("metrics", "by", "labels"):
        if given[name] is not None:
            options[name] = split_list(name, str(given[name]))
    options["columns"] = read_columns(given["columns"])
    options["data"] = given["data"]
    named = ("split", "against", "task", "tokenizer", "template", "train_split", "pooling")
    options |= {name: given[name] for name in named if given[name] is not None}
    if given["shots"] is not None:
        options["shots"] = read_shots(str(given["shots"]))
    generation = read_generation(flags)
    if generation is not None:
        options["generation"] = generation
    probe = given["probe"]
    picture = given["confusion"]
    if picture is not None and not picture.lower().endswith(".png"):
        raise UserError(f"--confusion={picture} is a picture: did you mean '{picture}.png'?")
    out = choose_out(words[0], given["out"], f"eval_{probe}.json" if probe else "eval.json")
    found = measure(words[0], probe, options)
    from zoo.evaluation.report import tell

    if picture is not None:
        draw(found, picture)
    write_json(out, found.to_dict())
    if "json" in flags:
        print_json(found.to_dict())
        return DONE
    for line in tell(found):
        print(line)
    print(f"\n{out}")
    return DONE


def measure(source: str, probe: str | None, options: dict[str, Any]) -> Any:
    """By the source's own head, or by a probe of its features. Raises UserError on an option of
    the other way."""
    if probe not in (None, *PROBES):
        raise UserError(f"--probe={probe!r} is unknown{nearest(str(probe), PROBES)}")
    for name in options:
        ways = ONLY.get(name, (probe,))
        if probe not in ways and None in ways:
            shown = "generate" if name == "generation" else name
            raise UserError(f"--{shown} does not go with --probe={probe}")
        if probe not in ways:
            raise UserError(f"--{name} goes with --probe={' or '.join(map(str, ways))}")
    if probe is None:
        from zoo.evaluation import evaluate as evaluate_source

        return evaluate_source(source, **options)
    from zoo.evaluation import probes

    if probe == "few_shot":
        return probes.few_shot(source, **options)
    return probes.probe(source, kind=probe, **options)  # type: ignore[arg-type]


def read_generation(flags: dict[str, list[str]]) -> dict[str, Any] | None:
    """The settings of generated texts; None where none are asked for."""
    found: dict[str, Any] = {}
    for name, kind in GENERATION.items():
        value = pick_one(flags, name) if kind is str else to_number(flags, name, kind)
        if value is not None:
            found[name] = value
    if "stop" in found:
        found["stop"] = (found["stop"].replace("\\n", "\n"),)
    return found if found or "generate" in flags else None


def read_shots(text: str) -> list[int]:
    """'1,5' -> [1, 5]. Raises UserError on what is no number."""
    parts = split_list("shots", text)
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--shots={text!r} should be numbers with commas between")
    return [int(part) for part in parts]


def draw(found: Any, file: str) -> None:
    """The confusion matrix as a picture. Raises UserError where there are no classes, and where it
    cannot be written."""
    from zoo.evaluation.confusion import draw_confusion

    if getattr(found, "confusion", None) is None:
        raise UserError(f"--confusion: {found.source} gives no classes")
    try:
        draw_confusion(found.confusion, found.classes, file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None


def split_list(name: str, text: str) -> list[str]:
    """'a,b' -> ['a', 'b']. Raises UserError on an empty one."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"--{name}={text!r} should be names with commas between")
    return parts


def read_columns(text: str | None) -> dict[str, Any]:
    """'text=review,label=stars' -> our field -> its column (of several: columns). Raises UserError
    on what cannot be read so."""
    columns: dict[str, Any] = {}
    for part in split_list("columns", text) if text is not None else ():
        field, equals, column = part.partition("=")
        if not equals or not column:
            raise UserError(f"--columns={text!r} should be FIELD=COLUMN,..., e.g. text=review")
        before = columns.get(field)
        several = before if isinstance(before, list) else [before]
        columns[field] = column if before is None else [*several, column]
    return columns


def choose_out(source: str, out: str | None, name: str = "eval.json") -> Path:
    """Where the result goes. Raises UserError where there is no such folder."""
    if out is None:
        folder = os.path.expanduser(source)
        is_run = os.path.isdir(os.path.join(folder, "checkpoints"))
        return Path(folder if is_run else ".") / name
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"--out={out}: {'a folder' if path.is_dir() else 'there is no such folder'}"
        )
    return path


def write_json(path: Path, content: dict[str, Any]) -> None:
    """In one move. Raises UserError where it cannot be written."""
    from zoo.cli.results import open_draft

    with open_draft(path) as stream:
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        stream.write(text.encode(errors="backslashreplace"))
