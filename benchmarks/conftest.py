"""What the benchmarks share: equal threads for all rivals, and what is recorded beside the times."""

import time

import exact
import numpy as np
import pytest
import rivals
from libraries import THREADS, albumentations, cv2, fastnorm, scipy, set_threads, sklearn, torch

LIMIT_SECONDS = 0.3
CHANGING_ROUNDS = 20  # of a call that changes its input, which is brought back before each


def pytest_benchmark_update_machine_info(machine_info):
    machine_info["fastnorm"] = {"version": fastnorm.__version__, "isa": fastnorm.isa(), "threads": THREADS}
    machine_info["numpy"] = np.__version__
    machine_info["torch"] = torch.__version__ if torch else None
    machine_info["scipy"] = scipy.__version__ if scipy else None
    machine_info["sklearn"] = sklearn.__version__ if sklearn else None
    machine_info["cv2"] = cv2.__version__ if cv2 else None
    machine_info["albumentations"] = albumentations.__version__ if albumentations else None


@pytest.fixture(autouse=True, scope="session")
def equal_threads():
    set_threads(THREADS)


@pytest.fixture
def race(benchmark):
    """Check a rival's answer to a job, then time it in the group of that job."""

    def run(job, rival):
        call = rivals.rival(rival, job)
        error, right = exact.check(job, call())
        assert right or rival != "fastnorm", f"{job}: wrong by {error:.3g}"
        benchmark.group = str(job)
        way = getattr(call, "way", rival)
        among = getattr(call, "among", [rival])
        benchmark.extra_info.update(
            rival=rival, way=way, among=among, right=right, largest_error=error, threads=THREADS
        )
        if hasattr(call, "refresh"):
            benchmark.pedantic(call, setup=call.refresh, rounds=CHANGING_ROUNDS, warmup_rounds=1)
        else:
            benchmark(call)
        if job.limit and benchmark.stats:
            fraction = limit_seconds(job) / benchmark.stats.stats.median
            benchmark.extra_info[f"fraction_of_{job.limit}_limit"] = round(fraction, 3)

    return run


def limit_seconds(job):
    """Take the median time of the plain C loop that moves the same bytes with the same threads."""
    loop = rivals.yardsticks(job, THREADS)["limit"]
    loop()
    times = []
    while sum(times) < LIMIT_SECONDS:
        start = time.perf_counter()
        loop()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
