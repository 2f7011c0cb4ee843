"""`zoo list` and `zoo info` against numbers worked out by hand."""

import math

import jax
import pytest

import zoo
from zoo.cli import main
from zoo.console import show_bytes, show_count
from zoo.info import make_model, measure, part_rows
from zoo.tree import named_leaves

OWN = """
import flax.linen as nn
import jax
import jax.numpy as jnp


class Towers(nn.Module):
    '''Two stacks of unlike blocks, over tokens.'''

    width: int = 4
    length: int = 8

    @nn.compact
    def __call__(self, source, target, *, train=False):
        embed = nn.Embed(10, self.width, name="embed")
        x = Tower(self.width, name="encoder")(embed(source))
        y = Tower(self.width, name="decoder")(embed(target)) + x.mean(axis=1, keepdims=True)
        return {"logits": nn.Dense(10, name="head")(y)}, {}

    def input_specs(self, batch_size=1):
        return (jax.ShapeDtypeStruct((batch_size, self.length), jnp.int32),) * 2


class Tower(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        return nn.LayerNorm(name="norm")(Blocks(self.width, name="blocks")(x))


class Blocks(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        for i in range(3):
            hidden = 2 * self.width if i == 1 else self.width
            x = Block(hidden, name=f"{i:02d}")(x)
        return x


class Block(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(self.hidden, use_bias=False, name="fc1")(x)
        return nn.Dense(x.shape[-1], use_bias=False, name="fc2")(y)


class Silent(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x, {}
"""


def run(capsys, *words):
    """Exit code, lines of stdout, stderr."""
    code = main(list(words))
    done = capsys.readouterr()
    return code, done.out.splitlines(), done.err


