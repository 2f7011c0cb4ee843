"""Metrics: plain functions of records and row weights (NumPy, float64), with intervals and tests.

`METRICS` maps a name to a factory of the metric's forms, one a kind of records; `module:name` of
the user's own works too. Formulas agree with scikit-learn, scipy and sacrebleu, resampled or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zoo.config import UserError, nearest
from zoo.metrics import answers, classes, labels, numbers, overlap, ranks
from zoo.metrics.classes import count_confusion, tabulate_classes
from zoo.metrics.intervals import Comparison, Interval, bootstrap, bootstrap_all, compare
from zoo.metrics.metric import Additive, Metric, Records
from zoo.registry import Registry

__all__ = [
    "METRICS",
    "Additive",
    "Comparison",
    "Interval",
    "Metric",
    "Records",
    "bootstrap",
    "bootstrap_all",
    "compare",
    "count_confusion",
    "find_metrics",
    "is_of_texts",
    "tabulate_classes",
]

METRICS = Registry("metric")
_ORDER: list[str] = []  # as they are told


def _add(name: str, factory: Callable[..., tuple[Metric, ...]]) -> None:
    METRICS.add(name, factory)
    _ORDER.append(name)


def _either(*factories: Callable[..., tuple[Metric, ...]]) -> Callable[..., tuple[Metric, ...]]:
    """The forms of all: of one class an example, and of several labels."""
    return lambda *words: tuple(form for make in factories for form in make(*words))


_make_retrieval = _either(classes.make_retrieval, labels.make_retrieval)
_make_auroc = _either(ranks.make_auroc, labels.make_auroc)
_make_average_precision = _either(ranks.make_average_precision, labels.make_average_precision)

_add("loss", numbers.make_loss)
_add("perplexity", numbers.make_perplexity)
_add("bits_per_byte", numbers.make_bits_per_byte)
_add(
    "accuracy",
    lambda: (
        *classes.make_accuracy(),
        *labels.make_all_right(),
        *answers.make_span_accuracy(),
        *numbers.make_token_accuracy(),
    ),
)
_add("top5", lambda: classes.make_top("5"))
for _kind in ("precision", "recall", "f1"):
    _add(_kind, lambda kind=_kind: _make_retrieval(kind))
    _add(f"{_kind}_macro", lambda kind=_kind: _make_retrieval(kind, "macro"))
    _add(f"{_kind}_micro", lambda kind=_kind: _make_retrieval(kind, "micro"))
_add("auroc", _make_auroc)
_add("average_precision", _make_average_precision)
_add("matthews", classes.make_matthews)
_add("calibration_error", classes.make_calibration_error)
_add("mse", numbers.make_mse)
_add("mae", numbers.make_mae)
_add("r2", numbers.make_r2)
_add("pearson", numbers.make_pearson)
_add("spearman", ranks.make_spearman)
_add("start_accuracy", lambda: answers.make_span_accuracy("start"))
_add("end_accuracy", lambda: answers.make_span_accuracy("end"))
_add("exact_match", answers.make_exact_match)
_add("token_f1", answers.make_token_f1)
_add("bleu", overlap.make_bleu)
_add("chrf", overlap.make_chrf)
for _which in ("1", "2", "L"):
    _add(f"rouge{_which}", lambda which=_which: overlap.make_rouge(which))
METRICS.add_pattern(r"bleu_(zh|char|intl)", overlap.make_bleu)  # by sacrebleu's other tokenizers
METRICS.add_pattern(r"top(\d+)", classes.make_top)
METRICS.add_pattern(r"(precision|recall|f1)_(\d+)", _make_retrieval)
METRICS.add_pattern(r"auroc_(\d+)", _make_auroc)
METRICS.add_pattern(r"average_precision_(\d+)", _make_average_precision)


def find_metrics(records: Records, names: Sequence[str] | None = None) -> list[Metric]:
    """The metrics of these names, or all usual ones whose fields the records have.

    Raises UserError on an unknown name, and on one whose fields are not there.
    """
    if names is None:
        found = [_choose_form(name, records) for name in _ORDER]
        return [metric for metric in found if metric is not None and metric.by_default(records)]
    chosen = []
    for name in dict.fromkeys(names):
        metric = _choose_form(name, records)
        if metric is None:
            able = [other for other in _ORDER if _choose_form(other, records) is not None]
            raise UserError(
                f"metric {name!r} needs {_tell_needs(name)}; the records have "
                f"{', '.join(sorted(records))}{nearest(name, able)}"
            )
        chosen.append(metric)
    return chosen


def is_of_texts(name: str) -> bool:
    """Is a metric one of texts that were written, beside those that are right?"""
    return any("text" in form.needs for form in _make_forms(name))


def _make_forms(name: str) -> tuple[Metric, ...]:
    made = METRICS.get(name)()
    return made if isinstance(made, tuple) else (made,)


def _choose_form(name: str, records: Records) -> Metric | None:
    """The first form whose fields are all there."""
    forms = (form for form in _make_forms(name) if set(form.needs) <= set(records))
    return next(forms, None)


def _tell_needs(name: str) -> str:
    return " or ".join(" and ".join(form.needs) for form in _make_forms(name))
