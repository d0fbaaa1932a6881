"""The rivals: what each library's user would write for a job. A rival turns a job into a function to be timed.

Each rival is a table: a job's form leads to a function that takes the job's arrays and returns the call. What a user
would do once and not in every call (tensors, the forward pass that a backward pass goes back through) is done there.
"""

from functools import partial

import exact
import memory_limit
import numpy as np
import rivals_image as image
from jobs import HALVES, inputs
from libraries import (
    albumentations,
    bottleneck,
    cv2,
    numba,
    offered,
    onnxruntime,
    scipy,
    sklearn,
    sklearnex,
    torch,
)
from rivals_bottleneck import BOTTLENECK
from rivals_fastnorm import FASTNORM
from rivals_numba import NUMBA
from rivals_numpy import NUMPY, SCIPY
from rivals_onnxruntime import ONNXRUNTIME
from rivals_sklearn import FASTNORM_ESTIMATORS, SKLEARN
from rivals_sklearnex import SKLEARNEX
from rivals_torch import TORCH, quickest, tensor


def in_float32(array):
    return array.astype(np.float32)


RIVALS = {
    "fastnorm": FASTNORM | FASTNORM_ESTIMATORS | image.FASTNORM,
    "float32": FASTNORM,
    "torch": TORCH | image.TORCH,
    "numpy": NUMPY | image.NUMPY,
    "scipy": SCIPY,
    "sklearn": SKLEARN,
    "numba": NUMBA,
    "bottleneck": BOTTLENECK,
    "onnxruntime": ONNXRUNTIME,
    "sklearnex": SKLEARNEX,
    "cv2": image.CV2,
    "albumentations": image.ALBUMENTATIONS,
}
OTHER_WAYS = {  # of the rivals by whose names they begin
    "torch folded": image.TORCH_FOLDED,
    "numpy folded": image.NUMPY_FOLDED,
    "cv2 parameters": image.CV2_PARAMETERS,
    "cv2 tables": image.CV2_TABLES,
    "cv2 sums": image.CV2_SUMS,
    "cv2 arithmetic": image.CV2_ARITHMETIC,
}
INSTALLED = {
    "torch": torch,
    "scipy": scipy,
    "sklearn": sklearn,
    "numba": numba,
    "bottleneck": bottleneck,
    "onnxruntime": onnxruntime,
    "sklearnex": sklearnex,
    "cv2": cv2,
    "albumentations": albumentations,
}
VIEWS = {"float32": in_float32, "torch": tensor, "torch folded": tensor}  # what a rival takes in place of an array


def names(job):
    """List the rivals that have such a call.

    A job in half precision runs against fastnorm's own float32 on the same values. It does not run against NumPy, which
    stores half precision well but is neither fast nor accurate in it.
    """
    left_out = {"numpy"} if job.dtype in HALVES else {"float32"}
    found = [name for name in ways(job, RIVALS) if name not in left_out]
    return [*found, "best"] if "best" in job.targets else found


def ways(job, tables):
    """List the rivals of some tables that are installed and take such a job."""
    return [
        name for name, table in tables.items() if INSTALLED.get(name.partition(" ")[0], True) and offered(table, job)
    ]


def pairs(jobs):
    return [(job, name) for job in jobs for name in names(job)]


def rival(name, job, made=None):
    """Return the call to be timed, on the inputs of the job or on others that are like them."""
    if name == "best":
        return best(job)
    made = (inputs(job) if made is None else made).own()
    return (RIVALS | OTHER_WAYS)[name][job.form](made.each(VIEWS[name]) if name in VIEWS else made)


def best(job):
    """Return the quickest right way of all rivals: its name is the attribute `way`, whose ways were tried `among`."""
    calls = {name: rival(name, job) for name in ways(job, RIVALS | OTHER_WAYS) if name not in {"fastnorm", "float32"}}
    right = {name: call for name, call in calls.items() if call and exact.check(job, call())[1]}
    way = min(right, key=lambda name: quickest(right[name]))
    call = partial(right[way])
    call.way, call.among = way, list(dict.fromkeys(name.partition(" ")[0] for name in right))
    return call


# ---- what a job is held against that answers another question


def yardsticks(job, threads):
    """Return by name the calls that a job's time is compared with, although their answers are not the job's."""
    found = {}
    if job.limit:
        made = inputs(job)
        sources = [array for array in (made.x, made.residual, made.dy) if array is not None]
        found["limit"] = memory_limit.moves(job.limit.split("+"), sources, made.out, threads)
    if job.activation:  # the norm alone, whose answer is checked as that of a job of its own
        found["plain"] = FASTNORM[job.form.removesuffix(f" {job.activation}")](inputs(job).own())
    return found
