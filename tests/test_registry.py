import pytest

from zoo.config import UserError
from zoo.registry import Registry


def make_registry():
    registry = Registry("model")
    registry.add("vit_b16", lambda: "b16")
    registry.add_pattern(r"vit_(\w)(\d+)", lambda size, patch, depth=0: (size, patch, depth))
    return registry


def test_names_patterns_and_imports():
    registry = make_registry()
    assert registry.get("vit_b16")() == "b16"
    assert registry.get("vit_s4")(depth=3) == ("s", "4", 3)
    assert registry.get("json:dumps")([1]) == "[1]"
    assert registry.names("vit*") == ["vit_b16"]


def test_a_name_is_added_once():
    with pytest.raises(ValueError, match="twice"):
        make_registry().add("vit_b16", list)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_b17x", "did you mean 'vit_b16'"),
        ("no_such_module:Model", "cannot import 'no_such_module'"),
        ("json:loadz", "did you mean"),
    ],
)
def test_mistakes_name_the_nearest(name, message):
    with pytest.raises(UserError, match=message):
        make_registry().get(name)
