"""`zoo data check`: reads every example of a source and says what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import Config, DataError, UserError
from zoo.data import Dataset
from zoo.data.sources import open_raw
from zoo.data.text import find_begin, learn_tokenizer
from zoo.data.tokenizers import Tokenizer
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
from zoo.look.read import progress_bar, read_blocks, whole_splits
from zoo.look.report import Against, Report, report_lines, write_json, write_refusal
from zoo.look.source import make_source_config


def print_check(
    spec: str, values: Mapping[str, str], against: str | None = None, json: str | None = None
) -> int:
    """Prints what is wrong with a source, and where it differs from another one; returns 0 when
    that is nothing. The whole report goes into the file `json`.

    A source whose reader refuses what it holds has one finding, where the reader stopped. Raises
    UserError on a mistake in the words or a source that is not there.
    """
    path = None if json is None else Path(json)
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"--json={json!r} is no place for a file")
    config = make_source_config(spec, values)
    other = None if against is None else make_source_config(against, values, like=config)
    try:
        report = check_source(config, other)
    except DataError as error:
        print(f"x refused: {error}\n\nreading ended there: mend it and check again")
        if path is not None:
            write_refusal(spec, str(error), path)
        return 1
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
    blocks = read_blocks("train", dataset.splits["train"], decode=False)
    limited = next((limited_fields(block.fields) for block in blocks if len(block)), [])
    if not limited:
        return None, {}
    tokenizer = learn_tokenizer([dataset], config.data)
    room = config.data.length
    return count_with(tokenizer), {
        names: room - count_special(tokenizer, names) for names in limited
    }


def count_special(tokenizer: Tokenizer, names: tuple[str, ...]) -> int:
    """How many places of a row go to tokens around the texts, as `zoo.data.text` puts them."""
    empty: Any = "" if len(names) == 1 else ("",) * len(names)
    around = len(tokenizer.encode_rows([empty], 16)[0][0]) if tokenizer.has_template else 0
    if "prompt" in names:  # its rows have a place more, for the end behind the completion
        return len(find_begin(tokenizer)) + (tokenizer.end is not None) - 1
    if names == ("target",) or (names == ("source",) and not tokenizer.has_template):
        return 1  # the end
    return around
