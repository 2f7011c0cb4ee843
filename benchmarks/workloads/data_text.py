"""Text: windows and rows beside a PyTorch DataLoader of the same tokens, tokenising beside
`tokenizers`' own batch call, and the memory of a long stream.

The text is Python's own library, its tokens those of a byte-level BPE learned from it.
"""

from __future__ import annotations

import functools
import os
import tempfile
import time
from typing import Any

import numpy as np

LENGTH, BATCH, STEPS = 256, 64, 400
STEPS_PER_CALL = 10  # as a recipe has it; the peer knows no such thing
TOKENIZER = "bpe:4096"


@functools.lru_cache(maxsize=2)
def open_text(kind: str) -> Any:
    """'windows' of the library's source, or 'rows': its lines, labelled by their length."""
    from zoo.config import DataConfig
    from zoo.data import ArraySource, Dataset, open_dataset
    from zoo.data.sources import text_array
    from zoo.data.text import encode_text

    folder = os.path.join(tempfile.gettempdir(), "zoo-benchmark-text")
    config = DataConfig("embedded:stdlib", tokenizer=TOKENIZER, length=LENGTH, cache=folder)
    if kind == "windows":
        return open_dataset(config)
    lines = [line for text in read_library() for line in text.splitlines() if line][:200_000]
    labels = np.array([len(line) % 2 for line in lines], np.int32)
    arrays = {"text": text_array(lines), "label": labels}
    return encode_text(Dataset("lines", {"train": ArraySource(arrays)}, 2, fingerprint="x"), config)


def read_library() -> list[str]:
    """The training documents."""
    from zoo.config import DataConfig
    from zoo.data.sources import open_raw
    from zoo.data.text import Texts

    raw = open_raw(DataConfig("embedded:stdlib"))
    return list(Texts([raw.splits["train"]], ["text"]))


def _ours(kind: str) -> Any:
    from zoo.data import TrainStream, read_ahead

    stream = TrainStream(open_text(kind).splits["train"], (), BATCH, STEPS, STEPS_PER_CALL)

    def turn() -> float:
        start = time.perf_counter()
        for batch in read_ahead(stream, 0, num_workers=0, prefetch=2):
            last = batch["tokens"]
        assert last.shape[:2] == (STEPS_PER_CALL, BATCH)
        return time.perf_counter() - start

    return turn


def _torch(kind: str) -> Any:
    """The same tokens from memory, an example at a time, stacked by the loader: in the main
    process, which is its fastest here."""
    import torch

    file = open_text(kind).splits["train"].tokens
    tokens = torch.from_numpy(file.read(np.arange(len(file))).astype(np.int32))
    offsets = file.offsets

    class Windows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return (len(tokens) - 1) // LENGTH if kind == "windows" else len(offsets) - 1

        def __getitem__(self, index: int) -> Any:
            if kind == "windows":
                return tokens[index * LENGTH : index * LENGTH + LENGTH + 1]
            row = tokens[offsets[index] : offsets[index + 1]][:LENGTH]
            padded = torch.zeros(LENGTH, dtype=torch.int32)
            padded[: len(row)] = row
            return padded, torch.arange(LENGTH) < len(row)

    loader = torch.utils.data.DataLoader(Windows(), BATCH, shuffle=True, drop_last=True)

    def turn() -> float:
        start, batches = time.perf_counter(), iter(loader)
        for _ in range(STEPS):
            last = next(batches, None)
            if last is None:
                batches = iter(loader)
                last = next(batches)
        assert len(last if kind == "windows" else last[0]) == BATCH
        return time.perf_counter() - start

    return turn


def ours_windows() -> Any:
    """Windows of 257 tokens, 400 batches of 64, through the reader that the loop uses."""
    return _ours("windows")


def torch_windows() -> Any:
    return _torch("windows")


def ours_rows() -> Any:
    """Lines of text padded to 256 tokens, and their masks."""
    return _ours("rows")


def torch_rows() -> Any:
    return _torch("rows")


def ours_tokenising() -> Any:
    """The library's source into a new cache: read, hashed, encoded, written."""
    from zoo.config import DataConfig
    from zoo.data.documents import open_texts
    from zoo.data.text import encode_text

    raw = open_texts("library", {"train": read_library()})
    tokenizer = open_text("windows").tokenizer

    def turn() -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = DataConfig(length=LENGTH, cache=folder)
            start = time.perf_counter()
            encode_text(raw, config, tokenizer)
            return time.perf_counter() - start

    return turn


def library_tokenising() -> Any:
    """One call of the `tokenizers` library with all documents, its ids as an array."""
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(open_text("windows").tokenizer.to_json())
    texts = read_library()

    def turn() -> float:
        start = time.perf_counter()
        rows = backend.encode_batch_fast(texts, add_special_tokens=False)
        total = np.concatenate([np.asarray(row.ids, np.uint16) for row in rows])
        assert len(total)
        return time.perf_counter() - start

    return turn


def measure_memory(num_steps: int = 10_000) -> tuple[float, float]:
    """MiB of this process, of its own and not of the mapped file, after 1,000 steps of a stream of
    windows and after `num_steps`."""
    from zoo.data import TrainStream

    stream = TrainStream(open_text("windows").splits["train"], (), BATCH, num_steps)
    sizes = []
    for step in range(num_steps):
        stream[step]
        if step + 1 in (1000, num_steps):
            sizes.append(_own_memory())
    return sizes[0], sizes[-1]


def _own_memory() -> float:
    with open("/proc/self/status") as stream:
        (line,) = (line for line in stream if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print("MiB after 1,000 and 10,000 steps:", *(f"{size:.1f}" for size in measure_memory()))
