"""Tables in files: five formats, the same fields, the same mistakes in one line."""

import csv
import dataclasses
import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.config import DataConfig, UserError
from zoo.data.sources import open_raw
from zoo.data.tables.cells import Origin

ROWS = [
    {"sentence": "so, good", "label": "pos", "id": 3},
    {"sentence": 'said "no"\nand left', "label": "neg", "id": 4},
    {"sentence": "größer", "label": "pos", "id": 5},
]


def write(folder, kind, rows, split="train"):
    """Rows in a format, by another library where there is one."""
    path = folder / f"{split}.{kind}"
    if kind in ("csv", "tsv"):
        import pandas as pd

        if kind == "tsv":  # no quotes: values hold no tabs or line ends
            rows = [{k: str(v).replace("\n", " ") for k, v in row.items()} for row in rows]
            lines = ["\t".join(rows[0])] + ["\t".join(map(str, row.values())) for row in rows]
            path.write_text("\n".join(lines) + "\n")
        else:
            pd.DataFrame(rows).to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        np.savez(path, **{name: np.array([row[name] for row in rows]) for name in rows[0]})
    return path


def take_all(source):
    return source.take(np.arange(len(source)))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "npz"])
def test_one_set_of_rows_in_every_format(tmp_path, kind):
    write(tmp_path, kind, ROWS)
    write(tmp_path, kind, ROWS[:1], "dev")
    write(tmp_path, kind, [{**ROWS[0], "label": "other"}], "extra")  # stays out
    dataset = open_raw(DataConfig(f"{kind}:{tmp_path}"))
    assert {name: len(source) for name, source in dataset.splits.items()} == {"train": 3, "val": 1}
    examples = take_all(dataset.splits["train"])
    expected = [row["sentence"] for row in ROWS]
    if kind == "tsv":
        expected = [text.replace("\n", " ") for text in expected]
    assert examples["text"].tolist() == expected
    assert examples["label"].tolist() == [1, 0, 1]
    assert examples["label"].dtype == np.int32
    assert dataset.class_names == ("neg", "pos")
    assert dataset.notes == (
        "columns: text: sentence; label: label; not used: id",
        "label: 2 classes (neg, pos)",
    )
    picked = dataset.splits["train"].take(np.array([2, 0, 2]))
    assert picked["text"].tolist() == [expected[2], expected[0], expected[2]]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "npz"])
def test_numbers(tmp_path, kind):
    rows = [{"a": 1, "b": 0.5, "label": 0.25}, {"a": 2, "b": -1e-3, "label": 3.0}]
    write(tmp_path, kind, rows)
    dataset = open_raw(DataConfig(f"{kind}:{tmp_path}/train.{kind}"))
    examples = take_all(dataset.splits["train"])
    np.testing.assert_array_equal(examples["features"], np.float32([[1, 0.5], [2, -1e-3]]))
    np.testing.assert_array_equal(examples["label"], np.float32([0.25, 3]))
    assert dataset.num_classes is None


def test_pandas_and_we_read_the_same_csv(tmp_path):
    import pandas as pd
    from sklearn.datasets import load_wine

    wine = load_wine(as_frame=True)
    frame = wine.data.assign(quality=np.array(["low", "mid", "top"])[wine.target])
    frame.to_csv(tmp_path / "wine.csv", index=False)
    config = DataConfig(f"csv:{tmp_path}/wine.csv", columns={"label": "quality"}, test_fraction=0.2)
    dataset = open_raw(config)
    every = open_raw(dataclasses.replace(config, test_fraction=0.0)).splits["train"]
    back = pd.read_csv(tmp_path / "wine.csv")
    np.testing.assert_array_equal(
        take_all(every)["features"], back.drop(columns="quality").to_numpy(np.float32)
    )
    assert dataset.class_names == ("low", "mid", "top")
    assert [len(s) for s in dataset.splits.values()] == [142, 36]


