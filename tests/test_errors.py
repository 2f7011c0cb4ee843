"""A user's mistake is one line on stderr and exit code 2; nothing is written or lost."""

import json

import pytest
from conftest import ROOT, run_command

from zoo.cli import guard, main, train

QUICK = "configs/mlp_digits.py:quick"


def attempt(capsys, *words):
    """Exit code and stderr of `train.py WORDS...`, run in this process."""
    code = guard(train, list(words))
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--config", QUICK, "--config.optim.learning_rat=1"],
            "did you mean 'optim.learning_rate'",
        ),
        (["--config", QUICK, "--config.train.num_steps=many"], "train.num_steps='many' is not int"),
        (["--config", QUICK, "--config.model.arguments.withs=(3,)"], "did you mean 'widths'"),
        (
            ["--config", "configs/vit_digits.py:quick", "--config.model.name=vit_ti3"],
            "image 8x8 is not divisible by patch 3x3 (nearest image: 9x9)",
        ),
        (["--config", QUICK, "--config.data.source=embedded:digts"], "did you mean 'digits'"),
        (["--config", QUICK, "--config.data.source=tfds:no_such"], "TFDS has no dataset 'no_such'"),
        (["--config", "configs/nothing.py"], "no recipe 'configs/nothing.py'"),
        (["--config", "configs/mlp_digits.py:quik"], "did you mean 'quick'"),
        (
            ["--config", QUICK, "--config.parallel.fsdp=3"],
            "fsdp=3 does not fit 1 device ",
        ),
        (["--config", QUICK, "--config.optim.num_microbatches=3"], "not divisible"),
        (
            ["--config", QUICK, "--config.data.eval_transform=normalise"],
            "data.eval_transform: no operation 'normalise' (did you mean 'normalize'?)",
        ),
        (["--config", QUICK, "--config.task.name=regression"], "has 10 classes"),
        (["--config", QUICK, "--config.train.eval_every_steps=2"], "set data.validation_fraction"),
        (
            ["--config", QUICK, "--config.init_from=/nowhere"],
            "'/nowhere': there is no /nowhere",
        ),
        (["--config", QUICK, "--config.model.scan_layers=True"], "mlp has no such field"),
        (["--config", QUICK, "--config.optim.decay_pattern=krnl"], "'krnl' matches no parameter"),
    ],
)
def test_one_line(tmp_path, capsys, words, message):
    code, err = attempt(
        capsys, *words, "--workdir", str(tmp_path / "run"), "--config.log.progress=False"
    )
    assert code == 2, err
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_flags(capsys):
    for words, message in [
        (["--config", QUICK], "--workdir is missing"),
        (["--workdir", "x"], "--config is missing"),
        (["--config", QUICK, "--wrkdir", "x"], "did you mean '--workdir'"),
    ]:
        assert attempt(capsys, *words)[0] == 2
        _code, err = attempt(capsys, *words)
        assert message in err


def test_a_missing_file_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    code, err = attempt(
        capsys, "--config", "configs/mlp_mnist.py", "--workdir", str(tmp_path / "run")
    )
    assert code == 2
    assert "missing file" in err
    assert "sha256" in err
    assert err.count("\n") == 1


def test_an_unwritable_workdir(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, err = attempt(capsys, "--config", QUICK, "--workdir", str(tmp_path / "file" / "run"))
    assert code == 2
    assert "cannot write to workdir" in err
    assert err.count("\n") == 1


def test_a_workdir_of_another_config_is_refused_and_kept(tmp_path, capsys):
    workdir = str(tmp_path / "run")
    silent = ["--config", QUICK, "--workdir", workdir, "--config.log.progress=False"]
    assert attempt(capsys, *silent)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    for change, message in [
        ("--config.optim.learning_rate=0.5", "optim.learning_rate was 0.002, now 0.5"),
        ("--config.model.arguments.dropout=0.5", "model.arguments"),
        ("--config.seed=1", "seed was 0, now 1"),
        ("--config.train.batch_size=16", "train.batch_size was 8, now 16"),
        ("--config.train.num_steps=6", "--config.checkpoint.extend=True"),
        ("--config.train.num_steps=3", "train.num_steps was 4, now 3"),
    ]:
        code, err = attempt(capsys, *silent, change)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    # What does not decide the arithmetic may change.
    free = [
        "--config.log.every_steps=1",
        "--config.checkpoint.keep_last=5",
        "--config.data.prefetch=1",
    ]
    assert attempt(capsys, *silent, *free)[0] == 0


def test_help_fits_one_screen_and_starts_without_jax():
    done = run_command("-X", "importtime", "train.py", "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert " jax\n" not in done.stderr


def test_a_wrong_key_is_told_before_jax_is_imported():
    done = run_command(
        "-X", "importtime", "train.py", "--config", QUICK, "--config.sed=1", "--workdir", "x"
    )
    assert done.returncode == 2
    assert "did you mean 'seed'" in done.stderr
    assert " jax\n" not in done.stderr


def test_zoo_config_and_verbs(capsys):
    assert main(["config", "configs/vit_digits.py:quick", "--config.seed=3"]) == 0
    out = capsys.readouterr().out
    assert "* seed = 3\n      int, default 0" in out
    assert main(["confg"]) == 2
    assert "did you mean 'config'" in capsys.readouterr().err
    assert main([]) == 0


def test_non_finite_loss_is_exit_70(tmp_path, capsys):
    words = [
        "--config", "configs/mlp_diabetes.py", "--workdir", str(tmp_path / "run"),
        "--config.optim.name=sgd", "--config.optim.learning_rate=1e6",
        "--config.optim.weight_decay=0",
        "--config.model.arguments.activation=relu", "--config.model.arguments.dropout=0",
        "--config.checkpoint.every_steps=1", "--config.train.steps_per_call=1",
        "--config.log.progress=False", "--config.log.every_steps=1",
    ]  # fmt: skip
    code, err = attempt(capsys, *words)
    assert code == 70
    assert err.count("\n") == 1
    step = int(err.split("at step ")[1].split(";")[0])
    saved = sorted(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert f"the last good checkpoint is step {saved[-1]}" in err
    assert saved[-1] == step - 1
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["loss"] is not None


def test_a_relative_workdir_as_in_the_readme(tmp_path, capsys, monkeypatch):
    recipe = str(ROOT / QUICK)
    monkeypatch.chdir(tmp_path)
    words = ["--config", recipe, "--workdir", "runs/mlp", "--config.log.progress=False"]
    for _ in range(2):  # a run, and the same command again
        assert attempt(capsys, *words) == (0, "")
    assert (tmp_path / "runs/mlp/checkpoints/00000004/manifest.json").exists()
