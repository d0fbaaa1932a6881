"""The exact answers of the jobs, and whether a rival's answer is right.

The exact answer is the float64 twin of the operation, computed a slice at a time so that large jobs stay within a few
hundred megabytes.
"""

import functools
from dataclasses import replace

import numpy as np
from jobs import CROP, EPS, ESTIMATORS, LEVELS, MEAN, MOMENTUM, NEIGHBOURS, STD, groups, inputs, per_plane

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

    What is stored in float64 is compared with float64 sums of up to a million values. Their roundings are as often up
    as down, which leaves about 2**10 eps; 2**12 eps are allowed.
    """
    if job.dtype == "float64":
        return 2.0**-40
    return 4 * EPS_OF[job.dtype] + 28 * EPS_OF["float32"]


def doubles(got):
    """Return an array or tensor in float64. NumPy reads a CPU tensor as an array, unless it is of bfloat16."""
    return np.asarray(got.double() if hasattr(got, "double") else got, np.float64)


def slices(x):
    """Yield places along the first axis of x whose pieces are small enough to be held in float64."""
    step = max(1, SLICE_BYTES // (8 * (x.size // len(x))))
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def reduced_axes(job):
    """Return the axes of statistics, or all but that along which parameters lie."""
    if job.estimator:
        return 0
    if job.parameter_axis is None:
        return job.axis
    dims = len(job.shape)
    return tuple(a for a in range(dims) if a != job.parameter_axis % dims)


def spread(job, numbers):
    """Shape numbers that lie along the other axes so that they broadcast against x."""
    axes = reduced_axes(job)
    return np.expand_dims(np.asarray(numbers, np.float64), () if axes is None else axes)


# ---- answers as large as x, and sums for each of its parameters


def row_parts(job, answer):
    """Compare outputs of x's shape slice by slice, and then those that are sums over all rows, or all of a channel."""
    count = 1 if inputs(job).residual is None else 2
    if any(np.shape(got) != job.shape for got in answer[:count]):
        raise ValueError(f"{job}: the answer has shapes {[tuple(np.shape(got)) for got in answer]}")
    axes, largest, sums, scales = reduced_axes(job), np.zeros(count), 0, 0
    for place in slices(inputs(job).x):
        rows, terms = exact_rows(job, place)
        errors = [np.max(np.abs(doubles(got[place]) - row)) for got, row in zip(answer[:count], rows, strict=True)]
        largest = np.maximum(largest, errors)
        sums = sums + np.array([term.sum(axes) for term in terms])
        scales = scales + np.array([np.abs(term).sum(axes) for term in terms])
    pairs = zip(answer[count:], sums, scales, strict=True)
    summed = [np.max(np.abs(doubles(got) - total) / scale) for got, total, scale in pairs]
    return [(error, tolerance(job)) for error in [*largest, *summed]]


def exact_rows(job, place):
    """Compute one slice: the outputs of x's shape, and the terms of the outputs that are sums."""
    made = inputs(job)
    x = made.x[place].astype(np.float64)
    dy = None if made.dy is None else made.dy[place].astype(np.float64)
    if job.estimator:
        return (exact_transform(job, x),), ()
    if job.op == "standardize":
        mean, var = exact_mean_var(job)
        return ((x - mean) / np.sqrt(var),), ()
    if job.op == "min_max_scale":
        low, high = (limit.astype(np.float64) for limit in exact_minmax(job))
        return ((x - low) / (high - low),), ()
    if job.op.startswith("normalize"):
        return (exact_normalize(job, x, dy),), ()
    if job.op.startswith("local_response_norm"):
        return (exact_local_response_norm(x, dy),), ()
    if job.op.startswith("batch_norm"):
        return exact_batch_norm(job, x, dy)
    if made.residual is not None:
        x = x + made.residual[place]
    layer = "rms" not in job.op  # or a group norm
    centred = x - average(job, x) if layer else x
    rstd = 1 / np.sqrt(average(job, np.square(centred)) + EPS)
    z, weight = centred * rstd, spread(job, made.weight)
    if dy is not None:
        dz = dy * weight
        dx = dz - z * average(job, dz * z)
        if layer:
            dx -= average(job, dz)
        return (dx * rstd,), (dy * z, dy) if layer else (dy * z,)
    y = z * weight + (spread(job, made.bias) if layer else 0)
    return (y,) if made.residual is None else (y, x), ()


def average(job, values):
    """Average what is normalized together of each sample, or row, and spread it over the shape of the values."""
    channels = job.shape[1]
    parts = {"group_norm": groups(channels), "instance_norm": channels}.get(job.op.removesuffix("_backward"), 1)
    rows = values.reshape(len(values), parts, -1)
    return np.broadcast_to(rows.mean(-1, keepdims=True), rows.shape).reshape(values.shape)


def exact_normalize(job, x, dy):
    norm = np.linalg.norm(x, axis=job.axis, keepdims=True)
    y = x / norm
    return y if dy is None else (dy - y * (dy * y).sum(job.axis, keepdims=True)) / norm


def exact_local_response_norm(x, dy):
    size, alpha, beta, k = (NEIGHBOURS[name] for name in ("size", "alpha", "beta", "k"))
    before, after = size // 2, (size - 1) // 2
    base = k + alpha / size * window_sums(np.square(x), before, after)
    if dy is None:
        return x / base**beta
    return dy / base**beta - 2 * alpha / size * beta * x * window_sums(dy * x / base ** (beta + 1), after, before)


def window_sums(terms, before, after):
    """Sum over neighbouring channels, so many before and after each."""
    padded = np.pad(terms, [(0, 0), (before, after), (0, 0), (0, 0)])
    return sum(padded[:, start : start + terms.shape[1]] for start in range(before + after + 1))


