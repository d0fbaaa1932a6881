"""Sizes from 4 KiB to 256 MiB against the memory limit, and two threads against one: one benchmark per size."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("sweep"), ids=str)
def test_sweep(race, case):
    race(case)
