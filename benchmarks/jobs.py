"""The one list of jobs that the benchmarks time, with inputs, exact answers and targets.

A job names an operation, a shape and an axis. Its inputs are made from a fixed seed; its exact answer is the float64
twin of the operation, computed a slice at a time so that large jobs stay within a few hundred megabytes.
"""

import functools
from dataclasses import dataclass, field

import numpy as np

EPS = 1e-5
FLOAT32_EPS = float(np.finfo(np.float32).eps)
TOLERANCE = 32 * FLOAT32_EPS
SLICE_BYTES = 2**26


@dataclass(frozen=True)
class Job:
    op: str
    shape: tuple
    axis: int | None = None
    out: bool = False  # the result goes into an array made beforehand
    limit: str | None = None  # the memory limit it is held against: "read" or "stream"
    targets: dict = field(default_factory=dict, hash=False)  # rival: times as fast; limit: fraction of it

    def __str__(self):
        words = [self.op, "x".join(map(str, self.shape))]
        if self.axis is not None:
            words.append(f"axis={self.axis}")
        if self.out:
            words.append("out=")
        return " ".join(words)


LAYER_NORM = [
    Job("layer_norm", (8, 64), targets={"torch": 1 / 0.3, "numpy": 1 / 0.07}),
    Job("layer_norm", (128, 768), targets={"torch": 1.4, "numpy": 10}),
    Job("layer_norm", (1024, 1024), targets={"torch": 1.4, "numpy": 10}),
    Job("layer_norm", (4096, 1024), targets={"torch": 1.4, "numpy": 10}),
    Job("layer_norm", (65536, 64), targets={"torch": 2.5}),
    Job("layer_norm", (1000000, 8), targets={"torch": 5}),
    Job("layer_norm", (16384, 4096), out=True, limit="stream", targets={"limit": 0.85}),
]
STANDARDIZE = [
    Job("standardize", (1000000, 30), axis=0),
]
STATISTICS = [
    Job("mean_var", (50000000,), limit="read", targets={"limit": 0.7}),
    Job("mean_var", (1000000, 30), axis=0, limit="read", targets={"limit": 0.6}),
    Job("minmax", (50000000,), limit="read", targets={"limit": 0.8}),
    Job("minmax", (1000000, 30), axis=0, limit="read", targets={"limit": 0.8}),
]
FUNCTIONAL = LAYER_NORM + STANDARDIZE
JOBS = FUNCTIONAL + STATISTICS


@dataclass
class Inputs:
    x: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    out: np.ndarray | None = None


@functools.lru_cache(maxsize=1)
def inputs(job):
    """Make the arrays of a job; the last job's are kept, because its rivals follow one another."""
    rng = np.random.default_rng(20240229)
    x = rng.standard_normal(job.shape, dtype=np.float32)
    x *= 2
    x += 1
    made = Inputs(x)
    if job.op == "layer_norm":
        made.weight = rng.uniform(0.5, 1.5, job.shape[-1]).astype(np.float32)
        made.bias = rng.uniform(-1, 1, job.shape[-1]).astype(np.float32)
    if job.out:
        made.out = np.zeros_like(x)
    return made


def slices(x):
    """Yield pieces of x along its first axis, small enough to be held in float64, with their place."""
    step = max(1, SLICE_BYTES // (8 * (x.size // len(x))))
    for start in range(0, len(x), step):
        place = slice(start, start + step)
        yield place, x[place].astype(np.float64)


@functools.lru_cache(maxsize=2)
def exact_mean_var(job):
    """Compute mean and population variance in float64, in two passes over the slices."""
    x = inputs(job).x
    count = len(x) if job.axis == 0 else x.size
    mean = sum(piece.sum(job.axis) for _, piece in slices(x)) / count
    var = sum(np.square(piece - mean).sum(job.axis) for _, piece in slices(x)) / count
    return mean, var


def exact_slices(job):
    """Yield the exact answer of `layer_norm` or `standardize`, a slice at a time."""
    made = inputs(job)
    for place, x in slices(made.x):
        if job.op == "standardize":
            mean, var = exact_mean_var(job)
            yield place, (x - mean) / np.sqrt(var)
        else:
            centred = x - x.mean(-1, keepdims=True)
            rstd = 1 / np.sqrt(np.square(centred).mean(-1, keepdims=True) + EPS)
            yield place, centred * rstd * made.weight + made.bias


def largest_error(job, answer):
    """Return the largest error of an answer against float64: of a mean or variance relative, of all else absolute.

    NumPy reads a CPU tensor as an array, so a rival's answer needs no conversion. NaN stays NaN, and is never right.
    """
    if job.op == "mean_var":
        pairs = zip(answer, exact_mean_var(job), strict=True)
        errors = [np.max(np.abs(np.asarray(got, np.float64) - exact) / np.abs(exact)) for got, exact in pairs]
    elif job.op == "minmax":
        x = inputs(job).x
        pairs = zip(answer, (x.min(job.axis), x.max(job.axis)), strict=True)
        errors = [np.max(np.abs(np.asarray(got, np.float64) - exact)) for got, exact in pairs]
    else:
        got = np.asarray(answer)
        if got.shape != job.shape:
            raise ValueError(f"{job}: the answer has shape {got.shape}")
        errors = [np.max(np.abs(got[place] - exact)) for place, exact in exact_slices(job)]
    return float(np.max(errors))


def is_right(job, error):
    """Tell whether an error is rounding only.

    Extrema are exact. Normalized values lie within +-10 here, where storing one rounds by up to 4 eps, and a mean
    rounded to float32 shifts a row by eps / 2 * mean / std, with mean / std below 10 in the narrowest row: 32 eps is
    generous.
    """
    return error == 0 if job.op == "minmax" else error <= TOLERANCE
