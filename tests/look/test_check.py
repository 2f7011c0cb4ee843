"""`zoo data check`: what is planted is found, and nothing else."""

import json

import numpy as np
import pytest

from zoo.cli import main
from zoo.config import DataConfig
from zoo.data import open_dataset
from zoo.look.check import check_source
from zoo.look.source import make_source_config


def check(capsys, tmp_path, source, *words):
    """Exit code, lines of stdout and the JSON report of `zoo data check`."""
    path = tmp_path / "report.json"
    code = main(["data", "check", source, f"--json={path}", *words])
    done = capsys.readouterr()
    assert done.err == ""
    return code, done.out.splitlines(), json.loads(path.read_text())


def found(report):
    """(kind, split) -> the cases, each as (its examples, detail)."""
    return {
        (f["kind"], f["split"]): [
            ([(e["split"], e["index"]) for e in case["examples"]], case["detail"])
            for case in f["cases"]
        ]
        for f in report["findings"]
    }


def counts(report):
    return {(f["kind"], f["split"]): (f["count"], f["total"]) for f in report["findings"]}


@pytest.mark.parametrize(
    "source",
    [
        "embedded:digits",
        "embedded:diabetes",
        "planted:clean_images",
        "planted:clean_texts",
        "planted:clean_table",
        "planted:pairs",
        "planted:documents",
    ],
)
def test_clean_data_gives_0(source, capsys, tmp_path):
    code, lines, report = check(capsys, tmp_path, source)
    assert code == 0
    assert report["clean"]
    assert report["findings"] == []
    assert lines[-1] == "nothing found"


def test_broken_images(capsys, tmp_path):
    code, lines, report = check(capsys, tmp_path, "planted:broken_images")
    assert code == 3
    assert not report["clean"]
    cases = found(report)
    one = "train"
    assert [places for places, _ in cases["unreadable", one]] == [[(one, i)] for i in (4, 7, 9)]
    assert all(reason for _, reason in cases["unreadable", one])
    assert cases["unreadable", one][2][1] == "No such file or directory"
    assert cases["unreadable", "test"] == [([("test", 7)], "Input/output error")]
    assert cases["label_range", "test"] == [
        ([("test", 3)], "label 5 is not 0 to 3"),
        ([("test", 4)], "label -1 is not 0 to 3"),
    ]
    assert cases["absent_class", one] == [([], "class 2 (owl)"), ([], "class 3 ($ant$)")]
    assert cases["absent_class", "test"] == [([], "class 3 ($ant$)")]
    assert cases["untrained_class", "test"] == [([], "class 2 (owl)")]
    assert cases["duplicate", one] == [([(one, 20), (one, 270)], "")]
    assert cases["duplicate_between", "train, test"] == [([(one, 31), ("test", 2)], "")]
    assert cases["label_conflict", one] == [([(one, 20), (one, 270)], "")]
    assert len(cases) == 9
    assert counts(report)["duplicate_between", "train, test"] == (1, 12)
    assert report["splits"]["train"]["unreadable"] == 3
    assert report["splits"]["test"]["labels"] == {"-1": 1, "0": 3, "1": 3, "2": 3, "5": 1}
    # A person reads names.
    assert "    train/020.png = train/270.png" in lines
    assert "    train/020.png (dog) = train/270.png (cat)" in lines
    assert "x unreadable (train): 3 of 300 cannot be read" in lines


