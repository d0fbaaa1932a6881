"""Batch, group and instance norms against their rivals and the memory limit: one benchmark per job and rival."""

import jobs
import pytest
import rivals


@pytest.mark.parametrize(("job", "rival"), rivals.pairs(jobs.CHANNELS), ids=str)
def test_channels(race, job, rival):
    race(job, rival)
