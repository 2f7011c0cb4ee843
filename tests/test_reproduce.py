"""`zoo reproduce` on a toy recipe: the row, the verdict, and what is refused at once."""

import pytest

from zoo.cli import main
from zoo.config import Expected

TOY = """
import dataclasses
from zoo.config import Config, DataConfig, Expected, LogConfig, ModelConfig, TrainConfig

EXPECTED = {%s}


def get_config(argument=""):
    return Config(
        model=ModelConfig("mlp", {"widths": (8,)}),
        data=DataConfig("synthetic:embedded:digits", transform="normalize(0.5, 0.5)"),
        train=TrainConfig(batch_size=8, num_steps=2),
        log=LogConfig(every_steps=2, progress=False, tensorboard=False, picture=False),
    )
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(expected: str) -> None:
        (tmp_path / "toy.py").write_text(TOY % expected)

    return write


def test_reached_and_not_reached(toy, tmp_path, capsys):
    toy('"": Expected("test/accuracy", 0.1, 1.0)')
    assert main(["reproduce", "toy.py"]) == 0
    first = (tmp_path / "RESULTS.md").read_bytes()
    *_, heads, _, row = first.decode().splitlines()
    cells = dict(zip(heads.split(" | "), row.split(" | "), strict=True))
    assert cells["verdict"] == "reached"
    assert cells["stated"] == "0.1"
    assert 0 <= float(cells["result"]) <= 1
    assert "jax" in cells["versions"]
    assert (tmp_path / "runs/reproduce/toy/metrics.jsonl").exists()

    toy('"": Expected("test/loss", 0.001, 0.0001, lower_is_better=True)')
    assert main(["reproduce", "toy.py"]) == 3
    second = (tmp_path / "RESULTS.md").read_bytes()
    assert second.startswith(first)
    assert b"| not reached | " in second.removeprefix(first)
    assert b" from step 2 |" in second.removeprefix(first)

    toy('"": Expected("test/acuracy", 0.1, 1.0)')
    assert main(["reproduce", "toy.py"]) == 2
    assert "not measured (did you mean 'test/accuracy'?)" in capsys.readouterr().err
    assert (tmp_path / "RESULTS.md").read_bytes() == second
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("expected", "words", "told"),
    [
        ("", [], "states no number to compare with"),
        ('"1k": Expected("test/accuracy", 1.0, 0.1)', [], "did you mean 'toy.py:1k'?"),
        ('"": ("test/accuracy", 1)', [], "EXPECTED is no dict"),
        (
            '"": Expected("test/accuracy", 1.0, 0.1)',
            ["--config.train.num_steps=3"],
            "another recipe",
        ),
        ('"": Expected("test/accuracy", 1.0, 0.1)', ["--results=no/R.md"], "no folder"),
        (
            '"": Expected("test/accuracy", 1.0, 0.1)',
            ["--results=people.md"],
            "does not end in a table",
        ),
        ('"": Expected("test/accuracy", 1.0, 0.1)', ["--results=."], "cannot read"),
    ],
)
def test_mistakes_are_told_before_anything_runs(toy, tmp_path, capsys, expected, words, told):
    toy(expected)
    (tmp_path / "people.md").write_text("# Our results\n")
    assert main(["reproduce", "toy.py", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "people.md").read_text() == "# Our results\n"


def test_worse_by_the_tolerance_is_still_reached():
    high, low = Expected("a", 0.9, 0.01), Expected("a", 2.0, 0.1, lower_is_better=True)
    told = [True, True, False, False]
    assert [high.is_reached(x) for x in (0.95, 0.89, 0.88, float("nan"))] == told
    assert [low.is_reached(x) for x in (1.0, 2.1, 2.2, float("nan"))] == told
