import dataclasses
from dataclasses import dataclass

import pytest
from conftest import run_command
from hypothesis import given
from hypothesis import strategies as st

from zoo.config import (
    Config,
    OptimConfig,
    UserError,
    load_recipe,
    make_config,
    parse_command,
    parse_options,
    set_values,
    show_config,
    to_dict,
)
from zoo.config.checks import check_config
from zoo.config.parse import key_paths
from zoo.config.show import deciding, flatten, rows


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    inner: Inner | None = None
    name: str | None = None


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("optim.learning_rate", "3e-4", 3e-4),
        ("optim.learning_rate", "1", 1.0),  # an int for a float
        ("train.num_steps", "1e3", 1000),
        ("optim.clip_norm", "None", None),
        ("optim.clip_norm", "1.5", 1.5),
        ("model.remat", "full", "full"),
        ("model.scan_layers", "true", True),
        ("model.arguments.widths", "(10, 20)", (10, 20)),
        ("model.arguments.widths", "10,20", (10, 20)),
        ("model.arguments.activation", "tanh", "tanh"),
        ("log.profile_steps", "3,5", (3, 5)),
        ("data.fold", "(1, 5)", (1, 5)),
        ("data.folder", "1", "1"),  # text stays text
        ("seed", "7", 7),
        ("parallel.rules", "(('head', ('fsdp', None)),)", (("head", ("fsdp", None)),)),
    ],
)
def test_command_line_values_take_the_declared_type(path, text, value):
    got = set_values(Config(), {path: text})
    for part in path.split("."):
        got = got[part] if isinstance(got, dict) else getattr(got, part)
    assert got == value
    assert type(got) is type(value)


def test_an_absent_group_is_made():
    assert set_values(Outer(), {"inner.rate": "1"}) == Outer(Inner(1.0))
    assert set_values(Outer(name="x"), {"name": "None"}).name is None


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("optim.learning_rat", "1", "did you mean 'optim.learning_rate'"),
        ("learning_rate", "1", "did you mean 'optim.learning_rate'"),
        ("optim.learning_rate", "fast", "is not float"),
        ("train.num_steps", "1.5", "is not int"),
        ("train.metrics", "f1_macro", r"did you mean \('f1_macro',\)"),
        ("train.num_steps", "true", "is not int"),
        ("model.remat", "ful", "did you mean 'full'"),
        ("optim", "adam", "is a group"),
        ("seed.x", "1", "no config key 'seed.x'"),
        ("data.fold", "1,2,3", "data.fold"),
    ],
)
def test_wrong_keys_and_types(path, text, message):
    with pytest.raises(UserError, match=message):
        set_values(Config(), {path: text})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.batch_size": "10", "optim.num_microbatches": "4"}, "nearest: 8 or 12"),
        ({"train.batch_size": "0"}, "train.batch_size=0"),
        ({"train.batch_size": "-3"}, "at least 1"),
        ({"optim.learning_rate": "nan"}, "learning_rate"),
        ({"optim.warmup_steps": "2000"}, "warmup_steps=2000 is more than"),
        ({"parallel.fsdp": "-1"}, "only one axis may be -1"),
        ({"data.fold": "5,5"}, "0 <= i < n"),
        ({"data.fold": "0,1"}, "n at least 2"),
        ({"log.profile_steps": "5,3"}, "0 <= a < b"),
        ({"checkpoint.best_metric": "val/accuracy"}, "needs train.eval_every_steps"),
        ({"checkpoint.best_metric": "test/accuracy"}, "validation split .*mean 'val/accuracy'"),
        ({"optim.ema_decay": "1.5"}, "ema_decay"),
    ],
)
def test_impossible_combinations(values, message):
    with pytest.raises(UserError, match=message):
        check_config(set_values(Config(), values))


