"""Recorded twins: small transformers models, what they compute, and ours from the same files."""

import pytest

from tests.pretrained.compare import check_twin
from tests.pretrained.twins import CASES, FOLDER

RECORDED = [case.name for case in CASES if case.recorded]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name):
    check_twin(FOLDER / name)