def by_name(lines):
    """First word -> the others, with single spaces."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.strip()}


def vit_flops(width, depth, hidden, patch, classes=1000, size=224):
    """Products of a ViT with a class token, by hand; 2 a multiply-add."""
    patches = (size // patch) ** 2
    tokens = patches + 1
    block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * hidden
    return 2 * (patches * 3 * patch**2 * width + depth * block + width * classes)


@pytest.mark.parametrize(
    ("name", "num_params", "flops"),
    [
        ("vit_b16", 86_567_656, vit_flops(768, 12, 3072, 16)),
        ("vit_ti16", 5_717_416, vit_flops(192, 12, 768, 16)),
        ("vit_h14", 632_045_800, vit_flops(1280, 32, 5120, 14)),
        ("mlp", 784 * 128 + 128 + 128 * 10 + 10, 2 * (784 * 128 + 128 * 10)),
    ],
)
def test_published_counts(name, num_params, flops):
    found = measure(make_model(name))
    assert (found.num_params, found.flops, found.unit) == (num_params, flops, "example")


def test_a_decoder_is_told_by_token():
    found = measure(make_model("gpt2"))
    assert (found.num_params, found.unit) == (124_439_808, "token")
    # 12 blocks of 12 d^2 weights and two products with 1,024 keys; the head of 50,257 words.
    per_block = 2 * 12 * 768**2 + 4 * 1024 * 768
    assert found.flops == 12 * per_block + 2 * 768 * 50_257


def test_scanned_and_unrolled_are_told_alike():
    fields = {"depth": 3, "image_size": (32, 32)}
    scanned = measure(make_model("vit_ti16", fields))
    unrolled = measure(make_model("vit_ti16", {**fields, "scan_layers": False}))
    assert scanned.flops == unrolled.flops
    assert sorted(part_rows(scanned.params)) == sorted(part_rows(unrolled.params))
    assert ("blocks/*", "3 x 444,864", "1,334,592") in part_rows(scanned.params)
    # The parts are those of the model as it is really made.
    model = zoo.create_model("vit_ti16", **fields)
    real = named_leaves(jax.eval_shape(lambda: zoo.init_params(model)))
    assert {p: x.shape for p, x in unrolled.params.items()} == {p: x.shape for p, x in real.items()}


def test_list_prints_a_line_a_model(capsys):
    code, lines, _ = run(capsys, "list", "vit_b*")
    assert code == 0
    rows = by_name(lines[1:-2])
    assert list(rows) == ["vit_b14", "vit_b16", "vit_b32", "vit_b8"]
    assert rows["vit_b16"] == "86,567,656 35.1 G example 224x224x3 vit, timm, npz, zoo"
    assert max(map(len, lines)) <= 100


def test_list_tells_only_files_that_have_all_of_a_model(capsys):
    _, lines, _ = run(capsys, "list", "dei*_tiny16*")
    rows = by_name(lines[1:-2])
    assert rows["deit_tiny16"].endswith(" vit, timm, npz, zoo")
    assert rows["deit_tiny16_distilled"].endswith("224x224x3 deit, timm, zoo")


def test_list_takes_a_name_the_table_does_not_hold(capsys):
    code, lines, _ = run(capsys, "list", "vit_ti56")
    assert code == 0
    assert lines[1].startswith("vit_ti56 ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "vit_z*"], "did you mean 'vit_"),
        (["list", "zzzz"], "no model matches 'zzzz' (zoo list shows all)"),
        (["list", "mlp", "vit_b16"], "one pattern"),
        (["info", "vit_b15"], "nearest image: 225x225"),
        (["info", "vitb16"], "did you mean 'vit_b16'"),
        (["info", "mlp", "--arguments.withs=3"], "did you mean 'widths'"),
        (["info", "mlp", "--arguments.widths=many"], "model.arguments.widths='many' is not"),
        (["info", "mlp", "--arguments=3"], "--arguments is a group"),
        (["info", "mlp", "--argument.widths=3"], "did you mean '--arguments'"),
        (["info", "mlp", "widths=3"], "unknown argument 'widths=3'"),
        (["info", "--arguments.widths=3"], "the model is missing"),
        (["info", "no_such_module:Model"], "cannot import 'no_such_module'"),
    ],
)
def test_mistakes_are_one_line(capsys, words, message):
    code, lines, err = run(capsys, *words)
    assert (code, lines) == (2, [])
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_info_of_a_vit(capsys):
    code, lines, _ = run(capsys, "info", "vit_b16", "--arguments.num_classes=10")
    assert code == 0
    assert max(map(len, lines)) <= 80
    rows = by_name(lines)
    width, hidden = 768, 3072
    block = 4 * (width**2 + width) + 2 * width * hidden + hidden + width + 4 * width
    total = 86_567_656 - 990 * 769
    assert rows["blocks/*"] == f"12 x {block:,} {12 * block:,}"
    assert rows["mlp/fc1/kernel"] == f"768x3072 {width * hidden:,}"
    assert rows["pos"] == f"197x768 {197 * width:,}"
    assert rows["head"] == f"{10 * 769:,}"
    assert rows["total"] == f"{total:,}"
    assert rows["input"] == "images [b, 224, 224, 3] float32"
    assert rows["output"] == "[b, 10] float32"
    assert rows["memory"].startswith(f"{4 * total / 2**20:.1f} MiB in float32, ")
    table = lines[3 : next(i for i, line in enumerate(lines) if line.startswith("total"))]
    parts = [line.split()[-1] for line in table if not line.startswith(" ")]
    assert sum(int(part.replace(",", "")) for part in parts) == total


def test_info_of_a_model_of_your_own(tmp_path, capsys, monkeypatch):
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    code, lines, _ = run(capsys, "info", "own_models:Towers")
    assert code == 0
    assert lines[0] == "own_models:Towers: Two stacks of unlike blocks, over tokens."
    rows = by_name(lines)
    assert rows["embed"] == "40"
    assert rows["encoder/norm"] == "8"
    assert rows["decoder/blocks/*"] == "3 x blocks that differ 128"
    told = [" ".join(line.split()) for line in lines]
    assert told.count("fc1/kernel 4x4 in 2 of 3 16") == 2  # one a tower
    assert told.count("fc1/kernel 4x8 in 1 of 3 32") == 2
    assert rows["total"] == str(40 + 2 * (128 + 8) + 50)
    assert rows["output"] == "logits [b, 8, 10] float32"
    assert told[-5] == "input source [b, 8] int32"
    assert told[-4] == "input target [b, 8] int32"
    # 8 + 8 tokens: both towers once over 8 tokens, the head over 8.
    flops = 2 * (2 * 8 * 128 + 8 * 40) / 16
    assert rows["FLOPs"] == f"{flops:g} a forward pass of one token"
    code, _, err = run(capsys, "info", "own_models:Silent")
    assert code == 2
    assert "Silent has no method input_specs" in err


def test_numbers_for_people():
    assert [show_count(x) for x in (0, 7, 999, 1000, 999_600, 35127656448)] == [
        "0", "7", "999", "1 K", "1 M", "35.1 G",
    ]  # fmt: skip
    assert [show_bytes(x) for x in (5, 1536, 330.2 * 2**20)] == ["5 B", "1.5 KiB", "330.2 MiB"]
    assert show_count(math.pi * 1e17) == "314 P"
