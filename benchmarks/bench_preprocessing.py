"""Estimators against scikit-learn's and the memory limit: one benchmark per job, thread count and rival."""

import pytest
import suite


@pytest.mark.parametrize("case", suite.cases("preprocessing"), ids=str)
def test_preprocessing(race, case):
    race(case)
