"""Exact statistics of the jobs' inputs.

They are computed in float64, a slice at a time so that large jobs stay within a few hundred megabytes.
"""

import functools

import numpy as np
from jobs import inputs

SLICE_BYTES = 2**26


def slices(x):
    """Yield places along the first axis of x whose pieces are small enough to be held in float64."""
    step = max(1, SLICE_BYTES // (8 * (x.size // len(x))))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def reduced_axes(job):
    """Return the axes of statistics, or all but that along which parameters lie."""
    dims = len(job.shape)
    if job.estimator:
        return (0,)
    if job.parameter_axis is not None:
        return tuple(a for a in range(dims) if a != job.parameter_axis % dims)
    return tuple(range(dims)) if job.axis is None else (job.axis % dims,)


def spread(job, numbers, place=slice(None)):
    """Shape numbers that lie along the other axes so that they broadcast against a slice of x."""
    axes = reduced_axes(job)
    numbers = np.expand_dims(np.asarray(numbers, np.float64), axes)
    return numbers if 0 in axes else numbers[place]


def joined(job, pieces, merge=np.add):
    """Merge what was reduced slice by slice; where the first axis is kept, the pieces follow one another."""
    return functools.reduce(merge, pieces) if 0 in reduced_axes(job) else np.concatenate([*pieces])


def total(job, terms):
    """Sum over the reduced axes what a function makes of each place in x."""
    axes = reduced_axes(job)
    return joined(job, (terms(place).sum(axes) for place in slices(inputs(job).x)))


def weighted(job, place):
    """Return a piece of x in float64 with the weights of its elements; what weighs nothing reads 0."""
    made = inputs(job)
    x = made.x[place].astype(np.float64)
    if made.where is not None:
        weights = made.where[place]
    elif made.weights is not None:
        along = np.expand_dims(made.weights[place].astype(np.float64), tuple(range(1, x.ndim)))
        weights = np.broadcast_to(along, x.shape)
    else:
        weights = ~np.isnan(x) if job.variant == "nan_policy=" else np.ones(x.shape, bool)
    return np.where(weights > 0, x, 0), weights


def average(job, function):
    """Average a function of each place and the values there, with the weights of the elements."""

    def terms(place):
        x, weights = weighted(job, place)
        return weights * function(place, x)

    with np.errstate(invalid="ignore"):  # of nothing
        return total(job, terms) / total(job, lambda place: weighted(job, place)[1])


@functools.lru_cache(maxsize=2)
def exact_mean_var(job):
    """Compute mean and population variance in two passes over the slices."""
    mean = average(job, lambda _, x: x)
    return mean, average(job, lambda place, x: np.square(x - spread(job, mean, place)))


@functools.lru_cache(maxsize=2)
def exact_mean_size(job):
    """Compute the mean of the absolute values."""
    return average(job, lambda _, x: np.abs(x))


@functools.lru_cache(maxsize=2)
def exact_skewness_kurtosis(job):
    """Compute the biased skewness and the excess kurtosis."""
    mean, var = exact_mean_var(job)
    third = average(job, lambda place, x: (x - spread(job, mean, place)) ** 3)
    fourth = average(job, lambda place, x: np.square(np.square(x - spread(job, mean, place))))
    with np.errstate(invalid="ignore"):  # of constants, which have neither
        return third / var**1.5, fourth / np.square(var) - 3


@functools.lru_cache(maxsize=2)
def exact_minmax(job):
    made, axes = inputs(job), reduced_axes(job)
    if made.where is not None:
        return made.x.min(axes, where=made.where, initial=np.inf), made.x.max(axes, where=made.where, initial=-np.inf)
    # fmin and fmax prefer a number to NaN
    low, high = (np.fmin, np.fmax) if job.variant == "nan_policy=" else (np.minimum, np.maximum)
    return low.reduce(made.x, axes), high.reduce(made.x, axes)


@functools.lru_cache(maxsize=2)
def exact_norm(job):
    """Compute the root of the sum of squares."""
    return np.sqrt(total(job, lambda place: np.square(inputs(job).x[place].astype(np.float64))))


@functools.lru_cache(maxsize=2)
def exact_quartiles(job):
    columns = (column.astype(np.float64) for column in inputs(job).x.T)
    return np.array([np.quantile(column, [0.25, 0.5, 0.75]) for column in columns]).T


@functools.lru_cache(maxsize=2)
def exact_gradient_averages(job):
    """Compute the averages of dy * (x - mean) and of dy over a batch."""
    made, (mean, _) = inputs(job), exact_mean_var(job)
    dy = average(job, lambda place, _: made.dy[place])
    return average(job, lambda place, x: made.dy[place] * (x - spread(job, mean, place))), dy
