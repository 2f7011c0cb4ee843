"""Operations applied to a block of examples: those on single images in one go each, in threads.

Pillow and NumPy let go of Python's lock while they work, so threads use every core. Each image
depends on its own draws alone: neither the number of threads nor their order can change a bit.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.decode import BrokenImage, Decode
from zoo.data.images import ImageOp, from_pillow, to_pillow
from zoo.data.ops import Op
from zoo.data.sources import Examples

Draws = np.ndarray | None
Broken = dict[int, str]  # row -> what is wrong with its image


def apply_ops(
    ops: Sequence[Op], examples: Examples, draws: Sequence[Draws]
) -> tuple[Examples, Broken]:
    """The examples after all operations, `draws` an array `[n, num_draws]` or None for each.

    A broken image becomes a black one and is reported.
    """
    broken: Broken = {}
    pairs = list(zip(ops, draws, strict=True))
    for rowwise, group in itertools.groupby(pairs, lambda pair: pair[0].rowwise):
        steps = list(group)
        if rowwise and not _as_block(steps, examples["image"]):
            images, found = map_images(steps, examples["image"])
            examples = {**examples, "image": images}
            broken |= found
            continue
        for op, uniform in steps:
            examples = op(examples, uniform)
    return examples, broken


def _as_block(steps: Sequence[tuple[Op, Draws]], images: Any) -> bool:
    """Are these images one array, and no operation at work that takes them one by one?"""
    single = any(isinstance(op, ImageOp) and not op.blockwise for op, _ in steps)
    return isinstance(images, np.ndarray) and images.ndim == 4 and not single


def map_images(steps: Sequence[tuple[Op, Draws]], images: Any) -> tuple[Any, Broken]:
    """Each image through all steps: one array where they end in one size, else a list."""
    count, broken = len(images), Broken()
    made: list[Any] = [None] * count
    lock = threading.Lock()
    block: list[np.ndarray] = []

    def work(row: int) -> None:
        pixels, reason = change_image(steps, images[row], row)
        if reason is not None:
            broken[row] = reason
        with lock:
            if not block:  # the first to finish says how large images are
                block.append(np.empty((count, *pixels.shape), pixels.dtype))
        if pixels.shape == block[0].shape[1:]:
            block[0][row] = pixels
            pixels = block[0][row]
        made[row] = pixels

    run_rows(work, count)
    same = all(x.base is block[0] for x in made)
    return (block[0] if same else made), broken


def change_image(
    steps: Sequence[tuple[Op, Draws]], image: Any, row: int
) -> tuple[np.ndarray, str | None]:
    """One image through all steps as pixels `[y, x, ch]`, and what is wrong with it."""
    reason = None
    for op, uniform in steps:
        if isinstance(op, Decode):
            try:
                image = op.decode(image)
            except BrokenImage as error:
                image, reason = op.make_blank(), str(error)
        elif isinstance(op, ImageOp) and (isinstance(image, Image.Image) or not op.blockwise):
            image = image if isinstance(image, Image.Image) else to_pillow(image)
            image = op.change(image, np.zeros(0) if uniform is None else uniform[row])
        else:
            pixels = from_pillow(image) if isinstance(image, Image.Image) else image
            mine = None if uniform is None else uniform[row : row + 1]
            image = op({"image": pixels[None]}, mine)["image"][0]
    return from_pillow(image) if isinstance(image, Image.Image) else image, reason


def run_rows(work: Callable[[int], None], count: int) -> None:
    """Calls `work(row)` for every row, from as many threads as there are cores."""
    rows = iter(range(count))  # shared: whoever is free takes the next

    def take_rows() -> None:
        for row in rows:
            work(row)

    threads = min(num_threads(), count)
    if threads < 2:
        take_rows()
        return
    pool = thread_pool(os.getpid())
    for future in [pool.submit(take_rows) for _ in range(threads)]:
        future.result()


def num_threads() -> int:
    """Cores that this process may use, or its share of them in a worker process."""
    known = hasattr(os, "sched_getaffinity")  # not on every system
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(cores // _num_workers, 1)


_num_workers = 1  # processes that read beside each other


def share_cores(index: int, num_workers: int) -> None:
    """Tells worker process `index` how many there are: together they start a thread a core."""
    global _num_workers
    _num_workers = num_workers


@functools.cache
def thread_pool(process: int) -> ThreadPoolExecutor:
    """The threads of a process; a forked one has none of its parent's."""
    return ThreadPoolExecutor(num_threads(), thread_name_prefix="zoo-images")
