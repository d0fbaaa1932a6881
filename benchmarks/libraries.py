"""The libraries that race, imported in an order that is fair to all, and what their calls share.

PyTorch and SciPy are optional. PyTorch is imported before fastnorm, so that both run on one OpenMP runtime: the waiting
threads of a second one would take the processor from whoever is timed next.
"""

import os
from functools import partial

try:
    import torch
except ImportError:
    torch = None
try:
    import scipy.stats
except ImportError:
    scipy = None

import fastnorm


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, usable_cores())


def set_threads(threads):
    """Give every rival the same number of threads. NumPy's and SciPy's formulas use one whatever is asked."""
    fastnorm.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)


def formula(function):
    """Make a rival of a function of the job's arrays."""
    return partial(partial, function)
