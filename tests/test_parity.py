"""`zoo parity` on recorded twins, and on parameters of ours that were spoiled."""

import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

import zoo
from zoo import parity
from zoo.cli import main
from zoo.config import UserError

TWINS = ROOT / "tests/pretrained/twins"
NAMES = sorted(path.name for path in TWINS.iterdir())


def test_without_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["parity", str(TWINS / "gpt2_lm")]) == 2
    expected = "error: zoo parity needs torch and transformers: pip install -e '.[parity]'\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0.0, "0"), (1e-4, "1e-4"), (0.00234, "2.3e-3"), (15.0, "1.5e1"), (float("nan"), "nan")],
)
def test_small_numbers(number, shown):
    assert parity.show_small(number) == shown


def test_a_target_of_fewer_words():
    model = zoo.create_model("marian_base", vocab_size=40, target_vocab_size=6)
    inputs = parity.make_inputs(model, padding=5)
    assert 20 < inputs["source"].max() < 40
    assert inputs["target"].max() < 6


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_agreement(torch, name):
    found = parity.compare(TWINS / name)
    names = [row.name for row in found.rows]
    layers = [name for name in names if "blocks/" in name]
    assert len(layers) >= 2
    assert names[len(layers)] == "output"
    worst = max(found.rows, key=lambda row: row.relative)
    assert 0 < worst.relative < 1e-5, worst
    assert found.notes == ()


@pytest.mark.parity
def test_table(torch, capsys):
    assert main(["parity", str(TWINS / "t5_v1"), "--tolerance=1e-5"]) == 0
    captured = capsys.readouterr()
    *table, last = captured.out.splitlines()
    sides = [f"{side}/blocks/0{i}" for side in ("encoder", "decoder") for i in range(2)]
    assert [line.split()[0] for line in table] == ["layer", *sides, "output"]
    assert last.startswith("all 5 layers agree within 1e-5: largest relative difference ")
    assert not captured.err  # nothing of transformers' own


@pytest.mark.parity
def test_tolerance(torch, capsys):
    assert main(["parity", str(TWINS / "gpt2_lm"), "--tolerance=0"]) == 3
    assert capsys.readouterr().out.splitlines()[-1].startswith("first over tolerance: blocks/0")


@pytest.fixture
def spoil(torch, monkeypatch):
    """Takes a change of our parameters, by which their view and ours differ."""

    def spoil(change):
        def load(*args, **kwargs):
            loaded = zoo.load_pretrained(*args, **kwargs)
            change(loaded.params)
            return loaded

        monkeypatch.setattr(parity, "load_pretrained", load)

    return spoil


def swap_norms(params):
    block = params["blocks"]["01"]
    block["norm1"], block["norm2"] = block["norm2"], block["norm1"]


def break_one_number(params):
    kernel = params["decoder"]["blocks"]["00"]["cross"]["k"]["kernel"]
    params["decoder"]["blocks"]["00"]["cross"]["k"]["kernel"] = kernel.at[0, 0].set(jnp.nan)


def move_the_head(params):
    params["head"]["bias"] = params["head"]["bias"].at[0].add(0.01)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "change", "first"),
    [
        ("gpt2_lm", swap_norms, "blocks/01"),
        ("t5_v1", break_one_number, "decoder/blocks/00"),
        ("bert_classifier", move_the_head, "output"),
    ],
)
def test_first_layer_that_differs(spoil, capsys, name, change, first):
    spoil(change)
    assert main(["parity", str(TWINS / name)]) == 3
    *table, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"first over tolerance: {first} (relative ")
    flagged = [line.split()[0] for line in table if line.endswith("over")]
    assert flagged[0] == first


@pytest.mark.parity
def test_what_transformers_leaves_aside(torch, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(TWINS / "bert_masked_lm/model.safetensors")
    shutil.copy(TWINS / "bert_masked_lm/config.json", tmp_path)
    tensors["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    assert main(["parity", str(tmp_path)]) == 0
    assert "transformers leaves aside: cls.seq_relationship.bias" in capsys.readouterr().out


@pytest.mark.parity
def test_what_transformers_cannot_run(torch, monkeypatch):
    def fail(*args):
        raise RuntimeError("shape is invalid\nand more")

    monkeypatch.setattr(parity, "run_peer", fail)
    with pytest.raises(UserError, match=r"cannot run .*gpt2_lm: shape is invalid$"):
        parity.compare(TWINS / "gpt2_lm")


@pytest.mark.parity
def test_other_layouts(torch, tmp_path):
    zoo.convert(TWINS / "gpt2_lm", tmp_path / "ours")
    with pytest.raises(UserError, match="this one is of layout 'zoo'"):
        parity.compare(tmp_path / "ours")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is there"):
        parity.compare(tmp_path / "empty")