def test_meanings_of_labels(tmp_path):
    def labels(values, **columns):
        rows = [{"text": "a", "label": value} for value in values]
        write(tmp_path, "jsonl", rows)
        dataset = open_raw(DataConfig(f"jsonl:{tmp_path}", columns=columns))
        return take_all(dataset.splits["train"])["label"].tolist(), dataset.class_names

    assert labels([5, 2, 10]) == ([1, 0, 2], ("2", "5", "10"))
    assert labels(["5", "2", "10"]) == ([1, 0, 2], ("2", "5", "10"))
    assert labels(["3+", "1", "2"]) == ([2, 0, 1], ("1", "2", "3+"))
    assert labels(["007", "7", "10"]) == ([0, 2, 1], ("007", "10", "7"))
    assert labels([True, False]) == ([1, 0], ("false", "true"))
    assert labels([1, 2.5]) == ([1, 2.5], ())
    assert labels([1, 2], text="text", value="label") == ([1, 2], ())
    assert labels([["b", "a"], [], ["b"]]) == ([[1, 1], [0, 0], [0, 1]], ("a", "b"))


def test_several_label_columns(tmp_path):
    write(tmp_path, "csv", [{"t": "x", "toxic": 0, "rude": 1}, {"t": "y", "toxic": 1, "rude": 1}])
    columns = {"text": "t", "label": ["toxic", "rude"]}
    dataset = open_raw(DataConfig(f"csv:{tmp_path}", columns=columns))
    assert take_all(dataset.splits["train"])["label"].tolist() == [[0, 1], [1, 1]]
    assert dataset.class_names == ("toxic", "rude")


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"premise": "a", "hypothesis": "b", "label": "c"}, ["text", "text_pair", "label"]),
        ({"source": "a", "target": "b", "id": 1}, ["source", "target"]),
        ({"prompt": "a", "completion": "b"}, ["prompt", "completion"]),
        ({"text": "a", "stars": 3}, ["text"]),
        ({"review": "a", "label": "b"}, ["text", "label"]),
        ({"vector": [1.0, 2.0], "label": "b"}, ["features", "label"]),
    ],
)
def test_plain_names_are_inferred(tmp_path, row, fields):
    write(tmp_path, "jsonl", [row, row])
    assert list(open_raw(DataConfig(f"jsonl:{tmp_path}")).shapes) == fields


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_names_the_split(tmp_path, kind):
    splits = ["train", "dev", "train", "test", "dev"]
    rows = [{"text": f"row {i}", "label": "abbaa"[i], "split": s} for i, s in enumerate(splits)]
    write(tmp_path, kind, rows, "all")
    path = f"{tmp_path}/all.{kind}"
    data = open_raw(DataConfig(f"{kind}:{path}"))
    texts = {split: take_all(source)["text"].tolist() for split, source in data.splits.items()}
    assert texts == {"train": ["row 0", "row 2"], "val": ["row 1", "row 4"], "test": ["row 3"]}
    line = {"csv": 6, "jsonl": 5, "parquet": 4}[kind]
    assert data.splits["val"].name(1) == f"{path}:{line}"
    rows[3]["split"] = "tset"
    write(tmp_path, kind, rows, "all")
    with pytest.raises(UserError, match=r"column 'split' says 'tset' .did you mean 'test'"):
        open_raw(DataConfig(f"{kind}:{path}"))


def test_images_by_path_and_as_bytes(tmp_path):
    contents = [b"\x89PNG one", b"\x89PNG two"]
    (tmp_path / "pictures").mkdir()
    for i, content in enumerate(contents):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(content)
    rows = [{"file": f"pictures/{i}.png", "label": "ab"[i]} for i in range(2)]
    write(tmp_path, "csv", rows)
    source = open_raw(DataConfig(f"csv:{tmp_path}")).splits["train"]
    assert take_all(source)["image"].tolist() == contents
    assert source.name(1) == f"{tmp_path}/train.csv:3"
    write(tmp_path, "csv", [*rows, {"file": "pictures/7.png", "label": "a"}])
    last = take_all(open_raw(DataConfig(f"csv:{tmp_path}")).splits["train"])["image"][2]
    assert isinstance(last, FileNotFoundError)  # a broken image, when its turn comes
    assert str(last.strerror).endswith(": No such file or directory")
    assert str(tmp_path) in last.strerror  # the line of the table is its name, so the file is told
    for values in (contents, [{"bytes": c, "path": None} for c in contents]):
        write(tmp_path, "parquet", [{"image": v, "label": "a"} for v in values])
        source = open_raw(DataConfig(f"parquet:{tmp_path}")).splits["train"]
        assert take_all(source)["image"].tolist() == contents


