"""The verb of runs on machines that need not be there: plan."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from zoo.cli.words import DONE, FOUND, asks_help
from zoo.config import UserError, make_config, parse_command

PLAN_HELP = """\
usage: zoo plan FILE[:OPTIONS] TARGET [--search[=N]] [--json] [--config.KEY=VALUE ...]
       python train.py --config FILE[:OPTIONS] --plan TARGET ...

Compiles the recipe's real training step for TARGET on this machine and says what
a chip needs and does: memory by part, arithmetic, memory traffic, collectives, and
how long a step takes at best.

  TARGET            v5p:8x16x16, chips in a torus, of v4, v5e, v5p or v6e; Cloud's
                    v5p-4096; or local, the devices of this machine
  --search          tries meshes, remat and microbatches, at most N (default 12)
                    compilations, and ranks those that fit
  --json            for programs
  --config.parallel.fsdp=256

TPUs need the extra: pip install 'zoo-jax[plan]'

exit codes: 0 it fits, 3 it does not, 2 a mistake"""
DEFAULT_SEARCH = 12


def plan(argv: Sequence[str]) -> int:
    """`zoo plan FILE TARGET`."""
    if asks_help(argv):
        print(PLAN_HELP)
        return DONE
    words = list(argv)
    for flag in ("--config", "--plan"):
        if words and not words[0].startswith("--"):
            words.append(f"{flag}={words.pop(0)}")
    return plan_flags(words)


def plan_flags(words: Sequence[str]) -> int:
    """The same as flags alone. Raises UserError on a wrong one, and without recipe or target."""
    # Two of them stand without a value.
    bare = {"--json": "--json=true", "--search": f"--search={DEFAULT_SEARCH}"}
    flags = parse_command([bare.get(w, w) for w in words], ["plan", "search", "json"])
    for needed, what in (("config", "the recipe"), ("plan", "the target, such as v5e:16x16,")):
        if needed not in flags:
            raise UserError(f"zoo plan FILE TARGET: {what} is missing")
    if flags.get("json", "true") != "true":
        raise UserError(f"--json takes no value, not {flags['json']!r}")
    limit = flags.get("search", "0")
    if not limit.isdigit() or (limit == "0" and "search" in flags):
        raise UserError(f"--search={limit}: how many compilations at most, a number above 0")
    values = {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}
    config = make_config(flags["config"], values)
    if flags["plan"] != "local":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what compiles for TPUs needs none
    from zoo.plan import describe_plan, find_target, make_plan
    from zoo.plan.search import describe, search_plans

    if not int(limit):
        found = make_plan(config, flags["plan"])
        print(json.dumps(found.to_dict()) if "json" in flags else describe_plan(found))
        return DONE if found.fits else FOUND
    tell = (lambda line: None) if "json" in flags else print
    num_chips = len(find_target(flags["plan"])[1])
    ranked = search_plans(config, flags["plan"], num_chips, int(limit), tell)
    if "json" in flags:
        told = [{"flags": describe(c), **p.to_dict()} for c, p in ranked]
        print(json.dumps(told))
    elif ranked:
        print(f"\nthe fastest of {len(ranked)} that fit:\n{describe(ranked[0][0])}\n")
        print(describe_plan(ranked[0][1]))
    else:
        print("\nnone of these fits")
    return DONE if ranked else FOUND
