"""Several seeds in one step against their single runs."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from conftest import SMALL_VIT, small_config
from scipy import stats

import zoo
from zoo.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimConfig,
    TaskConfig,
    TrainConfig,
    UserError,
)
from zoo.parallel import place_batch
from zoo.train import NonFiniteLoss, read_rows
from zoo.train.build import build
from zoo.train.seeds import measure_spread
from zoo.tree import named_leaves

MLP = ModelConfig("mlp", {"widths": (16,), "dropout": 0.3})
FIRST, SEEDS = 5, 3


def seeds_config(num_seeds: int = SEEDS, **groups) -> Config:
    steps = groups.pop("num_steps", 50)
    train = TrainConfig(
        batch_size=16,
        num_steps=steps,
        steps_per_call=10,
        eval_every_steps=20,
        eval_batch_size=32,
        num_seeds=num_seeds,
    )
    data = DataConfig(
        "synthetic:embedded:digits",
        transform="shift(1)|normalize(0.5, 0.5)",
        validation_fraction=0.2,
    )
    log = LogConfig(every_steps=1, progress=False, tensorboard=False, picture=False)
    made = small_config(**{"model": MLP, "data": data, "log": log, **groups, "train": train})
    return dataclasses.replace(made, seed=FIRST)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "run"
    log = LogConfig(every_steps=1, progress=False, tensorboard=False)
    return folder, zoo.fit(seeds_config(log=log), folder)


def check_against_single_runs(config: Config, rows: list[dict], seeds=range(SEEDS)) -> None:
    """Each seed's loss of every step and split is that of its own run to 1e-4."""
    for index in seeds:
        train = dataclasses.replace(config.train, num_seeds=1)
        alone = zoo.fit(dataclasses.replace(config, train=train, seed=FIRST + index)).history
        assert len(alone) == len(rows)
        for mine, one in zip(rows, alone, strict=True):
            assert (mine["step"], mine["split"]) == (one["step"], one["split"])
            spread = mine["seeds"]["loss"]
            assert spread["values"][index] == pytest.approx(one["loss"], abs=1e-4)


def test_every_seed_follows_its_single_run(several):
    check_against_single_runs(seeds_config(), several[1].history)
    first = several[1].history[0]["seeds"]["loss"]["values"]
    assert len({round(value, 3) for value in first}) == SEEDS


@pytest.mark.slow
def test_a_vit_with_everything_follows_its_single_runs():
    config = seeds_config(
        model=ModelConfig("vit_ti4", {**SMALL_VIT, "dropout": 0.1, "stochastic_depth": 0.1}),
        optim=OptimConfig("adamw", 1e-3, ema_decay=0.9, num_microbatches=2, clip_norm=1.0),
    )
    check_against_single_runs(config, zoo.fit(config).history, [0, 2])


@pytest.mark.slow
def test_companions_follow_each_seed_of_their_own():
    """A teacher of self-distillation begins and follows as in a single run."""
    task = {"prototypes": 16, "hidden": 16, "bottleneck": 8, "local_views": 1, "momentum": 0.9}
    config = seeds_config(
        model=ModelConfig("vit_ti4", {**SMALL_VIT, "depth": 1}),
        task=TaskConfig("self_distillation", {**task, "local_size": 4}),
        optim=OptimConfig("adamw", 1e-3, clip_norm=1.0),
    )
    check_against_single_runs(config, zoo.fit(config).history, [1])


@pytest.mark.slow
def test_corrections_begin_anew_in_each_seed(tmp_path):
    """LoRA: one source, frozen in all of them."""
    model = ModelConfig("vit_ti4", {**SMALL_VIT, "depth": 1})
    zoo.fit(seeds_config(1, model=model, num_steps=20), tmp_path / "source")
    lora = {"rank": 2, "dropout": 0.1}
    model = ModelConfig("pretrained", lora=lora)
    config = seeds_config(model=model, optim=OptimConfig("adam", 1e-2))
    config = dataclasses.replace(config, init_from=str(tmp_path / "source"))
    check_against_single_runs(config, zoo.fit(config).history, [1, 2])


