"""Bits per byte of `xz -9` on the packages that `gpt_stdlib` validates on.

    python benchmarks/xz_stdlib.py

All files one after the other, as `cat FILES | xz -9` has them; and again after the training
packages (`xz -9e`, a dictionary that holds both), which is nearer to what the model has seen.
"""

from __future__ import annotations

import lzma

import numpy as np

from zoo.config import DataConfig
from zoo.data import open_dataset


def read_text(tokens) -> bytes:
    """The bytes of a split, without the marks between documents."""
    ids = tokens.read(np.arange(len(tokens)))
    return ids[ids < 256].astype(np.uint8).tobytes()


def main() -> None:
    """Prints both."""
    splits = open_dataset(DataConfig("embedded:stdlib")).splits
    train, val = (read_text(splits[name].tokens) for name in ("train", "val"))
    alone = len(lzma.compress(val, preset=9))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    both, first = (
        len(lzma.compress(text, format=lzma.FORMAT_XZ, filters=filters))
        for text in (train + val, train)
    )
    print(f"train {len(train):,} bytes, val {len(val):,} bytes")
    print(f"xz -9, val alone: {8 * alone / len(val):.4f} bits a byte")
    print(f"xz -9e, val after train: {8 * (both - first) / len(val):.4f} bits a byte")


if __name__ == "__main__":
    main()
