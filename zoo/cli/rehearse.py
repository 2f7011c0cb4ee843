"""The verb of jobs of several processes tried on one machine: rehearse."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.words import DONE, FOUND, asks_help
from zoo.config import UserError, parse_command

REHEARSE_HELP = """\
usage: zoo rehearse --config FILE[:OPTIONS] --processes N --devices-per-process M [--kill]
                    [--workdir DIR] [--config.KEY=VALUE ...]

Trains the recipe (its :quick, where no OPTIONS are named) in one process, then as a
real job of N processes on this machine, with M simulated CPU devices each, and
compares every loss. A mesh in the config is rehearsed as it is.

  --processes 4            default 2
  --devices-per-process 2  default 1
  --kill                   once more: a process is killed in the middle, half as many go
                           on and are asked to stop, one goes on to the end
  --workdir DIR            keeps the runs and what the processes said

exit codes: 0 all is equal, 3 something is not, 2 a mistake"""


def rehearse(argv: Sequence[str]) -> int:
    """`zoo rehearse --config FILE`."""
    if asks_help(argv):
        print(REHEARSE_HELP)
        return DONE
    words = [{"--kill": "--kill=true"}.get(word, word) for word in argv]
    flags = parse_command(words, ["processes", "devices-per-process", "kill", "workdir"])
    if "config" not in flags:
        raise UserError("--config is missing (see --help)")
    if flags.get("kill", "true") != "true":
        raise UserError(f"--kill takes no value, not {flags['kill']!r}")
    processes = _count(flags, "processes", "2", 2)
    devices = _count(flags, "devices-per-process", "1", 1)
    kill, folder = "kill" in flags, flags.get("workdir")
    values = {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}
    from zoo.rehearse import rehearse as run

    same = run(flags["config"], values, processes, devices, kill, folder)
    return DONE if same else FOUND


def _count(flags: dict[str, str], name: str, default: str, low: int) -> int:
    value = flags.get(name, default)
    if not value.isdigit() or int(value) < low:
        raise UserError(f"--{name}={value} must be a whole number of at least {low}")
    return int(value)
