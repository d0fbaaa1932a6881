"""The libraries that race, imported in an order that is fair to all, and what their calls share.

PyTorch, SciPy, scikit-learn, OpenCV and albumentations are optional. PyTorch is imported before fastnorm, so that both
run on one OpenMP runtime: the waiting threads of a second one would take the processor from whoever is timed next.
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


def usable_cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


THREADS = min(2, usable_cores())


def set_threads(threads):
    """Give every rival the same number of threads. NumPy, SciPy and scikit-learn's scalers always use one."""
    fastnorm.set_num_threads(threads)
    if torch:
        torch.set_num_threads(threads)
    if cv2:
        cv2.setNumThreads(threads)


def formula(function):
    """Make a rival of a function of the job's arrays."""
    return partial(partial, function)
