"""The exact answers of the jobs, and whether a rival's answer is right.

The exact answer is the float64 twin of the operation, computed a slice at a time (exact_statistics.py).
"""

import functools
from dataclasses import dataclass

import numpy as np
from exact_statistics import (
    exact_gradient_averages,
    exact_mean_size,
    exact_mean_var,
    exact_minmax,
    exact_norm,
    exact_quartiles,
    exact_skewness_kurtosis,
    slices,
    spread,
    total,
)
from jobs import CROP, EPS, ESTIMATORS, LEVELS, MEAN, MOMENTUM, NEIGHBOURS, STD, groups, inputs, per_plane

EPS_OF = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
LARGE = 8  # storing what is larger rounds by up to 4 eps of an eighth of it


def check(job, answer):
    """Return the largest error of an answer, and whether each of its parts is right but for rounding.

    Errors of a variance are relative, and those of a mean or a sum are relative to the mean or sum of its terms' sizes.
    All others are absolute or, of what is LARGE or the sum of terms that are, relative to an eighth of it. NaN is right
    only where the exact answer is NaN.
    """
    answer = answer if isinstance(answer, tuple) else (answer,)
    errors, bounds = zip(*PARTS.get(job.op, row_parts)(job, answer), strict=True)
    return float(np.max(errors)), all(error <= bound for error, bound in zip(errors, bounds, strict=True))


def tolerance(job, dtype=None):
    """Bound an error that is rounding only, in the dtype of the job or another that the answer has.

    Values lie within +-16 here, where storing one rounds by up to 4 eps of its dtype. All arithmetic is float32 or
    wider. A mean rounded to float32 shifts a row by eps / 2 * mean / std, with mean / std below 10 in the narrowest
    row, and each of a gradient's few operations rounds by less than that: 28 eps are generous. Statistics of columns
    are summed in float64, or must be as good, and rounded once.

    What is stored in float64 is compared with float64 sums of up to a million values. Their roundings are as often up
    as down, which leaves about 2**10 eps; 2**12 eps are allowed.

    A sum x + residual that is stored before it is normalized rounds by up to 4 eps of its dtype within +-16, which rstd
    and weight, of 0.45 and 1.5 at most, make 3 eps of the result.
    """
    dtype = dtype or job.dtype
    if dtype == "float64":
        return 2.0**-40
    stored = 7 if job.op.startswith("add_") else 4
    return stored * EPS_OF[dtype] + 28 * EPS_OF["float32"]


def doubles(got):
    """Return an array or tensor in float64. NumPy reads a CPU tensor as an array, unless it is of bfloat16."""
    return np.asarray(got.double() if hasattr(got, "double") else got, np.float64)


def error_of(got, want, size=1.0):
    """Return the largest error, as a share of what is given as size; equal numbers differ by 0 shares of anything."""
    got = doubles(got)
    if got.shape != np.shape(want):
        raise ValueError(f"the answer has shape {got.shape}, not {np.shape(want)}")
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.abs(got - want) / size
    return np.max(np.where((got == want) | (np.isnan(got) & np.isnan(want)), 0, shares), initial=0)


def in_eighths(sizes):
    return np.maximum(np.abs(sizes) / LARGE, 1)


# ---- answers as large as x, and sums for each of its parameters


@dataclass(frozen=True)
class Piece:
    """The exact answer to a slice of x."""

    rows: tuple  # outputs of its shape
    terms: tuple = ()  # of the outputs that are sums, each with the size that its error is relative to
    sizes: np.ndarray | None = None  # what the first output is the sum of, if that may be much larger than itself


def row_parts(job, answer):
    """Compare outputs of x's shape slice by slice, and then those that are sums over all rows, or all of a channel."""
    count = 1 if inputs(job).residual is None else 2
    if any(np.shape(got) != job.shape for got in answer[:count]):
        raise ValueError(f"{job}: the answer has shapes {[tuple(np.shape(got)) for got in answer]}")
    errors = []
    for place in slices(inputs(job).x):
        piece = exact_piece(job, place)
        sizes = [row if piece.sizes is None else piece.sizes for row in piece.rows]
        pairs = zip(answer[:count], piece.rows, sizes, strict=True)
        errors.append([error_of(got[place], row, in_eighths(size)) for got, row, size in pairs])
    for number, got in enumerate(answer[count:]):
        sums, sizes = summed_terms(job, number)
        errors.append([error_of(got, sums, sizes)])
    return [(error, tolerance(job)) for found in errors for error in found]


def summed_terms(job, number):
    """Sum the terms of an output, and their sizes."""
    return [total(job, lambda place, which=which: exact_piece(job, place).terms[number][which]) for which in (0, 1)]


def parameter_terms(dy, z):
    """Return the terms of dweight and dbias. The error of z is absolute where z is small, since it is a difference."""
    return (dy * z, np.abs(dy) * np.maximum(np.abs(z), 1)), (dy, np.abs(dy))


