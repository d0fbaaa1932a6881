"""Unit vectors and local response norms against their rivals: one benchmark per job, thread count and rival."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("local"), ids=str)
def test_local(race, case):
    race(case)
