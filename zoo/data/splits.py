"""Which examples train, validate and test: splits by name, slices of them, parts held out, folds.

A slice is written as TFDS writes it: `train[:80%]`, `train[100:-50]`, `train[:50%]+extra`. No
example is in two of the splits that a run uses: an overlap is refused.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.config import DataConfig, UserError, nearest
from zoo.data.sources import ConcatenatedSource, Dataset, Source, SubsetSource, read_labels

ROLES = ("train", "val", "test")
VALIDATION_NAMES = ("val", "valid", "validation", "dev")  # one split under four names
_TERM = re.compile(r"([\w-]+)(?:\[([^\[\]]+)\])?")
_BOUND = re.compile(r"(-?\d[\d_.]*)?(%|shard)?")


class NoSplit(UserError):
    """A split is asked for that the data does not have."""


@dataclass(frozen=True)
class Slice:
    """Examples `start` to `stop` of the split `name`."""

    name: str
    start: int
    stop: int


def find_split(name: str, available: Collection[str]) -> str | None:
    """The split of this name; for 'val', 'valid', 'validation' and 'dev' whichever is there."""
    names = VALIDATION_NAMES if name in VALIDATION_NAMES else ()
    return next((n for n in (name, *names) if n in available), None)


def split_names(spec: str) -> list[str]:
    """'train[:80%]+extra' -> ['train', 'extra']."""
    return [term.partition("[")[0].strip() for term in spec.split("+")]


def choose_names(config: DataConfig, available: Collection[str], source: str) -> list[str]:
    """Which of a source's splits have to be read. Raises UserError on one that is not there."""
    asked = {"train": config.train_split, "val": config.val_split, "test": config.test_split}
    out: dict[str, None] = {}
    for role, spec in asked.items():
        if spec == "" and role != "train":
            continue
        for name in split_names(role if spec is None else spec):
            found = find_split(name, available)
            if found is None and name == "all":
                out |= dict.fromkeys(available)
            elif found is None and spec is not None:
                raise NoSplit(
                    f"data.{role}_split={spec!r}: {source} has no split {name!r}"
                    f"{nearest(name, available) or f', it has {len(available)} others'}"
                )
            elif found is not None:
                out[found] = None
    return list(out)


def parse_split(spec: str, splits: Mapping[str, Source], key: str) -> list[Slice]:
    """The slices of `spec`, percents rounded to the closest example as TFDS rounds them.

    Raises UserError, naming `key`, on what cannot be read, an unknown split, and bounds outside it.
    """
    out = []
    for term in spec.split("+"):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise UserError(
                f"{key}={spec!r}: cannot read {term.strip()!r} (write 'train', 'train[:80%]', "
                "'train[100:-50]' or 'a+b')"
            )
        if match[1] == "all" and match[2] is None and "all" not in splits:
            out += [Slice(name, 0, len(source)) for name, source in splits.items()]
            continue
        name = find_split(match[1], list(splits))
        if name is None:
            have = ", ".join(f"{n}: {len(s):,} examples" for n, s in splits.items())
            guess = nearest(match[1], splits) if len(splits) > 1 else ""
            raise NoSplit(f"{key}={spec!r}: no split {match[1]!r}, there is {have}{guess}")
        out.append(Slice(name, *_bounds(match[2], splits[name], f"{key}={spec!r}")))
    return out


def _bounds(selector: str | None, source: Source, where: str) -> tuple[int, int]:
    """'10%:-50' of a slice as two places in the source."""
    size = len(source)
    if selector is None:
        return 0, size
    bounds = [_BOUND.fullmatch(part.strip()) for part in selector.split(":")]
    if len(bounds) != 2 or None in bounds or not any(b and b[1] for b in bounds):
        raise UserError(f"{where}: cannot read [{selector}] (write [a:b], [:80%] or [80%:])")
    unit = next((b[2] for b in bounds if b and b[2]), "")
    places = []
    for bound, default in zip(bounds, (0, size), strict=True):
        text = bound[1] if bound else None
        try:
            number = None if text is None else float(text) if unit == "%" else int(text)
        except ValueError:
            raise UserError(f"{where}: {text!r} is no whole number") from None
        places.append(default if number is None else _place(number, unit, source, where))
    return places[0], max(places)


