"""Recorded twins: small transformers models, what they compute, and ours from the same files."""

import pytest
from compare import check_twin
from twins import CASES, FOLDER

RECORDED = [case.name for case in CASES if case.recorded]


@pytest.mark.parametrize("name", RECORDED)
def test_outputs_and_gradients_are_the_recorded_ones(name):
    check_twin(FOLDER / name)
