"""Checkpoints: what comes back is what was saved, or the damage is named."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from zoo.checkpoint import Checkpoints, read_manifest
from zoo.config import CheckpointConfig, UserError
from zoo.tree import named_leaves


def make_state(value, size=50):
    return {
        "params": {"fc": {"kernel": jnp.arange(size, dtype=jnp.float32) + value}},
        "half": jnp.full((3,), value, jnp.bfloat16),
        "step": jnp.int32(value),
    }


def abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def make(folder, **config):
    told = []
    return Checkpoints(epath.Path(folder), CheckpointConfig(**config), told.append), told


def assert_same(a, b):
    a, b = named_leaves(a), named_leaves(b)
    assert a.keys() == b.keys()
    for path in a:
        assert a[path].dtype == b[path].dtype
        np.testing.assert_array_equal(np.asarray(a[path]), np.asarray(b[path]))


def save_steps(folder, steps=(1, 2, 3), **config):
    checkpoints, _ = make(folder, keep_last=3, **config)
    for step in steps:
        checkpoints.save(step, make_state(step))
    checkpoints.wait()


def test_save_and_restore(tmp_path):
    save_steps(tmp_path)
    checkpoints, told = make(tmp_path)
    step, state = checkpoints.restore(abstract(make_state(0)))
    assert step == 3
    assert_same(state, make_state(3))
    assert not told
    assert_same(checkpoints.restore(abstract(make_state(0)), step=2)[1], make_state(2))
    assert make(tmp_path / "none")[0].restore(abstract(make_state(0))) is None


def test_a_save_in_the_background_is_not_disturbed_by_donation(tmp_path):
    checkpoints, _ = make(tmp_path)
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = make_state(7, size=1 << 20)
    checkpoints.save(7, state)
    for _ in range(20):
        state = advance(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    assert_same(checkpoints.restore(abstract(state))[1], make_state(7, size=1 << 20))


def test_the_manifest_is_readable(tmp_path):
    save_steps(tmp_path, (5,))
    manifest = json.loads((tmp_path / "00000005" / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["leaves"]["params/fc/kernel"] == {"shape": [50], "dtype": "float32"}
    for name, entry in manifest["files"].items():
        assert os.path.getsize(tmp_path / "00000005" / "state" / name) == entry["size"]


def test_what_is_kept(tmp_path):
    checkpoints, _ = make(
        tmp_path, keep_last=2, keep_every_steps=4, best_metric="val/accuracy", best_mode="max"
    )
    for step, accuracy in enumerate([0.1, 0.2, 0.9, 0.3, 0.9, 0.4, 0.5], start=1):
        checkpoints.save(step, make_state(step), {"val/accuracy": accuracy})
    checkpoints.wait()
    assert checkpoints.best() == 3
    assert checkpoints.steps() == [3, 4, 6, 7]


def largest_file(folder):
    files = [p for p in folder.rglob("*") if p.is_file() and "/d/" in str(p)]
    return max(files, key=lambda p: p.stat().st_size)


def flip_a_bit(folder):
    file = largest_file(folder / "state")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(folder):
    file = largest_file(folder / "state")
    file.write_bytes(file.read_bytes()[:-1])


def lose_a_file(folder):
    largest_file(folder / "state").unlink()


def alter_the_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("float32", "float64"))


def lose_the_state(folder):
    import shutil

    shutil.rmtree(folder / "state")


@pytest.mark.parametrize(
    "damage", [flip_a_bit, truncate, lose_a_file, alter_the_manifest, lose_the_state]
)
def test_a_damaged_newest_one_falls_back_and_says_so(tmp_path, damage):
    save_steps(tmp_path)
    damage(tmp_path / "00000003")
    checkpoints, told = make(tmp_path)
    step, state = checkpoints.restore(abstract(make_state(0)))
    assert step == 2
    assert_same(state, make_state(2))
    assert len(told) == 1
    assert "step 3 is damaged" in told[0]
    assert (tmp_path / "00000003.damaged").exists()  # nothing is lost
    checkpoints.save(3, make_state(3))  # and the step can be saved again
    checkpoints.wait()
    assert_same(checkpoints.restore(abstract(make_state(0)))[1], make_state(3))


def test_a_half_written_one_is_removed_and_told(tmp_path):
    save_steps(tmp_path)
    (tmp_path / "00000003" / "manifest.json").unlink()
    checkpoints, told = make(tmp_path)
    assert checkpoints.restore(abstract(make_state(0)))[0] == 2
    assert told == ["removed a half-written checkpoint of step 3"]


def test_only_damaged_ones_left_is_an_error(tmp_path):
    save_steps(tmp_path, (1,))
    flip_a_bit(tmp_path / "00000001")
    with pytest.raises(UserError, match="no sound checkpoint is left"):
        make(tmp_path)[0].restore(abstract(make_state(0)))


def test_another_tree_is_refused_with_every_difference(tmp_path):
    save_steps(tmp_path, (1,))
    state = make_state(0)
    other = {
        "params": {"fc": {"bias": state["half"]}},
        "half": state["params"]["fc"]["kernel"],
        "step": state["step"],
    }
    with pytest.raises(UserError) as error:
        make(tmp_path)[0].restore(abstract(other))
    for part in (
        "missing params/fc/bias",
        "left over params/fc/kernel",
        r"half is bfloat16[3], not float32[50]",
    ):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_newer_format_is_refused(tmp_path):
    save_steps(tmp_path, (1,))
    from zoo import checkpoint

    place = epath.Path(tmp_path) / "00000001"
    manifest = {k: v for k, v in read_manifest(place).items() if k != "sha256"}
    checkpoint.write_manifest(place, {**manifest, "format": 99})
    with pytest.raises(UserError, match="format 99"):
        make(tmp_path)[0].restore(abstract(make_state(0)))


def test_a_failed_save_is_told_at_the_next_wait(tmp_path, monkeypatch):
    from zoo import checkpoint

    def fail(folder):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "describe_files", fail)
    checkpoints, _ = make(tmp_path)
    checkpoints.save(1, make_state(1))
    with pytest.raises(UserError, match="No space left on device"):
        checkpoints.wait()
    assert checkpoints.steps() == []
