"""Pictures against their rivals: one benchmark per job, thread count and rival."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("image"), ids=str)
def test_image(race, case):
    race(case)