def exact_piece(job, place):
    """Compute the answer to one slice."""
    made = inputs(job)
    x = made.x[place].astype(np.float64)
    dy = None if made.dy is None else made.dy[place].astype(np.float64)
    if job.estimator:
        return Piece((exact_transform(job, x),))
    if job.op == "standardize":
        mean, var = (spread(job, moment, place) for moment in exact_mean_var(job))
        return Piece(((x - mean) / nonzero(np.sqrt(var)),))
    if job.op == "min_max_scale":
        low, high = (spread(job, limit, place) for limit in exact_minmax(job))
        return Piece(((x - low) / nonzero(high - low),))
    if job.op.startswith("normalize"):
        return exact_normalize(job, x, dy, place)
    if job.op.startswith("local_response_norm"):
        return Piece((exact_local_response_norm(x, dy),))
    if job.op.startswith("batch_norm"):
        return exact_batch_norm(job, x, dy, place)
    return exact_row_norm(job, x, dy, place)


def nonzero(divisor):
    """Replace 0, by which what is constant is divided, by 1: it becomes 0."""
    return np.where(divisor == 0, 1, divisor)


def exact_row_norm(job, x, dy, place):
    """Compute layer and RMS norms, and group and instance norms."""
    made = inputs(job)
    if made.residual is not None:
        x = x + made.residual[place]
    layer = "rms" not in job.op  # or a group norm
    centred = x - average_row(job, x) if layer else x
    rstd = 1 / np.sqrt(average_row(job, np.square(centred)) + EPS)
    z, weight = centred * rstd, spread(job, made.weight)
    if dy is not None:
        dz = dy * weight
        along, constant = z * average_row(job, dz * z), average_row(job, dz) if layer else 0
        sizes = (np.abs(dz) + np.abs(along) + np.abs(constant)) * rstd
        return Piece(((dz - along - constant) * rstd,), parameter_terms(dy, z)[: 2 if layer else 1], sizes)
    y = z * weight + (spread(job, made.bias) if layer else 0)
    return Piece((y,) if made.residual is None else (y, x))


def average_row(job, values):
    """Average what is normalized together of each sample, or row, and spread it over the shape of the values."""
    op = job.op.removesuffix("_backward")
    if op not in {"group_norm", "instance_norm"}:
        return np.broadcast_to(values.mean(-1, keepdims=True), values.shape)
    planes = np.moveaxis(values, job.parameter_axis, 1)
    channels = planes.shape[1]
    rows = planes.reshape(len(planes), groups(channels) if op == "group_norm" else channels, -1)
    means = np.broadcast_to(rows.mean(-1, keepdims=True), rows.shape).reshape(planes.shape)
    return np.moveaxis(means, 1, job.parameter_axis)


def exact_normalize(job, x, dy, place):
    made, norm = inputs(job), nonzero(spread(job, exact_norm(job), place))
    y = x / norm
    if dy is None:
        return Piece((y,))
    products = total(job, lambda place: made.dy[place].astype(np.float64) * made.x[place])
    along = y * spread(job, products, place) / norm
    return Piece(((dy - along) / norm,), sizes=(np.abs(dy) + np.abs(along)) / norm)


def exact_local_response_norm(x, dy):
    size, alpha, beta, k = (NEIGHBOURS[name] for name in ("size", "alpha", "beta", "k"))
    before, after = size // 2, (size - 1) // 2
    base = k + alpha / size * window_sums(np.square(x), before, after)
    if dy is None:
        return x / base**beta
    return dy / base**beta - 2 * alpha / size * beta * x * window_sums(dy * x / base ** (beta + 1), after, before)


def window_sums(terms, before, after):
    """Sum over neighbouring channels, so many before and after each."""
    padded = np.pad(terms, [(0, 0), (before, after), *[(0, 0)] * (terms.ndim - 2)])
    return sum(padded[:, start : start + terms.shape[1]] for start in range(before + after + 1))


# ---- batch norm, whose statistics are those of all slices


def batch_norm_parts(job, answer):
    """Compare y, and the running statistics after it, with errors relative to what these are the sum of."""
    y, *running = answer
    bound = tolerance(job, inputs(job).running_mean.dtype.name)
    return row_parts(job, (y,)) + [
        (error_of(got, old + new, np.abs(old) + np.abs(new)), bound)
        for got, (old, new) in zip(running, exact_running(job), strict=True)
    ]


def exact_batch_norm(job, x, dy, place):
    made = inputs(job)
    evaluation = job.variant.startswith("evaluation")
    mean, var = (made.running_mean, made.running_var) if evaluation else exact_mean_var(job)
    rstd = 1 / np.sqrt(spread(job, var, place) + EPS)
    z, weight = (x - spread(job, mean, place)) * rstd, spread(job, made.weight, place)
    if dy is not None:
        products, constant = (spread(job, found, place) for found in exact_gradient_averages(job))
        along = z * products * rstd
        sizes = weight * rstd * (np.abs(dy) + np.abs(constant) + np.abs(along))
        return Piece((weight * rstd * (dy - constant - along),), parameter_terms(dy, z), sizes)
    y = z * weight + spread(job, made.bias, place)
    return Piece((np.maximum(y, 0) if job.activation else y,))