def test_arrays_named_by_split(tmp_path):
    x, y = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4), np.array([3, 1, 3, 1, 1])
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    dataset = open_raw(DataConfig(f"npz:{tmp_path}/mine.npz"))
    assert take_all(dataset.splits["test"])["image"].shape == (2, 4, 4, 1)
    assert take_all(dataset.splits["train"])["label"].tolist() == [1, 0, 1, 0, 0]
    assert dataset.class_names == ("1", "3")


def test_shards_and_patterns_keep_their_lines(tmp_path):
    for i in range(3):
        rows = [{"text": f"{i}{j}", "label": j} for j in range(4 + i)]
        write(tmp_path, "jsonl", rows, f"train-0000{i}-of-00003")
    for name in (str(tmp_path), f"{tmp_path}/*.jsonl"):
        source = open_raw(DataConfig(f"jsonl:{name}")).splits["train"]
        assert len(source) == 15
        assert source.take(np.array([14]))["text"] == ["25"]
        assert source.name(14).endswith("train-00002-of-00003.jsonl:6")
        assert source.name(4).endswith("train-00001-of-00003.jsonl:1")


def test_compressed_and_marked_files(tmp_path):
    text = "\ufefftext;label\r\nä;x\r\n\r\nb;y\r\n"
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(text.encode()))
    dataset = open_raw(DataConfig(f"csv:{tmp_path}"))
    assert take_all(dataset.splits["train"])["text"].tolist() == ["ä", "b"]
    assert dataset.splits["train"].name(1).endswith("train.csv.gz:4")


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))),
        min_size=1,
        max_size=5,
    )
)
def test_any_text_comes_back_from_csv(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "a.csv"
    content = io.StringIO(newline="")
    csv.writer(content, quoting=csv.QUOTE_ALL).writerows([("text",), *rows])
    path.write_bytes(content.getvalue().encode())
    source = open_raw(DataConfig(f"csv:{path}")).splits["train"]
    assert take_all(source)["text"].tolist() == [text for (text,) in rows]
    # the line on which a row ends, by counting
    ends = [1 + sum(t.count("\n") + 1 for (t,) in rows[: i + 1]) for i in range(len(rows))]
    assert [source.origin.lines[i] for i in range(len(rows))] == ends


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(sum), st.data())
def test_a_row_knows_its_file(sizes, data):
    origin = Origin(tuple(f"f{i}" for i in range(len(sizes))), np.cumsum([0, *sizes]), None)
    row = data.draw(st.integers(0, sum(sizes) - 1))
    every = [(i, j) for i, size in enumerate(sizes) for j in range(size)]
    assert origin.name(row) == "f{} row {}".format(*every[row])


def test_the_fingerprint_is_of_the_content(tmp_path):
    def mark(rows, name="train"):
        write(tmp_path, "parquet", rows)
        return open_raw(DataConfig(f"parquet:{tmp_path}")).fingerprint

    assert mark(ROWS) == mark(ROWS)
    assert mark(ROWS) != mark([*ROWS[:2], {**ROWS[2], "sentence": "groesser"}])


GOOD = "text,label\na,x\nb,y\n"


