"""Unit vectors and local response norms against their rivals: one benchmark per job and rival."""

import jobs
import pytest
import rivals


@pytest.mark.parametrize(("job", "rival"), rivals.pairs(jobs.LOCAL), ids=str)
def test_local(race, job, rival):
    race(job, rival)
