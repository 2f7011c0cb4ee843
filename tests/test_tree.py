import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import tree
from zoo.config import UserError


def make_params(depth, rest=3):
    random = np.random.default_rng(0)
    layer = lambda: {
        "attn": {"q": {"kernel": random.normal(size=(2, rest))}},
        "b": random.normal(size=2),
    }
    return {"blocks": {f"{i:02d}": layer() for i in range(depth)}, "head": {"kernel": np.ones(3)}}


@given(depth=st.integers(1, 12), nested=st.booleans())
@settings(deadline=None)
def test_stack_and_unstack_are_inverse(depth, nested):
    params = make_params(depth)
    params = {"encoder": params, "decoder": params} if nested else params
    stacked = tree.stack_layers(params)
    paths = tree.named_leaves(stacked)
    assert all(tree.is_stacked(p) == ("blocks" in p) for p in paths)
    assert not any(tree.is_stacked(p) for p in tree.named_leaves(params))
    back = tree.unstack_layers(stacked)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_over_a_hundred_layers_stay_in_order():
    params = {"blocks": {tree.layer_name(i): {"w": np.full(1, i)} for i in range(120)}}
    np.testing.assert_array_equal(tree.stack_layers(params)["blocks"]["w"][:, 0], np.arange(120))


def test_rules_take_the_first_match_and_name_all_misses():
    rules = [("attn/q", 1), ("kernel$", 2)]
    assert tree.match_rules(rules, ["attn/q/kernel", "head/kernel"]) == {
        "attn/q/kernel": 1,
        "head/kernel": 2,
    }
    with pytest.raises(UserError, match="a/strange, b/strange"):
        tree.match_rules(rules, ["a/strange", "head/kernel", "b/strange"])


def test_a_mask_that_matches_nothing_is_an_error():
    params = make_params(2)
    assert sum(jax.tree.leaves(tree.make_mask("kernel$", params))) == 3
    with pytest.raises(UserError, match="kernle"):
        tree.make_mask("kernle$", params)


def test_counts_and_overview():
    params = make_params(2)
    assert tree.count_params(params) == 2 * (6 + 2) + 3
    assert ("head/kernel", "3", "float64", "3") in tree.overview(params)
