"""The fixtures that sweep dtype, instruction set and thread count."""

import os

# Read when the OpenMP runtime is loaded, hence set before. Workers then sleep between calls; spinning ones would hold
# the cores that other threads and processes wait for, and a sweep could take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import pytest
from cases import THREADS, UNEVEN, supported_isas, threshold
from hypothesis import HealthCheck, settings

import fastnorm
from fastnorm import _ops

# So many examples for each test that Hypothesis drives: --hypothesis-profile=ci, for one.
for name, examples in (("ordinary", 80), ("ci", 500), ("long", 20_000)):
    settings.register_profile(
        name,
        max_examples=examples,
        derandomize=name != "long",
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
settings.load_profile("ordinary")


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture(params=supported_isas())
def isa(request):
    """Run the test on each instruction set this CPU has, after proving that it is the active one."""
    with fastnorm.use_isa(request.param):
        assert fastnorm.isa() == request.param
        yield request.param


def list_machines():
    """(instruction set, threads): every set with UNEVEN threads, the other counts with one of the sets in turn.

    A kernel is handed a range and does not know how many threads there are; the driver that shares the ranges out does
    not know the instruction set. So not every pair is run.
    """
    isas = supported_isas()
    for isa in isas:
        yield pytest.param((isa, UNEVEN), id=f"{isa}-{UNEVEN}")
    for i, n in enumerate(n for n in THREADS if n != UNEVEN):
        isa = isas[-1 - i % len(isas)]  # the widest first
        yield pytest.param((isa, n), id=f"{isa}-{n}", marks=pytest.mark.sweep)


@pytest.fixture(params=list_machines())
def machine(request):
    """Run the test on CPUs of each instruction set and with each thread count, however small the work."""
    isa, n = request.param
    with fastnorm.use_isa(isa), fastnorm.threads(n), threshold(_ops.set_work_threshold, 0):
        assert (fastnorm.isa(), fastnorm.get_num_threads()) == (isa, n)
        yield request.param


@pytest.fixture
def no_work_threshold():
    """Let every call, however small, use all the threads it may."""
    with threshold(_ops.set_work_threshold, 0):
        yield


@pytest.fixture
def no_stream_threshold():
    """Write every output past the cache, however small."""
    with threshold(_ops.set_stream_threshold, 0):
        yield


@pytest.fixture(params=["cached", "streamed"])
def stores(request):
    """Run the test with outputs written through the cache and past it."""
    if request.param == "cached":
        yield
    else:
        with threshold(_ops.set_stream_threshold, 0):
            yield


@pytest.fixture(params=[n if n == UNEVEN else pytest.param(n, marks=pytest.mark.sweep) for n in THREADS])
def num_threads(request):
    """Run the test on each of these thread counts, however small the work."""
    with threshold(_ops.set_work_threshold, 0), fastnorm.threads(request.param):
        assert fastnorm.get_num_threads() == request.param
        yield request.param
