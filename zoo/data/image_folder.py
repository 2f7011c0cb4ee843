"""Images in files: a folder with a subfolder a class. (A CSV of paths and labels: `csv:`.)"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config import DataConfig, DataError, UserError, nearest
from zoo.data.apply import run_rows
from zoo.data.sources import Dataset, Examples, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# what a split may be called -> our name of it
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
READ = 64  # files of a split whose first bytes go into the fingerprint

Entry = tuple[str, str, int]  # path below the root, class, bytes


@dataclass(frozen=True)
class FolderSource:
    """Images of one split as the bytes of their files, and the numbers of their classes."""

    root: str
    paths: tuple[str, ...]
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: np.ndarray) -> Examples:
        """`image` holds bytes, or the OSError of a file that cannot be read: it is a broken one."""
        contents = read_many([self.name(int(i)) for i in indices])
        return {"image": contents, "label": self.classes[indices]}

    def labels(self) -> np.ndarray:
        """All labels."""
        return self.classes

    def name(self, index: int) -> str:
        """The file of an example."""
        return os.path.join(self.root, self.paths[index])


def read_many(paths: Sequence[str]) -> np.ndarray:
    """The bytes of files (or the OSError of one), read by several threads: an object array."""
    contents = np.empty(len(paths), object)

    def read(row: int) -> None:
        contents[row] = read_file(paths[row])

    run_rows(read, len(paths))
    return contents


def read_file(path: str) -> bytes | OSError:
    """The bytes of a file, or why there are none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        return error


def open_folder(name: str, config: DataConfig) -> Dataset:
    """`folder:PATH`: in PATH, or in its folders train, val (valid, validation) and test, a folder a
    class; files are images by their endings, hidden ones and others are not looked at.

    Classes are sorted by name. Raises UserError on what is empty, absent or ambiguous.
    """
    path = os.path.expanduser(name)
    try:
        if os.path.isdir(path):
            return make_dataset(name, path, list_splits(path))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    table = f" (for a table of paths and labels: 'csv:{name}')" if os.path.isfile(path) else ""
    raise UserError(f"data.source='folder:{name}' is no folder{table}")


def list_splits(root: str) -> dict[str, list[Entry]]:
    """The images of a folder, by split."""
    folders, loose = look_into(root)
    if not folders and not loose:
        lack = "holds no folder and no image" if os.listdir(root) else "is empty"
        raise UserError(f"{root} {lack}: put a folder of images for each class into it")
    if loose:
        raise UserError(
            f"{os.path.join(root, loose[0])} belongs to no class: in {root} lies a folder a class"
        )
    others = [f for f in folders if f not in SPLITS]
    # Beside other classes, a folder `train` with images in it is a class of them.
    if "train" not in folders or (others and look_into(os.path.join(root, "train"))[1]):
        return {"train": list_classes(root, "")}
    if others:
        raise UserError(
            f"{root} has the split 'train' beside {others[0]!r}, which is none: splits are "
            f"called {', '.join(SPLITS)}, and hold a folder a class"
        )
    splits: dict[str, list[Entry]] = {}
    for folder in folders:
        if SPLITS[folder] in splits:
            raise UserError(f"{root} has two folders of split {SPLITS[folder]!r}: {folder} is one")
        splits[SPLITS[folder]] = list_classes(root, folder)
    return splits


def look_into(folder: str) -> tuple[list[str], list[str]]:
    """Names of the folders and of the images that lie in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as found:
        entries = sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    folders = [e.name for e in entries if e.is_dir()]
    return folders, [e.name for e in entries if is_image(e.name) and e.is_file()]


def is_image(name: str) -> bool:
    """By the ending alone."""
    return name.lower().endswith(SUFFIXES)


def list_classes(root: str, split: str) -> list[Entry]:
    """The images of every class folder of a split, also of the folders in it."""
    home = os.path.join(root, split)
    classes, loose = look_into(home)
    if loose:
        raise UserError(f"{os.path.join(home, loose[0])} belongs to no class: {home} holds classes")
    if not classes:
        raise UserError(f"{home} has no folder of a class")
    entries: list[Entry] = []
    for name in classes:
        before = len(entries)
        for path, size in list_images(os.path.join(home, name)):
            entries.append((os.path.join(split, name, path), name, size))
        if len(entries) == before:
            raise UserError(
                f"the class folder {os.path.join(home, name)} holds no image "
                f"({', '.join(SUFFIXES)}): fill it or take it away"
            )
    return entries


def list_images(folder: str) -> list[tuple[str, int]]:
    """Path below a folder and size in bytes of every image in it, sorted."""
    found: list[tuple[str, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                inner = list_images(entry.path)
                found += [(os.path.join(entry.name, path), size) for path, size in inner]
            elif is_image(entry.name):
                found.append((entry.name, entry.stat().st_size))
    return sorted(found)


def make_dataset(name: str, root: str, splits: dict[str, list[Entry]]) -> Dataset:
    """Splits of sources, classes from the training split. Raises UserError on a class that it
    lacks."""
    if "train" not in splits:
        raise UserError(f"folder:{name} has no split 'train', only {', '.join(splits)}")
    classes = sort_classes({label for _, label, _ in splits["train"]})
    numbers = {label: number for number, label in enumerate(classes)}
    sources: dict[str, Source] = {}
    for split in sorted(splits, key=("train", "val", "test").index):
        entries = splits[split]
        strange = next((entry for entry in entries if entry[1] not in numbers), None)
        if strange:
            raise DataError(
                f"{os.path.join(root, strange[0])} in split {split!r} has class {strange[1]!r}, "
                f"which 'train' never shows{nearest(strange[1], classes)}"
            )
        labels = np.array([numbers[label] for _, label, _ in entries], np.int32)
        sources[split] = FolderSource(root, tuple(path for path, _, _ in entries), labels)
    return Dataset(
        f"folder:{name}", sources, len(classes), tuple(classes), hash_entries(root, splits)
    )


def sort_classes(names: set[str]) -> list[str]:
    """By name; numbers by size, so that class 10 comes after 9."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def hash_entries(root: str, splits: dict[str, list[Entry]]) -> str:
    """sha256 over paths, classes, sizes, and the first bytes of a few files of every split."""
    digest = hashlib.sha256()
    for split, entries in sorted(splits.items()):
        digest.update(f"{split}:{len(entries)}\n".encode())
        for path, label, size in entries:
            digest.update(f"{path.replace(os.sep, '/')}\0{label}\0{size}\n".encode())
        for path, _, _ in entries[:: max(len(entries) // READ, 1)]:
            content = read_file(os.path.join(root, path))
            digest.update(content[:4096] if isinstance(content, bytes) else b"")
    return digest.hexdigest()
