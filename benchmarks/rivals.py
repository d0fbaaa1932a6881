"""The rivals: what each library's user would write for a job. A rival turns a job into a function to be timed.

Each rival is a table: a job's form leads to a function that takes the job's arrays and returns the call. What a user
would do once and not in every call (tensors, the forward pass that a backward pass goes back through) is done there.
"""

from functools import partial

import memory_limit
import numpy as np
from jobs import HALVES, inputs
from libraries import scipy, sklearn, torch
from rivals_fastnorm import FASTNORM
from rivals_numpy import NUMPY, SCIPY
from rivals_sklearn import FASTNORM_ESTIMATORS, SKLEARN
from rivals_torch import TORCH, tensor


def in_float32(array):
    return array.astype(np.float32)


RIVALS = {
    "fastnorm": FASTNORM | FASTNORM_ESTIMATORS,
    "float32": FASTNORM,
    "torch": TORCH,
    "numpy": NUMPY,
    "scipy": SCIPY,
    "sklearn": SKLEARN,
}
VIEWS = {"float32": in_float32, "torch": tensor}  # what a rival takes in place of an array


def names(job):
    """List the rivals that have such a call.

    A job in half precision runs against fastnorm's own float32 on the same values. It does not run against NumPy, which
    stores half precision well but is neither fast nor accurate in it.
    """
    installed = {"torch": torch, "scipy": scipy, "sklearn": sklearn}
    left_out = {"numpy"} if job.dtype in HALVES else {"float32"}
    candidates = [name for name in RIVALS if name not in left_out]
    return [name for name in candidates if job.form in RIVALS[name] and installed.get(name, True)]


def pairs(jobs):
    return [(job, name) for job in jobs for name in names(job)]


def rival(name, job):
    """Return the call to be timed."""
    made = inputs(job).own()
    return RIVALS[name][job.form](made.each(VIEWS[name]) if name in VIEWS else made)


# ---- what a job is held against that answers another question


def yardsticks(job, threads):
    """Return by name the calls that a job's time is compared with, although their answers are not the job's."""
    found = {}
    if job.limit:
        found["limit"] = partial(move_bytes, inputs(job), job.limit.split("+"), threads)
    if job.activation:  # the norm alone, whose answer is checked as that of a job of its own
        found["plain"] = FASTNORM[job.form.removesuffix(f" {job.activation}")](inputs(job).own())
    return found


def move_bytes(made, loops, threads):
    """Move the bytes that the job must move, one C loop after another."""
    for loop in loops:
        if loop == "read":
            memory_limit.read(made.x, threads)
        elif loop == "update":
            memory_limit.update(made.x, threads)
        else:
            memory_limit.stream(made.out, made.x, threads)
