"""`zoo tokenizer train`: a tokenizer learned from the training texts of a source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zoo.config import DataConfig, UserError, nearest
from zoo.config.parse import set_values
from zoo.data.sources import open_raw
from zoo.data.text import Texts, find_text
from zoo.data.tokenizers.training import TRAINERS, train_tokenizer


def train_and_write(source: str, flags: Mapping[str, str]) -> list[str]:
    """Learns as `flags` say ('kind', 'size', 'out', 'sentinels', 'data.KEY'), writes the file, and
    returns lines that tell of it.

    Raises UserError on a mistake in them, before the texts are read where it can be seen then, and
    on a source without text.
    """
    for name in ("kind", "size", "out"):
        if name not in flags:
            raise UserError(f"zoo tokenizer train: --{name} is missing (see --help)")
    kind, out = flags["kind"], Path(flags["out"])
    if kind not in TRAINERS:
        raise UserError(f"--kind={kind!r} is unknown{nearest(kind, TRAINERS)}")
    size, sentinels = (_count(name, flags.get(name, "0")) for name in ("size", "sentinels"))
    if out.suffix != ".json":
        raise UserError(f"--out={str(out)!r} must end in .json")
    if out.exists():
        raise UserError(f"{out} is there already: name another file")
    if not out.parent.is_dir():
        raise UserError(f"--out={str(out)!r}: there is no folder {out.parent}")
    values = {k.removeprefix("data."): v for k, v in flags.items() if k.startswith("data.")}
    config = set_values(DataConfig(), {**values, "source": source})
    raw = open_raw(config)
    fields = find_text(raw)
    if not fields:
        raise UserError(f"{raw.name} has no text to learn a tokenizer from")
    tokenizer = train_tokenizer(kind, Texts([raw.splits["train"]], fields), size, sentinels)
    try:
        out.write_text(tokenizer.to_json())
    except OSError as error:
        out.unlink(missing_ok=True)
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    lines = [f"{out}: {tokenizer.vocab_size:,} tokens ({kind}), learned from {raw.name}"]
    if tokenizer.vocab_size < size + sentinels:
        lines.append(f"the texts have no more: {size + sentinels:,} were asked for")
    return [*lines, f"use it: data.tokenizer={out}"]


def _count(name: str, text: str) -> int:
    if not text.isdigit():
        raise UserError(f"--{name}={text!r} is not a whole number")
    return int(text)
