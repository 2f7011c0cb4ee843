"""Verbs that ask a model: predict, embed, fill."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.cli.results import (
    open_draft,
    print_cosines,
    print_filled,
    print_table,
    show_progress,
    tell_problems,
    write_json,
)
from zoo.cli.words import DONE, asks_help, pick_one, split_flags, to_number
from zoo.config import UserError, nearest

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
  --tokenizer=FILE --batch_size=32

exit codes: 0 done, 2 a mistake, 3 done, but an input could not be read (each is named)"""


EMBED_HELP = """\
usage: zoo embed SOURCE FILE... [--text=TEXT ...] [--out=FILE.npz|FILE.npy|FILE.jsonl]

The vector of each image, text or row: of length 1, so that the product of two is
their cosine. SOURCE and FILE as in zoo predict; of CLIP and SigLIP, images and texts.

  --out=FILE    .npz: vectors, and inputs, their names; .npy: vectors alone; .jsonl: one
                JSON object a line. Without it the cosines are printed
  --pooling=P   of texts mean, first, last or max, of images pooled, mean or first
                (default: as the source's files say, else as docs/use.md says)
  --raw         vectors of any length
  --tokenizer=FILE --batch_size=32

exit codes: 0 done, 2 a mistake, 3 done, but an input could not be read (each is named)"""


FILL_HELP = """\
usage: zoo fill SOURCE [FILE.txt...] [--prompt=TEXT ...] [--top=5] [--json[=FILE]]

The likeliest tokens in the place of each mask token, by a masked language model:

  zoo fill bert-folder --prompt='Paris is the [MASK] of France.'

  --prompt=TEXT     a text with the tokenizer's mask token in it; again for more
  --top=5           tokens a mask
  --json=FILE       one JSON object a line; --json alone: to the standard output
  --tokenizer=FILE --batch_size=8

exit codes: 0 done, 2 a mistake, 3 done, but an input could not be read (each is named)"""


def predict(argv: Sequence[str]) -> int:
    """`zoo predict SOURCE FILE...`."""
    if asks_help(argv):
        print(PREDICT_HELP)
        return DONE
    known = ("text", "pair", "top", "json", "labels", "template", "tokenizer", "batch_size")
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


def embed(argv: Sequence[str]) -> int:
    """`zoo embed SOURCE FILE...`."""
    if asks_help(argv):
        print(EMBED_HELP)
        return DONE
    known = ("text", "out", "pooling", "tokenizer", "batch_size")
    words, flags = split_flags(argv, known, ["raw"])
    inputs, out = gather_inputs("embed", words, flags), pick_one(flags, "out")
    kinds = (".npz", ".npy", ".jsonl")
    if out is not None and not out.endswith(kinds):
        raise UserError(f"--out={out!r} should end in {', '.join(kinds)}{nearest(out, kinds)}")
    from zoo.use.embed import make_embedder
    from zoo.use.jobs import open_source

    loaded = open_source(words[0], pick_one(flags, "tokenizer"))
    embedder = make_embedder(loaded, pick_one(flags, "pooling"), "raw" not in flags)
    for job in embedder.jobs.values() if len(embedder.jobs) == 1 else ():
        check_texts(flags, job.wanted)
    items = embedder.collect(inputs)
    with show_progress(embedder.stream(items, **batch_size(flags)), len(items)) as shown:
        if out is not None and out.endswith(".jsonl"):
            return write_json(out, shown)
        made = list(shown)
    sound = [one for one in made if one.problem is None]
    if sound:
        write_vectors(sound, out)
    return tell_problems(made)


def write_vectors(made: Sequence[Any], out: str | None) -> None:
    """To a file of NumPy's; without one the cosines, or the beginning of a single vector."""
    import numpy as np

    vectors = np.stack([one.vector for one in made])
    if out is not None:
        with open_draft(Path(out).expanduser()) as stream:
            if out.endswith(".npy"):
                np.save(stream, vectors)
            else:
                np.savez(stream, vectors=vectors, inputs=np.array([one.input for one in made]))
    elif len(made) == 1:
        first = ", ".join(f"{x:.4f}" for x in vectors[0, :6])
        print(f"{made[0].input}: {vectors.shape[1]} numbers, {first}, ... (all: --out=FILE.npz)")
    else:
        print_cosines(made, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def fill(argv: Sequence[str]) -> int:
    """`zoo fill SOURCE --prompt='... [MASK] ...'`."""
    if asks_help(argv):
        print(FILL_HELP)
        return DONE
    known = ("prompt", "top", "json", "tokenizer", "batch_size")
    words, flags = split_flags(json_to_stdout(argv), known)
    if not words:
        raise UserError("zoo fill SOURCE --prompt=TEXT: the source is missing (see --help)")
    check_files(words[1:])
    inputs = [*map(Path, words[1:]), *flags.get("prompt", [])]
    if not inputs:
        raise UserError(f"zoo fill {words[0]} --prompt=TEXT: the text is missing")
    top, target = to_number(flags, "top"), pick_one(flags, "json")
    from zoo.use.fill import make_filler
    from zoo.use.jobs import open_source

    loaded = open_source(words[0], pick_one(flags, "tokenizer"))
    filler = make_filler(loaded, 5 if top is None else top)
    items = filler.collect(inputs)
    with show_progress(filler.stream(items, **batch_size(flags)), len(items)) as shown:
        if target is not None:
            return write_json(target, shown)
        made = list(shown)
    print_filled(made)
    return tell_problems(made)


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
    check_files(words[1:])
    given: list[Any] = list(zip(texts, seconds, strict=True)) if seconds else list(texts)
    inputs = [*map(Path, words[1:]), *given]
    if not inputs:
        raise UserError(f"zoo {verb} {words[0]} FILE...: name files, or give --text=TEXT")
    return inputs


def check_files(paths: Sequence[str]) -> None:
    """Raises UserError on one that is not there, before a large model is read."""
    from zoo.use.inputs import require_file

    for path in paths:
        require_file(os.path.expanduser(path))


def check_texts(flags: dict[str, list[str]], wanted: Any) -> None:
    """Raises UserError on --text for a source that takes none."""
    if flags.get("text") and wanted.takes != "text":
        shown = {"image": "images", "features": "rows of a table"}[wanted.takes]
        raise UserError(f"--text={flags['text'][0]!r}: {wanted.name} takes {shown}, no texts")


def split_labels(value: str | None) -> list[str] | None:
    """'a cat,a dog', or a file with one a line. Raises UserError on one that is empty."""
    if value is None:
        return None
    if value.endswith(".txt") and not os.path.exists(value):
        raise UserError(f"--labels: no such file: {value}")
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
    size = to_number(flags, "batch_size")
    return {} if size is None else {"batch_size": size}