def test_broken_texts(capsys, tmp_path):
    code, lines, report = check(capsys, tmp_path, "planted:broken_texts", "--data.length=300")
    assert code == 3
    one = "train"
    assert found(report) == {
        ("empty_text", one): [
            ([(one, 3)], "text is ' \\n\\t'"),
            ([(one, 5)], "text is None"),
            ([(one, 6)], "text is ''"),
        ],
        ("duplicate", one): [([(one, 10), (one, 13)], ""), ([(one, 20), (one, 22)], "")],
        ("duplicate_between", "train, val"): [([(one, 30), ("val", 2)], "")],
        # 10 and 13 are of different classes, 20 and 22 of one.
        ("label_conflict", one): [([(one, 10), (one, 13)], "")],
        ("too_long", one): [([(one, 40)], "text: 350 tokens, 300 fit")],
    }
    (shown,) = (line for line in lines if line.startswith("    train[10] (bad) = train[13] (good)"))
    assert shown.split(": '")[1].split()[0].isupper()  # the text of the first
    line = "x too_long (train): 1 of 60 are cut to data.length, the longest has 350 tokens"
    assert line in lines


def test_broken_table(capsys, tmp_path):
    _, _, report = check(capsys, tmp_path, "planted:broken_table")
    one = "train"
    assert found(report) == {
        ("non_finite", one): [
            ([(one, 3)], "features[1] = nan"),
            ([(one, 4)], "features[0] = inf, features[2] = inf"),
            ([(one, 9)], "label = nan"),
        ],
        ("constant_feature", one): [([], "features[3] = 7")],
        ("duplicate_between", "train, test"): [([(one, 50), ("test", 5)], "")],
    }
    assert counts(report)["non_finite", one] == (3, 300)
    assert counts(report)["constant_feature", one] == (1, 4)


def test_several_labels(capsys, tmp_path):
    _, _, report = check(capsys, tmp_path, "planted:several_labels")
    assert found(report) == {
        ("label_range", "train"): [([("train", 5)], "label 2 is not 0 or 1")],
        ("absent_class", "train"): [([], "class 2")],
    }


def test_the_console_shows_a_few_and_the_report_all(capsys, tmp_path):
    words = "planted:clean_texts", "--data.length=5"
    _, lines, report = check(capsys, tmp_path, *words)
    (first, second) = report["findings"]
    assert (first["kind"], first["count"], len(first["cases"])) == ("too_long", 60, 60)
    assert second["split"] == "val"
    assert lines.count("    55 more") == 1
    assert len([line for line in lines if line.startswith("    train[")]) == 5
    capsys.readouterr()
    main(["data", "check", *words])
    assert capsys.readouterr().out.endswith("all cases: --json=FILE\n")


def test_the_order_of_findings_and_blocks_does_not_matter(monkeypatch):
    from zoo.look import read

    config = make_source_config("planted:broken_images", {})
    whole = check_source(config).findings
    monkeypatch.setattr(read, "BLOCK", 7)
    assert check_source(config).findings == whole


@pytest.mark.parametrize(
    ("train", "test", "line"),
    [
        ("a,label\n1,x\nnan,y\n", None, "train.csv:3: column 'a' "),
        ("a,label\n1,x\n2,y\n", "a,label\n1,z\n", "test.csv:2: label 'z' was never seen"),
        ("a,label\n1,x\n2,y,3\n", None, "train.csv:3: 3 values, the header has 2"),
    ],
)
def test_what_a_reader_refuses_is_a_finding(tmp_path, capsys, train, test, line):
    (tmp_path / "train.csv").write_text(train)
    if test:
        (tmp_path / "test.csv").write_text(test)
    words = ["data", "check", f"csv:{tmp_path}", f"--json={tmp_path}/report.json"]
    assert main(words) == 3
    assert f"x refused: {tmp_path}/{line}" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["clean"]
    assert line in report["refused"]


