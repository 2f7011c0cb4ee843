"""`zoo runs` on folders written by hand."""

import json

import pytest
from etils import epath

from zoo.cli import main
from zoo.config import Config, ModelConfig, OptimConfig, TrainConfig, to_dict
from zoo.runs import show_metric
from zoo.train.curves import draw_runs


def write_run(folder, rows, tail="", **groups):
    """A run's folder with these rows; `tail` is what a killed writer left."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(to_dict(Config(**groups))))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + tail)


def row(step, split, **metrics):
    return {"step": step, "split": split, **metrics}


def run(capsys, monkeypatch, folder, columns=120):
    """Exit code, lines of stdout, stderr of `zoo runs FOLDER` on a terminal so wide."""
    monkeypatch.setenv("COLUMNS", str(columns))
    code = main(["runs", str(folder)])
    done = capsys.readouterr()
    return code, done.out.splitlines(), done.err


def cells(lines, name):
    """All cells of a run, of each table in turn."""
    return [line.split()[1:] for line in lines if line.split()[:1] == [name]]


TWO = [
    row(10, "train", loss=2.0, accuracy=0.5, gradient_norm=1.0, learning_rate=0.1),
    row(10, "val", loss=1.5, accuracy=0.75),
    row(20, "train", loss=1.0, accuracy=0.625, gradient_norm=1.0, learning_rate=0.1),
    row(20, "val", loss=1.25, accuracy=0.6875),
    row(20, "test", loss=1.125, accuracy=0.71875),
]


def test_two_runs_side_by_side(tmp_path, capsys, monkeypatch):
    steps = TrainConfig(num_steps=20)
    write_run(tmp_path / "b" / "run10", TWO, train=steps, optim=OptimConfig(learning_rate=3e-4))
    write_run(
        tmp_path / "b" / "run9",
        TWO[:2],
        tail='{"step": 15, "split": "trai',
        train=steps,
        model=ModelConfig("mlp", {"widths": (8,)}),
        optim=OptimConfig(learning_rate=1e-3),
    )
    code, lines, err = run(capsys, monkeypatch, tmp_path)
    assert (code, err) == (0, "")
    assert lines[0] == f"2 runs in {tmp_path}"
    # A run that has no argument the other has shows '-'. run9 was cut off: it has no test row.
    assert cells(lines, "b/run9") == [
        ["10/20", "[8]", "0.001", "1.5000", "0.7500", "-", "-", "0.7500", "@10"]
    ]
    assert cells(lines, "b/run10") == [
        ["20/20", "-", "0.0003", "1.2500", "0.6875", "1.1250", "0.7188", "0.7500", "@10"]
    ]
    order = [line.split()[0] for line in lines if line.startswith("b/")]
    assert order == ["b/run9", "b/run10"]
    header = " ".join(" ".join(lines[2:6]).split())
    assert "model. arguments. optim." in header
    for key in ("widths", "learning_rate", "accuracy @step"):
        assert key in header
    assert "seed" not in header  # only keys in which they differ
    assert lines[-1] == f"curves: {tmp_path / 'runs.png'}"
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")


def test_without_validation_the_training_is_shown_and_loss_is_the_best(
    tmp_path, capsys, monkeypatch
):
    write_run(tmp_path / "a", [row(5, "train", loss=3.0)])
    write_run(tmp_path / "b", [row(5, "val", loss=2.0), row(9, "val", loss=2.5)])
    code, lines, _ = run(capsys, monkeypatch, tmp_path)
    assert code == 0
    assert cells(lines, "a") == [["5/1000", "3.0000", "-", "-"]]
    assert cells(lines, "b") == [["9/1000", "-", "2.5000", "2.0000", "@5"]]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("num_runs", [1, 2, 12])
def test_no_line_is_wider_than_the_terminal(tmp_path, capsys, monkeypatch, num_runs, columns):
    for i in range(num_runs):
        write_run(
            tmp_path / f"sweep_of_learning_rates_{i}",
            TWO,
            model=ModelConfig(f"vit_s{4 * i + 4}", {"depth": i, "pooling": "map" * (i % 2)}),
            optim=OptimConfig(learning_rate=1e-3 / (i + 1), arguments={"b2": 0.9 + i / 100}),
            seed=i,
        )
    monkeypatch.setattr("zoo.runs.draw_runs", lambda *_: None)  # seconds
    code, lines, _ = run(capsys, monkeypatch, tmp_path, columns)
    assert code == 0
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= columns
    found = cells(lines, "sweep_of_learning_rates_0")
    flat = [cell for table in found for cell in table]
    assert flat[0] == "20/1000"
    assert flat[-6:] == ["1.2500", "0.6875", "1.1250", "0.7188", "0.7500", "@10"]
    # Every table names the run again, and nothing is lost: 6 keys differ once there are several.
    assert len(flat) == 7 + (6 if num_runs > 1 else 0)


def test_a_long_value_goes_on_in_the_next_line(tmp_path, capsys, monkeypatch):
    for name in ("a", "b"):
        write_run(
            tmp_path / name, TWO, model=ModelConfig("mlp", {"notes": "0123456789" * 3 + name})
        )
    _, lines, _ = run(capsys, monkeypatch, tmp_path)
    at = next(i for i, line in enumerate(lines) if line.startswith("b "))
    assert "012345678901234567890123 " in lines[at]
    assert lines[at + 1].split() == ["456789b"]


def test_what_cannot_be_read_is_named_and_left_out(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "good", TWO)
    write_run(tmp_path / "cut", TWO)
    write_run(tmp_path / "other", TWO)
    (tmp_path / "cut" / "config.json").write_text('{"model": {"na')
    (tmp_path / "other" / "config.json").write_text('{"vocab_size": 50257}')
    code, lines, err = run(capsys, monkeypatch, tmp_path)
    assert (code, err) == (3, "")
    assert "left out: cut: config.json is not readable JSON" in lines
    assert "left out: other: config.json is not that of a run" in lines
    assert lines[0].startswith("1 run in ")
    assert cells(lines, "good") == [
        ["20/1000", "1.2500", "0.6875", "1.1250", "0.7188", "0.7500", "@10"]
    ]


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x00\x00\x00", b"\xff\xfe{", b'{"step": 1}\n[1]\n3\n{"split": "val"}\n', b'{"step": 7'],
)
def test_a_damaged_metrics_file_is_no_crash(tmp_path, capsys, monkeypatch, junk):
    write_run(tmp_path / "a", [])
    (tmp_path / "a" / "metrics.jsonl").write_bytes(junk)
    code, lines, _ = run(capsys, monkeypatch, tmp_path)
    assert code == 0
    assert cells(lines, "a") == [["0/1000"]]
    assert not (tmp_path / "runs.png").exists()


def test_rows_of_no_finite_number(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "a", [row(1, "val", loss=None), row(2, "val", loss=4.0)])
    write_run(tmp_path / "b", [row(1, "val", loss=None)])
    code, lines, _ = run(capsys, monkeypatch, tmp_path)
    assert code == 0
    assert cells(lines, "a") == [["2/1000", "4.0000", "4.0000", "@2"]]
    assert cells(lines, "b") == [["1/1000", "nan", "-"]]


def test_one_run_itself_and_how_deep_runs_are_looked_for(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "1" / "2" / "3", TWO)
    write_run(tmp_path / "1" / "2" / "4" / "5", TWO)  # too deep
    write_run(tmp_path / "1" / "2" / "3" / "checkpoints" / "inside", TWO)  # a run holds no run
    write_run(tmp_path / ".hidden" / "6", TWO)
    (tmp_path / "latest").symlink_to(tmp_path / "1" / "2" / "3")
    _, lines, _ = run(capsys, monkeypatch, tmp_path)
    assert lines[0].startswith("1 run in ")
    assert len(cells(lines, "1/2/3")) == 1
    _, lines, _ = run(capsys, monkeypatch, tmp_path / "1" / "2" / "3")
    assert len(cells(lines, "3")) == 1


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    for folder, message in [
        (tmp_path / "empty", "(a run is a folder with config.json)"),
        (tmp_path / "nowhere", "no folder"),
        (tmp_path / "bad", "no run in"),
    ]:
        code, lines, err = run(capsys, monkeypatch, folder)
        assert (code, lines) == (2, [])
        assert message in err
        assert err.count("\n") == 1
    assert main(["runs", "a", "b"]) == 2
    assert "one folder" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "a", TWO)
    (tmp_path / "runs.png").mkdir()
    code, lines, err = run(capsys, monkeypatch, tmp_path)
    assert code == 2
    assert len(cells(lines, "a")) == 1  # the table all the same
    assert "cannot write" in err
    assert err.count("\n") == 1


def test_the_picture_has_a_panel_a_metric_and_a_line_a_run(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "zoo.train.curves.draw_panels", lambda panels, *_, **__: drawn.update(panels)
    )
    runs = {f"run{i}": TWO for i in range(11)} | {
        "new": TWO[:1],
        "lost": [row(1, "val", loss=None)],
    }
    draw_runs(runs, epath.Path(tmp_path / "x.png"), "all")
    assert list(drawn) == [
        "train loss", "train accuracy", "val loss", "val accuracy", "test loss", "test accuracy",
        "train gradient norm", "train learning rate",
    ]  # fmt: skip
    assert [line.label for line in drawn["train loss"]] == [*list(runs)[:11], "new"]
    assert [line.label for line in drawn["val loss"]] == list(runs)[:11]
    assert drawn["val loss"][3].points == [(10, 1.5), (20, 1.25)]
    # No two lines look the same, though there are but ten colours.
    assert len({(line.color, line.style) for line in drawn["val loss"]}) == 11


def test_numbers():
    assert [show_metric(x) for x in (0.0, 0.98765, 12.5, 3e-5, 123456.0, None, True)] == [
        "0.0000", "0.9877", "12.5000", "3.0000e-05", "1.2346e+05", "nan", "1.0000",
    ]  # fmt: skip