@pytest.mark.parametrize(
    ("file", "content", "changes", "message"),
    [
        ("train.csv", GOOD, {"columns": {"text": "txt"}}, "no column 'txt' (did you mean 'text'?)"),
        ("train.csv", GOOD, {"columns": {"txt": "text"}}, "no field 'txt' (did you mean 'text'?)"),
        ("train.csv", GOOD, {"train_split": "trian"}, "no split 'trian'"),
        ("train.csv", GOOD, {"columns": {"text": ["text", "label"]}}, "'text' is of one column"),
        ("train.csv", GOOD + "c\n", {}, "train.csv:4: 1 values, the header has 2"),
        ("train.csv", b"text,label\na,x\nb\xe9,y\n", {}, "train.csv:3: not UTF-8 (byte 0xe9 at"),
        ("train.csv", "text,label\na,x\n".encode("utf-16"), {}, ":1: not UTF-8 but UTF-16"),
        ("train.csv", 'text,label\na,"x\n', {}, "train.csv:2: unexpected end of data"),
        ("train.csv", "", {}, "train.csv is empty"),
        ("train.csv", "text,label\n", {}, "has no rows"),
        ("train.csv", "5.1,3.5\n4.9,3.0\n", {}, "train.csv:1: no header"),
        ("train.csv", "a,a\n1,2\n", {}, "names column 'a' twice"),
        ("train.csv", "a,b,label\n1,2,x\n3,?,y\n4,5,x\n", {}, "csv:3: column 'b' is '?' (str)"),
        ("train.csv", "a,label\n1,x\n,y\n4,x\n", {}, "train.csv:3: column 'a' is empty"),
        ("train.csv", "a,label\n1,x\nnan,y\n", {}, "csv:3: column 'a' holds no finite number"),
        ("train.csv", "text,label\na,x\nb,\n", {}, "train.csv:3: column 'label' is empty"),
        ("train.csv", "text,label\na,.5\nb,.7\nc,u\n", {}, "train.csv:4: label 'u' among numbers"),
        ("train.csv", "one,two\na,b\n", {}, "cannot tell which columns are the input (one (text)"),
        ("train.jsonl", '{"text": "a"}\n{"text": }\n', {}, "train.jsonl:2: bad JSON"),
        ("train.jsonl", '[{"text": "a"}]\n', {}, "train.jsonl:1: a JSON list, not an object"),
        ("train.jsonl", '{"text": "a"}\n{"text": 3}\n', {}, ":2: column 'text' is 3 (int)"),
        ("train.jsonl", '{"text": "a"}\n{"txt": "b"}\n', {}, ":2: column 'text' is missing"),
        ("train.jsonl", '{"a": [1, 2]}\n{"a": [1]}\n', {}, ":2: column 'a' is a list of 1, not"),
        ("train.parquet", b"PAR1 nothing", {}, "cannot read"),
        ("train.npz", b"PK\x03\x04 nothing", {}, "cannot read"),
        ("train.txt", "text", {}, "the folder has no file *.csv"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, file, content, changes, message):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / file).write_bytes(content)
    kind = file.split(".")[1]
    kind = "csv" if kind == "txt" else kind
    with pytest.raises(UserError) as error:
        open_raw(DataConfig(f"{kind}:{tmp_path}", **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["npz", "csv.gz", "parquet"])
def test_a_file_damaged_inside(tmp_path, kind):
    """Names and sizes can be read, and then the packed bytes are not what they were."""
    path, numbers = tmp_path / f"train.{kind}", np.random.default_rng(0).normal(size=500)
    if kind == "npz":
        np.savez_compressed(path, features=numbers[:, None], label=np.arange(500) % 2)
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [{"a": float(x), "label": "even"} for x in np.repeat(numbers[:9], 90)]
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress("\n".join(["a", *map(str, numbers)]).encode()))
    damaged = bytearray(path.read_bytes())
    for place in range(60, 200, 3):
        damaged[place] ^= 0x55
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=f"cannot read .*train.{kind}.*: ") as error:
        open_raw(DataConfig(f"{kind.removesuffix('.gz')}:{tmp_path}"))
    assert "\n" not in str(error.value)


def test_one_array_is_no_archive(tmp_path):
    with (tmp_path / "train.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(UserError, match=r"train.npz: it is no \.npz, a zip file of named arrays"):
        open_raw(DataConfig(f"npz:{tmp_path}"))


def test_a_label_that_training_never_saw(tmp_path):
    (tmp_path / "train.csv").write_text(GOOD)
    (tmp_path / "test.csv").write_text("text,label\na,x\nb,z\n")
    with pytest.raises(UserError, match=r"test.csv:3: label 'z' was never seen in training"):
        open_raw(DataConfig(f"csv:{tmp_path}"))
    (tmp_path / "test.csv").write_text("text,id\na,1\n")
    with pytest.raises(UserError, match=r"no column 'label' .*; to leave 'test' out: data.test"):
        open_raw(DataConfig(f"csv:{tmp_path}"))
    assert list(open_raw(DataConfig(f"csv:{tmp_path}", test_split="")).splits) == ["train"]
    with pytest.raises(UserError, match=r"no such file \(did you mean 'train.csv'\?\)"):
        open_raw(DataConfig(f"csv:{tmp_path}/trian.csv"))
    with pytest.raises(UserError, match=r"data.columns is for tables"):
        open_raw(DataConfig("embedded:wine", columns={"label": "a"}))
