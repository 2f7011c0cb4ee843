"""Two sets beside each other: the tests by hand, and what is called drift."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.cli import main
from zoo.look.drift import Comparison, compare_counts, compare_values, has_drifted
from zoo.look.profile import Numbers, mean_and_deviation


def test_chi_square_by_hand():
    found = compare_counts("train", "label", np.array([[10, 20, 30], [20, 20, 20]]))
    # Expected 15, 20, 25 in both rows.
    assert found.statistic == pytest.approx(2 * (25 / 15 + 25 / 25))
    # The tail of chi-square with 2 degrees of freedom is exp(-x / 2).
    assert found.p == pytest.approx(math.exp(-found.statistic / 2))
    assert found.effect == pytest.approx(math.sqrt(found.statistic / 120))
    assert found.sizes == (60, 60)
    apart = compare_counts("train", "label", np.array([[7, 0], [0, 5]]))
    assert apart.effect == pytest.approx(1)


VALUES = st.lists(st.integers(0, 6), min_size=1, max_size=9)


@given(a=VALUES, b=VALUES)
def test_kolmogorov_smirnov_by_hand(a, b):
    left, right = np.array(a, float), np.array(b, float)
    found = compare_values("train", "x", left, right)
    steps = [abs((left <= x).mean() - (right <= x).mean()) for x in range(7)]
    assert found.effect == found.statistic == pytest.approx(max(steps))
    assert found.means == (pytest.approx(left.mean()), pytest.approx(right.mean()))


def test_kolmogorov_smirnov_of_all_orders():
    """Exact: of the 20 ways to deal 3 + 3 numbers, 2 lie as far apart."""
    assert compare_values("s", "x", np.arange(3.0), np.arange(3.0) + 10).p == pytest.approx(2 / 20)


@given(
    values=st.lists(
        st.lists(
            st.sampled_from([0.0, 1.5, -3.0, 1e6, math.nan, math.inf]), min_size=2, max_size=2
        ),
        min_size=1,
        max_size=20,
    ),
    cut=st.integers(0, 20),
)
def test_running_numbers_are_those_of_the_whole(values, cut):
    whole = np.array(values)
    numbers = Numbers(2)
    for part in (whole[:cut], whole[cut:]):
        if len(part):
            numbers.add(part, np.ones(len(part), bool))
    np.testing.assert_array_equal(numbers.sample, whole)
    for j in range(2):
        finite = whole[np.isfinite(whole[:, j]), j]
        assert numbers.count[j] == len(finite)
        assert numbers.non_finite[j] == len(whole) - len(finite)
        if len(finite):
            assert numbers.mean[j] == pytest.approx(finite.mean(), abs=1e-9)
            assert numbers.deviation[j] == pytest.approx(finite.std(), abs=1e-6)
            assert (numbers.low[j], numbers.high[j]) == (finite.min(), finite.max())


def test_drift_is_significant_and_large():
    def make(p, effect):
        return Comparison("train", "x", "ks", effect, p, effect, (9, 9))

    assert has_drifted(make(1e-9, 0.2), 10)
    assert not has_drifted(make(1e-9, 0.05), 10)  # of many examples: not large
    assert not has_drifted(make(5e-4, 0.9), 10)  # one of ten comparisons: chance


def against(capsys, tmp_path, source, other):
    path = tmp_path / "report.json"
    code = main(["data", "check", source, "--against", other, "--json", str(path)])
    return code, capsys.readouterr().out, json.loads(path.read_text())["against"]


@pytest.mark.parametrize("source", ["embedded:digits", "planted:clean_images", "planted:pairs"])
def test_a_set_does_not_differ_from_itself(source, capsys, tmp_path):
    code, out, report = against(capsys, tmp_path, source, source)
    assert code == 0
    assert out.endswith("\nnothing found\n")
    assert report["schema"] == []
    assert report["comparisons"]
    assert not any(c["drifted"] or c["effect"] for c in report["comparisons"])


def test_other_numbers(capsys, tmp_path):
    code, out, report = against(capsys, tmp_path, "planted:clean_table", "planted:shifted_table")
    assert code == 3
    assert report["schema"] == ["field 'features': float32 here, float64 there"]
    assert [c["what"] for c in report["comparisons"] if c["drifted"]] == ["features[2]"]
    tests = {c["what"]: c for c in report["comparisons"]}
    assert set(tests) == {"label", *(f"features[{i}]" for i in range(4))}
    assert tests["features[2]"]["means"][1] - tests["features[2]"]["means"][0] > 0.8
    assert "1 of 5 distributions drifted" in out
    assert report["shared_inputs"] == 0


def test_other_classes_and_colours(capsys, tmp_path):
    code, _, report = against(capsys, tmp_path, "embedded:digits", "planted:other_digits")
    assert code == 3
    assert report["schema"] == [
        "classes: the same in another order, class 0 is '0' here and '1' there"
    ]
    drifted = {c["what"]: c for c in report["comparisons"] if c["drifted"]}
    assert set(drifted) == {"label", "image mean"}
    # Inverted: the mean is 1 less what it was, the deviation stays.
    here, there = drifted["image mean"]["means"]
    assert there == pytest.approx(1 - here, abs=0.02)


def test_another_kind_of_data(capsys, tmp_path):
    code, _, report = against(capsys, tmp_path, "embedded:wine", "embedded:diabetes")
    assert code == 3
    assert report["schema"] == [
        "field 'features': shape 13 here, 10 there",
        "field 'label': int32 here, float32 there",
        "classes: 3 here, none there",
    ]
    assert report["comparisons"] == []


def test_broken_examples_of_the_other_set_are_left_out(capsys, tmp_path):
    _, out, report = against(capsys, tmp_path, "planted:clean_images", "planted:broken_images")
    assert report["unreadable"] == 4
    assert "4 of its examples cannot be read" in out
    assert report["shared_inputs"] == 0
    assert report["schema"] == ["classes only there: '$ant$'"]
    _, _, report = against(capsys, tmp_path, "planted:clean_images", "planted:clean_images")
    assert report["shared_inputs"] == 39


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_mean_and_deviation_of_bytes(values):
    pixels = np.array(values, np.uint8).reshape(1, -1, 1)
    scaled = pixels.astype(np.float64) / 255
    wanted = (scaled.mean(), scaled.std())
    assert mean_and_deviation(pixels) == pytest.approx(wanted, abs=1e-9)
    assert mean_and_deviation(scaled) == pytest.approx(wanted, abs=1e-9)
