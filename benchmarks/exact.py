"""The exact answers of the jobs, and whether a rival's answer is right.

The exact answer is the float64 twin of the operation, computed a slice at a time so that large jobs stay within a few
hundred megabytes.
"""

import functools

import numpy as np
from jobs import EPS, inputs

EPS_OF = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
SLICE_BYTES = 2**26


def check(job, answer):
    """Return the largest error of an answer, and whether each of its parts is right but for rounding.

    Errors of a mean or variance are relative; those of a sum of products, as dweight is, are relative to the sum of the
    products' absolute values; all others are absolute. NaN is never right.
    """
    answer = answer if isinstance(answer, tuple) else (answer,)
    errors, bounds = zip(*PARTS.get(job.op, row_parts)(job, answer), strict=True)
    return float(np.max(errors)), all(error <= bound for error, bound in zip(errors, bounds, strict=True))


def tolerance(job):
    """Bound an error that is rounding only.

    Values lie within +-16 here, where storing one rounds by up to 4 eps of its dtype. All arithmetic is float32 or
    wider. A mean rounded to float32 shifts a row by eps / 2 * mean / std, with mean / std below 10 in the narrowest
    row, and each of a gradient's few operations rounds by less than that: 28 eps are generous. Statistics of columns
    are summed in float64, or must be as good, and rounded once.
    """
    return 4 * EPS_OF[job.dtype] + 28 * EPS_OF["float32"]


def doubles(got):
    """Return an array or tensor in float64. NumPy reads a CPU tensor as an array, unless it is of bfloat16."""
    return np.asarray(got.double() if hasattr(got, "double") else got, np.float64)


def slices(x):
    """Yield places along the first axis of x whose pieces are small enough to be held in float64."""
    step = max(1, SLICE_BYTES // (8 * (x.size // len(x))))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


# ---- answers as large as x, and sums over its rows


def row_parts(job, answer):
    """Compare outputs of x's shape slice by slice, and then those that are sums over all rows."""
    count = 1 if inputs(job).residual is None else 2
    if any(np.shape(got) != job.shape for got in answer[:count]):
        raise ValueError(f"{job}: the answer has shapes {[tuple(np.shape(got)) for got in answer]}")
    largest, sums, scales = np.zeros(count), 0, 0
    for place in slices(inputs(job).x):
        rows, terms = exact_rows(job, place)
        errors = [np.max(np.abs(doubles(got[place]) - row)) for got, row in zip(answer[:count], rows, strict=True)]
        largest = np.maximum(largest, errors)
        sums = sums + np.array([term.sum(0) for term in terms])
        scales = scales + np.array([np.abs(term).sum(0) for term in terms])
    pairs = zip(answer[count:], sums, scales, strict=True)
    summed = [np.max(np.abs(doubles(got) - total) / scale) for got, total, scale in pairs]
    return [(error, tolerance(job)) for error in [*largest, *summed]]


def exact_rows(job, place):
    """Compute one slice: the outputs of x's shape, and the terms of the outputs that are sums over rows."""
    made = inputs(job)
    x = made.x[place].astype(np.float64)
    if job.op == "standardize":
        mean, var = exact_mean_var(job)
        return ((x - mean) / np.sqrt(var),), ()
    if job.op == "min_max_scale":
        low, high = (limit.astype(np.float64) for limit in exact_minmax(job))
        return ((x - low) / (high - low),), ()
    if made.residual is not None:
        x = x + made.residual[place]
    layer = "layer_norm" in job.op
    centred = x - x.mean(-1, keepdims=True) if layer else x
    rstd = 1 / np.sqrt(np.square(centred).mean(-1, keepdims=True) + EPS)
    z, weight = centred * rstd, made.weight.astype(np.float64)
    if job.op.endswith("_backward"):
        dy = made.dy[place].astype(np.float64)
        dz = dy * weight
        dx = dz - z * (dz * z).mean(-1, keepdims=True)
        if layer:
            dx -= dz.mean(-1, keepdims=True)
        return (dx * rstd,), (dy * z, dy) if layer else (dy * z,)
    y = z * weight + (made.bias.astype(np.float64) if layer else 0)
    return (y,) if made.residual is None else (y, x), ()


# ---- statistics


def mean_var_parts(job, answer):
    return [
        (np.max(np.abs(doubles(got) - exact) / np.abs(exact)), tolerance(job))
        for got, exact in zip(answer, exact_mean_var(job), strict=True)
    ]


def minmax_parts(job, answer):
    """Compare extrema, which are exact."""
    return [(np.max(np.abs(doubles(got) - exact)), 0) for got, exact in zip(answer, exact_minmax(job), strict=True)]


def moments_parts(job, answer):
    """Compare mean, variance, skewness, kurtosis, min and max."""
    mean_var, shape, minmax = answer[:2], answer[2:4], answer[4:]
    exact = zip(shape, exact_skewness_kurtosis(job), strict=True)
    shape_parts = [(np.max(np.abs(doubles(got) - want)), tolerance(job)) for got, want in exact]
    return mean_var_parts(job, mean_var) + shape_parts + minmax_parts(job, minmax)


PARTS = {"mean_var": mean_var_parts, "minmax": minmax_parts, "moments": moments_parts}


def weighted_slices(job):
    """Yield pieces of x in float64 with the weights of their elements; what weighs nothing reads 0."""
    made = inputs(job)
    for place in slices(made.x):
        x = made.x[place].astype(np.float64)
        if made.where is not None:
            weights = made.where[place]
        elif made.weights is not None:
            weights = np.broadcast_to(made.weights[place, None].astype(np.float64), x.shape)
        else:
            weights = ~np.isnan(x) if job.variant == "nan_policy=" else np.ones(x.shape, bool)
        yield np.where(weights > 0, x, 0), weights


@functools.lru_cache(maxsize=2)
def exact_mean_var(job):
    """Compute mean and population variance in two passes over the slices."""
    count = sum(w.sum(job.axis) for _, w in weighted_slices(job))
    mean = sum((w * x).sum(job.axis) for x, w in weighted_slices(job)) / count
    var = sum((w * np.square(x - mean)).sum(job.axis) for x, w in weighted_slices(job)) / count
    return mean, var


@functools.lru_cache(maxsize=2)
def exact_skewness_kurtosis(job):
    """Compute the biased skewness and the excess kurtosis."""
    mean, var = exact_mean_var(job)
    third, fourth, count = 0, 0, inputs(job).x.size // mean.size
    for x, _ in weighted_slices(job):
        delta = x - mean
        square = np.square(delta)
        third = third + (square * delta).sum(job.axis) / count
        fourth = fourth + np.square(square).sum(job.axis) / count
    return third / var**1.5, fourth / np.square(var) - 3


@functools.lru_cache(maxsize=2)
def exact_minmax(job):
    x = inputs(job).x
    return x.min(job.axis), x.max(job.axis)