def exact_running(job):
    """Compute what the running statistics after a call are the sum of: in training they move towards the batch's."""
    running = [moment.astype(np.float64) for moment in (inputs(job).running_mean, inputs(job).running_var)]
    if job.variant.startswith("evaluation"):
        return [(old, 0) for old in running]
    mean, var = exact_mean_var(job)
    count = inputs(job).x.size // mean.size
    batch = mean, var * count / (count - 1)
    return [((1 - MOMENTUM) * old, MOMENTUM * new) for old, new in zip(running, batch, strict=True)]


def fold_parts(job, answer):
    """Compare the folded weight and bias."""
    made = inputs(job)
    scale = made.weight / np.sqrt(made.running_var.astype(np.float64) + EPS)
    want = made.x * spread(job, scale), made.bias - made.running_mean * scale
    return [(error_of(got, exact), tolerance(job)) for got, exact in zip(answer, want, strict=True)]


# ---- statistics


def mean_var_parts(job, answer):
    """Compare one or both. What is below the smallest normal number has fewer digits."""
    mean, var = exact_mean_var(job)
    exact = {"mean": [(mean, exact_mean_size(job))], "var": [(var, var)], "std": [(np.sqrt(var), np.sqrt(var))]}
    exact["mean_var"] = exact["moments"] = exact["mean"] + exact["var"]
    least = 2.0**-14 if job.dtype == "float16" else 2.0**-126
    pairs = zip(answer, exact[job.op], strict=True)
    return [(error_of(got, want, np.maximum(size, least)), tolerance(job)) for got, (want, size) in pairs]


def minmax_parts(job, answer):
    """Compare extrema, which are exact."""
    return [(error_of(got, exact), 0) for got, exact in zip(answer, exact_minmax(job), strict=True)]


def moments_parts(job, answer):
    """Compare mean, variance, skewness, kurtosis, min and max."""
    mean_var, shape, minmax = answer[:2], answer[2:4], answer[4:]
    exact = zip(shape, exact_skewness_kurtosis(job), strict=True)
    shape_parts = [(error_of(got, want, in_eighths(want)), tolerance(job)) for got, want in exact]
    return mean_var_parts(job, mean_var) + shape_parts + minmax_parts(job, minmax)


# ---- estimators


def fit_parts(job, answer):
    """Compare attributes of a fitted estimator with relative errors, or relative to what they are the mean of."""
    (fitted,) = answer
    return [
        (
            error_of(getattr(fitted, name), want, exact_mean_size(job) if name == "mean_" else np.abs(want)),
            tolerance(job),
        )
        for name, want in exact_fitted(job).items()
    ]


def exact_fitted(job):
    """Compute what fit finds: first what is subtracted, if anything is, then the divisor."""
    if job.estimator == "StandardScaler":
        mean, var = exact_mean_var(job)
        return {"mean_": mean, "scale_": nonzero(np.sqrt(var)), "var_": var}
    if job.estimator == "RobustScaler":
        low, median, high = exact_quartiles(job)
        return {"center_": median, "scale_": nonzero(high - low)}
    if job.estimator == "Normalizer":
        return {"n_features_in_": job.shape[1]}
    low, high = (limit.astype(np.float64) for limit in exact_minmax(job))
    if job.estimator == "MinMaxScaler":
        return {"data_min_": low, "data_range_": high - low, "data_max_": high}
    return {"max_abs_": np.maximum(np.abs(low), np.abs(high))}


def exact_transform(job, x):
    """Scale x; an inverse takes x itself for what was scaled."""
    if job.estimator == "Normalizer":
        order = {"l1": 1, "max": np.inf}.get(job.variant, 2)
        return x / np.linalg.norm(x, order, axis=1, keepdims=True)
    *center, divisor = list(exact_fitted(job).values())[:2]
    divisor, center = nonzero(divisor), sum(center)
    return x * divisor + center if "inverse" in job.op else (x - center) / divisor


# ---- pictures


def image_parts(job, answer):
    """Compare a picture or a batch; one that is brought back is exact."""
    (got,), want = map(doubles, answer), exact_image(job)
    if got.shape != want.shape:
        raise ValueError(f"{job}: the answer has shape {got.shape}")
    stored = "float16" if "float16" in job.variant else "float32"
    return [(np.max(np.abs(got - want)), 0 if job.op == "image_inverse" else tolerance(job, stored))]


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
    "fold_batch_norm": fold_parts,
    **dict.fromkeys(["mean_var", "mean", "var", "std"], mean_var_parts),
    "minmax": minmax_parts,
    "moments": moments_parts,
    **dict.fromkeys(["image_normalize", "image_to_tensor", "image_inverse"], image_parts),
    **{f"{name}.fit": fit_parts for name in ESTIMATORS},
}
