"""The libraries that race, imported in an order that is fair to all, and what their calls share.

All but NumPy are optional. PyTorch is imported before fastnorm, so that both run on one OpenMP runtime: the waiting
threads of a second one would take the processor from whoever is timed next. Numba brings such a second one where its
OpenMP has another file name than PyTorch's, so it is told to wait briefly; what waits in ONNX Runtime is told in its
own file. scikit-learn-intelex runs on TBB, whose threads sleep; nothing is patched, its functions are called by name.
"""

import contextlib
import os
from functools import partial

import numpy as np

try:
    import torch
except ImportError:
    torch = None
try:
    import scipy.stats
except ImportError:
    scipy = None
try:
    import sklearn.preprocessing
except ImportError:
    sklearn = None
try:
    import cv2
except ImportError:
    cv2 = None
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would look for a newer version of itself
try:
    import albumentations
except ImportError:
    albumentations = None

import fastnorm
import fastnorm.image

if sklearn:
    import fastnorm.preprocessing
try:
    import bottleneck
except ImportError:
    bottleneck = None
try:
    import onnx.helper
    import onnxruntime
except ImportError:
    onnx = onnxruntime = None
try:
    import daal4py
    import sklearnex
except ImportError:
    daal4py = sklearnex = None
try:
    import numba
except ImportError:
    numba = None

np.seterr(all="ignore")  # whether an answer overflowed is found by the check of it

BRIEF_SPIN_MICROSECONDS = 200  # of a thread that waits: less than the untimed calls before a sample take
SPINS_PER_MICROSECOND = 40  # of libgomp, about


@contextlib.contextmanager
def environment(name, value):
    """Set an environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


if numba:
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # OpenMP's calls are the quickest
    with environment(
        "GOMP_SPINCOUNT", str(SPINS_PER_MICROSECOND * BRIEF_SPIN_MICROSECONDS)
    ):  # read when the runtime is loaded, which is now
        numba.set_num_threads(1)


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, usable_cores())


def set_threads(threads):
    """Give every rival that is built from now on the same number of threads.

    NumPy, SciPy, bottleneck and scikit-learn's scalers always use one. ONNX Runtime's sessions take what fastnorm has.
    """
    fastnorm.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    if cv2:
        cv2.setNumThreads(threads)
    if numba:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    if daal4py:
        daal4py.daalinit(threads)


def formula(function):
    """Make a rival of a function of the job's arrays."""
    return partial(partial, function)


def limited(table, condition):
    """Return a table of rivals that are offered only for those jobs of which the condition is true."""
    return {form: Limited(build, condition) for form, build in table.items()}


class Limited:
    """A rival that is offered only for some jobs."""

    def __init__(self, build, suits):
        self.build, self.suits = build, suits

    def __call__(self, made):
        return self.build(made)


def offered(table, job):
    """Tell whether a table has a rival for a job."""
    if job.form not in table:
        return False
    suits = getattr(table[job.form], "suits", None)
    return suits is None or suits(job)
