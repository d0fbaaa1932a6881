"""The fixtures that sweep dtype, instruction set and thread count."""

import contextlib

import numpy as np
import pytest
from cases import THREADS, supported_isas

import fastnorm
from fastnorm import _ops


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=supported_isas())
def isa(request):
    """Run the test on each instruction set this CPU has, after proving that it is the active one."""
    with fastnorm.use_isa(request.param):
        assert fastnorm.isa() == request.param
        yield request.param


@contextlib.contextmanager
def _work_threshold(n):
    old = _ops.set_work_threshold(n)
    try:
        yield
    finally:
        _ops.set_work_threshold(old)


@pytest.fixture
def no_work_threshold():
    """Let every call, however small, use all the threads it may."""
    with _work_threshold(0):
        yield


@pytest.fixture(params=THREADS)
def num_threads(request):
    """Run the test on each of these thread counts, however small the work."""
    with _work_threshold(0), fastnorm.threads(request.param):
        assert fastnorm.get_num_threads() == request.param
        yield request.param
