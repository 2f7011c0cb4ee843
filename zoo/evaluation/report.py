"""An evaluation as text for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from zoo.console import align
from zoo.evaluation.result import Evaluation, FewShot
from zoo.evaluation.slices import FEW, Slice
from zoo.metrics import Interval, tabulate_classes

MOST_CLASSES = 10  # lines of a table of classes
MOST_SLICES = 12  # lines of a field's slices


def tell(found: Evaluation | FewShot) -> Iterator[str]:
    """Title, metrics, slices, comparison and the worst examples, line by line."""
    if isinstance(found, FewShot):
        yield from tell_few_shot(found)
        return
    yield f"{found.source} on {found.data}, split {found.split}: {found.num_examples:,} examples"
    for note in found.notes:
        yield f"note: {note}"
    yield ""
    if found.against is not None:
        yield from tell_against(found)
    else:
        rows: list[tuple[str, ...]] = [("metric", "value", "95 % interval")]
        rows += [(k, show(i.value), show_interval(i)) for k, i in found.metrics.items()]
        yield from align(rows, (1,))
        yield from tell_classes(found)
    if found.slices:
        yield from tell_slices(found)
    if found.worst:
        yield from tell_worst(found)


def tell_few_shot(found: FewShot) -> Iterator[str]:
    """A column for each number of examples a class."""
    yield f"{found.source} on {found.data}, split {found.split}: {found.num_examples:,} examples"
    yield f"a linear classifier on frozen features: mean and deviation of {found.draws} draws"
    yield ""
    head = [f"{row.shots} a class" for row in found.shots]
    rows: list[tuple[str, ...]] = [("metric", *head)]
    for name in found.shots[0].mean:
        cells = [f"{show(row.mean[name])} ± {row.deviation[name]:.3f}" for row in found.shots]
        rows.append((name, *cells))
    yield from align(rows, tuple(range(1, len(rows[0]))))


def show(value: float) -> str:
    """Four decimals; large and tiny values keep five digits."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else str(value)
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4e}"


def show_interval(interval: Interval) -> str:
    """'0.9528 to 0.9889', '-' of none."""
    if math.isnan(interval.low):
        return "-"
    return f"{show(interval.low)} to {show(interval.high)}"


def tell_classes(found: Evaluation) -> Iterator[str]:
    """Precision, recall and F1 of each class, of few classes."""
    confusion = found.confusion
    if confusion is None or len(confusion) > MOST_CLASSES:
        return
    table = tabulate_classes(confusion)
    rows: list[tuple[str, ...]] = [("class", "examples", "precision", "recall", "f1")]
    for i, name in enumerate(found.classes):
        numbers = [f"{table[key][i]:.4f}" for key in ("precision", "recall", "f1")]
        rows.append((name, f"{table['labels'][i]:,.0f}", *numbers))
    yield ""
    yield from align(rows, (1, 2, 3, 4))


def tell_against(found: Evaluation) -> Iterator[str]:
    """Both models, their difference, and whether it is more than chance."""
    against = found.against
    assert against is not None
    yield f"A: {found.source}"
    yield f"B: {against.source}"
    yield ""
    rows: list[tuple[str, ...]] = [("metric", "A", "B", "B - A", "95 % interval", "p", "better")]
    for name, c in against.metrics.items():
        interval = Interval(c.difference, c.low, c.high)
        better = against.better[name] or "may be chance"
        numbers = [show(c.a), show(c.b), f"{c.difference:+.4g}"]
        rows.append((name, *numbers, show_interval(interval), show_p(c.p_value), better))
    yield from align(rows, (1, 2, 3))


def show_p(p: float) -> str:
    """'0.012'; of very small ones a bound, since swaps are drawn."""
    return "undefined" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def tell_slices(found: Evaluation) -> Iterator[str]:
    """A table a field, of many slices the worst, and the worst of all."""
    main = found.main
    assert main is not None
    names = choose_columns(found)
    for field in dict.fromkeys(part.field for part in found.slices):
        parts: Sequence[Slice] = [part for part in found.slices if part.field == field]
        left = len(parts) - MOST_SLICES
        if left > 0:
            sign = 1 if main.higher_is_better else -1
            worst_first = sorted(parts, key=lambda s: _rank(sign * s.metrics[main.name].value))
            parts = worst_first[:MOST_SLICES]
        yield ""
        rows = [(f"by {field}", "examples", *names, f"95 % interval of {main.name}")]
        for part in parts:
            count = f"{part.count:,}" + ("*" if part.is_small else " ")
            values = [show(part.metrics[name].value) for name in names]
            rows.append((part.value, count, *values, show_interval(part.metrics[main.name])))
        yield from align(rows, range(1, 2 + len(names)))
        if left > 0:
            yield f"... and {left} more, not as bad (all are in eval.json)"
    if any(part.is_small for part in found.slices):
        yield f"* fewer than {FEW} examples: says little"
    yield ""
    yield tell_worst_slice(found)


def _rank(value: float) -> float:
    return math.inf if math.isnan(value) else value


def choose_columns(found: Evaluation) -> list[str]:
    """The main metric and the loss."""
    main = found.main
    assert main is not None
    names = [main.name, *(m.name for m in found.measured if m.name == "loss")]
    there = found.slices[0].metrics  # of questions, where the loss is of windows
    return [name for name in dict.fromkeys(names) if name in there]


def tell_worst_slice(found: Evaluation) -> str:
    """Which slice is worst, and whether that is more than chance."""
    worst, main = found.worst_slice, found.main
    assert main is not None
    if worst is None:
        return f"no slice has {FEW} examples: none is called the worst"
    part, beyond = worst
    value, whole = part.metrics[main.name].value, found.metrics[main.name].value
    if value >= whole if main.higher_is_better else value <= whole:
        return f"no slice of at least {FEW} examples is worse than all ({main.name} {show(whole)})"
    chance = "its whole interval is worse" if beyond else "which may be chance"
    return (
        f"worst: {part.field} {part.value}, {main.name} {show(value)} against {show(whole)} of "
        f"all: {chance}"
    )


def tell_worst(found: Evaluation) -> Iterator[str]:
    """The examples with the largest loss."""
    yield ""
    yield "largest loss:"
    first = found.worst[0]
    header = ["loss", "example"]
    header += ["label", "prediction"] if first.label else []
    header += ["text"] if any(example.text for example in found.worst) else []
    rows = [tuple(header)]
    for example in found.worst:
        row = [show(example.loss), example.name]
        if first.label:
            chance = "" if example.probability is None else f" {example.probability:.3f}"
            row += [shorten(example.label, 40), f"{shorten(example.prediction, 40)}{chance}"]
        if "text" in header:
            row.append(shorten(example.text))
        rows.append(tuple(row))
    yield from align(rows, (0,))


def shorten(text: str, most: int = 60) -> str:
    """The beginning of a line."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
