"""Reading batches: an image folder, and arrays of the size of MNIST's; ours and PyTorch's loader.

Each turn reads one epoch to its end, so that neither side begins with batches read while the other
was at work.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

IMAGES, IMAGE_BATCH, SIZE, MIN_AREA = 2048, 64, 224, 0.08
ARRAYS, ARRAY_BATCH = 60_000, 256
WORKERS = 2


def image_folder() -> Path:
    """Writes the JPEGs once: noise of several sizes under shapes, about 500 x 375, quality 90."""
    from PIL import Image, ImageDraw

    root = Path(tempfile.gettempdir()) / f"zoo_reading_{IMAGES}"
    if (root / "done").exists():
        return root / "images"
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        width, height = (int(x) for x in random.integers((440, 330), (560, 420)))
        picture = np.zeros((height, width, 3), np.float32)
        for grid, strength in ((6, 60), (30, 25), (120, 12)):
            coarse = random.normal(128, strength, (grid, grid, 3)).clip(0, 255).astype(np.uint8)
            picture += np.asarray(Image.fromarray(coarse).resize((width, height)), np.float32) - 128
        picture += random.normal(128, 11, picture.shape)
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(8):
            x, y, w, h = (int(v) for v in random.integers(0, (width, height, 120, 120)))
            colour = tuple(int(v) for v in random.integers(0, 256, 3))
            (draw.ellipse if random.random() < 0.5 else draw.rectangle)(
                (x, y, x + w, y + h), colour
            )
        path = root / "images" / f"class{number % 8}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=90)
    (root / "done").write_text("")
    return root / "images"


def drain(make_batches, unit: int):
    """A turn: reads all batches of an epoch, after the first ones were seen to be right."""
    first = next(iter(make_batches()))
    assert len(first[1]) == unit, len(first[1])
    assert abs(float(first[0].mean())) < 1.5

    def turn() -> float:
        start = time.perf_counter()
        for images, _ in make_batches():
            last = images
        seconds = time.perf_counter() - start
        assert last.shape[0] == unit
        return seconds

    return turn


def zoo_batches(source: str, transform: str, batch_size: int, num_steps: int, num_workers: int):
    """Batches of the pipeline as the loop reads them."""
    from zoo.config import DataConfig
    from zoo.data import TrainStream, from_arrays, open_dataset, parse_ops, read_ahead
    from zoo.memory import keep_freed_memory

    keep_freed_memory()  # as `train.py` does
    if source == "arrays":
        dataset = from_arrays(mnist_like(), None, classes=True)
    else:
        dataset = open_dataset(DataConfig(source))
    ops = parse_ops(transform, dataset)
    stream = TrainStream(dataset.splits["train"], ops, batch_size, num_steps)

    def make_batches():
        for block in read_ahead(stream, 0, num_workers=num_workers, prefetch=2):
            yield block["image"][0], block["label"][0]

    return make_batches


def ours_images():
    """Threads, as `data.num_workers=0` has it."""
    transform = f"decode|random_resized_crop({SIZE}, {MIN_AREA})|flip|normalize(0.5, 0.25)"
    steps = IMAGES // IMAGE_BATCH
    source = f"folder:{image_folder()}"
    return drain(zoo_batches(source, transform, IMAGE_BATCH, steps, 0), IMAGE_BATCH)


def torch_images():
    """A DataLoader of two worker processes; the transforms by hand, as torchvision does them."""
    import torch
    from PIL import Image

    paths = sorted(image_folder().rglob("*.jpg"))

    class Folder(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            with open(paths[index], "rb") as stream:
                image = Image.open(stream).convert("RGB")
            u = torch.rand(5).tolist()
            area = (MIN_AREA + u[0] * (1 - MIN_AREA)) * image.width * image.height
            aspect = (3 / 4) * (16 / 9) ** u[1]
            width = min(max(round((area * aspect) ** 0.5), 1), image.width)
            height = min(max(round((area / aspect) ** 0.5), 1), image.height)
            left = int(u[2] * (image.width - width + 1))
            top = int(u[3] * (image.height - height + 1))
            image = image.crop((left, top, left + width, top + height))
            image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            if u[4] < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
            return pixels.float().div_(255).sub_(0.5).div_(0.25), int(paths[index].parent.name[5:])

    loader = torch.utils.data.DataLoader(
        Folder(),
        IMAGE_BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    return drain(lambda: loader, IMAGE_BATCH)


def mnist_like():
    """Random bytes and labels of MNIST's shapes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (ARRAYS, 28, 28), dtype=np.uint8)
    return images, random.integers(0, 10, ARRAYS).astype(np.int32)


def ours_arrays():
    """In memory, shuffled, normalised."""
    steps = ARRAYS // ARRAY_BATCH
    return drain(zoo_batches("arrays", "normalize(0.5, 0.25)", ARRAY_BATCH, steps, 0), ARRAY_BATCH)


def torch_arrays():
    """A TensorDataset of bytes in the main process, which is its fastest here, each batch
    normalised as a whole."""
    import torch

    images, labels = mnist_like()
    data = torch.utils.data.TensorDataset(torch.from_numpy(images[:, None]), torch.tensor(labels))
    loader = torch.utils.data.DataLoader(data, ARRAY_BATCH, shuffle=True, drop_last=True)

    def make_batches():
        for batch, numbers in loader:
            yield batch.float().div_(255).sub_(0.5).div_(0.25), numbers

    return drain(make_batches, ARRAY_BATCH)
