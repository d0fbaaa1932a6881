"""Statistics against their rivals and the memory limit: one benchmark per job, thread count and rival."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("stats"), ids=str)
def test_stats(race, case):
    race(case)
