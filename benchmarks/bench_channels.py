"""Batch, group and instance norms against rivals and the memory limit: a benchmark per job, thread count and rival."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("channels"), ids=str)
def test_channels(race, case):
    race(case)
