"""The folder of a run: what it says of itself, and whether a command may go on in it."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from zoo.config import Config, UserError, to_dict
from zoo.config.show import deciding, flatten
from zoo.data import Dataset
from zoo.data.seen import describe_fields
from zoo.optim import make_schedule
from zoo.parallel import gather_digests

PACKAGES = (
    "zoo-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy",
    "tensorflow-datasets", "scikit-learn",
)  # fmt: skip
MARK = ".seen"  # what process 0 writes, for the others to read
OF_ONE_HOST = {
    "parallel.process_id", "parallel.coordinator", "parallel.num_processes", "data.folder",
    "data.cache", "data.num_workers", "data.prefetch",
}  # fmt: skip


def claim_workdir(
    workdir: epath.Path,
    config: Config,
    dataset: Dataset,
    batch: Mapping[str, Any],
    tell: Callable[[str], None],
) -> str:
    """Makes the folder, or checks that it is of this config and data; then describes the run. Of
    several processes one does, and `check_seen` follows in all.

    `batch` gives the shapes of a training batch. Returns what was written into the file MARK.

    Raises UserError when the folder cannot be written, is of another run, or `train.num_steps`
    differs without leave.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / ".writable").write_text("")
        (workdir / ".writable").unlink()
    except OSError as error:
        raise UserError(f"cannot write to workdir {workdir}: {error.strerror or error}") from None
    before = _read_json(workdir / "config.json")
    if before is not None and has_begun(workdir):
        check_same_run(before, config, workdir, tell)
        data = _read_json(workdir / "data.json")
        if data and data.get("tokenizer") != dataset.tokenizer_hash:
            raise UserError(
                f"{workdir} was trained with another tokenizer: its tokenizer.json has sha256 "
                f"{str(data.get('tokenizer'))[:12]}, data.tokenizer={config.data.tokenizer!r} "
                f"gives {str(dataset.tokenizer_hash)[:12]}"
            )
        if data and data["fingerprint"] != dataset.fingerprint:
            raise UserError(
                f"{workdir} was trained on other data: {dataset.name} had fingerprint "
                f"{data['fingerprint'][:12]}, now {dataset.fingerprint[:12]}"
            )
        versions = _read_json(workdir / "versions.json") or {}
        changed = [
            f"{k} {versions[k]} -> {v}"
            for k, v in find_versions().items()
            if versions.get(k, v) != v
        ]
        if changed:
            tell(f"resuming under other versions, bits may differ: {', '.join(changed)}")
    write_json(workdir / "config.json", to_dict(config))
    write_json(workdir / "versions.json", find_versions())
    write_json(workdir / "data.json", describe_data(dataset, batch))
    if dataset.tokenizer:
        write_text(workdir / "tokenizer.json", dataset.tokenizer.to_json())
    mark = secrets.token_hex(8)
    write_json(workdir / MARK, mark)
    return mark


def check_seen(workdir: epath.Path, mark: str) -> None:
    """Raises UserError, in every process, where one of them does not see what process 0 wrote."""
    seen = _read_json(workdir / MARK) == mark
    blind = [i for i, saw in enumerate(gather_digests(f"{seen:02x}")) if not int(saw, 16)]
    if jax.process_index() == 0:
        (workdir / MARK).unlink(missing_ok=True)
    if blind:
        raise UserError(
            f"workdir {workdir} must be one folder for all processes: "
            f"process {', '.join(map(str, blind))} does not see what process 0 wrote there"
        )


def describe_command(config: Config, workdir: str) -> dict[str, Any]:
    """What all processes of a job must have alike, by name, before they join."""
    values = flatten(to_dict(config))
    alike = {name: value for name, value in values.items() if name not in OF_ONE_HOST}
    return {**alike, "workdir": workdir, **find_packages()}


def check_same_data(dataset: Dataset) -> None:
    """Raises UserError, in every process, where one of them has read other data."""
    found = gather_digests(dataset.fingerprint)
    other = next((i for i, digest in enumerate(found) if digest != found[0]), None)
    if other is not None:
        raise UserError(
            f"the processes do not agree: {dataset.name} has fingerprint {found[0][:12]} in "
            f"process 0, {found[other][:12]} in process {other}"
        )


def has_begun(workdir: epath.Path) -> bool:
    """Is there a row or a checkpoint? A run that was cut off before has nothing to protect."""
    checkpoints = workdir / "checkpoints"
    saved = checkpoints.exists() and any(p.name.isdigit() for p in checkpoints.iterdir())
    return saved or any(p.name.startswith("metrics.") for p in workdir.iterdir())


def check_same_run(
    before: dict[str, Any], config: Config, workdir: epath.Path, tell: Callable[[str], None]
) -> None:
    """Raises UserError that shows each deciding key in which the two configs differ."""
    old, new, default = flatten(before), deciding(config), deciding(Config())
    differing = {
        k: (old.get(k, default[k]), v) for k, v in new.items() if old.get(k, default[k]) != v
    }
    steps = differing.pop("train.num_steps", None)
    if differing:
        shown = "; ".join(f"{k} was {a!r}, now {b!r}" for k, (a, b) in differing.items())
        raise UserError(f"workdir {workdir} holds a run of another config: {shown}")
    if steps is None:
        return
    if steps[1] < steps[0] or not config.checkpoint.extend:
        hint = (
            ""
            if steps[1] < steps[0]
            else " (to go on with a longer run: --config.checkpoint.extend=True)"
        )
        raise UserError(
            f"workdir {workdir} holds a run of another config: train.num_steps was {steps[0]}, "
            f"now {steps[1]}{hint}"
        )
    a, b = (float(make_schedule(config.optim, n)(steps[0])) for n in steps)
    tell(
        f"train.num_steps grows from {steps[0]} to {steps[1]}: "
        f"the {config.optim.schedule} schedule is stretched, "
        f"the learning rate at step {steps[0]} is {b:.3g} instead of {a:.3g}"
    )


def find_versions() -> dict[str, str]:
    """Versions of Python, of what decides the bits, and the devices."""
    devices = jax.devices()
    what = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    return {**find_packages(), "devices": what}


def find_packages() -> dict[str, str]:
    """Versions of Python and of what decides the bits."""
    out = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            out[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return out


def describe_data(dataset: Dataset, batch: Mapping[str, Any]) -> dict[str, Any]:
    """What `data.json` says; `example` are the shapes that the model's task gets of one."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "examples": {split: len(source) for split, source in dataset.splits.items()},
        "num_classes": dataset.num_classes,
        "class_names": list(dataset.class_names),
        "tokenizer": dataset.tokenizer_hash,
        "vocab_size": dataset.tokenizer and dataset.tokenizer.vocab_size,
        "example": {name: list(x.shape[1:]) for name, x in batch.items()},
        "inferred": list(dataset.notes),
        "columns": {field: list(columns) for field, columns in dataset.columns.items()},
        **describe_fields(dataset),
    }


def write_json(path: epath.Path, content: Any) -> None:
    """Writes JSON in one move."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: epath.Path, text: str) -> None:
    """Writes a file in one move."""
    draft = path.parent / f"{path.name}.part"
    draft.write_text(text)
    draft.replace(path)


def _read_json(path: epath.Path) -> Any:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path} is not readable JSON") from None
