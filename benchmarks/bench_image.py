"""Pictures against their rivals: one benchmark per job and rival."""

import jobs
import pytest
import rivals


@pytest.mark.parametrize(("job", "rival"), rivals.pairs(jobs.IMAGE), ids=str)
def test_image(race, job, rival):
    race(job, rival)
