"""What is wrong with this installation and this machine: `zoo doctor`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from zoo.config import CACHE
from zoo.console import align, show_bytes
from zoo.gpu import describe_share, find_gpus

DISTRIBUTION = "zoo-jax"
LITTLE_DISK = 2 * 1024**3  # bytes; a few checkpoints of a base model with its optimizer state


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `advice` says what to do where it is wrong."""

    name: str
    found: str
    advice: str | None = None


def print_findings() -> int:
    """Prints everything that was looked at, then a line for each thing wrong: returns how many."""
    checks: list[Callable[[], list[Finding]]] = [
        check_python, check_packages, check_devices, check_disk, check_data,
    ]  # fmt: skip
    findings = [finding for check in checks for finding in _survive(check)]
    wrong = [f for f in findings if f.advice]
    rows = [("x" if f.advice else " ", f.name, f.found) for f in findings]
    print("\n".join(align(rows)) + "\n")
    for finding in wrong:
        print(f"x {finding.name}: {finding.advice}")
    if not wrong:
        print("all is well")
    return len(wrong)


def _survive(check: Callable[[], list[Finding]]) -> list[Finding]:
    """A check's findings, or the reason why it broke: a broken installation is what we are for."""
    try:
        return check()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        name = check.__name__.removeprefix("check_")
        return [Finding(name, "cannot be looked at", f"{type(error).__name__}: {reason}")]


def check_python() -> list[Finding]:
    """This Python against the one that the installed zoo asks for."""
    version = platform.python_version()
    try:
        bound = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return [Finding("Python", version)]
    return [_compare("Python", version, bound or "", f"install Python {bound}")]


def check_packages() -> list[Finding]:
    """Each required package's version against the bounds that the tests hold for."""
    try:
        requirements = [Requirement(r) for r in importlib.metadata.requires(DISTRIBUTION) or []]
        own = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return [Finding(DISTRIBUTION, "not installed", "pip install -e . in the checkout")]
    findings = [Finding(DISTRIBUTION, own)]
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        advice = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(requirement.name, "missing", advice))
            continue
        findings.append(_compare(requirement.name, version, str(requirement.specifier), advice))
    return findings


def _compare(name: str, version: str, bound: str, advice: str) -> Finding:
    if not bound:
        return Finding(name, version)
    # packaging sorts the bounds by their hash: the lower one is to come first.
    shown = ",".join(sorted(bound.split(","), reverse=True))
    good = SpecifierSet(bound).contains(version, prereleases=True)
    text = f"{version}  (tested: {shown})"
    return Finding(name, text, None if good else f"{version} is not {shown}: {advice}")


def check_devices() -> list[Finding]:
    """What JAX computes on, whether it misses a GPU, and how much of its memory it takes."""
    import jax

    gpus = find_gpus()
    try:
        devices = jax.devices()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        advice = f"jax finds no device: {reason}" + (f"; {_gpu_advice()}" if gpus else "")
        return [Finding("devices", "none", advice)]
    first = devices[0]
    shown = f"{len(devices)} x {first.device_kind} ({first.platform})"
    findings = [Finding("devices", shown)]
    on_gpu = first.platform == "gpu"
    if gpus and not on_gpu:
        advice = f"jax does not see it and computes on {first.platform}: {_gpu_advice()}"
        findings.append(Finding("GPU", ", ".join(gpus), advice))
    if on_gpu or gpus:
        try:
            findings.append(Finding("GPU memory", describe_share()))
        except ValueError as error:
            findings.append(Finding("GPU memory", "unclear", str(error)))
    return findings


def _gpu_advice() -> str:
    """Why JAX may not see a GPU that is there, the likeliest first."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return f"JAX_PLATFORMS={platforms} hides it"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    if any(importlib.util.find_spec(f"jax_cuda{n}_plugin") for n in (12, 13)):
        return "the CUDA plugin is installed but does not start; does nvidia-smi show the GPU?"
    return "pip install -e '.[cuda12]'"


def check_disk() -> list[Finding]:
    """Free disk where runs are likely written and where prepared data is kept."""
    return [
        _check_folder("working folder", pathlib.Path.cwd(), "train with --workdir elsewhere"),
        _check_folder("cache", pathlib.Path(CACHE).expanduser(), "set data.cache elsewhere"),
    ]


def _check_folder(name: str, folder: pathlib.Path, remedy: str) -> Finding:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free
    shown = f"{folder}, {show_bytes(free)} free"
    if not os.access(there, os.W_OK):
        return Finding(name, shown, f"{there} cannot be written to: {remedy}")
    if free < LITTLE_DISK:
        return Finding(name, shown, f"only {show_bytes(free)} are free: make room, or {remedy}")
    return Finding(name, shown)


def check_data() -> list[Finding]:
    """Where ZOO_DATA points and which published files lie there; their bytes are not read."""
    folder = os.environ.get("ZOO_DATA")
    if not folder:
        return [Finding("ZOO_DATA", "not set (only recipes on published files need it)")]
    if not pathlib.Path(folder).is_dir():
        return [Finding("ZOO_DATA", folder, f"{folder} is no folder: unset ZOO_DATA or correct it")]
    # Imports much that may be what is broken.
    from zoo.data.published import PUBLISHED, list_places

    findings = [Finding("ZOO_DATA", folder)]
    for name, (home, files) in PUBLISHED.items():
        missing = [
            file for file in files if not any(p.exists() for p in list_places(folder, name, file))
        ]
        if not missing:
            findings.append(Finding(f"  {name}", f"{len(files)} of {len(files)} files"))
        elif len(missing) == len(files):
            findings.append(Finding(f"  {name}", f"not there (published at {home})"))
        else:
            shown = f"{len(files) - len(missing)} of {len(files)} files"
            advice = f"missing {', '.join(missing)}, published at {home}"
            findings.append(Finding(f"  {name}", shown, advice))
    return findings
