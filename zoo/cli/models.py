"""Verbs of models and their weights: list, info, convert, parity."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.words import DONE, FOUND, asks_help, pick_one, split_flags, to_number
from zoo.config import UserError, parse_command

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


CONVERT_HELP = """\
usage: zoo convert SRC DST [--to=hf|zoo|peft] [--base=SOURCE]

Writes published weights, or a run's, as another layout, tensor by tensor.

  --to=hf    a folder that transformers loads (default for our own layout and runs)
  --to=zoo   our own layout: zoo.json, and safetensors by our paths (default for others)
  --to=peft  of a run with LoRA the adapter alone, as peft loads it; else it is merged
  --base=SOURCE  the weights that an adapter belongs to, where not those that it names

SRC: a Hugging Face folder, OWNER/NAME on the hub, timm's safetensors, an AugReg or
big_vision .npz, our own layout, a run's folder, an adapter in peft's layout. DST must
hold no weights yet.

exit codes: 0 done, 2 a mistake, 3 done, but something was left aside (each is told)"""


PARITY_HELP = """\
usage: zoo parity SRC [--tolerance=1e-4]

Runs our model and transformers' from the same weights on the same input and prints
how far apart they are, layer by layer (extra: pip install -e '.[parity]').

exit codes: 0 all layers agree, 2 a mistake, 3 a layer is over the tolerance"""


def list_(argv: Sequence[str]) -> None:
    """`zoo list ['PATTERN']`."""
    if asks_help(argv, empty=False):
        print(LIST_HELP)
        return
    if len(argv) > 1 or (argv and argv[0].startswith("-")):
        raise UserError("zoo list takes one pattern; put it in quotes: zoo list 'vit*'")
    from zoo.info import print_list

    print_list(*argv)


def info(argv: Sequence[str]) -> None:
    """`zoo info NAME`."""
    if asks_help(argv):
        print(INFO_HELP)
        return
    if argv[0].startswith("-"):
        raise UserError("zoo info NAME: the model is missing")
    flags = parse_command(argv[1:], [], "arguments")
    if "arguments" in flags:
        raise UserError("--arguments is a group: set one of its keys, --arguments.KEY=VALUE")
    from zoo.info import print_info

    print_info(argv[0], {k.removeprefix("arguments."): v for k, v in flags.items()})


def convert(argv: Sequence[str]) -> int:
    """`zoo convert SRC DST`."""
    if asks_help(argv):
        print(CONVERT_HELP)
        return DONE
    words, flags = split_flags(argv, ["to", "base"])
    if len(words) != 2:
        raise UserError("zoo convert takes a source and a folder: zoo convert SRC DST")
    from zoo.pretrained import convert

    report = convert(words[0], words[1], pick_one(flags, "to"), pick_one(flags, "base"))
    for line in report:
        print(line)
    print(f"written to {words[1]}")
    return FOUND if report else DONE


def parity(argv: Sequence[str]) -> int:
    """`zoo parity SRC`."""
    if asks_help(argv):
        print(PARITY_HELP)
        return DONE
    words, flags = split_flags(argv, ["tolerance"])
    if len(words) != 1:
        raise UserError("zoo parity takes one source: zoo parity SRC")
    tolerance = to_number(flags, "tolerance", float)
    from zoo.parity import print_parity

    return FOUND if print_parity(words[0], 1e-4 if tolerance is None else tolerance) else DONE
