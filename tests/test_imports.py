"""What the first lines of a program cost: `import zoo` and a model import no trainer, no plots."""

import json

import pytest
from conftest import run_command

# Each is used somewhere in zoo or by a dependency, and none is needed to make a model.
HEAVY = {
    "matplotlib", "sklearn", "scipy", "pandas", "mlxtend", "PIL", "pydantic", "orbax",
    "tensorstore", "grain", "tensorflow", "tensorflow_datasets", "tensorboardX", "wandb", "torch",
    "transformers", "tokenizers", "IPython",
}  # fmt: skip


def imported(code):
    """Top-level modules in `sys.modules` after running the code in a fresh Python."""
    show = "import json, sys; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    done = run_command("-c", f"{code}\n{show}")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_zoo_imports_next_to_nothing():
    found = imported("import zoo; dir(zoo); zoo.__version__")
    assert not found & {*HEAVY, "jax", "flax", "numpy", "rich"}


def test_models_need_jax_and_flax_alone():
    found = imported(
        "import zoo\n"
        "model = zoo.create_model('vit_b16')\n"
        "zoo.list_models('vit*'), zoo.init_params, model.input_specs(1)"
    )
    assert {"jax", "flax"} <= found
    assert not found & HEAVY


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["config", "--help"],
        ["list", "--help"],
        ["info", "--help"],
        ["eval", "--help"],
        ["predict", "--help"],
        ["embed", "--help"],
        ["fill", "--help"],
        ["generate", "--help"],
        ["runs", "--help"],
        ["doctor", "--help"],
        ["explain", "--help"],
    ],
)
def test_help_fits_a_screen_and_imports_next_to_nothing(words):
    code = f"import sys; from zoo.cli import main; assert main({words!r}) == 0; sys.stdout.flush()"
    assert not imported(code) & {*HEAVY, "jax", "flax", "numpy", "rich"}
    lines = run_command("-m", "zoo", *words).stdout.splitlines()
    assert 1 < len(lines) <= 24
    assert max(map(len, lines)) <= 100
