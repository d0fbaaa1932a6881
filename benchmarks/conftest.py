"""What the benchmarks share: a case is checked, timed, raced in pairs, and described for the report.

With `--benchmark-disable`, or where tests are shared by processes, cases are only checked.
"""

import functools
import hashlib
import importlib.metadata
import itertools
import operator

import exact
import numpy as np
import pytest
import race
import rivals
from libraries import THREADS, fastnorm, set_threads, torch
from race import Contender
from results import NOTABLE_CORES
from suite import Case

SAMPLE_NS = 1_000_000
PAIR_SECONDS = 0.05
LIMIT_SECONDS = 0.15
TRIES = 3
LONG_SECONDS = 0.3  # of a call that is raced twice only
OWN_SECONDS, RIVAL_SECONDS, MOST_ROUNDS = 0.02, 0.005, 20  # of pytest-benchmark's own statistics
CHANGING_ROUNDS = 5  # of a call that changes its input, which is brought back before each


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: one of the few benchmarks that tell soonest how things stand")
    config.addinivalue_line("markers", "torch: against PyTorch, which is run once more with AVX2")


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))  # a rival may warn
        case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
        if not isinstance(case, Case):
            item.add_marker(pytest.mark.quick)
            continue
        if case.quick:
            item.add_marker(pytest.mark.quick)
        if case.rival == "torch":
            item.add_marker(pytest.mark.torch)


def pytest_benchmark_update_machine_info(machine_info):
    machine_info["fastnorm"] = {"version": fastnorm.__version__, "isa": fastnorm.isa(), "threads": THREADS}
    machine_info["torch_capability"] = torch.backends.cpu.get_cpu_capability() if torch else None
    machine_info["libraries"] = {"numpy": np.__version__} | {
        name: version(name, module) for name, module in rivals.INSTALLED.items() if module
    }


def version(name, module):
    """Return a library's version; the module of scikit-learn-intelex does not know its own."""
    return importlib.metadata.version("scikit-learn-intelex") if name == "sklearnex" else module.__version__


@pytest.fixture(name="race")
def race_case(benchmark):
    """Return the function that runs a case."""

    def run(case):
        equal_threads(case.threads)
        benchmark.group = f"{case.job} threads={case.threads}"
        own, error, right = ours(case.job, case.threads)
        rival = own
        if case.rival not in {"fastnorm", "one thread"}:
            rival, error, right = contender(case.job, case.rival)
        benchmark.extra_info.update(described(case, error, right))
        if case.rival == "one thread":
            own, rival = (Contender(own.calls, SAMPLE_NS, threads) for threads in (case.threads, 1))
        time_alone(benchmark, rival, OWN_SECONDS if case.rival == "fastnorm" else RIVAL_SECONDS)
        if benchmark.disabled:
            return
        if case.rival != "fastnorm":
            benchmark.extra_info.update(paired(own, rival))
        else:
            benchmark.extra_info.update(seconds=benchmark.stats.stats.median)
            if case.job.limit:
                benchmark.extra_info.update(against_limit(own, case))
        fastnorm.set_num_threads(case.threads)

    return run


@functools.lru_cache(maxsize=1)
def equal_threads(threads):
    """Set the threads of all, unless they were the last case's."""
    set_threads(threads)


def contender(job, name):
    """Return a rival that was checked, its error and whether it is right."""
    calls = race.calls(name, job)
    error, right = verdict(job, name, calls[0]())
    assert right or name != "fastnorm", f"{job}: wrong by {error:.3g}"
    return Contender(calls, SAMPLE_NS), error, right


@functools.lru_cache(maxsize=1)
def ours(job, threads):  # noqa: ARG001  # another thread count is another contender
    """Return fastnorm's contender, which the rivals that follow one another share."""
    return contender(job, "fastnorm")


VERDICTS = {}


def verdict(job, name, answer):
    """Check an answer, unless the same bytes were checked with another thread count."""
    seen = digest(answer)
    if VERDICTS.get((job, name), (None,))[0] != seen or seen is None:
        VERDICTS[job, name] = seen, *exact.check(job, answer)
    return VERDICTS[job, name][1:]


def digest(answer):
    """Hash an answer's arrays; None for other answers."""
    arrays = [np.ascontiguousarray(part) for part in (answer if isinstance(answer, tuple) else (answer,))]
    if any(array.dtype.hasobject for array in arrays):
        return None
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.view(np.uint8) if array.ndim else array.tobytes())
    return found.digest()


def described(case, error, right):
    """Describe a case and its answer in plain numbers and words."""
    job = case.job
    return {
        "op": job.op,
        "variant": job.variant,
        "shape": list(job.shape),
        "axis": job.axis,
        "dtype": job.dtype,
        "size": job.size,
        "elements": job.elements,
        "nbytes": job.nbytes,
        "threads": case.threads,
        "isa": fastnorm.isa(),
        "rival": case.rival,
        "right": right,
        "largest_error": error if np.isfinite(error) else None,
    }


def time_alone(benchmark, timed, seconds):
    """Give pytest-benchmark its samples."""
    if timed.refresh:
        benchmark.pedantic(timed.calls[0], setup=timed.refresh, rounds=CHANGING_ROUNDS, warmup_rounds=1)
        return
    rounds = min(MOST_ROUNDS, int(seconds * 1e9 / timed.cost))
    least = 3 if timed.cost < LONG_SECONDS * 1e9 / 10 else 1
    turn = timed.calls[0] if len(timed.calls) == 1 else map(operator.call, itertools.cycle(timed.calls)).__next__
    benchmark.pedantic(turn, rounds=max(least, rounds), iterations=timed.repeats)


def paired(own, rival):
    """Race two contenders: the ratio of their times with its quartiles, and their median times."""
    fewest = 2 if rival.cost > LONG_SECONDS * 1e9 else 3
    pairs, busy = undisturbed(own, rival, PAIR_SECONDS, fewest)
    low, middle, high = race.quartiles(pairs)
    own_seconds, seconds = race.medians(pairs)
    return {
        "ratio": middle,
        "low": low,
        "high": high,
        "rounds": len(pairs),
        "seconds": seconds,
        "own_seconds": own_seconds,
        "busy": busy,
    }


def against_limit(own, case):
    """Race fastnorm against the C loops that move the same bytes with the same threads."""
    limit = Contender([rivals.yardsticks(case.job, case.threads)["limit"]], SAMPLE_NS)
    pairs, busy = undisturbed(own, limit, LIMIT_SECONDS, 5)
    seconds, limit_seconds = race.medians(pairs)
    return {
        "limit": case.job.limit,
        "fraction": race.quartiles(pairs)[1],
        "moved": case.job.moved,
        "seconds": seconds,
        "limit_seconds": limit_seconds,
        "busy": busy,
    }


def undisturbed(own, other, seconds, fewest):
    """Take pairs, again if other programs used the processor meanwhile; return the least disturbed and by how much."""
    tries = []
    while len(tries) < TRIES and (not tries or tries[-1][0] > NOTABLE_CORES):
        neighbours = race.Neighbours()
        (pairs,) = race.measure({"fastnorm": own, "other": other}, None, seconds, fewest).values()
        tries.append((round(neighbours.cores(), 3), pairs))
    busy, pairs = min(tries, key=operator.itemgetter(0))
    return pairs, busy
