"""Norms and scalings against their rivals: one benchmark per job, thread count and rival."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("functional"), ids=str)
def test_functional(race, case):
    race(case)
