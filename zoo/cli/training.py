"""Verbs of recipes and runs: train, config, runs, doctor."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.plan import plan_flags
from zoo.cli.words import DONE, FOUND, asks_help
from zoo.config import UserError, make_config, parse_command, show_config

TRAIN_HELP = """\
usage: python train.py --config FILE[:OPTIONS] --workdir DIR [--config.KEY=VALUE ...]

Trains the recipe FILE and writes to DIR: checkpoints, metrics.jsonl, curves.png,
TensorBoard. The same command in the same DIR goes on where it was cut off.

  --config configs/vit_digits.py          a recipe; OPTIONS such as :quick follow its name
  --workdir runs/vit                      a folder, or a place on object storage
  --config.optim.learning_rate=3e-4       any key of the config
  --config.model.arguments.depth=6        a field of the model

All keys with their types and meanings:  zoo config FILE
What it needs on machines elsewhere:     python train.py --config FILE --plan v5e:16x16
On several hosts the same command:       docs/hosts.md
A first look, seconds on made-up data:   python train.py --config FILE:quick --workdir /tmp/look

exit codes: 0 done, 2 a mistake in the command or config, 70 the loss was not finite,
75 saved and stopped on request (start again to go on)"""


CONFIG_HELP = """\
usage: zoo config FILE[:OPTIONS] [--config.KEY=VALUE ...]

Prints the resolved config: each key's value, type, default and meaning."""


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


def train(argv: Sequence[str]) -> int | None:
    """`zoo train --config FILE --workdir DIR`."""
    if asks_help(argv):
        print(TRAIN_HELP)
        return DONE
    if any(word == "--plan" or word.startswith("--plan=") for word in argv):
        return plan_flags(argv)
    flags = parse_command(argv, ["workdir"])
    for needed in ("config", "workdir"):
        if needed not in flags:
            raise UserError(f"--{needed} is missing (see --help)")
    config = make_config(flags.pop("config"), _config_values(flags))
    from zoo.compilation import keep_compiled
    from zoo.gpu import set_memory_share
    from zoo.memory import keep_freed_memory

    set_memory_share(config.parallel.gpu_memory_share)  # before jax can start a GPU
    keep_compiled(config.data.cache)
    keep_freed_memory()  # before jax starts its threads
    from zoo.parallel import join_job  # jax is imported only for a command that is right
    from zoo.train import fit
    from zoo.train.workdir import describe_command

    with join_job(config.parallel, describe_command(config, flags["workdir"])):
        fit(config, flags["workdir"])
    return DONE


def config(argv: Sequence[str]) -> None:
    """`zoo config FILE`."""
    if asks_help(argv):
        print(CONFIG_HELP)
        return
    words = list(argv)
    if not words[0].startswith("--"):
        words[0] = f"--config={words[0]}"
    flags = parse_command(words, [])
    if "config" not in flags:
        raise UserError("zoo config FILE: the recipe is missing")
    print(show_config(make_config(flags.pop("config"), _config_values(flags))))


def runs(argv: Sequence[str]) -> int:
    """`zoo runs DIR`."""
    if asks_help(argv):
        print(RUNS_HELP)
        return DONE
    if len(argv) > 1 or argv[0].startswith("-"):
        raise UserError("zoo runs takes one folder: zoo runs DIR")
    from zoo.runs import print_runs

    return FOUND if print_runs(argv[0]) else DONE


def doctor(argv: Sequence[str]) -> int:
    """`zoo doctor`."""
    if asks_help(argv, empty=False):
        print(DOCTOR_HELP)
        return DONE
    if argv:
        raise UserError(f"zoo doctor takes no argument, not {argv[0]!r}")
    from zoo.doctor import print_findings

    return FOUND if print_findings() else DONE


def _config_values(flags: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}
