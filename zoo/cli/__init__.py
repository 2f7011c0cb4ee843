"""`zoo VERB` = `python -m zoo VERB`; `train.py` is `zoo train`. Mistakes: one line, exit code 2."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence

from zoo.cli.data import data, tokenizer
from zoo.cli.evaluate import evaluate
from zoo.cli.explain import explain
from zoo.cli.generate import generate
from zoo.cli.models import convert, info, list_, parity
from zoo.cli.plan import plan
from zoo.cli.predict import embed, fill, predict
from zoo.cli.rehearse import rehearse
from zoo.cli.reproduce import reproduce
from zoo.cli.training import config, doctor, runs, train
from zoo.cli.words import DONE, MISTAKE, NON_FINITE, STOPPED
from zoo.config import UserError, nearest

__all__ = ["guard", "main", "train"]

HELP = """\
usage: zoo VERB ...        zoo VERB --help says more

  train     train a recipe
  config    show a recipe's resolved config
  plan      what a recipe needs and takes on machines that need not be there
  rehearse  a recipe as several processes on this machine, one of them killed
  reproduce a recipe run again, and its stated number compared
  runs      runs side by side, and their curves in one picture
  list      models with their parameters and FLOPs
  info      what one model is made of
  eval      a model's metrics on a split, with intervals, by slices, against another's
  predict   what a model says of images, texts, rows of tables
  embed     vectors of images and texts, and how alike they are
  fill      what stands in the place of mask tokens
  generate  text from a prompt
  explain   what a model looks at, as a page with pictures
  data      what a source holds and what training gets of it; what is wrong with it
  tokenizer learn a tokenizer from texts
  convert   published weights to another layout
  parity    ours against transformers', layer by layer
  doctor    what is wrong with this installation"""

Verb = Callable[[Sequence[str]], int | None]  # None: done
VERBS: dict[str, Verb] = {
    "train": train,
    "config": config,
    "plan": plan,
    "rehearse": rehearse,
    "reproduce": reproduce,
    "runs": runs,
    "list": list_,
    "info": info,
    "eval": evaluate,
    "predict": predict,
    "embed": embed,
    "fill": fill,
    "generate": generate,
    "explain": explain,
    "data": data,
    "tokenizer": tokenizer,
    "convert": convert,
    "parity": parity,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the terminal cannot show is told by number
        sys.stdout.reconfigure(errors="backslashreplace")
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
