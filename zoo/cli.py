"""`zoo VERB` = `python -m zoo VERB`; `train.py` is `zoo train`. Mistakes: one line, exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from zoo.config import UserError, make_config, nearest, parse_command, show_config

DONE, MISTAKE, NON_FINITE, STOPPED = 0, 2, 70, 75

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


def _config_values(flags: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}


VERBS: dict[str, Callable[[Sequence[str]], None]] = {"train": train, "config": config}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: zoo VERB ...\n")
        print("  train   train a recipe\n  config  show a recipe's resolved config")
        return DONE
    return guard(_run_verb, argv)


def _run_verb(argv: Sequence[str]) -> None:
    if argv[0] not in VERBS:
        raise UserError(f"no verb {argv[0]!r}{nearest(argv[0], VERBS)}")
    VERBS[argv[0]](argv[1:])


def guard(verb: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    """Runs a verb; what ends it early becomes one line on stderr and an exit code."""
    try:
        verb(argv)
        return DONE
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
