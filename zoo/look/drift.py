"""How two sets of examples differ: their fields and classes, and their distributions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from zoo.data import Dataset
from zoo.look.profile import Profile

# A difference counts when chance rarely makes it, however many comparisons there are, and when it
# is large enough to matter: of many examples any difference is significant.
SIGNIFICANCE, EFFECT = 0.001, 0.1


@dataclass(frozen=True)
class Comparison:
    """One test of "both come from one distribution".

    `test` is 'chi2' (effect: Cramer's V) or 'ks' (effect: the statistic, the largest difference of
    the two distribution functions); `means` and `deviations` are of SOURCE and OTHER, for 'ks'.
    """

    split: str
    what: str
    test: str
    statistic: float
    p: float
    effect: float
    sizes: tuple[int, int]
    means: tuple[float, float] | None = None
    deviations: tuple[float, float] | None = None


def has_drifted(comparison: Comparison, num_comparisons: int) -> bool:
    """Is it both significant, after Bonferroni, and large?"""
    return comparison.p < SIGNIFICANCE / num_comparisons and comparison.effect >= EFFECT


def compare_schemas(
    ours: Dataset, theirs: Dataset, our: dict[str, Profile], their: dict[str, Profile]
) -> list[str]:
    """A line for each difference in fields, dtypes, shapes, classes and their order."""
    out = []
    mine, yours = our["train"].fields, their["train"].fields
    for name in sorted(mine.keys() | yours.keys()):
        if name not in yours or name not in mine:
            has, lacks = (ours, theirs) if name in mine else (theirs, ours)
            out.append(f"field {name!r}: {has.name} has it, {lacks.name} does not")
            continue
        a, b = mine[name], yours[name]
        if a.dtypes != b.dtypes:
            out.append(f"field {name!r}: {a.dtype} here, {b.dtype} there")
        varied = a.low != a.high or b.low != b.high
        if a.shape != b.shape and not (varied and len(a.low) == len(b.low)):
            out.append(f"field {name!r}: shape {a.shape} here, {b.shape} there")
    return out + _compare_classes(ours, theirs)


def _compare_classes(ours: Dataset, theirs: Dataset) -> list[str]:
    a, b = ours.class_names, theirs.class_names
    if a == b and ours.num_classes == theirs.num_classes:
        return []
    if not a or not b or ours.num_classes is None or theirs.num_classes is None:
        if ours.num_classes == theirs.num_classes:
            return []
        return [f"classes: {ours.num_classes or 'none'} here, {theirs.num_classes or 'none'} there"]
    if set(a) == set(b):
        places = [i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
        i = places[0]
        return [
            f"classes: the same in another order, class {i} is {a[i]!r} here and {b[i]!r} there"
        ]
    out = []
    for title, missing in (
        ("here", [x for x in a if x not in b]),
        ("there", [x for x in b if x not in a]),
    ):
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            out.append(f"classes only {title}: {', '.join(map(repr, missing[:5]))}{more}")
    return out


def compare_splits(
    ours: Dataset, theirs: Dataset, our: dict[str, Profile], their: dict[str, Profile]
) -> list[Comparison]:
    """The tests of every split that both have: labels, and each column of numbers."""
    out = []
    for split in our:
        if split in their:
            out += list(_compare_labels(split, ours, theirs, our[split], their[split]))
            out += list(_compare_numbers(split, our[split], their[split]))
    return out


def _compare_labels(
    split: str, ours: Dataset, theirs: Dataset, our: Profile, their: Profile
) -> Iterator[Comparison]:
    """By the names of the classes where both have names, else by their numbers."""
    named = bool(ours.class_names and theirs.class_names)
    counts = [
        {_name(dataset, label, named): count for label, count in profile.labels.items()}
        for dataset, profile in ((ours, our), (theirs, their))
    ]
    keys = sorted(counts[0].keys() | counts[1].keys(), key=str)
    table = np.array([[c.get(key, 0) for key in keys] for c in counts], int).reshape(2, -1)
    table = table[:, table.any(axis=0)]
    if table.shape[1] > 1 and table.any(axis=1).all():
        yield compare_counts(split, "label", table)


def _name(dataset: Dataset, label: int, named: bool) -> str | int:
    known = named and 0 <= label < len(dataset.class_names)
    return dataset.class_names[label] if known else label


def compare_counts(split: str, what: str, table: np.ndarray) -> Comparison:
    """Pearson's chi-square of counts `[2, classes]`; effect: Cramer's V, sqrt(chi2/n)."""
    from scipy.stats import chi2_contingency

    result = chi2_contingency(table, correction=False)
    statistic, p = float(result[0]), float(result[1])
    sizes = (int(table[0].sum()), int(table[1].sum()))
    return Comparison(split, what, "chi2", statistic, p, (statistic / sum(sizes)) ** 0.5, sizes)


def _compare_numbers(split: str, our: Profile, their: Profile) -> Iterator[Comparison]:
    for name, mine in our.numbers.items():
        yours = their.numbers.get(name)
        if yours is None or len(mine.mean) != len(yours.mean):
            continue  # another shape: the schemas differ
        a, b = mine.sample, yours.sample
        for j in range(a.shape[1]):
            left, right = a[:, j][np.isfinite(a[:, j])], b[:, j][np.isfinite(b[:, j])]
            if len(left) and len(right):
                what = f"{name}[{j}]" if a.shape[1] > 1 else name
                yield compare_values(split, what, left, right)


def compare_values(split: str, what: str, a: np.ndarray, b: np.ndarray) -> Comparison:
    """The two-sample Kolmogorov-Smirnov test of finite numbers; exact for small samples."""
    from scipy.stats import ks_2samp

    method = "exact" if max(len(a), len(b)) <= 500 else "asymp"
    with warnings.catch_warnings():
        # Where ties make the exact p fail it is the asymptotic one: larger, if anything.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = ks_2samp(a, b, method=method)
    statistic, p = float(result.statistic), float(result.pvalue)
    means = (float(a.mean()), float(b.mean()))
    deviations = (float(a.std()), float(b.std()))
    sizes = (len(a), len(b))
    return Comparison(split, what, "ks", statistic, p, statistic, sizes, means, deviations)
