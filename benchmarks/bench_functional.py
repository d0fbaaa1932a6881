"""Norms and scalings against their rivals: one benchmark per job and rival."""

import jobs
import pytest
import rivals


@pytest.mark.parametrize(("job", "rival"), rivals.pairs(jobs.FUNCTIONAL), ids=str)
def test_functional(race, job, rival):
    race(job, rival)
