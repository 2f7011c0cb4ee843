"""`zoo data show`: what a source holds, and what training gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zoo.config import Config, UserError
from zoo.console import align
from zoo.data import Dataset, Op, TrainStream, open_dataset, parse_ops
from zoo.data.pipeline import Batch, draw_uniform
from zoo.data.sources import open_raw
from zoo.look.bars import balance, histogram, show_number, summary
from zoo.look.findings import limited_fields
from zoo.look.picture import FitForEye, draw_batch
from zoo.look.profile import CountTokens, Numbers, Profile, count_with, show_value
from zoo.look.read import describe_sizes, is_encoded, progress_bar, read_blocks, whole_splits
from zoo.look.source import file_name, is_recipe, make_source_config
from zoo.look.tokens import print_examples

MOST_EXAMPLES = 100_000  # of a split are looked at
MOST_FEATURES = 24
FEW = 10  # numbers that need no histogram
MOST_ROWS = 4  # rows of a table's batch that are printed


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
    ops, note = choose_ops(config, dataset)
    batch, broken = read_batch(config, dataset, ops, seed, step)
    cut = limited_fields(raw.splits["train"].take(np.arange(1)))
    profiles = profile_splits(
        raw, count_with(dataset.tokenizer) if cut and dataset.tokenizer else None
    )
    # The picture before the text: `zoo data show SOURCE | head` ends us while we print.
    drawn = draw_batch(batch, dataset, path, ops) if "image" in batch else ""
    print_profiles(raw, profiles)
    about = f"training batch of step {step}, seed {seed}"
    print_batch(batch, f"{about}: {config.data.transform or 'no transform'}", note)
    if broken:
        print("\n".join(broken))
    if drawn:
        print(f"\npicture: {path} ({drawn})")
    elif dataset.tokenizer:
        print()
        print_examples(batch, dataset)
    else:
        print_rows(batch)


def choose_ops(config: Config, dataset: Dataset) -> tuple[tuple[Op, ...], str]:
    """The operations of training, and a note about them.

    Images that make no batch without any, of different sizes or encoded, are made alike for the
    eye where `data.transform` is empty.
    """
    mixing = [name for name in ("mixup", "cutmix") if config.task.arguments.get(name)]
    note = f"before {' and '.join(mixing)}, done in the compiled step" if mixing else ""
    if not config.data.transform and "image" in dataset.shapes:
        train = dataset.splits["train"]
        images = train.take(np.arange(min(len(train), 8)))["image"]
        if is_encoded(images) or len({np.shape(image) for image in images}) > 1:
            note = "made alike for the eye; to train, set data.transform, e.g. to "
            return (FitForEye(),), note + "'decode|random_resized_crop(224)'"
    return parse_ops(config.data.transform, dataset), note


def read_batch(
    config: Config, dataset: Dataset, ops: tuple[Op, ...], seed: int, step: int
) -> tuple[Batch, list[str]]:
    """The batch `{field: [rows, ...]}` that training gets at a step, and a line for each broken
    image in it.

    Raises UserError where the operations do not make one batch of its examples.
    """
    stream = TrainStream(
        dataset.splits["train"],
        ops,
        config.train.batch_size,
        step + 1,
        seed=seed,
        skip_broken=config.data.skip_broken,
    )
    try:
        batch = stream.read(step, 1)
    except ValueError as error:
        transform = config.data.transform
        raise UserError(f"data.transform={transform!r} makes no batch: {error}") from None
    broken = batch.pop("broken", np.zeros(0, str))
    rows = {name: values[0] for name, values in batch.items()}
    return rows, [f"passed over: {name}" for name in broken.tolist()]


def profile_splits(dataset: Dataset, count_tokens: CountTokens | None) -> dict[str, Profile]:
    """Every split measured, of a large one `MOST_EXAMPLES` chosen by chance."""
    profiles = {}
    splits = whole_splits(dataset)
    sizes = {name: min(len(source), MOST_EXAMPLES) for name, source in splits.items()}
    with progress_bar("reading", sum(sizes.values())) as advance:
        for split, source in splits.items():
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
    print("\n".join([f"{dataset.name}: {describe_sizes(dataset)}{classes}", *dataset.notes, ""]))
    train = profiles["train"]
    rows = [("field", "dtype", "shape", "first example")]
    for name, field in train.fields.items():
        shown = field.example
        if name == "label" and dataset.class_names and shown.isdigit():
            known = class_name(dataset, int(shown))
            shown += f" ({known})" if known != shown else ""
        rows.append((name, field.dtype, field.shape, shown))
    print("\n".join(align(rows)))
    for split, profile in profiles.items():
        if profile.unreadable:
            print(f"{split}: {profile.unreadable} unreadable; zoo data check names them")
        if profile.size < len(dataset.splits[split]) and (profile.labels or profile.numbers):
            print(f"{split}: what follows is of {profile.size:,} examples chosen by chance")
    for lines in (
        *label_lines(dataset, profiles),
        *number_lines(profiles),
        feature_lines(train),
    ):
        if lines:
            print("\n" + "\n".join(lines))


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
    """Histograms of image sizes, labels that are values, and lengths of texts: in tokens where they
    are cut, else in words. What is constant is left out."""
    out = []
    there = profiles["train"].numbers
    for name, measured in there.items():
        text = name.rpartition(" ")[0]
        if f"{text} words" in there and name != f"{text} {length_unit(text, there)}":
            continue
        samples = {
            split: p.numbers[name].sample[:, 0]
            for split, p in profiles.items()
            if name in p.numbers
        }
        every = np.concatenate([*samples.values()])
        if name in ("features", "image mean", "image deviation") or len(measured.mean) > 1:
            continue
        lines = [f"{name}, {split}: {summary(values)}" for split, values in samples.items()]
        if len(np.unique(every)) > 1:
            out.append(lines + (histogram(name, samples) if len(every) >= FEW else []))
    return out


def length_unit(text: str, numbers: Mapping[str, Numbers]) -> str:
    """What the lengths of a text are shown in; a language without blanks has no words."""
    if f"{text} tokens" in numbers:
        return "tokens"
    words, characters = (numbers[f"{text} {unit}"].mean[0] for unit in ("words", "characters"))
    return "characters" if characters > 20 * words else "words"


def feature_lines(profile: Profile) -> list[str]:
    """Range, mean and deviation of every feature of the training split."""
    found = profile.numbers.get("features")
    if found is None:
        return []
    rows = [("feature", "min", "mean", "deviation", "max", "not finite")]
    for i in range(min(len(found.mean), MOST_FEATURES)):
        numbers = (found.low[i], found.mean[i], found.deviation[i], found.high[i])
        shown = [show_number(number) for number in numbers]
        rows.append((str(i), *shown, str(found.non_finite[i] or "")))  # type: ignore[arg-type]
    left = len(found.mean) - MOST_FEATURES
    return align(rows, range(6)) + ([f"{left:,} more features"] if left > 0 else [])


def print_batch(batch: Batch, title: str, note: str) -> None:
    """The fields of a batch, as the model and the loss get them."""
    print(f"\n{title}" + (f"\n({note})" if note else ""))
    rows = [("field", "dtype", "shape", "values")]
    for name, values in batch.items():
        shape = "x".join(map(str, values.shape))
        if values.dtype.kind in "biuf" and values.size:
            low, high = values.min().item(), values.max().item()
            shown = f"{low:,.4g} to {high:,.4g}" if values.dtype.kind == "f" else f"{low} to {high}"
        else:
            shown = show_value(name, values.reshape(-1)[0]) if values.size else "none"
        rows.append((name, values.dtype.name, shape, shown))
    print("\n".join(align(rows)))


def print_rows(batch: Batch) -> None:
    """The first rows of a batch that is neither images nor text."""
    print()
    for i in range(min(len(batch["mask"]), MOST_ROWS)):
        fields = [f"{name} {show_value(name, v[i])}" for name, v in batch.items() if name != "mask"]
        print("; ".join(fields))
