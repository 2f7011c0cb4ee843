"""`zoo data show`: what a source holds, and what training gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Config, UserError
from zoo.console import align, terminal_width
from zoo.data import Dataset, TrainStream, open_dataset, open_raw, parse_ops
from zoo.data.pipeline import Batch, draw_uniform
from zoo.look.bars import balance, histogram, summary
from zoo.look.picture import FitForEye, draw_batch
from zoo.look.profile import CountTokens, Profile, show_value
from zoo.look.read import describe_sizes, progress_bar, read_blocks
from zoo.look.source import file_name, is_recipe, make_source_config
from zoo.look.tokens import print_examples

MOST_EXAMPLES = 100_000  # of a split are looked at
MOST_FEATURES = 24
MOST_ROWS = 4  # rows of a table's batch that are printed
MOST_TOKENISED = 5_000  # texts of a split


def print_show(
    spec: str, values: Mapping[str, str], out: str | None, seed: int | None, step: int
) -> None:
    """Prints fields, counts, labels, lengths and ranges of a source, and its training batch of
    `step`: images into the file `out`, anything else on the console.

    Raises UserError on a mistake in the words, the source, or where the picture shall go.
    """
    config = make_source_config(spec, values)
    if is_recipe(spec) and step >= config.train.num_steps:
        raise UserError(f"--step={step}: the recipe trains steps 0 to {config.train.num_steps - 1}")
    raw, dataset = open_raw(config.data), open_dataset(config.data)
    if out is not None and "image" not in raw.shapes:
        raise UserError(f"--out={out!r}: {raw.name} has no images to draw")
    path = Path(out or f"{file_name(spec)}.png")
    if path.suffix.lower() != ".png" or not path.parent.is_dir():
        what = "is no .png file" if path.parent.is_dir() else "is in no folder that exists"
        raise UserError(f"--out={str(path)!r} {what}")
    seed = config.seed if seed is None else seed
    batch, note = read_batch(config, dataset, seed, step)
    profiles = profile_splits(raw, dataset.tokenizer and count_with(dataset.tokenizer))
    # The picture before the text: `zoo data show SOURCE | head` ends us while we print.
    drawn = draw_batch(batch, dataset, path, config.data.transform) if "image" in batch else ""
    print_profiles(raw, profiles)
    about = f"training batch of step {step}, seed {seed}"
    print_batch(batch, f"{about}: {config.data.transform or 'no transform'}", note)
    if drawn:
        print(f"\npicture: {path} ({drawn})")
    elif dataset.tokenizer:
        print()
        print_examples(batch, dataset)
    else:
        print_rows(batch)


def count_with(tokenizer: Any) -> CountTokens:
    """Counts a text's tokens, without those that mark its ends."""
    return lambda text: len(tokenizer.encode(text))


def read_batch(config: Config, dataset: Dataset, seed: int, step: int) -> tuple[Batch, str]:
    """The batch `{field: [rows, ...]}` that training gets at a step, and a note about it.

    Images that cannot be batched, since `data.transform` is empty, are made alike for the eye.
    Raises UserError where `data.transform` does not make one batch of them.
    """
    train = dataset.splits["train"]
    ops, note = parse_ops(config.data.transform, dataset), ""
    if not ops and "image" in dataset.shapes:
        images = train.take(np.arange(min(len(train), 8)))["image"]
        if len({np.shape(image) for image in images}) > 1 or isinstance(images[0], bytes):
            ops = (FitForEye(),)
            note = "data.transform is empty: made alike for the eye, training needs e.g. "
            note += "'decode|random_resized_crop(224)'"
    mixing = [k for k in ("mixup", "cutmix") if config.task.arguments.get(k)]
    if mixing:
        note = f"before {' and '.join(mixing)}, which the compiled step does"
    stream = TrainStream(train, ops, config.train.batch_size, step + 1, seed=seed)
    try:
        batch = stream.read(step, 1)
    except ValueError as error:
        raise UserError(
            f"data.transform={config.data.transform!r} makes no batch: {error}"
        ) from None
    return {name: values[0] for name, values in batch.items()}, note


