"""`zoo data check`: reads every example of a source and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Config, UserError
from zoo.data import Dataset
from zoo.data.tokenizers import make_tokenizer
from zoo.look.drift import compare_schemas, compare_splits
from zoo.look.duplicates import Duplicates
from zoo.look.findings import (
    Check,
    ClassChecks,
    ConstantFeatures,
    ExampleChecks,
    Finding,
    Limits,
    limited_fields,
)
from zoo.look.profile import CountTokens, Profile, count_with
from zoo.look.read import Block, is_text, progress_bar, read_blocks, whole_splits
from zoo.look.report import Against, Report, report_lines, write_json
from zoo.look.source import make_source_config, open_raw


def print_check(
    spec: str, values: Mapping[str, str], against: str | None = None, json: str | None = None
) -> int:
    """Prints what is wrong with a source, and where it differs from another one; returns 0 when
    that is nothing. The whole report goes into the file `json`.

    Raises UserError on a mistake in the words or a source that cannot be opened.
    """
    path = None if json is None else Path(json)
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"--json={json!r} is no place for a file")
    config = make_source_config(spec, values)
    other = None if against is None else make_source_config(against, values, like=config)
    report = check_source(config, other)
    if path is not None:
        write_json(report, path)
    print("\n".join(report_lines(report)))
    if report.clean:
        print("nothing found" if other is None else "\nnothing found")
        return 0
    cases = sum(len(finding.cases) for finding in report.findings)
    if path is not None:
        print(f"\nall of it: {path}")
    elif cases:
        print("\nall cases: --json=FILE")
    return 1


def check_source(config: Config, other: Config | None = None) -> Report:
    """Everything that is found in `config.data`, and against `other.data` where that is given."""
    dataset = open_raw(config.data)
    opened = None if other is None else open_raw(other.data)  # a mistake there is told first
    counter, limits = find_limits(config, dataset)
    duplicates = Duplicates(dataset)
    checks: list[Check] = [
        ExampleChecks(dataset, counter, limits),
        ClassChecks(dataset),
        ConstantFeatures(),
        duplicates,
    ]
    profiles = read_all(dataset, checks, pixels=opened is not None)
    findings = sorted((f for check in checks for f in check.findings()), key=_rank)
    against = None
    if opened is not None:
        theirs = Duplicates(opened)
        other_profiles = read_all(opened, [theirs], pixels=True)
        against = Against(
            opened,
            sum(profile.unreadable for profile in other_profiles.values()),
            compare_schemas(dataset, opened, profiles, other_profiles),
            compare_splits(dataset, opened, profiles, other_profiles),
            int(np.isin(duplicates.inputs, theirs.inputs).sum()),
        )
    return Report(dataset, profiles, findings, against)


KINDS = (
    "unreadable", "label_range", "empty_text", "non_finite", "absent_class", "untrained_class",
    "constant_feature", "duplicate", "duplicate_between", "label_conflict", "too_long",
)  # fmt: skip


def _rank(finding: Finding) -> int:
    return KINDS.index(finding.kind)


def read_all(dataset: Dataset, checks: list[Check], *, pixels: bool) -> dict[str, Profile]:
    """Shows every example to the checks; returns what is measured of each split."""
    profiles = {}
    splits = whole_splits(dataset)
    total = sum(map(len, splits.values()))
    with progress_bar(f"reading {dataset.name}", total) as advance:
        for split, source in splits.items():
            profile = profiles[split] = Profile(len(source), pixels=pixels)
            for block in read_blocks(split, source):
                profile.add(block)
                for check in checks:
                    check.see(block)
                advance(len(block) + len(block.broken))
    return profiles


def find_limits(config: Config, dataset: Dataset) -> tuple[CountTokens | None, Limits]:
    """What counts the tokens of a text, and how many fit into `data.length`; None and nothing where
    no text is cut."""
    first = next(iter(Texts(dataset, ("train",)).blocks()), None)
    limited = limited_fields(first.fields) if first is not None else []
    if not limited:
        return None, {}
    splits = tuple(dataset.splits) if config.data.tokenizer == "chars" else ("train",)
    tokenizer: Any = make_tokenizer(config.data, Texts(dataset, splits))
    return count_with(tokenizer), dict.fromkeys(limited, config.data.length)


@dataclass(frozen=True)
class Texts:
    """All texts of some splits, as often as they are asked for."""

    dataset: Dataset
    splits: tuple[str, ...]

    def blocks(self) -> Iterator[Block]:
        for split in self.splits:
            blocks = read_blocks(split, self.dataset.splits[split], decode=False)
            yield from (block for block in blocks if len(block))

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            for values in filter(is_text, block.fields.values()):
                yield from (text for text in values if isinstance(text, str))