def test_recipes_and_keys():
    config = make_source_config("configs/vit_digits.py:quick", {"data.length": "9"})
    assert config.data == DataConfig(
        "synthetic:embedded:digits", transform="shift(1)|normalize(0.5, 0.5)", length=9
    )
    other = make_source_config("text:src/*.py", {"data.cache": "x"}, like=config)
    assert (other.data.source, other.data.length, other.data.cache) == ("text:src/*.py", 9, "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek", "x"], "no verb 'zoo data chek' (did you mean 'check'?)"),
        (["check"], "the source is missing"),
        (["check", "embedded:digts"], "did you mean 'digits'"),
        (["check", "embedded:digits", "--data.lenth=3"], "did you mean 'data.length'"),
        (["check", "embedded:digits", "--agaist=x"], "did you mean '--against'"),
        (["check", "embedded:digits", "--against=embedded:wne"], "did you mean 'wine'"),
        (["check", "embedded:digits", "--json=/nowhere/x.json"], "'/nowhere/x.json' is no place"),
        (["check", "embedded:digits", "--data.source=x"], "name one source"),
        (["show", "configs/vit_digit.py"], "did you mean 'configs/vit_digits.py'"),
        (["show", "configs/vit_digits.py", "--step=3000"], "steps 0 to 2999"),
        (["show", "embedded:digits", "--seed=-1"], "not a whole number"),
        (["show", "embedded:digits", "--out=nowhere/x.png"], "is in no folder that exists"),
        (["show", "embedded:digits", "--out=x.jpg"], "is no .png file"),
        (["show", "embedded:diabetes", "--out=x.png"], "has no images"),
        (["show", "embedded:digits", "--data.transform=flp"], "did you mean 'flip'"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys, tmp_path):
    assert main(["data", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_source_that_raises_anything(monkeypatch):
    """Every example fails: each is named, with why."""

    class Failing:
        def __len__(self):
            return 3

        def take(self, indices):
            raise KeyError("pixels")

    from zoo.data import Dataset
    from zoo.look import check as module

    dataset = Dataset("failing", {"train": Failing()}, fingerprint="x")
    monkeypatch.setattr(module, "open_raw", lambda config: dataset)
    report = check_source(make_source_config("x:y", {}))
    (finding,) = report.findings
    assert finding.count == 3
    assert {case.detail for case in finding.cases} == {"'pixels'"}


def test_parts_of_one_text_are_read_once():
    """Parts that are cut by their tokens are both the whole text, and no duplicates."""
    from zoo.data import ArraySource, Dataset
    from zoo.data.documents import Corpus
    from zoo.look.read import describe_sizes, whole_splits

    text = Corpus(ArraySource({"text": np.array(["a", "b"], object)}))
    kept, test = text.hold_out(0.2)
    train, val = kept.hold_out(0.1)
    other = ArraySource({"text": np.array(["c"], object)})
    splits = {"train": train, "val": val, "test": test, "extra": other}
    dataset = Dataset("text", splits, fingerprint="x")
    assert list(whole_splits(dataset)) == ["train", "extra"]
    assert describe_sizes(dataset) == "2 train and val and test (parts of one text), 1 extra"


@pytest.mark.parametrize("tokenizer", ["bytes", "wordpiece:80"])
@pytest.mark.parametrize("source", ["planted:clean_texts", "planted:pairs", "planted:prompts"])
def test_what_is_cut_is_what_encoding_cuts(source, tokenizer, tmp_path):
    """A text is called too long exactly where its row loses tokens at this length."""
    values = {"data.tokenizer": tokenizer, "data.cache": str(tmp_path)}
    long = open_dataset(make_source_config(source, {**values, "data.length": "300"}).data)
    batch = long.splits["train"].take(np.arange(len(long.splits["train"])))
    sizes = [
        batch[k].sum(axis=1) for k in ("token_mask", "source_mask", "target_mask") if k in batch
    ]
    if "real" in batch:  # of a prompt's row the last target stands behind all other tokens
        sizes = [300 - batch["real"][:, ::-1].argmax(axis=1)]
    for length in (40, 60, 80):
        config = make_source_config(source, {**values, "data.length": str(length)})
        found = [f for f in check_source(config).findings if f.kind == "too_long"]
        cut = {c.places[0][1] for f in found if f.split == "train" for c in f.cases}
        assert cut == set(np.flatnonzero(np.max(sizes, axis=0) > length))