@given(
    rate=st.floats(0, 1e6, allow_nan=False),
    steps=st.integers(1, 10**9),
    name=st.text(st.characters(codec="ascii", exclude_characters="\\"), max_size=20).filter(
        lambda s: s != "None"
    ),
    fold=st.none() | st.tuples(st.integers(0, 3), st.integers(4, 9)),
)
def test_any_value_survives_the_command_line(rate, steps, name, fold):
    values = {
        "optim.learning_rate": repr(rate),
        "train.num_steps": repr(steps),
        "data.source": name,
        "data.fold": repr(fold),
    }
    config = set_values(Config(), values)
    assert config.optim.learning_rate == rate
    assert config.train.num_steps == steps
    assert config.data.source == name
    assert config.data.fold == fold


def write_recipe(folder, body):
    path = folder / "recipe.py"
    path.write_text("from zoo.config import *\n\ndef get_config(argument=''):\n" + body)
    return str(path)


def test_a_recipe_is_loaded_with_its_argument(tmp_path):
    path = write_recipe(
        tmp_path,
        "    small = 'small' in parse_options(argument, 'small', 'quick')\n"
        "    return Config(train=TrainConfig(num_steps=1 if small else 2))\n",
    )
    assert load_recipe(path).train.num_steps == 2
    assert make_config(f"{path}:small,quick", {}).train.num_steps == 1
    with pytest.raises(UserError, match="did you mean 'small'"):
        load_recipe(f"{path}:smal")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return 3\n", "returned a int"),
        (
            "    return Config(optim=OptimConfig(learning_rate='0.1'))\n",
            "learning_rate='0.1' is not float",
        ),
        ("    return Config(model=ModelConfig(remat='some'))\n", "remat"),
        (
            "    return Config(train=TrainConfig(batch_size=1.5))\n",
            "train.batch_size=1.5 is not int",
        ),
    ],
)
def test_recipes_are_checked_too(tmp_path, body, message):
    # In a process of its own: in this one beartype looks at every dataclass before we do.
    done = run_command("-m", "zoo", "config", write_recipe(tmp_path, body))
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_recipe_names_the_nearest():
    with pytest.raises(UserError, match=r"configs/mlp_digits\.py"):
        load_recipe("configs/mlp_digit.py")


def test_options_are_strict():
    assert parse_options("small, quick", "small", "quick") == {"small", "quick"}
    assert parse_options("", "quick") == set()
    with pytest.raises(UserError, match="did you mean 'quick'"):
        parse_options("quik", "quick")


def test_command_words():
    words = ["--config", "a.py:quick", "--config.seed=3", "--workdir", "x"]
    assert parse_command(words, ["workdir"]) == {
        "config": "a.py:quick",
        "config.seed": "3",
        "workdir": "x",
    }
    for words, message in [
        (["--wrkdir=x"], "did you mean '--workdir'"),
        (["stray"], "unknown argument 'stray'"),
        (["--workdir"], "needs a value"),
        (["--workdir=a", "--workdir=b"], "twice"),
    ]:
        with pytest.raises(UserError, match=message):
            parse_command(words, ["workdir"])


def test_every_key_has_a_meaning_and_show_marks_changes():
    config = Config(optim=OptimConfig(learning_rate=0.5))
    assert [row.path for row in rows(config)] == list(key_paths(Config))
    assert all(row.meaning for row in rows(config))
    text = show_config(config)
    assert "* optim.learning_rate = 0.5\n      float, default 0.001: peak learning rate" in text
    assert "  optim.name = 'adamw'" in text


def test_what_decides_the_arithmetic():
    keys = set(deciding(Config()))
    assert {"model.name", "seed", "train.batch_size", "train.num_steps", "init_from"} <= keys
    free = (
        "log.",
        "checkpoint.",
        "parallel.",
        "data.folder",
        "data.num_workers",
        "train.steps_per_call",
    )
    assert not [k for k in keys if k.startswith(free)]
    assert flatten(to_dict(Config())).keys() == {row.path for row in rows(Config())}


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3
