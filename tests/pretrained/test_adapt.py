import functools
import pathlib

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from zoo.config import UserError
from zoo.models import init_params
from zoo.pretrained.adapt import adapt_params, resize_grid
from zoo.tree import named_leaves, unstack_layers

# Recorded with torch 2.13.0, the call that timm's resample_abs_pos_embed makes:
#   out = {}
#   for old, new in [((4, 6), (6, 4)), ...]:
#       grid = make_grid(*old)
#       image = torch.from_numpy(grid).permute(2, 0, 1)[None]
#       image = torch.nn.functional.interpolate(image, size=new, mode="bicubic", antialias=True)
#       out["{}x{}_{}x{}".format(*old, *new)] = image[0].permute(1, 2, 0).numpy()
#   numpy.savez_compressed("torch_bicubic.npz", **out)
TORCH = np.load(pathlib.Path(__file__).parent / "files" / "torch_bicubic.npz")


def make_grid(rows, columns):
    i = np.arange(rows * columns * 2)
    return (i * i * 7 % 101 / 50 - 1).reshape(rows, columns, 2).astype("float32")


def vit(**fields):
    small = {"width": 16, "depth": 1, "num_heads": 2, "hidden": 32}
    return zoo.create_model(
        "vit_s4", **{**small, "image_size": (16, 24), "num_classes": 3, **fields}
    )


def gpt(**fields):
    small = {"width": 16, "depth": 1, "num_heads": 2, "vocab_size": 11, "num_positions": 8}
    return zoo.create_model("gpt2", **{**small, **fields})


@functools.cache
def shapes(model):
    return jax.eval_shape(lambda: unstack_layers(init_params(model)))


def make_params(model, dtype=np.float32):
    """Parameters unlike any fresh ones; to initialise a model takes seconds to compile."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda s: random.normal(0.5, 1, s.shape).astype(dtype), shapes(model))


def init_leaf(model, path, seed=0):
    """One leaf as the model initialises it, without adapt's way to it."""
    return jax.jit(lambda: named_leaves(init_params(model, seed))[path])()


def adapt(before, after, seed=0):
    """Adapts and checks what always holds; returns old leaves, new leaves, report."""
    params = make_params(before)
    result, report = adapt_params(params, before, after, seed)
    old, new = named_leaves(params), named_leaves(result)
    expected = {path: leaf.shape for path, leaf in named_leaves(shapes(after)).items()}
    assert {path: leaf.shape for path, leaf in new.items()} == expected
    return old, new, report


def assert_others_kept(old, new, *changed):
    for path in (old.keys() | new.keys()) - set(changed):
        assert new[path] is old[path], path


def test_nothing_changed_is_nothing_done():
    for model in (vit(), vit(pooling="mean"), gpt(), zoo.create_model("mlp")):
        old, new, report = adapt(model, model.clone())
        assert report == []
        assert_others_kept(old, new)


@pytest.mark.parametrize("name", TORCH.files)
def test_a_grid_is_resized_as_torch_does(name):
    old, new = (tuple(map(int, size.split("x"))) for size in name.split("_"))
    np.testing.assert_allclose(resize_grid(make_grid(*old), *new), TORCH[name], atol=2e-6)


