"""`zoo doctor` on installations and machines that are made up."""

import importlib.metadata
import os
import shutil

import pytest

from zoo import doctor
from zoo.cli import main
from zoo.data.published import PUBLISHED


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A well machine: versions in bounds, a CPU, room on the disk, no ZOO_DATA."""
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["numpy>=1.26", "jax>=0.10,<0.13"]
    )
    monkeypatch.setattr(doctor, "find_gpus", list)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZOO_DATA", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 0, 2**40))
    return monkeypatch


def run(capsys):
    """Exit code and the words of each line."""
    code = main(["doctor"])
    return code, [line.split() for line in capsys.readouterr().out.splitlines()]


def advice(lines):
    """The lines of advice: '# name: what to do'."""
    return [" ".join(words) for words in lines if words[:1] == ["x"] and ":" in "".join(words[1:3])]


def test_all_is_well(machine, capsys):
    code, lines = run(capsys)
    assert code == 0
    assert lines[-1] == ["all", "is", "well"]
    assert ["numpy", importlib.metadata.version("numpy"), "(tested:", ">=1.26)"] in lines
    assert ["jax", importlib.metadata.version("jax"), "(tested:", ">=0.10,<0.13)"] in lines


def test_versions_out_of_bounds_and_missing_packages(machine, capsys):
    required = ["numpy<1.5,>=1.2", "no-such-thing>=3", 'torch; extra == "test"']
    machine.setattr(importlib.metadata, "requires", lambda _: required)
    code, lines = run(capsys)
    assert code == 3
    version = importlib.metadata.version("numpy")
    assert advice(lines) == [
        f"x numpy: {version} is not >=1.2,<1.5: pip install 'numpy<1.5,>=1.2'",
        "x no-such-thing: pip install 'no-such-thing>=3'",
    ]


def test_not_installed(machine, capsys):
    def missing(_):
        raise importlib.metadata.PackageNotFoundError

    machine.setattr(importlib.metadata, "requires", missing)
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == ["x zoo-jax: pip install -e . in the checkout"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({}, "pip install -e '.[cuda12]'"),
        ({"JAX_PLATFORMS": "cpu"}, "JAX_PLATFORMS=cpu hides it"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_a_gpu_that_jax_does_not_see(machine, capsys, env, message):
    import jax

    if jax.devices()[0].platform == "gpu":
        pytest.skip("jax sees a GPU here")
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        machine.delenv(name, raising=False)
    for name, value in env.items():
        machine.setenv(name, value)
    machine.setattr(importlib.util, "find_spec", lambda _: None)
    machine.setattr(doctor, "find_gpus", lambda: ["NVIDIA H200"])
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == [f"x GPU: jax does not see it and computes on cpu: {message}"]


def test_a_plugin_that_does_not_start(machine, capsys):
    machine.delenv("JAX_PLATFORMS", raising=False)
    machine.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    machine.setattr(importlib.util, "find_spec", lambda _: "found")
    assert "does not start" in doctor._gpu_advice()


def test_jax_without_any_device(machine, capsys):
    import jax

    def devices():
        raise RuntimeError("Unable to initialize backend 'cuda': no driver\nmore")

    machine.setattr(jax, "devices", devices)
    code, lines = run(capsys)
    assert code == 3
    (line,) = advice(lines)
    assert line.startswith("x devices: jax finds no device: Unable to initialize backend 'cuda'")


def test_the_memory_share_of_a_gpu(machine, capsys):
    machine.setattr(doctor, "find_gpus", lambda: ["NVIDIA H200"])
    machine.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    machine.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    _, lines = run(capsys)
    assert "GPU memory a share of 0.5, taken at the start" in [" ".join(words) for words in lines]
    machine.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "50")
    _, lines = run(capsys)
    assert "x GPU memory: XLA_PYTHON_CLIENT_MEM_FRACTION=50 is not in (0, 1]" in advice(lines)


def test_little_disk(machine, capsys, tmp_path):
    machine.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 0, 2**30))
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == [
        "x working folder: only 1.0 GiB are free: make room, or train with --workdir elsewhere",
        "x cache: only 1.0 GiB are free: make room, or set data.cache elsewhere",
    ]
    cache = " ".join(next(words for words in lines if words[:2] == ["x", "cache"]))
    assert cache == f"x cache {tmp_path}/.cache/zoo, 1.0 GiB free"


def test_a_cache_that_cannot_be_written(machine, capsys, tmp_path):
    real = os.access
    machine.setattr(os, "access", lambda path, mode: path != tmp_path and real(path, mode))
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == [f"x cache: {tmp_path} cannot be written to: set data.cache elsewhere"]


def test_published_data(machine, capsys, tmp_path):
    machine.setenv("ZOO_DATA", str(tmp_path / "nowhere"))
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == [
        f"x ZOO_DATA: {tmp_path}/nowhere is no folder: unset ZOO_DATA or correct it"
    ]
    machine.setenv("ZOO_DATA", str(tmp_path))
    code, lines = run(capsys)
    assert code == 0  # no data at all is nobody's mistake
    home, files = PUBLISHED["mnist"]
    assert ["mnist", "not", "there", "(published", "at", f"{home})"] in lines
    # In the dataset's folder or beside it, as the reader takes them.
    first, *others = files
    (tmp_path / first).write_text("")
    (tmp_path / "mnist").mkdir()
    for file in others[1:]:
        (tmp_path / "mnist" / file).write_text("")
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == [f"x mnist: missing {others[0]}, published at {home}"]
    (tmp_path / "mnist" / others[0]).write_text("")
    code, lines = run(capsys)
    assert code == 0
    assert ["mnist", "4", "of", "4", "files"] in lines
    for file in PUBLISHED["cola"][1]:  # in the folder of its collection
        (tmp_path / "glue" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "glue" / file).write_text("")
    assert ["cola", "2", "of", "2", "files"] in run(capsys)[1]


def test_a_check_that_breaks_is_a_finding(machine, capsys):
    def broken():
        raise ImportError("cannot import name 'x' from 'jax'")

    machine.setattr(doctor, "find_gpus", broken)
    code, lines = run(capsys)
    assert code == 3
    assert advice(lines) == ["x devices: ImportError: cannot import name 'x' from 'jax'"]
    assert any(words[:1] == ["ZOO_DATA"] for words in lines)  # the checks after it go on


def test_this_very_machine(capsys):
    """Whatever it finds here, it says in lines and ends in 0 or 3."""
    code, lines = run(capsys)
    assert code == (3 if advice(lines) else 0)
    names = {words[0] for words in lines if words} | {words[1] for words in lines if len(words) > 1}
    assert {"jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"} <= names
    assert main(["doctor", "now"]) == 2