def profile_splits(dataset: Dataset, count_tokens: CountTokens | None) -> dict[str, Profile]:
    """Every split measured, of a large one `MOST_EXAMPLES` chosen by chance."""
    profiles = {}
    sizes = {name: min(len(s), MOST_EXAMPLES) for name, s in dataset.splits.items()}
    with progress_bar("reading", sum(sizes.values())) as advance:
        for split, source in dataset.splits.items():
            profile = profiles[split] = Profile(sizes[split], count_tokens)
            indices = None
            if len(source) > MOST_EXAMPLES:
                drawn = draw_uniform(0, 0, 0, len(source), 1)[:, 0]
                indices = np.sort(np.argpartition(drawn, MOST_EXAMPLES)[:MOST_EXAMPLES])
            for block in read_blocks(split, source, indices, decode=False):
                profile.add(block)
                advance(len(block) + len(block.broken))
    return profiles


def print_profiles(dataset: Dataset, profiles: dict[str, Profile]) -> None:
    """What was measured, as tables and bars."""
    classes = f"; {dataset.num_classes:,} classes" if dataset.num_classes else ""
    print(f"{dataset.name}: {describe_sizes(dataset)}{classes}\n")
    train = profiles["train"]
    rows = [("field", "dtype", "shape", "first example")]
    for name, field in train.fields.items():
        shown = field.example
        if name == "label" and dataset.class_names and shown.isdigit():
            shown += f" ({class_name(dataset, int(shown))})"
        rows.append((name, field.dtype, field.shape, shown))
    print("\n".join(align(rows)))
    for split, profile in profiles.items():
        if profile.unreadable:
            print(f"{split}: {profile.unreadable} unreadable; zoo data check names them")
        if profile.size < len(dataset.splits[split]):
            print(f"{split}: what follows is of {profile.size:,} examples chosen by chance")
    for lines in (
        *label_lines(dataset, profiles),
        *number_lines(profiles),
        feature_lines(train),
    ):
        if lines:
            print("\n" + "\n".join(line[: max(terminal_width(), 60)] for line in lines))


def class_name(dataset: Dataset, label: int) -> str:
    """A class by its name, where it has one."""
    known = 0 <= label < len(dataset.class_names)
    return dataset.class_names[label] if known else str(label)


def label_lines(dataset: Dataset, profiles: dict[str, Profile]) -> list[list[str]]:
    """The balance of classes in every split."""
    found = {label for profile in profiles.values() for label in profile.labels}
    if not found:
        return []
    every = sorted(found | set(range(dataset.num_classes or 0)))
    counts = {split: [p.labels[label] for label in every] for split, p in profiles.items()}
    return [balance([class_name(dataset, label) for label in every], counts)]


def number_lines(profiles: dict[str, Profile]) -> list[list[str]]:
    """Histograms of lengths, image sizes and labels that are values; constant ones are left out."""
    out = []
    for name, measured in profiles["train"].numbers.items():
        samples = {
            split: p.numbers[name].sample[:, 0]
            for split, p in profiles.items()
            if name in p.numbers
        }
        varies = len({*np.concatenate([*samples.values()]).tolist()}) > 1
        if name in ("features", "image mean", "image deviation") or len(measured.mean) > 1:
            continue
        lines = [f"{name}, {split}: {summary(values)}" for split, values in samples.items()]
        if varies:
            out.append(lines + histogram(name, samples))
    return out


def feature_lines(profile: Profile) -> list[str]:
    """Range, mean and deviation of every feature of the training split."""
    found = profile.numbers.get("features")
    if found is None:
        return []
    rows = [("feature", "min", "mean", "deviation", "max", "not finite")]
    for i in range(min(len(found.mean), MOST_FEATURES)):
        numbers = (found.low[i], found.mean[i], found.deviation[i], found.high[i])
        shown = [f"{number:.4g}" for number in numbers]
        rows.append((str(i), *shown, str(found.non_finite[i] or "")))  # type: ignore[arg-type]
    left = len(found.mean) - MOST_FEATURES
    return align(rows, range(6)) + ([f"{left:,} more features"] if left > 0 else [])


def print_batch(batch: Batch, title: str, note: str) -> None:
    """The fields of a batch, as the model and the loss get them."""
    print(f"\n{title}" + (f"\n({note})" if note else ""))
    rows = [("field", "dtype", "shape", "values")]
    for name, values in batch.items():
        shape = "x".join(map(str, values.shape))
        low_high = f"{values.min():.4g} to {values.max():.4g}" if values.size else "none"
        rows.append((name, values.dtype.name, shape, low_high))
    print("\n".join(align(rows)))


def print_rows(batch: Batch) -> None:
    """The first rows of a batch that is neither images nor text."""
    print()
    for i in range(min(len(batch["mask"]), MOST_ROWS)):
        fields = [f"{name} {show_value(name, v[i])}" for name, v in batch.items() if name != "mask"]
        print("; ".join(fields))
