"""Estimators against scikit-learn's and the memory limit: one benchmark per job and rival."""

import jobs
import pytest
import rivals


@pytest.mark.parametrize(("job", "rival"), rivals.pairs(jobs.GROUPS.get("preprocessing", [])), ids=str)
def test_preprocessing(race, job, rival):
    race(job, rival)
