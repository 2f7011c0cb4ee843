"""Weights & Biases, by a stand-in for its package: no network, no account."""

import dataclasses
import sys
import types

import jax
import pytest
from conftest import small_config
from etils import epath

import zoo
from zoo.config import CheckpointConfig, LogConfig, TrainConfig, UserError
from zoo.train import NonFiniteLoss, read_rows
from zoo.train.hooks import Writers
from zoo.train.wandb_writer import require_wandb


class FakeRun:
    """What W&B keeps of a run: the rows, and that steps only go forwards."""

    def __init__(self, options):
        self.options, self.rows, self.exit_code = options, {}, None
        self.starting_step = 0

    def log(self, values, step):
        assert step >= max(self.rows, default=0), "W&B drops rows of earlier steps"
        self.rows.setdefault(step, {}).update(values)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def runs(monkeypatch):
    """All calls of `wandb.init` by run id; a known id goes on where it was."""
    found: dict[str, FakeRun] = {}

    def init(**options):
        run = found.setdefault(options["id"], FakeRun(options))
        run.options = options
        run.starting_step = max(run.rows) + 1 if run.rows else 0
        return run

    module = types.ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def config(**groups):
    log = LogConfig(
        every_steps=2, progress=False, tensorboard=False, picture=False, wandb="zoo-tests"
    )
    return small_config(log=log, **groups)


def test_rows_config_and_name_arrive(tmp_path, runs):
    zoo.fit(config(), tmp_path / "mlp")
    (run,) = runs.values()
    assert run.options["project"] == "zoo-tests"
    assert run.options["name"] == "mlp"
    assert run.options["resume"] == "allow"
    assert run.options["dir"] == str(tmp_path / "mlp")
    assert run.options["config"]["train"]["num_steps"] == 6
    assert run.exit_code == 0
    assert sorted(run.rows) == [2, 4, 6]
    for row in read_rows(tmp_path / "mlp"):
        assert run.rows[row["step"]][f"{row['split']}/loss"] == row["loss"]
    assert run.rows[6]["timing/steps_per_second"] > 0


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path, runs):
    steps = TrainConfig(batch_size=16, num_steps=6, eval_batch_size=16)
    short = dataclasses.replace(steps, num_steps=4)
    grow = CheckpointConfig(every_steps=2, extend=True)
    zoo.fit(config(train=short, checkpoint=grow), tmp_path)
    zoo.fit(config(train=steps, checkpoint=grow), tmp_path)
    (run,) = runs.values()
    assert sorted(run.rows) == [2, 4, 6]
    assert (tmp_path / "wandb_id").read_text() in runs


def test_rows_that_are_repeated_after_a_kill_are_not_sent_again(tmp_path, runs):
    folder = epath.Path(tmp_path)
    before = Writers(folder, config())
    for step in (2, 4, 6):
        before.write(step, "train", {"loss": float(step)})
    after = Writers(folder, config())  # from a checkpoint at step 2
    for step in (4, 6, 8):
        after.write(step, "train", {"loss": float(step)})
    (run,) = runs.values()
    assert run.rows == {step: {"train/loss": float(step)} for step in (2, 4, 6, 8)}
    (folder / "another").mkdir()
    Writers(folder / "another", config())
    assert len(runs) == 2


def test_a_failed_run_is_marked(tmp_path, runs):
    optim = dataclasses.replace(config().optim, name="sgd", learning_rate=1e30)
    with pytest.raises(NonFiniteLoss):
        zoo.fit(config(optim=optim), tmp_path)
    assert [run.exit_code for run in runs.values()] == [1]


def test_only_the_first_process_writes(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    Writers(epath.Path(tmp_path), config()).write(2, "train", {"loss": 1.0})
    assert not runs


def test_a_missing_package_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    advice = r"pip install -e '\.\[wandb\]'"
    monkeypatch.setitem(sys.modules, "wandb", None)  # what `import` finds where there is none
    with pytest.raises(UserError, match=advice):
        zoo.fit(config(), tmp_path / "run")
    # The folder ./wandb of an earlier run is imported as an empty package.
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    with pytest.raises(UserError, match=advice):
        zoo.fit(config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_refusal_is_one_line(tmp_path, runs, monkeypatch):
    def init(**_):
        raise RuntimeError("api_key not configured\nsee the docs")

    sys.modules["wandb"].init = init
    with pytest.raises(UserError, match=r"^log\.wandb='zoo-tests': api_key not configured$"):
        zoo.fit(config(), tmp_path)
    assert not read_rows(tmp_path)


def test_without_a_workdir_there_is_no_id(runs):
    with pytest.raises(UserError, match=r"log\.wandb needs a workdir"):
        zoo.fit(config())


def test_it_is_imported_only_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    quiet = dataclasses.replace(config(), log=LogConfig(tensorboard=False))
    require_wandb(quiet, None)
    Writers(epath.Path(tmp_path), quiet).close()
    assert not (tmp_path / "wandb_id").exists()