def _place(number: float | int, unit: str, source: Source, where: str) -> int:
    """One bound as a place from 0 to the size."""
    size = len(source)
    if unit == "shard":
        lengths = list(getattr(source, "shard_lengths", ()))
        if not lengths:
            raise UserError(f"{where}: only tfds: has shards")
        return sum(lengths[: int(number)])
    if unit == "%" and abs(number) > 100:
        raise UserError(f"{where}: {number:g}% is not in [-100%, 100%]")
    place = round(number * size / 100.0) if unit == "%" else int(number)
    if abs(place) > size:
        raise UserError(f"{where}: {place} is outside the split's {size:,} examples")
    return place + size if place < 0 else place


def choose_splits(
    dataset: Dataset, config: DataConfig, usual_tests: Sequence[str] = ("test",)
) -> Dataset:
    """'train', 'val' and 'test' as `data.train_split`, `val_split` and `test_split` say; where they
    say nothing, the splits of these names; where they are empty, none. Others stay out.

    Raises UserError on an unknown split and where two of them share an example.
    """
    available = dataset.splits
    slices = {"train": parse_split(config.train_split, available, "data.train_split")}
    keys = {"train": f"data.train_split={config.train_split!r}"}
    for role, spec in (("val", config.val_split), ("test", config.test_split)):
        if spec:
            slices[role] = parse_split(spec, available, f"data.{role}_split")
            keys[role] = f"data.{role}_split={spec!r}"
    for role, names in (("test", usual_tests), ("val", ("val",))):
        used = {part.name for parts in slices.values() for part in parts}
        found = next(filter(None, (find_split(n, list(available)) for n in names)), None)
        unsaid = {"test": config.test_split, "val": config.val_split}[role] is None
        if unsaid and found is not None and found not in used:
            slices[role] = [Slice(found, 0, len(available[found]))]
            keys[role] = f"the split {found!r}"
    _refuse_overlap(slices, keys)
    splits: dict[str, Source] = {
        role: select_slices(slices[role], available) for role in ROLES if role in slices
    }
    if all(splits[r] is available.get(r) for r in splits) and splits.keys() == available.keys():
        return dataset
    for role, source in splits.items():
        if not len(source):
            raise UserError(f"{keys[role]} of {dataset.name} is empty")
    if dataset.tokenizer and any(s not in available.values() for s in splits.values()):
        raise UserError(f"{keys['train']}: {dataset.name} comes as tokens and cannot be sliced")
    return dataclasses.replace(dataset, splits=splits)


def select_slices(parts: list[Slice], available: Mapping[str, Source]) -> Source:
    """The examples of some slices, in this order; a whole split stays what it is."""
    sources: list[Source] = []
    for part in parts:
        source = available[part.name]
        whole = (part.start, part.stop) == (0, len(source))
        sources.append(source if whole else SubsetSource(source, np.arange(part.start, part.stop)))
    return sources[0] if len(sources) == 1 else ConcatenatedSource(tuple(sources))


def _refuse_overlap(slices: Mapping[str, list[Slice]], keys: Mapping[str, str]) -> None:
    """Raises UserError on an example that is in two splits, or twice in one."""
    every = [(role, part) for role, parts in slices.items() for part in parts]
    for i, (role, a) in enumerate(every):
        for other, b in every[:i]:
            shared = min(a.stop, b.stop) - max(a.start, b.start)
            if a.name != b.name or shared <= 0:
                continue
            if role == other:
                raise UserError(f"{keys[role]} names {shared:,} examples of {a.name!r} twice")
            raise UserError(
                f"{keys[other]} and {keys[role]} share {shared:,} examples of {a.name!r}: "
                f"slice it, e.g. '{a.name}[:80%]' and '{a.name}[80%:]'"
            )


