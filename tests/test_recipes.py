"""Every recipe runs with `:quick`, offline, and its full form is a valid config."""

import pathlib

import jax
import pytest

import zoo
from zoo.config import load_expected, load_recipe, make_config
from zoo.config.parse import load_module

RECIPES = sorted(pathlib.Path("configs").glob("*.py"))


# bfloat16 at 224 pixels: minutes on a CPU.
LONG = "vit_s16_imagenet"
QUICK = [
    pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem == LONG else []) for p in RECIPES
]


@pytest.mark.parametrize("path", QUICK)
def test_quick(path, tmp_path):
    config = make_config(f"{path}:quick", {"log.progress": "False", "log.tensorboard": "False"})
    result = zoo.fit(config, tmp_path)
    shown = result.metrics.get("test") or result.metrics["val"]
    assert shown["loss"] > 0
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert make_config(str(path), {}).train.num_steps > config.train.num_steps


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_number_it_states_is_in_its_docstring(path):
    _, module, _ = load_module(str(path))
    for options, expected in getattr(module, "EXPECTED", {}).items():
        assert load_expected(f"{path}:{options}") == expected
        assert load_recipe(f"{path}:{options}").train.num_steps
        assert f"{expected.value:.10g}" in module.__doc__
        assert expected.tolerance > 0


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_its_docstring_gives_the_command(path):
    text = path.read_text()
    assert f"python train.py --config configs/{path.name}" in text.split('"""')[1]


@pytest.mark.slow
def test_imagenet_at_full_size_compiles():
    """The full-size step, batch and all, is compiled; nothing is executed."""
    from zoo.train.build import build

    config = make_config(
        "configs/vit_s16_imagenet.py", {"data.source": "synthetic:tfds:imagenet2012"}
    )
    programs = build(config).programs
    assert programs.batch_shapes["image"].shape == (1024, 224, 224, 3)
    compiled = programs.train_program(config.train.steps_per_call)
    assert compiled.memory_analysis().temp_size_in_bytes > 2**30
    params = jax.tree.leaves(programs.abstract_state.params)
    assert (
        sum(x.size for x in params) == 22_050_664 - 384 - 197 * 384
    )  # no class token, fixed positions
