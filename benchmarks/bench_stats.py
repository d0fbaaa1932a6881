"""Statistics against their rivals and the memory limit: one benchmark per job and rival."""

import jobs
import pytest
import rivals


@pytest.mark.parametrize(("job", "rival"), rivals.pairs(jobs.STATISTICS), ids=str)
def test_stats(race, job, rival):
    race(job, rival)
