"""Images in files: a folder with a subfolder a class, or a CSV of paths and labels."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data.apply import run_rows
from zoo.data.sources import Dataset, Examples, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# what a split may be called -> our name of it
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category")
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
        contents = np.empty(len(indices), object)

        def read(row: int) -> None:
            contents[row] = read_file(self.name(int(indices[row])))

        run_rows(read, len(indices))
        return {"image": contents, "label": self.classes[indices]}

    def labels(self) -> np.ndarray:
        """All labels."""
        return self.classes

    def name(self, index: int) -> str:
        """The file of an example."""
        return os.path.join(self.root, self.paths[index])


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

    `folder:PATH.csv`: columns of paths (relative to the file), of labels and, if there is one,
    `split`. Classes are sorted by name. Raises UserError on what is empty, absent or ambiguous.
    """
    path = os.path.expanduser(name)
    try:
        if os.path.isfile(path):
            return make_dataset(name, os.path.dirname(path), read_csv(path))
        if os.path.isdir(path):
            return make_dataset(name, path, list_splits(path))
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
    raise UserError(f"data.source='folder:{name}': there is no such folder or CSV file")


def list_splits(root: str) -> dict[str, list[Entry]]:
    """The images of a folder, by split."""
    folders, loose = look_into(root)
    if not folders and not loose:
        raise UserError(f"{root} is empty: put a folder of images for each class into it")
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


def read_csv(path: str) -> dict[str, list[Entry]]:
    """The images that a CSV lists, by split (all in 'train' where it has no column `split`)."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV in UTF-8: {error}") from None
    if not rows:
        raise UserError(f"{path} lists no image (the first line names the columns)")
    columns = [str(c) for c in rows[0] if c is not None]
    image = find_column(path, columns, "the image files", PATH_COLUMNS)
    label = find_column(path, columns, "labels", LABEL_COLUMNS)
    root = os.path.dirname(path)
    splits: dict[str, list[Entry]] = {}
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(f"{path}, row {line}: it has not {len(columns)} fields, as the first")
        if not row[image] or not row[label]:
            raise UserError(f"{path}, row {line}: {label if row[image] else image!r} is empty")
        split = row.get("split", "train")
        if split not in SPLITS:
            raise UserError(f"{path}, row {line}: no split {split!r}{nearest(str(split), SPLITS)}")
        try:
            size = os.stat(os.path.join(root, row[image])).st_size
        except OSError:
            raise UserError(
                f"{path}, row {line}: there is no file {os.path.join(root, row[image])}"
            ) from None
        splits.setdefault(SPLITS[split], []).append((row[image], row[label], size))
    return splits


def find_column(path: str, columns: Sequence[str], what: str, names: Sequence[str]) -> str:
    """The column of `columns` that has one of `names`."""
    found = [c for c in columns if c.strip().lower() in names]
    if not found:
        raise UserError(
            f"{path} has no column of {what}: call one {names[0]!r} (it has: {', '.join(columns)})"
        )
    return found[0]


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
            raise UserError(
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
