"""Checkpoints: written in the background by Orbax, vouched for by a manifest of our own.

`FOLDER/00000100/` holds `state/` (Orbax) and `manifest.json`: every leaf (path, shape, dtype),
every file (size, sha256), the metrics at that step, the hash of the tokenizer. The manifest is
written last, atomically; a folder without one is a save that was cut off. Orbax keeps no checksum
of array data and reads a flipped bit in silence, so the manifest is compared before Orbax is asked
to read. Old checkpoints go only after the newest one's manifest stands, which is why Orbax's own
deletion policies are not used.

The only file that imports Orbax.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from zoo.config import CheckpointConfig, UserError
from zoo.parallel import tell_all
from zoo.tree import named_leaves

FORMAT = 1
Leaves = dict[str, dict[str, Any]]


class Damage(Exception):
    """A checkpoint whose manifest and files disagree."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        folder: epath.Path,
        config: CheckpointConfig | None = None,
        tell: Callable[[str], None] = print,
        tokenizer: str | None = None,
    ):
        """`tokenizer` is the hash of the run's own: a checkpoint of another one is refused."""
        # Orbax refuses a relative path; a place on object storage is absolute as it is.
        self.folder = folder if "://" in str(folder) else folder.expanduser().resolve()
        self.config = config or CheckpointConfig()
        self._tell, self._tokenizer = tell, tokenizer
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._pending: concurrent.futures.Future[None] | None = None
        self._saved: int | None = None

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        if not self.folder.exists():
            return []
        found = [p for p in self.folder.iterdir() if p.name.isdigit()]
        return sorted(int(p.name) for p in found if (p / "manifest.json").exists())

    def last_step(self) -> int | None:
        """The newest complete checkpoint, once the save under way is done."""
        self.wait()
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Starts a save and returns once the state is copied; the rest happens in the background.

        Waits for the save before it. A step that is saved already is left as it is.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        place = self._place(step)
        # A process that is ahead of process 0 may not see its manifest yet.
        if step == self._saved or (place / "manifest.json").exists():
            return
        self._saved = step
        if jax.process_index() == 0 and place.exists():
            place.rmtree()
        leaves = named_leaves(state)
        response = ocp.save_async(place / "state", leaves)
        manifest = {"format": FORMAT, "step": step, "metrics": dict(metrics or {})}
        manifest["tokenizer"] = self._tokenizer
        manifest["leaves"] = describe_leaves(leaves)
        self._pending = self._thread.submit(self._finish, place, response, manifest)

    def _finish(self, place: epath.Path, response: Any, manifest: dict[str, Any]) -> None:
        response.result()
        if jax.process_index():
            return
        manifest["files"] = describe_files(place / "state")
        write_manifest(place, manifest)
        self._delete_old()

    def wait(self) -> None:
        """Waits for the save under way. Raises UserError when it could not be written."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            try:
                pending.result()
            except OSError as error:
                raise UserError(f"cannot save to {self.folder}: {error}") from None

    def _delete_old(self) -> None:
        steps, config = self.steps(), self.config
        keep = set(steps[-config.keep_last :])
        if config.keep_every_steps:
            keep |= {s for s in steps if s % config.keep_every_steps == 0}
        best = self.best()
        for step in steps:
            if step not in keep and step != best:
                self._delete(step)

    def drop_after(self, step: int) -> None:
        """Deletes what is newer than `step`."""
        self.wait()
        for newer in self.steps() if jax.process_index() == 0 else []:
            if newer > step:
                self._delete(newer)

    def _delete(self, step: int) -> None:
        place = self._place(step)
        (place / "manifest.json").unlink()  # first: a cut-off deletion leaves no checkpoint
        place.rmtree()

    def best(self) -> int | None:
        """The step with the best value of `best_metric`; of equals the earliest."""
        name = self.config.best_metric
        sign = 1 if self.config.best_mode == "max" else -1
        scores = {}
        for step in self.steps() if name else []:
            metrics = read_manifest(self._place(step))["metrics"]
            if name in metrics:
                scores[step] = sign * metrics[name]
        return max(scores, key=lambda step: scores[step]) if scores else None

    def restore(self, abstract_state: Any, step: int | None = None) -> tuple[int, Any] | None:
        """The newest sound checkpoint (or that of `step`) as `(step, state)`; None without one.

        Half-written saves are removed; damaged checkpoints are set aside as `STEP.damaged`; both
        are told. `abstract_state` gives structure, shapes, dtypes and shardings.
        Raises UserError when the leaves differ, with all differences, or when only damaged
        checkpoints are left.
        """
        found = tell_all(lambda: self._find_sound(step))  # of several processes one looks
        if found is None:
            return None
        place = self._place(found)
        manifest = read_manifest(place)
        self._compare_tokenizers(place, manifest)
        self._saved = found
        return found, self._load(place, manifest, abstract_state)

    def _find_sound(self, step: int | None) -> int | None:
        self._remove_unfinished()
        damaged = []
        for candidate in reversed(self.steps()) if step is None else [step]:
            place = self._place(candidate)
            try:
                check_files(place)
            except Damage as damage:
                aside = self.folder / f"{place.name}.damaged"
                if aside.exists():
                    aside.rmtree()
                place.rename(aside)
                damaged.append(candidate)
                self._tell(
                    f"checkpoint of step {candidate} is damaged ({damage}); set aside as "
                    f"{aside.name}, falling back to the one before"
                )
                continue
            return candidate
        if damaged:
            raise UserError(
                f"no sound checkpoint is left in {self.folder} (damaged: steps "
                f"{', '.join(map(str, damaged))}); delete the folder to start from step 0"
            )
        return None

    def _load(self, place: epath.Path, manifest: dict[str, Any], abstract_state: Any) -> Any:
        from orbax.checkpoint import v1 as ocp

        wanted = named_leaves(abstract_state)
        compare_leaves(manifest["leaves"], describe_leaves(wanted), place)
        loaded = ocp.load(place / "state", wanted)
        return jax.tree.unflatten(jax.tree.structure(abstract_state), [loaded[p] for p in wanted])

    def restore_leaves(self) -> dict[str, Any]:
        """All leaves of the newest checkpoint, on one device, by path.

        Raises UserError when there is none, or when it is damaged.
        """
        from orbax.checkpoint import v1 as ocp

        steps = self.steps()
        if not steps:
            raise UserError(f"no checkpoint in {self.folder}")
        place = self._place(steps[-1])
        try:
            manifest = check_files(place)
        except Damage as damage:
            raise UserError(f"{place} is damaged ({damage})") from None
        self._compare_tokenizers(place, manifest)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = {
            path: jax.ShapeDtypeStruct(x["shape"], x["dtype"], sharding=here)
            for path, x in manifest["leaves"].items()
        }
        return ocp.load(place / "state", shapes)

    def _compare_tokenizers(self, place: epath.Path, manifest: Mapping[str, Any]) -> None:
        theirs = manifest.get("tokenizer")
        ours = self._tokenizer
        if theirs and ours and theirs != ours:
            raise UserError(
                f"checkpoint {place} belongs to another tokenizer: it was trained with "
                f"{theirs[:12]}, data.tokenizer gives {ours[:12]} (take the tokenizer.json of its "
                "workdir)"
            )

    def _remove_unfinished(self) -> None:
        if not self.folder.exists():
            return
        for place in self.folder.iterdir():
            if place.name.isdigit() and not (place / "manifest.json").exists():
                place.rmtree()
                self._tell(f"removed a half-written checkpoint of step {int(place.name)}")

    def _place(self, step: int) -> epath.Path:
        return self.folder / f"{step:08d}"


def describe_leaves(leaves: Mapping[str, Any]) -> Leaves:
    """Path -> shape and dtype."""
    return {p: {"shape": list(x.shape), "dtype": str(x.dtype)} for p, x in leaves.items()}


def compare_leaves(found: Leaves, wanted: Leaves, place: epath.Path) -> None:
    """Raises UserError with every leaf that is missing, left over or of another shape or dtype."""
    wrong = [f"missing {p}" for p in wanted if p not in found]
    wrong += [f"left over {p}" for p in found if p not in wanted]
    wrong += [
        f"{p} is {_show(found[p])}, not {_show(wanted[p])}"
        for p in wanted
        if p in found and found[p] != wanted[p]
    ]
    if wrong:
        raise UserError(f"checkpoint {place} is of another model or optimizer: {'; '.join(wrong)}")


def _show(leaf: dict[str, Any]) -> str:
    return f"{leaf['dtype']}[{','.join(map(str, leaf['shape']))}]"


def describe_files(folder: epath.Path) -> dict[str, dict[str, Any]]:
    """Relative path -> size and sha256 of every file under a folder."""
    return {
        str(path.relative_to(folder)): {"size": path.stat().length, "sha256": hash_file(path)}
        for path in walk(folder)
    }


def walk(folder: epath.Path) -> list[epath.Path]:
    """All files under a folder, sorted."""
    out = []
    for path in sorted(folder.iterdir()):
        out += walk(path) if path.is_dir() else [path]
    return out


def hash_file(path: epath.Path) -> str:
    """sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _digest(manifest: Mapping[str, Any]) -> str:
    body = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def write_manifest(place: epath.Path, manifest: dict[str, Any]) -> None:
    """Writes manifest.json in one move, its own checksum in it."""
    draft = place / "manifest.json.part"
    draft.write_text(json.dumps({**manifest, "sha256": _digest(manifest)}, indent=1))
    draft.replace(place / "manifest.json")


def read_manifest(place: epath.Path) -> dict[str, Any]:
    """Raises Damage when the manifest is not what was written."""
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        sound = manifest["sha256"] == _digest(manifest)
    except (ValueError, KeyError, TypeError, OSError):
        sound = False
    if not sound:
        raise Damage("manifest.json is altered")
    if manifest["format"] != FORMAT:
        raise UserError(f"{place} has format {manifest['format']}, this zoo reads {FORMAT}")
    return manifest


def check_files(place: epath.Path) -> dict[str, Any]:
    """The manifest, every file compared with it. Raises Damage that names the first difference."""
    manifest = read_manifest(place)
    found = (
        {str(p.relative_to(place / "state")) for p in walk(place / "state")}
        if (place / "state").exists()
        else set()
    )
    for name, entry in manifest["files"].items():
        path = place / "state" / name
        if name not in found:
            raise Damage(f"{name} is missing")
        if path.stat().length != entry["size"]:
            raise Damage(f"{name} has {path.stat().length} bytes, not {entry['size']}")
        if hash_file(path) != entry["sha256"]:
            raise Damage(f"{name} is altered")
    return manifest
