"""Real jobs of several processes: equal to one process; hosts lost and stopped; bad commands."""

import json

import pytest

from zoo.cli import main
from zoo.rehearse import choose_flags, rehearse

DIGITS = "configs/vit_digits.py"


@pytest.mark.slow
def test_two_processes_that_share_parameters_and_products(tmp_path):
    """Rows that both processes hold (over `context`), parameters that neither holds whole."""
    told = []
    mesh = {"parallel.data": "1", "parallel.fsdp": "2", "parallel.context": "2"}
    assert rehearse(DIGITS, mesh, 2, 2, False, str(tmp_path / "runs"), told.append), told
    assert "equal to one process in 21 of 21 rows" in told[-1]


@pytest.mark.slow
def test_four_processes_then_two_then_one(tmp_path):
    told = []
    assert rehearse(DIGITS, {}, 4, 2, True, str(tmp_path / "runs"), told.append), told
    assert "process 3 killed" in told[3]
    assert "exit codes [75, 75], SIGTERM: saved step" in told[4]
    assert "equal to one process in 41 of 41 rows" in told[-1]
    versions = json.loads((tmp_path / "runs" / "killed" / "versions.json").read_text())
    assert versions["devices"].startswith("2 x")  # the last start's


def test_the_size_of_a_rehearsal():
    flags = choose_flags(f"{DIGITS}:quick", {"train.num_steps": "7", "seed": "3"}, 6, 20)
    assert flags["train.batch_size"] == "12"  # the recipe's 8, for 6 devices
    assert flags["train.num_steps"] == "7"
    assert flags["seed"] == "3"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--processes=3"], "--config is missing"),
        ([f"--config={DIGITS}", "--processes=1"], "--processes=1 must be a whole number of at"),
        ([f"--config={DIGITS}", "--devices-per-process=x"], "--devices-per-process=x must be"),
        ([f"--config={DIGITS}", "--kil"], "did you mean '--kill'"),
        ([f"--config={DIGITS}", "--kill=2"], "--kill takes no value"),
        ([f"--config={DIGITS}x"], "no recipe"),
    ],
)
def test_mistakes(words, line, capsys):
    assert main(["rehearse", *words]) == 2
    assert line in capsys.readouterr().err


def test_a_folder_in_use(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["rehearse", f"--config={DIGITS}", f"--workdir={tmp_path}"]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mesh_that_does_not_fit_is_one_line(capsys):
    assert main(["rehearse", f"--config={DIGITS}", "--config.parallel.fsdp=3"]) == 2
    assert "does not fit 2 devices" in capsys.readouterr().err
