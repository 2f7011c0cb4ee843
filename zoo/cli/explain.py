"""The verb explain: what a model looks at, as a page."""

from __future__ import annotations

from collections.abc import Sequence

from zoo.cli.words import asks_help, pick_one, split_flags, to_number
from zoo.config import UserError

EXPLAIN_HELP = """\
usage: zoo explain SOURCE INPUT [--method=attention] --out=page.html [--target=TEXT]

Shows what a model makes of one input: one HTML page, and PNGs beside it.

SOURCE: a run's folder, a Hugging Face folder, OWNER/NAME on the hub, ... (as zoo convert)
INPUT: an image file for models of images; a text for decoders and encoders

  --method=attention    the maps of every layer and head
  --method=rollout      attention multiplied through the layers (--residual=0.5)
  --method=gradient     gradient x attention: which places raise the output
  --method=integrated   integrated gradients: what each pixel or token adds
                        (--baseline=black|white|mean, or mask|pad|zero for texts)
  --method=lens         what each layer would answer if it were the last
  --target=TEXT         an encoder-decoder's target so far; the text for an image (CLIP)
  --output=NAME         the class or token to explain (default: the first answer)
  --place=N             of the token whose output is explained, from 0; -1 is the last

exit codes: 0 done, 2 a mistake"""


def explain(argv: Sequence[str]) -> None:
    """`zoo explain SOURCE INPUT --out=page.html`."""
    if asks_help(argv):
        print(EXPLAIN_HELP)
        return
    known = ["method", "out", "target", "output", "place", "baseline", "residual"]
    words, flags = split_flags(argv, known)
    if len(words) != 2:
        raise UserError(
            "zoo explain takes a source and one input, a text in quotes: "
            "zoo explain SOURCE INPUT --out=page.html"
        )
    given = {name: pick_one(flags, name) for name in known}
    out = given["out"]
    if out is None:
        raise UserError("zoo explain writes a page: give --out=page.html")
    place, residual = to_number(flags, "place"), to_number(flags, "residual", float)
    from zoo.explanation import explain as explain_input
    from zoo.explanation.page import tell

    found = explain_input(
        words[0],
        words[1],
        method=given["method"] or "attention",
        target=given["target"],
        output=given["output"],
        place=place,
        baseline=given["baseline"],
        residual=residual,
        out=out,
    )
    for line in tell(found, out):
        print(line)
