"""`zoo VERB` = `python -m zoo VERB`; `train.py` is `zoo train`. Mistakes: one line, exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from zoo.config import UserError, make_config, nearest, parse_command, show_config

DONE, MISTAKE, FOUND, NON_FINITE, STOPPED = 0, 2, 3, 70, 75

TRAIN_HELP = """\
usage: python train.py --config FILE[:OPTIONS] --workdir DIR [--config.KEY=VALUE ...]

Trains the recipe FILE and writes to DIR: checkpoints, metrics.jsonl, curves.png,
TensorBoard. The same command in the same DIR goes on where it was cut off.

  --config configs/vit_digits.py          a recipe; OPTIONS such as :quick follow its name
  --workdir runs/vit                      a folder, or a place on object storage
  --config.optim.learning_rate=3e-4       any key of the config
  --config.model.arguments.depth=6        a field of the model

All keys with their types and meanings:  zoo config FILE
A first look, seconds on made-up data:   python train.py --config FILE:quick --workdir /tmp/look

exit codes: 0 done, 2 a mistake in the command or config, 70 the loss was not finite,
75 saved and stopped on request (start again to go on)"""

CONFIG_HELP = """\
usage: zoo config FILE[:OPTIONS] [--config.KEY=VALUE ...]

Prints the resolved config: each key's value, type, default and meaning."""

LIST_HELP = """\
usage: zoo list ['PATTERN']

Prints the models whose name matches a shell pattern such as 'vit_b*' (default:
all): parameters, and FLOPs of a forward pass for one example or token."""

INFO_HELP = """\
usage: zoo info NAME [--arguments.KEY=VALUE ...]

Prints what a model is made of: parameters by part, shapes, FLOPs, memory.

  zoo info vit_b16                              a name of `zoo list`
  zoo info vit_s4 --arguments.image_size=32,32  with fields changed
  zoo info my_module:MyModel                    a model of your own"""

RUNS_HELP = """\
usage: zoo runs DIR

Prints the runs in DIR and up to three folders below, side by side: how far they
are, the config keys in which they differ, the last val and test metrics and the
best val metric. Draws all curves into DIR/runs.png.

exit codes: 0 done, 2 no run there, 3 a run could not be read and is left out"""

DOCTOR_HELP = """\
usage: zoo doctor

Looks at the versions of packages, devices, GPU memory share, disk and published
data, and gives a line of advice for each thing that is wrong.

exit codes: 0 all is well, 3 something was found"""

CONVERT_HELP = """\
usage: zoo convert SRC DST [--to=hf|zoo]

Writes published weights, or a run's, as another layout, tensor by tensor.

  --to=hf    a folder that transformers loads (default for our own layout and runs)
  --to=zoo   our own layout: zoo.json, and safetensors by our paths (default for others)

SRC: a Hugging Face folder, OWNER/NAME on the hub, timm's safetensors, an AugReg or
big_vision .npz, our own layout, a run's folder. DST must hold no weights yet.

exit codes: 0 done, 2 a mistake, 3 done, but something was left aside (each is told)"""

PARITY_HELP = """\
usage: zoo parity SRC [--tolerance=1e-4]

Runs our model and transformers' from the same weights on the same input and prints
how far apart they are, layer by layer (extra: pip install -e '.[parity]').

exit codes: 0 all layers agree, 2 a mistake, 3 a layer is over the tolerance"""

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

HELP = """\
usage: zoo VERB ...        zoo VERB --help says more

  train   train a recipe
  config  show a recipe's resolved config
  list    models with their parameters and FLOPs
  info    what one model is made of
  runs    runs side by side, and their curves in one picture
  data    what a source holds and what training gets of it; what is wrong with it
  convert published weights to another layout
  parity  ours against transformers', layer by layer
  tokenizer  learn a tokenizer from texts
  doctor  what is wrong with this installation"""


def train(argv: Sequence[str]) -> None:
    """`zoo train --config FILE --workdir DIR`."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(TRAIN_HELP)
        return
    flags = parse_command(argv, ["workdir"])
    for needed in ("config", "workdir"):
        if needed not in flags:
            raise UserError(f"--{needed} is missing (see --help)")
    config = make_config(flags.pop("config"), _config_values(flags))
    from zoo.gpu import set_memory_share
    from zoo.memory import keep_freed_memory

    set_memory_share(config.parallel.gpu_memory_share)  # before jax can start a GPU
    keep_freed_memory()  # before jax starts its threads
    from zoo.train import fit  # jax is imported only for a command that is right

    fit(config, flags["workdir"])


def config(argv: Sequence[str]) -> None:
    """`zoo config FILE`."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(CONFIG_HELP)
        return
    words = list(argv)
    if not words[0].startswith("--"):
        words[0] = f"--config={words[0]}"
    flags = parse_command(words, [])
    if "config" not in flags:
        raise UserError("zoo config FILE: the recipe is missing")
    print(show_config(make_config(flags.pop("config"), _config_values(flags))))