def test_a_grid_doubled_by_hand():
    # Keys' kernel at distances 1/4, 3/4, 5/4, 7/4 is 111, 29, -9, -3 (of 128); at the edge the
    # neighbours that are missing are left out and the others divided by their sum.
    line = np.array([0, 0, 1, 0, 0], np.float32)[None, :, None]
    half = [0, -3 / 137, -9 / 131, 29 / 128, 111 / 128]
    np.testing.assert_allclose(resize_grid(line, 1, 10)[0, :, 0], half + half[::-1], atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean", "map"])
@pytest.mark.parametrize(("old_grid", "new_grid"), [((4, 6), (6, 4)), ((3, 5), (9, 7))])
def test_an_image_of_another_size(pooling, old_grid, new_grid):
    size = lambda grid: (4 * grid[0], 4 * grid[1])
    before = vit(image_size=size(old_grid), pooling=pooling)
    old, new, report = adapt(before, vit(image_size=size(new_grid), pooling=pooling))
    assert_others_kept(old, new, "pos")
    line = "pos: {}x{} -> {}x{} grid, bicubic".format(*old_grid, *new_grid)
    prefix = int(pooling == "cls")
    assert report == [line + "; 1 prefix token kept" * prefix]
    np.testing.assert_array_equal(new["pos"][:prefix], old["pos"][:prefix])
    grid = resize_grid(old["pos"][prefix:].reshape(*old_grid, 16), *new_grid)
    np.testing.assert_array_equal(new["pos"][prefix:], grid.reshape(-1, 16))


@pytest.mark.parametrize(
    ("fields", "prefix"),
    [({"num_registers": 4, "layer_scale": 1.0}, 1), ({"distillation": "head"}, 2)],
    ids=["registers", "distilled"],
)
def test_registers_have_no_place_and_the_distillation_token_has_one(fields, prefix):
    old, new, report = adapt(vit(**fields), vit(image_size=(12, 20), **fields))
    assert_others_kept(old, new, "pos")
    kept = "1 prefix token kept" if prefix == 1 else "2 prefix tokens kept"
    assert report == [f"pos: 4x6 -> 3x5 grid, bicubic; {kept}"]
    np.testing.assert_array_equal(new["pos"][:prefix], old["pos"][:prefix])
    grid = resize_grid(old["pos"][prefix:].reshape(4, 6, 16), 3, 5)
    np.testing.assert_array_equal(new["pos"][prefix:], grid.reshape(-1, 16))


def test_both_heads_of_a_distilled_model_begin_anew():
    distilled = {"distillation": "head"}
    _, _, report = adapt(vit(**distilled), vit(num_classes=7, **distilled))
    assert sorted(report) == [
        "head: 3 -> 7 classes, initialised anew",
        "head_dist: 3 -> 7 classes, initialised anew",
    ]
    _, _, report = adapt(vit(**distilled), vit(distillation="token"))
    assert report == ["head_dist: not in the new model, dropped"]


def test_computed_positions_need_no_change():
    old, new, report = adapt(vit(positions="sincos"), vit(positions="sincos", image_size=(32, 8)))
    assert report == []
    assert_others_kept(old, new)


def test_a_head_of_other_classes_begins_anew():
    before, after = zoo.create_model("mlp"), zoo.create_model("mlp", num_outputs=4)
    old, new, report = adapt(before, after, seed=5)
    assert report == ["head: 10 -> 4 classes, initialised anew"]
    assert_others_kept(old, new, "head/kernel", "head/bias")
    for path in ("head/kernel", "head/bias"):
        np.testing.assert_array_equal(new[path], init_leaf(after, path, 5))
    assert (new["head/kernel"] != init_leaf(after, "head/kernel", 6)).all()


def test_a_head_comes_and_goes():
    old, new, report = adapt(vit(num_classes=0), vit())
    assert report == ["head: not in the old model, initialised anew"]
    assert_others_kept(old, new, "head/kernel", "head/bias")
    assert new["head/kernel"].dtype == np.float32
    np.testing.assert_array_equal(new["head/kernel"], 0)  # as a ViT begins

    old, new, report = adapt(vit(), vit(num_classes=0))
    assert report == ["head: not in the new model, dropped"]
    assert_others_kept(old, new, "head/kernel", "head/bias")


def test_size_and_classes_change_at_once():
    _, _, report = adapt(vit(), vit(image_size=(24, 24), num_classes=7))
    assert sorted(report) == [
        "head: 3 -> 7 classes, initialised anew",
        "pos: 4x6 -> 6x6 grid, bicubic; 1 prefix token kept",
    ]


def test_more_and_fewer_text_positions():
    after = gpt(num_positions=12)
    old, new, report = adapt(gpt(), after, seed=2)
    assert report == ["pos: 8 -> 12 positions, 8 kept, 4 initialised anew"]
    assert_others_kept(old, new, "pos")
    np.testing.assert_array_equal(new["pos"][:8], old["pos"])
    np.testing.assert_array_equal(new["pos"][8:], init_leaf(after, "pos", 2)[8:])

    old, new, report = adapt(gpt(), gpt(num_positions=5))
    assert report == ["pos: 8 -> 5 positions, the first 5 kept"]
    assert_others_kept(old, new, "pos")
    np.testing.assert_array_equal(new["pos"], old["pos"][:5])


def test_more_and_fewer_words():
    table = "embed/embedding"
    old, new, report = adapt(gpt(), gpt(vocab_size=13))
    assert report == ["embed/embedding: vocabulary 11 -> 13, 2 rows added"]
    assert_others_kept(old, new, table)
    np.testing.assert_array_equal(new[table][:11], old[table])

    old, new, report = adapt(gpt(), gpt(vocab_size=9))
    assert report == ["embed/embedding: vocabulary 11 -> 9, the first 9 rows kept"]
    assert_others_kept(old, new, table)
    np.testing.assert_array_equal(new[table], old[table][:9])


def test_new_words_are_of_the_scale_of_the_old_feature_by_feature():
    before, after = gpt(vocab_size=50), gpt(vocab_size=4050)
    params = make_params(before)
    scale, shift = np.linspace(0.1, 3, 16), np.linspace(-5, 5, 16)
    random = np.random.default_rng(0).normal(size=(50, 16)) * scale + shift
    table = params["embed"]["embedding"] = random.astype(np.float32)
    new = adapt_params(params, before, after)[0]["embed"]["embedding"][50:]
    np.testing.assert_allclose(new.mean(0), table.mean(0), atol=0.2)
    np.testing.assert_allclose(new.std(0), table.std(0), rtol=0.05)
    assert len(np.unique(new, axis=0)) == 4000
    other = adapt_params(params, before, after, seed=1)[0]["embed"]["embedding"][50:]
    assert (other != new).any(axis=1).all()


class Untied(nn.Module):
    """A text model with an output matrix and bias of its own."""

    vocab_size: int
    num_positions: int = 3
    hidden: int = 4

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(self.vocab_size, 4, name="embed")(tokens)
        x += self.param("pos", nn.initializers.ones, (self.num_positions, 4))
        ones = nn.initializers.ones
        return nn.Dense(self.vocab_size, bias_init=ones, name="head")(x), {}

    def input_specs(self, batch_size=1):
        return (jax.ShapeDtypeStruct((batch_size, self.num_positions), np.int32),)


class Layered(Untied):
    """A text model with a layer as wide as the vocabulary."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(self.vocab_size, 4, name="embed")(tokens)
        return Row(self.hidden, name="blocks")(x) + x, {}


class Row(nn.Module):
    hidden: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.hidden, name="00")(x)[..., :4]


def test_an_output_of_its_own_grows_with_the_vocabulary():
    old, new, report = adapt(Untied(6), Untied(8))
    assert report == [
        "embed/embedding: vocabulary 6 -> 8, 2 rows added",
        "head/bias: vocabulary 6 -> 8, 2 values added",
        "head/kernel: vocabulary 6 -> 8, 2 columns added",
    ]
    np.testing.assert_array_equal(new["head/bias"], [*old["head/bias"], 1, 1])
    np.testing.assert_array_equal(new["head/kernel"][:, :6], old["head/kernel"])
    assert (new["head/kernel"][:, 6] != new["head/kernel"][:, 7]).all()

    old, new, report = adapt(Untied(6), Untied(5))
    assert report[2] == "head/kernel: vocabulary 6 -> 5, the first 5 columns kept"
    np.testing.assert_array_equal(new["head/kernel"], old["head/kernel"][:, :5])


def test_a_feed_forward_width_that_equals_the_vocabulary_is_not_one():
    with pytest.raises(UserError, match=r"blocks/00/bias: 6 -> 8; blocks/00/kernel: 4x6 -> 4x8"):
        adapt(Layered(6, hidden=6), Layered(8, hidden=8))


@given(
    vocab=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    positions=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(max_examples=15)
def test_what_was_there_is_kept_exactly(vocab, positions):
    before, after = map(Untied, vocab, positions)
    old, new, report = adapt(before, after)
    sizes = {"pos": positions, "embed/embedding": vocab, "head/kernel": vocab, "head/bias": vocab}
    for path, (few, many) in sizes.items():
        kept = np.s_[:, : min(few, many)] if path == "head/kernel" else np.s_[: min(few, many)]
        np.testing.assert_array_equal(new[path][kept], old[path][kept])
        assert (new[path] is old[path]) == (few == many)
        assert any(line.startswith(path) for line in report) == (few != many)


def test_a_scanned_model_gets_and_gives_the_same_tree():
    plain = gpt(depth=2)
    old, new, report = adapt(plain, gpt(depth=2, scan_layers=True, vocab_size=12))
    assert report == ["embed/embedding: vocabulary 11 -> 12, 1 row added"]
    assert_others_kept(old, new, "embed/embedding")
    assert adapt(gpt(depth=2, scan_layers=True), plain)[2] == []


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float64])
def test_the_dtype_of_a_leaf_stays(dtype):
    cases = [
        (vit(), vit(image_size=(8, 8), num_classes=4)),
        (gpt(), gpt(num_positions=9, vocab_size=12)),
    ]
    for before, after in cases:
        params = make_params(before, dtype)
        result, report = adapt_params(params, before, after)
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {np.dtype(dtype)}
        assert len(report) == 2
        np.testing.assert_array_equal(result["pos"][:1], params["pos"][:1])


def test_jax_arrays_are_taken_as_they_are():
    params = jax.device_put(make_params(vit()))
    result, _ = adapt_params(params, vit(), vit(image_size=(8, 8), num_classes=5))
    again, _ = adapt_params(make_params(vit()), vit(), vit(image_size=(8, 8), num_classes=5))
    assert result["embed"]["kernel"] is params["embed"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, result, again)


def test_the_error_lists_all_that_does_not_fit():
    with pytest.raises(UserError) as error:
        adapt(vit(), vit(hidden=48, num_channels=1, num_classes=9, depth=2))
    head, _, rest = str(error.value).partition(": ")
    lines = [head, *rest.split("; ")]
    assert "cannot be made to fit" in lines[0]
    wrong = lines[1:-1]
    assert "blocks/00/mlp/fc1/kernel: 16x32 -> 16x48" in wrong
    assert "blocks/00/mlp/fc2/kernel: 32x16 -> 48x16" in wrong
    assert "embed/kernel: 48x16 -> 16x16" in wrong
    assert "blocks/01/norm1/bias: none -> 16" in wrong
    # fc1's kernel and bias, fc2's kernel, embed's kernel; a block: two norms, q k v out, fc1 fc2.
    assert len(wrong) == 4 + 16
    for field in ("image_size", "num_classes", "num_positions", "vocab_size"):
        assert field in lines[-1]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({}, {"patch_size": 8}, "patch_size: 4 -> 8, must stay"),
        ({}, {"patch_size": 8}, "embed/kernel: 48x16 -> 192x16"),
        # Same shapes, other meaning.
        ({"patch_size": (2, 4)}, {"patch_size": (4, 2)}, r"patch_size: \(2, 4\) -> \(4, 2\)"),
        ({}, {"patch_size": (4, 8)}, r"patch_size: 4 -> \(4, 8\), must stay"),
        ({}, {"num_heads": 4}, "num_heads: 2 -> 4, must stay"),
        ({}, {"pooling": "mean"}, "cls: 1x16 -> none; pos: 25x16 -> 24x16"),
        # 25 tokens both: 24 and the class token, 5x5 without.
        ({}, {"pooling": "mean", "image_size": (20, 20)}, "pos: 25x16 -> 25x16"),
        ({}, {"positions": "sincos"}, "pos: 25x16 -> none"),
        ({}, {"width": 24, "num_classes": 5}, "head/kernel: 16x3 -> 24x5"),
        ({}, {"width": 24, "image_size": (8, 8)}, "pos: 25x16 -> 5x24"),
    ],
)
def test_what_cannot_be_done_for_a_vit(old, new, words):
    with pytest.raises(UserError, match=words):
        adapt(vit(**old), vit(**{**old, **new}))


def test_a_patch_may_be_written_as_a_pair():
    assert adapt(vit(), vit(patch_size=(4, 4)))[2] == []


def test_another_class_and_foreign_parameters_are_errors():
    with pytest.raises(UserError, match="of a ViT cannot be made to fit a Decoder"):
        adapt_params(make_params(vit()), vit(), gpt())
    with pytest.raises(UserError) as error:
        adapt_params({**make_params(vit()), "new": np.ones(2)}, vit(num_classes=5), vit())
    assert str(error.value).partition(": ")[2].split("; ") == [
        "head/bias: 3, the model has 5",
        "head/kernel: 16x3, the model has 16x5",
        "new: 2, the model has none",
    ]
