"""The verb of recipes run again: reproduce."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.words import DONE, FOUND, asks_help
from zoo.config import UserError, make_config, parse_command

REPRODUCE_HELP = """\
usage: zoo reproduce FILE[:OPTIONS] [--workdir DIR] [--results FILE] [--config.KEY=VALUE ...]

Runs a recipe, compares its last metric with the number and tolerance that the
recipe states (EXPECTED in FILE), and appends a row to RESULTS.md: result, hash of
the config, fingerprint of the data, versions, hardware, minutes.

  --workdir DIR     default: runs/reproduce/RECIPE; a run that is there goes on
  --results FILE    default: RESULTS.md
  --config.seed=1   seed, init_from and train.num_seeds may change, and what decides
                    no number

exit codes: 0 reached, 3 run but not reached, 2 a mistake (also a recipe that states
no number), 70 and 75 as of train (no row is written)"""


def reproduce(argv: Sequence[str]) -> int:
    """`zoo reproduce FILE`."""
    if asks_help(argv):
        print(REPRODUCE_HELP)
        return DONE
    words = list(argv)
    if not words[0].startswith("--"):
        words[0] = f"--config={words[0]}"
    flags = parse_command(words, ["workdir", "results"])
    if "config" not in flags:
        raise UserError("zoo reproduce FILE: the recipe is missing")
    spec = flags.pop("config")
    values = {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}
    config = make_config(spec, values)
    from zoo.gpu import set_memory_share
    from zoo.memory import keep_freed_memory

    set_memory_share(config.parallel.gpu_memory_share)  # before jax can start a GPU
    keep_freed_memory()
    from zoo.reproduce import reproduce as run

    reached = run(spec, values, flags.get("workdir"), flags.get("results", "RESULTS.md"))
    return DONE if reached else FOUND
