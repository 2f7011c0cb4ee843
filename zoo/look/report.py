"""What `zoo data check` found, as JSON for machines and as lines for people.

The JSON; numbers that are not finite are null:

{
  "version": 1,                      raised when a key changes its meaning or goes
  "source": name, "fingerprint": hex, "clean": bool,
  "classes": [name, ...] | null,
  "fields": {field: {"dtype": text, "shape": text}},     of the training split
  "splits": {split: {"examples": n, "unreadable": n, "labels": {class number: n}}},
  "findings": [{
    "kind": "unreadable" | "label_range" | "empty_text" | "non_finite" | "too_long" |
            "absent_class" | "untrained_class" | "constant_feature" |
            "duplicate" | "duplicate_between" | "label_conflict",
    "split": "train" or several, "train, test",
    "count": n, "total": n,          examples; classes or features for the kinds about those
    "message": text,
    "cases": [{"examples": [{"split": s, "index": i, "name": text}], "detail": text}]}],
  "against": null | {
    "source": name, "fingerprint": hex, "unreadable": n,
    "shared_inputs": n,              different inputs of SOURCE that OTHER has too
    "schema": [text],
    "significance": p, "effect": least effect,
    "comparisons": [{"split": s, "what": text, "test": "chi2" | "ks", "statistic": x, "p": x,
                     "effect": x, "sizes": [n, n], "means": [x, x] | null,
                     "deviations": [x, x] | null, "drifted": bool}]}
}

A source whose reader refuses what it holds: {"version": 1, "source": name, "clean": false,
"refused": text}.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.config import UserError
from zoo.console import align
from zoo.data import Dataset
from zoo.look.drift import EFFECT, SIGNIFICANCE, Comparison, has_drifted
from zoo.look.findings import Case, Finding, Place
from zoo.look.profile import Profile, show_label, show_value
from zoo.look.read import describe_sizes, is_text, name_example

VERSION = 1
MOST_CASES, MOST_PLACES = 5, 4  # shown on the console


@dataclass(frozen=True)
class Against:
    """SOURCE beside OTHER: differences of fields and classes, tests, inputs that are in both."""

    dataset: Dataset
    unreadable: int
    schema: list[str]
    comparisons: list[Comparison]
    shared: int

    def drifted(self) -> list[Comparison]:
        """The comparisons that count, the largest effect first."""
        found = [c for c in self.comparisons if has_drifted(c, len(self.comparisons))]
        return sorted(found, key=lambda c: -c.effect)


@dataclass(frozen=True)
class Report:
    """Everything that was found."""

    dataset: Dataset
    profiles: dict[str, Profile]
    findings: list[Finding] = field(default_factory=list)
    against: Against | None = None

    @property
    def clean(self) -> bool:
        differs = self.against is not None and (self.against.schema or self.against.drifted())
        return not self.findings and not differs


def to_json(report: Report) -> dict[str, Any]:
    """The report in JSON's types, as this module's docstring says."""
    dataset = report.dataset
    return {
        "version": VERSION,
        "source": dataset.name,
        "fingerprint": dataset.fingerprint,
        "clean": report.clean,
        "classes": list(dataset.class_names) or None,
        "fields": {
            name: {"dtype": field.dtype, "shape": field.shape}
            for name, field in report.profiles["train"].fields.items()
        },
        "splits": {
            split: {
                "examples": len(dataset.splits[split]),
                "unreadable": profile.unreadable,
                "labels": {str(label): profile.labels[label] for label in sorted(profile.labels)},
            }
            for split, profile in report.profiles.items()
        },
        "findings": [
            {
                **{k: getattr(f, k) for k in ("kind", "split", "count", "total", "message")},
                "cases": [_case(case, dataset) for case in f.cases],
            }
            for f in report.findings
        ],
        "against": report.against and _against(report.against),
    }


def _against(against: Against) -> dict[str, Any]:
    comparisons = against.comparisons
    return {
        "source": against.dataset.name,
        "fingerprint": against.dataset.fingerprint,
        "unreadable": against.unreadable,
        "shared_inputs": against.shared,
        "schema": against.schema,
        "significance": SIGNIFICANCE,
        "effect": EFFECT,
        "comparisons": [
            {**_finite(asdict(c)), "drifted": has_drifted(c, len(comparisons))} for c in comparisons
        ],
    }


def _case(case: Case, dataset: Dataset) -> dict[str, Any]:
    examples = [{"split": s, "index": i, "name": _name((s, i), dataset)} for s, i in case.places]
    return {"examples": examples, "detail": case.detail}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }


def write_json(report: Report, path: Path) -> None:
    """Raises UserError when the file cannot be written."""
    _write(to_json(report), path)


def write_refusal(source: str, line: str, path: Path) -> None:
    """The report on a source whose reader stopped. Raises UserError as `write_json`."""
    _write({"version": VERSION, "source": source, "clean": False, "refused": line}, path)


def _write(content: dict[str, Any], path: Path) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _name(place: Place, dataset: Dataset) -> str:
    split, index = place
    return name_example(dataset.splits[split], split, index)


def report_lines(report: Report) -> list[str]:
    """What a person reads: a line a finding, a few cases of each."""
    dataset = report.dataset
    lines = [f"{dataset.name}: {describe_sizes(dataset)}; every example was read", ""]
    for finding in report.findings:
        lines.append(
            f"x {finding.kind} ({finding.split}): {finding.count:,} of {finding.total:,} "
            f"{finding.message}"
        )
        labels = finding.kind == "label_conflict"
        lines += [f"    {_show_case(case, dataset, labels)}" for case in finding.cases[:MOST_CASES]]
        if len(finding.cases) > MOST_CASES:
            lines.append(f"    {len(finding.cases) - MOST_CASES:,} more")
    if report.against is not None:
        lines += against_lines(report.against, blank=bool(report.findings))
    return lines


def _show_case(case: Case, dataset: Dataset, labels: bool) -> str:
    """Names of the examples, with their labels where these are the point, and the detail; where
    there is none the beginning of the text that they share."""
    names = [_name(place, dataset) for place in case.places[:MOST_PLACES]]
    examples = [_read(place, dataset) for place in case.places[: MOST_PLACES if labels else 1]]
    if labels:
        names = [
            f"{name} ({show_label(example['label'], dataset)})" if "label" in example else name
            for name, example in zip(names, examples, strict=True)
        ]
    if len(case.places) > MOST_PLACES:
        names.append(f"{len(case.places) - MOST_PLACES:,} more")
    texts = (value for example in examples for value in example.values() if is_text([value]))
    detail = case.detail or "".join(show_value("text", text) for text in [*texts][:1])
    return ": ".join(filter(None, (" = ".join(names), detail)))


def _read(place: Place, dataset: Dataset) -> dict[str, Any]:
    """One example, field by field; nothing where it cannot be read."""
    split, index = place
    try:
        fields = dataset.splits[split].take(np.array([index]))
    except Exception:  # that is what was found
        return {}
    return {name: values[0] for name, values in fields.items()}


def against_lines(against: Against, *, blank: bool) -> list[str]:
    """Differences between two sets."""
    lines = [""] if blank else []
    lines.append(f"against {against.dataset.name}: {describe_sizes(against.dataset)}")
    if against.unreadable:
        lines.append(f"  {against.unreadable:,} of its examples cannot be read and are left out")
    lines += [f"x schema: {line}" for line in against.schema]
    drifted = against.drifted()
    if drifted:
        rows: list[tuple[str, ...]] = [
            ("x drift", "split", "test", "effect", "p", "mean here", "there")
        ]
        for c in drifted[: 4 * MOST_CASES]:
            means = [f"{m:.4g}" for m in c.means] if c.means else ["", ""]
            test = "chi-square" if c.test == "chi2" else "KS"
            rows.append(
                (
                    f"  {c.what}",
                    c.split,
                    test,
                    f"{c.effect:.2f}",
                    f"{c.p:.1e}" if c.p else "0",
                    *means,
                )
            )
        lines += align(rows, right={3, 4, 5, 6})
        if len(drifted) > 4 * MOST_CASES:
            lines.append(f"    {len(drifted) - 4 * MOST_CASES:,} more")
    lines.append(
        f"  {len(drifted)} of {len(against.comparisons)} distributions drifted: p under "
        f"{SIGNIFICANCE} for all together,"
    )
    lines.append(f"  and effect (Cramer's V, or the KS distance) at least {EFFECT}")
    if against.shared:
        lines.append(f"  {against.shared:,} inputs are in both")
    return lines