def fit_twin(dataset: Dataset, config: DataConfig) -> DataConfig:
    """The config for a synthetic twin, which may lack the splits and sizes of what it stands for:
    then it gives its own, and a 'val' where the recipe has one."""
    try:
        choose_splits(dataset, config)
        return config
    except UserError:
        wanted = config.val_split is not None or config.validation_fraction > 0
        own = dataclasses.replace(config, train_split="train", val_split=None, test_split=None)
        part = 0.25 if wanted and "val" not in dataset.splits else 0.0
        return dataclasses.replace(own, test_fraction=0.0, validation_fraction=part)


def resplit(dataset: Dataset, config: DataConfig) -> Dataset:
    """Applies `data.fold`, `data.test_fraction` and `data.validation_fraction`: stratified where
    there are classes, the last part of a text. Both fractions are of what `train_split` names."""
    if config.fold and (
        dataset.tokenizer or ("text" in dataset.shapes and "label" not in dataset.shapes)
    ):
        raise UserError(f"data.fold: {dataset.name} is text, which is not divided into folds")
    if config.fold and config.test_fraction:
        raise UserError("data.fold and data.test_fraction both say what 'test' is: set one")
    if config.fold:
        dataset = _fold(dataset, *config.fold)
    size = len(dataset.splits["train"])
    if config.test_fraction:
        dataset = _hold_out(dataset, "test", config.test_fraction, "data.test_fraction")
    if config.validation_fraction:
        part: float | int = config.validation_fraction
        if config.test_fraction and not hasattr(dataset.splits["train"], "hold_out"):
            part = math.ceil(part * size)
        elif config.test_fraction:
            part = part / (1 - config.test_fraction)
        dataset = _hold_out(dataset, "val", part, "data.validation_fraction")
    return dataset


def _fold(dataset: Dataset, index: int, num_folds: int) -> Dataset:
    """Part `index` of all examples becomes the test split, shuffled by seed 0.

    Raises UserError on more parts than there are examples, of the largest class where there are
    classes.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    every = ConcatenatedSource(tuple(dataset.splits.values()))
    labels = every.labels()
    if not dataset.num_classes or (labels is not None and labels.ndim > 1):
        labels = None  # no classes to stratify by, or several an example
    most = len(every) if labels is None else int(np.bincount(labels).max())
    if num_folds > most:
        what = "examples" if labels is None else "examples of the largest class"
        raise UserError(
            f"data.fold={index, num_folds}: {dataset.name} has {most} {what}, too few for n parts"
        )
    folds = (KFold if labels is None else StratifiedKFold)(num_folds, shuffle=True, random_state=0)
    rows = np.zeros((len(every), 1))
    train, test = list(folds.split(rows, labels))[index]
    splits: dict[str, Source] = {
        "train": SubsetSource(every, train),
        "test": SubsetSource(every, test),
    }
    return dataclasses.replace(dataset, splits=splits, fingerprint="")


def _hold_out(dataset: Dataset, role: str, part: float | int, key: str) -> Dataset:
    """Moves a part of 'train' to another split: of a text its end, of examples some chosen by
    seed 0."""
    train = dataset.splits["train"]
    if role in dataset.splits:
        raise UserError(f"{key}: {dataset.name} has a {role!r} split of its own")
    if hasattr(train, "hold_out"):
        kept_part, held_part = train.hold_out(part)
    else:
        labels = read_labels(train) if dataset.num_classes else None
        if labels is not None and labels.ndim > 1:
            labels = None  # several labels an example: there is no one class to stratify by
        kept, held = split_indices(len(train), part, labels)
        kept_part, held_part = SubsetSource(train, kept), SubsetSource(train, held)
    splits: dict[str, Source] = {"train": kept_part, role: held_part}
    splits = {**dataset.splits, **splits}
    return dataclasses.replace(dataset, splits={r: splits[r] for r in ROLES if r in splits})


def split_indices(
    size: int, part: float | int, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the larger and the smaller part, stratified by labels, seed 0."""
    from sklearn.model_selection import train_test_split

    try:
        kept, held = train_test_split(
            np.arange(size), test_size=part, random_state=0, stratify=labels
        )
    except ValueError as error:
        raise UserError(f"cannot hold out {part} of {size} examples: {error}") from None
    return np.sort(kept), np.sort(held)
