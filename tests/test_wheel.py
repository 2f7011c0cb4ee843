"""The wheel: what is in it, and that it works outside the checkout."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


def run(*words, cwd, path=""):
    """Runs Python and returns its output; `path` comes before what is installed."""
    env = {**os.environ, "PYTHONPATH": str(path), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built of a copy: a build in the checkout would leave folders there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("zoo", "tests", "configs", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "dist"), "."]
    if has_setuptools():
        words.append("--no-build-isolation")
    run(*words, cwd=source)
    (built,) = (folder / "dist").glob("zoo_jax-*.whl")
    return built


def has_setuptools():
    """Can the wheel be built without fetching the build backend?"""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


def test_contents(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "zoo/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"zoo", f"zoo_jax-{importlib.metadata.version('zoo-jax')}.dist-info"}
    # Every module of the checkout is there, whatever folder it was added in.
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "zoo").rglob("*.py")}
    assert modules <= set(names)


def test_it_works_outside_the_checkout(wheel, tmp_path):
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    # The dependencies are those already installed; of zoo, what is in `site` is found first.
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site)]
    run(*install, str(wheel), cwd=away)
    where = run("-c", "import zoo; print(zoo.__file__)", cwd=away, path=site)
    assert where.strip() == str(site / "zoo" / "__init__.py")
    script = str(site / "bin" / "zoo")
    names = [line.split()[0] for line in run(script, "list", cwd=away, path=site).splitlines()]
    assert {"mlp", "vit_b16"} <= set(names)
    info = run(script, "info", "vit_ti16", cwd=away, path=site)
    assert "5,717,416" in info  # DeiT-Ti (Touvron et al. 2021)
    recipe = shutil.copy(ROOT / "configs" / "mlp_digits.py", away)
    run("-m", "zoo", "train", f"--config={recipe}:quick", "--workdir=run", cwd=away, path=site)
    assert (away / "run" / "metrics.jsonl").exists()