def list_(argv: Sequence[str]) -> None:
    """`zoo list ['PATTERN']`."""
    if set(argv) & {"-h", "--help"}:
        print(LIST_HELP)
        return
    if len(argv) > 1 or (argv and argv[0].startswith("-")):
        raise UserError("zoo list takes one pattern; put it in quotes: zoo list 'vit*'")
    from zoo.info import print_list

    print_list(*argv)


def info(argv: Sequence[str]) -> None:
    """`zoo info NAME`."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(INFO_HELP)
        return
    if argv[0].startswith("-"):
        raise UserError("zoo info NAME: the model is missing")
    flags = parse_command(argv[1:], [], "arguments")
    if "arguments" in flags:
        raise UserError("--arguments is a group: set one of its keys, --arguments.KEY=VALUE")
    from zoo.info import print_info

    print_info(argv[0], {k.removeprefix("arguments."): v for k, v in flags.items()})


def runs(argv: Sequence[str]) -> int:
    """`zoo runs DIR`."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(RUNS_HELP)
        return DONE
    if len(argv) > 1 or argv[0].startswith("-"):
        raise UserError("zoo runs takes one folder: zoo runs DIR")
    from zoo.runs import print_runs

    return FOUND if print_runs(argv[0]) else DONE


def data(argv: Sequence[str]) -> int:
    """`zoo data show|check SOURCE`."""
    if not argv or set(argv) & {"-h", "--help"}:
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


def convert(argv: Sequence[str]) -> int:
    """`zoo convert SRC DST`."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(CONVERT_HELP)
        return DONE
    words, flags = _split_flags(argv, "to")
    if len(words) != 2:
        raise UserError("zoo convert takes a source and a folder: zoo convert SRC DST")
    from zoo.pretrained import convert

    report = convert(words[0], words[1], flags.get("to"))
    for line in report:
        print(line)
    print(f"written to {words[1]}")
    return FOUND if report else DONE


def parity(argv: Sequence[str]) -> int:
    """`zoo parity SRC`."""
    if not argv or set(argv) & {"-h", "--help"}:
        print(PARITY_HELP)
        return DONE
    words, flags = _split_flags(argv, "tolerance")
    if len(words) != 1:
        raise UserError("zoo parity takes one source: zoo parity SRC")
    try:
        tolerance = float(flags.get("tolerance", 1e-4))
    except ValueError:
        raise UserError(f"--tolerance={flags['tolerance']!r} is not a number") from None
    from zoo.parity import print_parity

    return FOUND if print_parity(words[0], tolerance) else DONE


def tokenizer(argv: Sequence[str]) -> None:
    """`zoo tokenizer train SOURCE`."""
    if not argv or set(argv) & {"-h", "--help"}:
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


def _split_flags(argv: Sequence[str], *known: str) -> tuple[list[str], dict[str, str]]:
    """Words, and flags written `--name=value`."""
    words = [word for word in argv if not word.startswith("--")]
    given = [word for word in argv if word.startswith("--")]
    pairs = [word.removeprefix("--").partition("=") for word in given]
    for name, _, value in pairs:
        if name not in known or not value:
            raise UserError(f"no flag --{name}{nearest(name, known)}; write --{known[0]}=VALUE")
    return words, {name: value for name, _, value in pairs}


def doctor(argv: Sequence[str]) -> int:
    """`zoo doctor`."""
    if set(argv) & {"-h", "--help"}:
        print(DOCTOR_HELP)
        return DONE
    if argv:
        raise UserError(f"zoo doctor takes no argument, not {argv[0]!r}")
    from zoo.doctor import print_findings

    return FOUND if print_findings() else DONE


def _config_values(flags: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}


Verb = Callable[[Sequence[str]], int | None]  # None: done
VERBS: dict[str, Verb] = {
    "train": train,
    "config": config,
    "list": list_,
    "info": info,
    "runs": runs,
    "data": data,
    "convert": convert,
    "parity": parity,
    "tokenizer": tokenizer,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return DONE
    return guard(_run_verb, argv)


def _run_verb(argv: Sequence[str]) -> int | None:
    if argv[0] not in VERBS:
        raise UserError(f"no verb {argv[0]!r}{nearest(argv[0], VERBS)}")
    return VERBS[argv[0]](argv[1:])


def guard(verb: Verb, argv: Sequence[str]) -> int:
    """Runs a verb; what ends it early becomes one line on stderr and an exit code."""
    try:
        return verb(argv) or DONE
    except BrokenPipeError:  # `zoo config FILE | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("interrupted; the same command starts again", file=sys.stderr)
        return STOPPED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE
    except Exception as error:
        codes = {"NonFiniteLoss": NON_FINITE, "Stopped": STOPPED}
        if type(error).__module__ != "zoo.train.stop" or type(error).__name__ not in codes:
            raise
        print(error, file=sys.stderr)
        return codes[type(error).__name__]
