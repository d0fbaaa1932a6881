"""The time of an import, in processes of their own: fastnorm, which imports NumPy, against NumPy alone."""

import os
import subprocess
import sys
from functools import partial

import race
from libraries import fastnorm

ROUNDS = 15


def importing(name):
    """Import as after an installation: from compiled files, which the first call writes."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    call = partial(subprocess.run, [sys.executable, "-c", f"import {name}"], check=True, env=environment)
    return race.Contender([call], sample_ns=1)


def test_import(benchmark):
    own, numpy = importing("fastnorm"), importing("numpy")
    benchmark.group = "import"
    benchmark.pedantic(own.calls[0], rounds=3)
    if benchmark.disabled:
        return
    neighbours = race.Neighbours()
    (pairs,) = race.measure({"fastnorm": own, "numpy": numpy}, ROUNDS, 0).values()
    low, middle, high = race.quartiles(pairs)
    own_seconds, seconds = race.medians(pairs)
    benchmark.extra_info.update(
        op="import",
        variant="",
        shape=[],
        axis=None,
        dtype="",
        size="import",
        elements=0,
        nbytes=0,
        threads=1,
        isa=fastnorm.isa(),
        rival="numpy",
        right=True,
        largest_error=0.0,
        ratio=middle,
        low=low,
        high=high,
        rounds=len(pairs),
        seconds=seconds,
        own_seconds=own_seconds,
        busy=round(neighbours.cores(), 3),
    )
