import json

from etils import epath

from zoo.train.rows import RowWriter, read_rows


def test_rows_are_appended_and_the_last_of_a_step_counts(tmp_path):
    folder = epath.Path(tmp_path)
    writer = RowWriter(folder, "metrics")
    writer.write({"step": 1, "split": "train", "loss": 3.0})
    writer.write({"step": 1, "split": "val", "loss": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "split": "tr')  # killed in the middle of a line
    writer = RowWriter(folder, "metrics")
    writer.write({"step": 1, "split": "train", "loss": 4.0})
    assert read_rows(tmp_path) == [
        {"step": 1, "split": "train", "loss": 4.0},
        {"step": 1, "split": "val", "loss": None},
    ]


def test_numbered_parts_where_nothing_can_be_appended(tmp_path):
    for run in range(2):
        writer = RowWriter(epath.Path(tmp_path), "metrics")
        writer._remote = True  # as for gs://; there is no object store here
        writer.write({"step": run, "split": "train", "loss": 1.0})
        writer.flush()
        writer.write({"step": run, "split": "train", "loss": 2.0 + run})
        writer.flush()
        writer.flush()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"metrics.{i:05d}.jsonl" for i in range(1, 5)]
    assert [row["loss"] for row in read_rows(tmp_path)] == [2.0, 3.0]
    assert json.loads((tmp_path / names[0]).read_text())["step"] == 0


def test_a_place_on_object_storage_is_remote():
    writer = RowWriter.__new__(RowWriter)
    assert not hasattr(writer, "_remote")
    assert "://" in str(epath.Path("gs://bucket/run"))
    assert "://" not in str(epath.Path("/tmp/run"))
