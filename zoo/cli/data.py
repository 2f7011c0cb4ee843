"""Verbs of data: data show, data check, tokenizer train."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.words import DONE, FOUND, asks_help
from zoo.config import UserError, nearest, parse_command

DATA_HELP = """\
usage: zoo data show SOURCE [--out=FILE.png] [--seed=N] [--step=N] [--data.KEY=VALUE ...]
       zoo data check SOURCE [--against OTHER] [--json=FILE] [--data.KEY=VALUE ...]

show   fields, counts, labels, lengths and ranges; the training batch of a step,
       with its augmentation: images into a picture, text decoded on the console
check  reads every example: broken files, labels, empty texts, numbers that are none,
       duplicates inside and between splits; against OTHER, other fields and drift

SOURCE, OTHER: what data.source takes, or a recipe (no SOURCE with --data.mixture):
  zoo data show configs/vit_digits.py --step=100
  zoo data check embedded:wine --data.validation_fraction=0.1 --json=wine.json

exit codes: 0 done and nothing found, 2 a mistake in the command, 3 something was found"""


TOKENIZER_HELP = """\
usage: zoo tokenizer train SOURCE --kind=KIND --size=N --out=FILE.json

Learns a tokenizer from the training texts of SOURCE (as in data.source), the same one
each time, and writes it as a tokenizer.json for data.tokenizer.

  --kind=bpe             byte-level, as GPT-2's, with <|endoftext|>
  --kind=wordpiece       lower-cased, as BERT's, with [PAD] [UNK] [CLS] [SEP] [MASK]
  --kind=unigram         as T5's, with <pad> </s> <unk>
  --size=N               tokens
  --sentinels=100        of unigram: T5's <extra_id_0> and on, beside the N
  --data.KEY=VALUE       any other key of the config's data"""


def data(argv: Sequence[str]) -> int:
    """`zoo data show|check SOURCE`."""
    if asks_help(argv):
        print(DATA_HELP)
        return DONE
    flags_of = {"show": ("out", "seed", "step"), "check": ("against", "json")}
    what, *words = argv
    if what not in flags_of:
        raise UserError(f"no verb 'zoo data {what}'{nearest(what, flags_of)}")
    if any(word.startswith("--data.mixture=") for word in words) and words[0].startswith("--"):
        words = ["", *words]  # the mixture is the source
    if not words or words[0].startswith("--"):
        raise UserError(f"zoo data {what} SOURCE: the source is missing (see --help)")
    flags = parse_command(words[1:], flags_of[what], "data")
    values = {k: flags.pop(k) for k in list(flags) if k.partition(".")[0] == "data"}
    if what == "check":
        from zoo.look.check import print_check

        return FOUND if print_check(words[0], values, **flags) else DONE
    from zoo.look.show import print_show

    numbers = {name: _count(flags, name) for name in ("seed", "step")}
    print_show(words[0], values, flags.get("out"), numbers["seed"], numbers["step"] or 0)
    return DONE


def _count(flags: dict[str, str], name: str) -> int | None:
    if name in flags and not flags[name].isdecimal():
        raise UserError(f"--{name}={flags[name]!r} is not a whole number of at least 0")
    return int(flags[name]) if name in flags else None


def tokenizer(argv: Sequence[str]) -> None:
    """`zoo tokenizer train SOURCE`."""
    if asks_help(argv):
        print(TOKENIZER_HELP)
        return
    if argv[0] != "train":
        raise UserError(f"zoo tokenizer {argv[0]!r} is unknown (did you mean 'train'?)")
    if len(argv) < 2 or argv[1].startswith("--"):
        raise UserError("zoo tokenizer train SOURCE: the source is missing")
    flags = parse_command(argv[2:], ["kind", "size", "out", "sentinels"], "data")
    from zoo.tokenizer import train_and_write

    for line in train_and_write(argv[1], flags):
        print(line)