def test_rows_and_result_tell_mean_deviation_and_interval(several):
    folder, result = several
    for row in read_rows(folder):
        for name, spread in row["seeds"].items():
            values = np.array(spread["values"])
            assert row[name] == pytest.approx(values.mean(), rel=1e-12)
            assert spread["deviation"] == pytest.approx(values.std(ddof=1), abs=1e-12)
    values = result.spreads["test"]["loss"].values
    low, high = stats.t.interval(0.95, SEEDS - 1, np.mean(values), stats.sem(values))
    spread = result.spreads["test"]["loss"]
    assert (spread.low, spread.high) == pytest.approx((low, high), rel=1e-9)
    assert result.metrics["test"]["loss"] == spread.mean
    assert "seeds" not in result.metrics["train"]
    assert (folder / "curves.png").stat().st_size > 1000


def test_what_is_not_finite_has_no_interval():
    assert np.isnan(measure_spread([1.0, float("nan")]).mean)
    assert measure_spread([2.0, 2.0, 2.0]).deviation == 0


def test_a_run_is_read_as_its_first_seed_or_the_one_named(several):
    folder, result = several
    for place, index in ((folder, 0), (f"{folder}#5", 0), (f"{folder}#7", 2)):
        outcome = zoo.evaluate(place, data="synthetic:embedded:digits", split="test")
        found = outcome.metrics["loss"]
        found = getattr(found, "value", found)
        assert found == result.spreads["test"]["loss"].values[index]
    with pytest.raises(UserError, match=r"no seed '8': it trained seeds 5 to 7"):
        zoo.load_pretrained(f"{folder}#8")
    with pytest.raises(UserError, match=r"no seed 'last'"):
        zoo.load_pretrained(f"{folder}#last")


@pytest.mark.slow
def test_a_resumed_run_ends_in_the_same_bits(several, tmp_path):
    config = seeds_config(checkpoint=CheckpointConfig(every_steps=20))
    whole = zoo.fit(config, tmp_path / "whole")
    half = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=20))
    parts = build(half)
    assert parts.programs.abstract_state.first_bad_step.shape == (SEEDS,)
    zoo.fit(config, tmp_path / "cut")
    for step in (40, 50):
        folder = tmp_path / "cut" / "checkpoints" / f"{step:08d}"
        if folder.exists():
            (folder / "manifest.json").unlink()
    again = zoo.fit(config, tmp_path / "cut")
    for path, leaf in named_leaves(whole.params).items():
        np.testing.assert_array_equal(leaf, named_leaves(again.params)[path], err_msg=path)
    assert whole.spreads == again.spreads
    assert read_rows(tmp_path / "cut") == read_rows(tmp_path / "whole")


def test_a_seed_whose_loss_is_not_finite_is_named():
    parts = build(seeds_config(num_steps=10))
    programs = parts.programs
    from zoo.train.loop import Loop
    from zoo.train.progress import Progress

    block = parts.stream[0]
    block["image"][3:, 1] = np.nan
    placed = place_batch(block, programs.blocks_sharding)
    _, report = programs.train(programs.init_state(), placed, 10)
    assert np.asarray(report["first_bad_step"]).tolist() == [-1, 4, -1]
    loop = Loop(parts, None, Progress(10, 16, 1.0, show=False))
    with pytest.raises(NonFiniteLoss, match="the loss of seed 6 is not finite at step 4"):
        loop._look_at(10, report)


def test_one_seed_is_the_program_of_a_plain_step():
    """No seed axis, no mapped step: the key is made inside, as it always was."""
    programs = build(seeds_config(1)).programs
    text = str(jax.make_jaxpr(programs._train_step)(
        programs.abstract_state,
        {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in programs.batch_shapes.items()},
    ))  # fmt: skip
    assert "random_seed" in text
    assert all(x.shape[:1] != (1,) for x in jax.tree.leaves(programs.abstract_state.params))


def test_buckets_of_lengths_are_refused():
    data = DataConfig("synthetic:embedded:stdlib", length=32, buckets=(16, 32))
    with pytest.raises(UserError, match=r"data\.buckets needs train\.num_seeds=1, not 3"):
        zoo.fit(dataclasses.replace(seeds_config(), data=data))


def test_rows_stay_json(several):
    for line in (several[0] / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert set(row["seeds"]) == set(row) - {"step", "split", "seeds"}