# ---- batch norm, whose statistics are those of all slices


def batch_norm_parts(job, answer):
    """Compare y, and the running statistics after it."""
    y, *running = answer
    exact = zip(running, exact_running(job), strict=True)
    return row_parts(job, (y,)) + [(np.max(np.abs(doubles(got) / want - 1)), tolerance(job)) for got, want in exact]


def exact_batch_norm(job, x, dy):
    made = inputs(job)
    evaluation = job.variant.startswith("evaluation")
    mean, var = (made.running_mean, made.running_var) if evaluation else exact_mean_var(job)
    rstd = 1 / np.sqrt(spread(job, var) + EPS)
    z, weight = (x - spread(job, mean)) * rstd, spread(job, made.weight)
    if dy is not None:
        mean_dyz, mean_dy = (spread(job, found) for found in exact_gradient_averages(job))
        return (weight * rstd * (dy - mean_dy - z * mean_dyz),), (dy * z, dy)
    y = z * weight + spread(job, made.bias)
    return (np.maximum(y, 0) if job.activation else y,), ()


@functools.lru_cache(maxsize=2)
def exact_gradient_averages(job):
    """Compute the averages of dy * z and of dy over the batch."""
    made, axes = inputs(job), reduced_axes(job)
    mean, var = (spread(job, moment) for moment in exact_mean_var(job))
    sum_dyz, sum_dy = 0, 0
    for place in slices(made.x):
        dy = made.dy[place].astype(np.float64)
        sum_dyz = sum_dyz + (dy * (made.x[place] - mean)).sum(axes)
        sum_dy = sum_dy + dy.sum(axes)
    count = made.x.size // sum_dy.size
    return sum_dyz / count / np.sqrt(var.ravel() + EPS), sum_dy / count


def exact_running(job):
    """Compute the running statistics after a call: in training they move towards the batch's."""
    running = [moment.astype(np.float64) for moment in (inputs(job).running_mean, inputs(job).running_var)]
    if job.variant.startswith("evaluation"):
        return running
    mean, var = exact_mean_var(job)
    count = inputs(job).x.size // mean.size
    batch = mean, var * count / (count - 1)
    return [(1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(running, batch, strict=True)]


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
    axes = reduced_axes(job)
    count = sum(w.sum(axes) for _, w in weighted_slices(job))
    mean = sum((w * x).sum(axes) for x, w in weighted_slices(job)) / count
    var = sum((w * np.square(x - spread(job, mean))).sum(axes) for x, w in weighted_slices(job)) / count
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
    return x.min(reduced_axes(job)), x.max(reduced_axes(job))


# ---- estimators


def fit_parts(job, answer):
    """Compare attributes of a fitted estimator with relative errors."""
    (fitted,) = answer
    return [
        (np.max(np.abs(doubles(getattr(fitted, name)) / want - 1)), tolerance(job))
        for name, want in exact_fitted(job).items()
    ]


def exact_fitted(job):
    """Compute what fit finds: first what is subtracted, if anything is, then the divisor."""
    if job.estimator == "StandardScaler":
        mean, var = exact_mean_var(job)
        return {"mean_": mean, "scale_": np.sqrt(var), "var_": var}
    if job.estimator == "RobustScaler":
        low, median, high = exact_quartiles(job)
        return {"center_": median, "scale_": high - low}
    if job.estimator == "Normalizer":
        return {"n_features_in_": job.shape[1]}
    low, high = (limit.astype(np.float64) for limit in exact_minmax(job))
    if job.estimator == "MinMaxScaler":
        return {"data_min_": low, "data_range_": high - low, "data_max_": high}
    return {"max_abs_": np.maximum(np.abs(low), np.abs(high))}


def exact_transform(job, x):
    if job.estimator == "Normalizer":
        order = {"l1": 1, "max": np.inf}.get(job.variant, 2)
        return x / np.linalg.norm(x, order, axis=1, keepdims=True)
    *center, divisor = list(exact_fitted(job).values())[:2]
    return (x - sum(center)) / divisor


@functools.lru_cache(maxsize=2)
def exact_quartiles(job):
    columns = (column.astype(np.float64) for column in inputs(job).x.T)
    return np.array([np.quantile(column, [0.25, 0.5, 0.75]) for column in columns]).T


# ---- pictures


def image_parts(job, answer):
    """Compare a picture or a batch; one that is brought back is exact."""
    (got,), want = map(doubles, answer), exact_image(job)
    if got.shape != want.shape:
        raise ValueError(f"{job}: the answer has shape {got.shape}")
    stored = replace(job, dtype="float16" if "float16" in job.variant else "float32")
    return [(np.max(np.abs(got - want)), 0 if job.op == "image_inverse" else tolerance(stored))]


@functools.lru_cache(maxsize=1)
def exact_image(job):
    x = inputs(job).x
    if job.op == "image_inverse":
        return np.rint(255 * (x * per_plane(STD) + per_plane(MEAN))).transpose(1, 2, 0)
    if "flipped crop" in job.variant:
        x = x[CROP][:, ::-1]
    y = x / np.float64(LEVELS[job.dtype])
    if job.op == "image_normalize":
        y = (y - MEAN) / STD
    return np.moveaxis(y, -1, -3) if job.variant.startswith("CHW") else y


PARTS = {
    "batch_norm": batch_norm_parts,
    "mean_var": mean_var_parts,
    "minmax": minmax_parts,
    "moments": moments_parts,
    **dict.fromkeys(["image_normalize", "image_to_tensor", "image_inverse"], image_parts),
    **{f"{name}.fit": fit_parts for name in ESTIMATORS},
}
