"""What the answers should be: obvious float64 twins, and exact ones in integer arithmetic.

The twins serve every shape and axis; the exact functions serve one flat run of values and are what accuracy is
measured against. Tolerances live here too, each with the bound it comes from.
"""

import contextlib
import math
import warnings
from fractions import Fraction

import numpy as np

# |y - exact| <= NORM_EPS[dtype] * eps * max(|z|, 1) for the normalized value z. float32: x - mean is two rounded
# subtractions (eps/2 each), rstd is within one ulp (eps), the product rounds once more (eps/2): 2.5. float64 lets the
# variance be off by 64 eps, so rstd by 32, plus the same roundings.
NORM_EPS = {np.dtype(np.float32): 4, np.dtype(np.float64): 40}


def norm_eps(dtype):
    """NORM_EPS; for half precision that of float32, which it is computed in, and one rounding."""
    return NORM_EPS.get(np.dtype(dtype), 4 * 2.0**-23 / eps_of(dtype) + 1)


def eps_of(dtype):
    return 2.0**-7 if np.dtype(dtype).name == "bfloat16" else float(np.finfo(dtype).eps)


@contextlib.contextmanager
def silent():
    """For the twins, which divide by zero where the library must not complain."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def strict():
    """For the library: any warning is an error."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


def result_dtype(x, dtype=None):
    x = np.asarray(x)
    return np.dtype(dtype or (np.float64 if x.dtype.kind in "biu" else x.dtype.newbyteorder("=")))


# ---- float64 twins


def centred(x, axis=None):
    """Subtract the mean of the axes; return x - mean and the mean, both with all axes.

    Values are taken from the first of each run, so a large mean costs nothing: the error is n eps of the spread.
    """
    x = np.asarray(x).astype(np.float64)
    axes = np.lib.array_utils.normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    first = x[tuple(slice(0, 1) if i in axes else slice(None) for i in range(x.ndim))]
    if count(x, axis) == 0:
        return x, x.mean(axis, keepdims=True)
    shift = (x - first).mean(axes, keepdims=True)
    shift = shift + (x - first - shift).mean(axes, keepdims=True)
    return x - first - shift, first + shift


def mean_var(x, axis=None, ddof=0, keepdims=False):
    with silent():
        delta, mean = centred(x, axis)
        var = (delta**2).sum(axis, keepdims=True) / np.float64(max(count(x, axis) - ddof, 0))
        kept = np.sum(x, axis, keepdims=keepdims).shape
    return mean.reshape(kept), var.reshape(kept)


def minmax(x, axis=None, keepdims=False):
    """NumPy's, with -0 below +0 and the canonical NaN."""
    x = np.asarray(x)
    low, high = x.min(axis, keepdims=keepdims), x.max(axis, keepdims=keepdims)
    if x.dtype.kind == "f":
        zero = x == 0
        minus = (zero & np.signbit(x)).any(axis, keepdims=keepdims)
        plus = (zero & ~np.signbit(x)).any(axis, keepdims=keepdims)
        low = np.where(low == 0, np.where(minus, -0.0, 0.0), low)
        high = np.where(high == 0, np.where(plus, 0.0, -0.0), high)
        low, high = (np.where(np.isnan(v), np.nan, v).astype(result_dtype(x)) for v in (low, high))
    return low, high


def layer_norm(x, axis=-1, weight=None, bias=None, eps=1e-5):
    """y, mean and rstd; weight and bias have the shape of the normalized axes in x's order."""
    axes = sorted(np.lib.array_utils.normalize_axis_tuple(axis, np.ndim(x)))
    shape = [n if i in axes else 1 for i, n in enumerate(np.shape(x))]
    with silent():
        delta, _ = centred(x, tuple(axes))
        rstd = 1 / np.sqrt((delta**2).mean(tuple(axes), keepdims=True) + eps)
        y = np.where(delta == 0, 0, delta * rstd)
        if weight is not None:
            y = y * np.asarray(weight, np.float64).reshape(shape)
        if bias is not None:
            y = y + np.asarray(bias, np.float64).reshape(shape)
    return y, mean_var(x, tuple(axes))[0], np.squeeze(rstd, tuple(axes))


def standardize(x, axis=0, ddof=0, eps=0.0):
    """y, mean and std (without eps)."""
    mean, var = mean_var(x, axis, ddof)
    with silent():
        delta, _ = centred(x, axis)
        y = np.where(delta == 0, 0, delta / np.sqrt(mean_var(x, axis, ddof, keepdims=True)[1] + eps))
        return y, mean, np.sqrt(var)


def rms_norm(x, axis=-1, weight=None, eps=1e-5):
    """Return y and rstd; weight has the shape of the normalized axes in x's order."""
    axes = tuple(sorted(np.lib.array_utils.normalize_axis_tuple(axis, np.ndim(x))))
    with silent():
        x = np.asarray(x).astype(np.float64)
        rstd = 1 / np.sqrt((x**2).mean(axes, keepdims=True) + eps)
        y = np.where(x == 0, 0, x * rstd)
        if weight is not None:
            y = y * np.asarray(weight, np.float64).reshape([n if i in axes else 1 for i, n in enumerate(x.shape)])
    return y, np.squeeze(rstd, axes)


def min_max_scale(x, axis=0, feature_range=(0, 1)):
    low, high = feature_range
    x = np.asarray(x).astype(np.float64)
    least, span = x.min(axis, keepdims=True), np.ptp(x, axis, keepdims=True)
    return (x - least) / np.where(span == 0, 1, span) * (high - low) + low


def count(x, axis=None):
    """How many values each result was made of."""
    x = np.asarray(x)
    return math.prod(
        x.shape[i] for i in np.lib.array_utils.normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    )


# ---- exact


def exact_mean_var(x, ddof=0):
    """Mean and variance of finite floats as Fractions, through integers on one common exponent."""
    mantissa, exponent = np.frexp(np.asarray(x, np.float64).ravel())
    low = int(exponent.min()) - 53
    shifts = (exponent - 53 - low).tolist()
    values = [m << s for m, s in zip(np.ldexp(mantissa, 53).astype(np.int64).tolist(), shifts, strict=True)]
    n, total, squares = len(values), sum(values), sum(v * v for v in values)
    unit = Fraction(2) ** low
    return unit * Fraction(total, n), unit**2 * (n * squares - total * total) / Fraction(n) / Fraction(n - ddof)


def root(value):
    """Take the square root of a Fraction to 200 bits."""
    shift = max(0, 200 - (value.numerator.bit_length() - value.denominator.bit_length()) // 2)
    return Fraction(math.isqrt((value.numerator << 2 * shift) // value.denominator), 1 << shift)


def exact_layer_norm(row, eps=1e-5):
    """Z as float64 rounded from exact, with exact mean and rstd as Fractions, for one row of finite floats."""
    mean, var = exact_mean_var(row)
    rstd = 1 / root(var + Fraction(eps))
    return np.array([float((Fraction(v) - mean) * rstd) for v in np.asarray(row, np.float64).tolist()]), mean, rstd


def ulps(got, exact):
    """Measure the distance from an exact value in units in the last place of the rounded exact value."""
    near = type(got)(float(exact))
    return float(abs(Fraction(float(got)) - exact) / Fraction(float(np.spacing(abs(near)))))


# ---- comparisons within their bounds


def assert_layout(got, shape, dtype):
    assert got.shape == tuple(shape)
    assert got.dtype == dtype
    assert got.dtype.isnative


def assert_within(got, want, bound):
    """|got - want| <= bound where finite; NaN and infinity in the same places."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    with silent():
        far = ~((np.abs(got - want) <= bound) | (got == want) | (np.isnan(got) & np.isnan(want)))
    if far.any():
        at = tuple(int(i) for i in np.argwhere(far)[0])
        limit = float(np.broadcast_to(bound, got.shape)[at])
        raise AssertionError(
            f"{int(far.sum())} of {far.size} off, first at {at}: got {float(got[at])!r},"
            f" want {float(want[at])!r}, bound {limit:.3g}"
        )


def assert_mean_var(mean, var, x, axis=None, ddof=0, keepdims=False, dtype=None):
    """Mean within 1 ulp (float64: 4) + 2^-50 mean|x| and variance within 1 ulp (float64: 64), plus the twin's error."""
    dtype = result_dtype(x, dtype)
    want_mean, want_var = mean_var(x, axis, ddof, keepdims)
    x = np.abs(np.asarray(x).astype(np.float64))
    n, tiny = count(x, axis), float(np.finfo(dtype).smallest_subnormal)
    single = dtype == np.float32
    with silent():
        size = x.mean(axis, keepdims=keepdims)
        mean_bound = (1 if single else 4) * eps_of(dtype) * np.abs(want_mean) + 2.0**-50 * size + tiny
        mean_bound += n * 2.0**-52 * np.sqrt(want_var)
        var_bound = ((eps_of(dtype) if single else 64 * eps_of(dtype)) + n * 2.0**-51) * want_var + tiny
        overflow = np.finfo(dtype).max
        want_mean, want_var = (np.where(np.abs(v) > overflow, np.sign(v) * np.inf, v) for v in (want_mean, want_var))
    if mean is not None:
        assert_layout(mean, want_mean.shape, dtype)
        assert_within(mean, want_mean, mean_bound)
    if var is not None:
        assert_layout(var, want_var.shape, dtype)
        assert_within(var, want_var, var_bound)


def assert_normalized(y, x, twin, weight=None, bias=None, twin_error=None):
    """NORM_EPS for the normalized value times weight, one rounding each for product and sum, and the twin's error.

    `weight` and `bias` are broadcast against x already. A twin in float64 is off by n of its eps.
    """
    dtype = result_dtype(x)
    assert_layout(y, np.shape(x), dtype)
    with silent():
        scale = 1.0 if weight is None else np.abs(np.asarray(weight, np.float64))
        offset = 0.0 if bias is None else np.abs(np.asarray(bias, np.float64))
        z = np.abs(twin) + offset
        twin_error = np.size(x) * 2.0**-52 if twin_error is None else twin_error
        bound = (eps_of(dtype) * (norm_eps(dtype) + 2) + twin_error) * (scale + z)
    assert_within(y, twin, bound)


# ---- masks, weights and higher moments


def counted(x, where=None, weights=None, omit=False):
    """Weights of the shape of x, and x with 0 where they are 0."""
    x = np.asarray(x).astype(np.float64)
    w = np.ones(x.shape) if weights is None else np.broadcast_to(weights, x.shape).astype(np.float64)
    w = w if where is None else np.where(where, w, 0)
    w = np.where(np.isnan(x), 0, w) if omit else w
    return w, np.where(w == 0, 0, x)


def masked_moments(x, axis=None, **what_counts):
    """Sum of weights, mean and the means of the second, third and fourth power about it; NaN of nothing.

    In extended precision, about the first element that counts, so the twin's error is below that of the library.
    """
    w, x = counted(x, **what_counts)
    w, x = w.astype(np.longdouble), x.astype(np.longdouble)
    axes = np.lib.array_utils.normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = [x.shape[a] for a in kept]
    w, x = (v.transpose(*axes, *kept).reshape(-1, *shape) for v in (w, x))
    with silent():
        total = w.sum(0)
        first = np.take_along_axis(x, (w != 0).argmax(0)[None], 0) if len(x) else 0
        delta = np.where(w == 0, 0, x - first)
        mean = (w * delta).sum(0) / total
        delta = np.where(w == 0, 0, delta - mean)
        powers = [(w * delta**k).sum(0) / total for k in (2, 3, 4)]
        mean = mean + (first[0] if len(x) else 0)
        return tuple(np.asarray(v, np.float64) for v in (total, mean, *powers))


def integers(x):
    """Finite floats as integers, and the Fraction that they are multiples of."""
    ratios = [v.as_integer_ratio() for v in np.asarray(x, np.float64).ravel().tolist()]
    denominator = max(d for _, d in ratios)  # all are powers of two
    return [n * (denominator // d) for n, d in ratios], Fraction(1, denominator)


def exact_moments(x, weights=None):
    """Mean and the means of the second, third and fourth power about it, as Fractions, of a run of finite floats."""
    whole, unit = integers(x)
    counts = [1] * len(whole) if weights is None else integers(weights)[0]
    total = sum(counts)
    s1, s2, s3, s4 = (Fraction(sum(c * v**k for c, v in zip(counts, whole, strict=True)), total) for k in (1, 2, 3, 4))
    m2, m3 = s2 - s1**2, s3 - 3 * s1 * s2 + 2 * s1**3
    m4 = s4 - 4 * s1 * s3 + 6 * s1**2 * s2 - 3 * s1**4
    return s1 * unit, m2 * unit**2, m3 * unit**3, m4 * unit**4


def exact_shape(x, weights=None):
    """Skewness and excess kurtosis, as Fractions."""
    _, m2, m3, m4 = exact_moments(x, weights)
    return m3 / m2 / root(m2), m4 / m2**2 - 3


def masked_layer_norm(x, axis, where, weight=None, bias=None, eps=1e-5):
    """Answer y (0 where it does not count), mean and rstd (NaN of nothing) along one axis, in extended precision."""
    x = np.asarray(x).astype(np.longdouble)
    with silent():
        n = where.sum(axis, keepdims=True)
        near = np.where(where, x, 0).max(axis, keepdims=True)  # a constant becomes exactly 0
        left = np.where(where, x - near, 0).sum(axis, keepdims=True) / n
        centred = np.where(where, x - near - left, 0)
        rstd = 1 / np.sqrt((centred**2).sum(axis, keepdims=True) / n + np.longdouble(eps))
        y = centred * rstd * (1 if weight is None else weight) + (0 if bias is None else bias)
        y, mean, rstd = np.where(where, y, 0), np.squeeze(near + left, axis), np.squeeze(rstd, axis)
        return tuple(np.asarray(v, np.float64) for v in (y, mean, rstd))


def assert_counted(mean, var, x, axis=None, ddof=0, keepdims=False, dtype=None, **what_counts):
    """The bounds of assert_mean_var for what counts of x, plus the twin's error in extended precision."""
    assert_near(mean, var, counted_twin(x, axis, ddof, keepdims, dtype, **what_counts))


def assert_near(mean, var, twin):
    """Compare with what counted_twin answers."""
    dtype, kept, *pairs = twin
    for got, (want, bound) in zip((mean, var), pairs, strict=True):
        if got is not None:
            assert_layout(got, kept, dtype)
            assert_within(np.reshape(got, want.shape), want, bound)


def counted_twin(x, axis=None, ddof=0, keepdims=False, dtype=None, **what_counts):
    """The dtype and shape of results; mean and variance of what counts of x, each with its bound."""
    dtype = result_dtype(x, dtype)
    total, want_mean, m2, _, _ = masked_moments(x, axis, **what_counts)
    _, size, *_ = masked_moments(np.abs(np.asarray(x).astype(np.float64)), axis, **what_counts)
    with silent():
        freedom = total - ddof
        want_var = m2 if ddof == 0 else m2 * (total / np.where(freedom > 0, freedom, 0))
    twin, single = count(x, axis) * float(np.finfo(np.longdouble).eps), dtype == np.float32
    mean_bound = (1 if single else 4) * eps_of(dtype) * np.abs(want_mean) + (2.0**-50 + twin) * size
    var_bound = ((1 if single else 64) * eps_of(dtype) + 4 * twin) * want_var
    kept = np.sum(np.asarray(x, np.float64), axis, keepdims=keepdims).shape
    return dtype, kept, (want_mean, mean_bound), (want_var, var_bound)


# ---- gradients of norms


def saved_statistics(x, axes, eps=1e-5, where=None, rms=False):
    """Mean (0 for an RMS norm) and rstd as a forward pass saves them, rounded to what x is computed in."""
    compute = np.float64 if np.asarray(x).dtype.itemsize == 8 or np.asarray(x).dtype.kind in "biu" else np.float32
    wide = np.asarray(x).astype(np.longdouble)
    counts = np.ones(wide.shape, bool) if where is None else np.broadcast_to(where, wide.shape)
    with silent():
        n = np.maximum(counts.sum(axes, keepdims=True), 1)
        near = np.where(counts, wide, 0).max(axes, keepdims=True, initial=0)
        left = np.where(counts, wide - near, 0).sum(axes, keepdims=True) / n
        mean = near + left
        square = np.where(counts, wide if rms else wide - near - left, 0) ** 2
        rstd = 1 / np.sqrt(square.sum(axes, keepdims=True) / n + np.longdouble(eps))
        return np.squeeze(mean, axes).astype(compute), np.squeeze(rstd, axes).astype(compute)


def norm_backward(dy, x, rstd, weight, axes, where=None, rms=False):
    """dx, dweight and dbias in extended precision, with what their error bounds are made of.

    dx = rstd (g - avg(g) - xhat avg(g xhat)), g = dy weight, xhat = (x - avg(x)) rstd; an RMS norm takes no averages of
    x and g away. Only what counts is averaged and summed.
    """
    dy, x = (np.asarray(v).astype(np.longdouble) for v in (dy, x))
    along = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    across = [1 if i in axes else n for i, n in enumerate(x.shape)]
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    counts = np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape)
    n = np.maximum(counts.sum(axes, keepdims=True), 1)

    def average(v):
        return np.where(counts, v, 0).sum(axes, keepdims=True) / n

    with silent():
        scale = np.asarray(rstd).astype(np.longdouble).reshape(across)
        g = dy if weight is None else dy * np.asarray(weight).astype(np.longdouble).reshape(along)
        near = 0 if rms else np.where(counts, x, 0).max(axes, keepdims=True, initial=0)  # a large mean costs nothing
        near = np.where(np.isfinite(near), near, 0)
        xhat = (x - near - (0 if rms else average(x - near))) * scale
        dx = scale * (g - (0 if rms else average(g)) - xhat * average(g * xhat))
        return {
            "dx": np.where(counts, dx, 0),
            "dweight": np.where(counts, dy * xhat, 0).sum(kept),
            "dbias": np.where(counts, dy, 0).sum(kept),
            "xhat": xhat,
            "dx_scale": np.where(counts, scale * np.abs(np.where(counts, g, 0)).max(axes, keepdims=True, initial=0), 0),
            "dweight_scale": np.where(counts, np.abs(dy) * (1 + np.abs(xhat)), 0).sum(kept),
            "dbias_scale": np.where(counts, np.abs(dy), 0).sum(kept),
        }


def assert_gradients(got, want, x, weight):
    """Check dx, dweight and dbias where there is one.

    dx: g, xhat and the averages are rounded a few times each, relative to max|g|: 8 eps rstd max|g| (1 + |xhat|).
    dweight: xhat is off by at most 3 eps (1 + |xhat|), products and sums of sixteen, by fours, by three more; dbias:
    such sums.
    Each is then rounded to its dtype; half precision is computed in float32.
    """
    dtype = result_dtype(x)
    eps = max(float(np.finfo(np.float32).eps) if dtype.itemsize < 8 else 0, 2.0**-52)
    assert_layout(got[0], np.shape(x), dtype)
    bound = 8 * eps * want["dx_scale"] * (1 + np.abs(want["xhat"])) + eps_of(dtype) * np.abs(want["dx"])
    assert_within(got[0], want["dx"], bound + (2.0**-24 if dtype.itemsize == 2 else 0))
    parameter = dtype if weight is None else result_dtype(weight)
    for gradient, name in zip(got[1:], ("dweight", "dbias"), strict=False):
        if name == "dweight" and weight is None:
            assert gradient is None
            continue
        assert_layout(gradient, want[name].shape, parameter)
        bound = 6 * eps * want[f"{name}_scale"] + eps_of(parameter) * np.abs(want[name])
        assert_within(gradient, want[name], bound + (2.0**-24 if parameter.itemsize == 2 else 0))


# ---- norms of channels: batch, group and instance norm


def grouped(x, channel_axis=1, groups=None):
    """View x as (instances, groups, channels of a group, ...); and the axes that are normalized over.

    Without groups every channel is one by itself, over all instances: batch norm. Instances lie along the first axis
    that is not the channels'.
    """
    x = np.moveaxis(np.asarray(x), channel_axis, 1)
    parts = (x.shape[1], 1) if groups is None else (groups, x.shape[1] // max(groups, 1))
    view = x.reshape(x.shape[0], *parts, *x.shape[2:])
    return view, tuple(a for a in range(view.ndim) if a != 1 and (a or groups is None))


def per_channel(values, view):
    """Values of shape (C,), or a number, broadcast against that view."""
    wide = np.asarray(values).astype(np.longdouble)
    return wide.reshape(*view.shape[1:3], *[1] * (view.ndim - 3)) if wide.ndim else wide


def ungrouped(view, x, channel_axis=1):
    """That view's values in the shape of x."""
    x = np.moveaxis(np.asarray(x), channel_axis, 1)
    return np.moveaxis(view.reshape(x.shape), 1, channel_axis)


def channel_norm(x, weight=None, bias=None, eps=1e-5, *, channel_axis=1, groups=None, where=None, given=None):
    """Y (0 where it does not count), mean, var and rstd, in extended precision. `given`: the statistics in evaluation.

    Values are taken from the largest that counts, so a large mean costs nothing and a constant becomes exactly bias.
    """
    wide, axes = grouped(np.asarray(x).astype(np.longdouble), channel_axis, groups)
    counts = grouped(np.broadcast_to(True if where is None else where, np.shape(x)), channel_axis, groups)[0]
    with silent():
        if given is None:
            n = counts.sum(axes, keepdims=True)
            near = np.where(counts, wide, -np.inf).max(axes, keepdims=True, initial=-np.inf)
            near = np.where(np.isneginf(near), 0, near)
            left = np.where(counts, wide - near, 0).sum(axes, keepdims=True) / n
            mean, delta = near + left, np.where(counts, wide - near - left, 0)
            var = (delta**2).sum(axes, keepdims=True) / n
        else:
            mean, var = (per_channel(v, wide) for v in given)
            delta = np.where(counts, wide - mean, 0)
        rstd = 1 / np.sqrt(var + np.longdouble(eps))
        y = np.where(delta == 0, 0, delta * rstd)
        y = y * (1 if weight is None else per_channel(weight, wide)) + (0 if bias is None else per_channel(bias, wide))
    y = ungrouped(np.where(counts, y, 0), x, channel_axis)
    squeezed = (np.squeeze(v, axes) if given is None else np.ravel(v) for v in (mean, var, rstd))
    return y, *squeezed


def updated(running, mean, var, n, momentum=0.1):
    """Running mean and variance after a batch of n values per channel, from its mean and biased variance."""
    with silent():
        fresh = mean, var * (np.asarray(n, np.longdouble) / (np.asarray(n, np.longdouble) - 1))
        old = (np.asarray(r).astype(np.longdouble) for r in running)
        return tuple((1 - np.longdouble(momentum)) * r + momentum * f for r, f in zip(old, fresh, strict=True))


def channel_norm_backward(
    dy, x, rstd, weight=None, *, channel_axis=1, groups=None, where=None, y=None, given_mean=None
):
    """As norm_backward, for weights per channel. `y`: of a relu; `given_mean`: that of evaluation, a constant."""
    dy = np.asarray(dy).astype(np.longdouble)
    with silent():
        dy = dy if y is None else np.where(np.asarray(y) <= 0, 0, dy)
    view, axes = grouped(x, channel_axis, groups)
    slope, counts = (
        grouped(v, channel_axis, groups)[0] for v in (dy, np.broadcast_to(where is None or where, np.shape(x)))
    )
    slope = np.where(counts, slope, 0)
    with silent():
        g = slope if weight is None else slope * per_channel(weight, view)
        found = norm_backward(g, view, rstd, None, axes, counts)
        xhat = found["xhat"]
        if given_mean is not None:
            scale = per_channel(rstd, view)
            xhat = (view.astype(np.longdouble) - per_channel(given_mean, view)) * scale
            found["dx"] = np.where(counts, scale * g, 0)
            found["dx_scale"] = np.abs(found["dx"])
        others = tuple(a for a in range(view.ndim) if a not in (1, 2))
        xhat = np.where(counts, xhat, 0)
        sums = {
            "dweight": slope * xhat,
            "dbias": slope,
            "dweight_scale": np.abs(slope) * (1 + np.abs(xhat)),
            "dbias_scale": np.abs(slope),
        }
        sums = {name: v.sum(others).reshape(-1) for name, v in sums.items()}
    return (
        {name: ungrouped(found[name], x, channel_axis) for name in ("dx", "dx_scale")}
        | sums
        | {"xhat": ungrouped(xhat, x, channel_axis)}
    )


def assert_channel_norm(got, x, *parameters, channel_axis=1, relu=False, **how):
    """Check y, mean and rstd as of a layer norm: |y| within NORM_EPS, rstd within 1 ulp (float64: 33 eps).

    The mean is rounded, and before that off by no more than the normalized value may be.
    """
    y, mean, rstd = got
    want, want_mean, want_var, want_rstd = channel_norm(x, *parameters, channel_axis=channel_axis, **how)
    weight, bias, *_ = *parameters, None, None
    along = [-1 if a == channel_axis % np.ndim(x) else 1 for a in range(np.ndim(x))]
    weight, bias = (None if p is None else np.asarray(p, np.float64).reshape(along) for p in (weight, bias))
    twin = np.size(x) * 2.0**-62
    assert_normalized(y, x, np.maximum(want, 0) if relu else want, weight, bias, twin_error=twin)
    compute = np.float64 if result_dtype(x).itemsize == 8 else np.float32
    eps = eps_of(compute)
    with silent():
        bound = eps * np.abs(want_mean) + (0 if "given" in how else NORM_EPS[np.dtype(compute)] * eps / want_rstd)
    for statistic, exact, off in (
        (mean, want_mean, bound),
        (rstd, want_rstd, ((1 if compute == np.float32 else 33) * eps) * want_rstd),
    ):
        assert_layout(statistic, exact.shape, compute)
        assert_within(statistic, exact, off)
    return want_mean, want_var


def assert_updated(running, before, mean, var, n, momentum, dtype):
    """Check running statistics: each rounds to its dtype; mean and variance of the batch are off as elsewhere.

    The mean by eps |mean| + NORM_EPS eps std, the variance by twice what rstd may be, in the dtype x is computed in.
    """
    compute = np.dtype(np.float64 if np.dtype(dtype).itemsize == 8 else np.float32)
    eps, m = eps_of(compute), abs(momentum)
    with silent():
        off = (
            m * eps * (np.abs(mean) + NORM_EPS[compute] * np.sqrt(var)),
            m * eps * (2 if compute == np.float32 else 66) * var * n / (n - np.longdouble(1)),
        )
    for got, want, was, error in zip(running, updated(before, mean, var, n, momentum), before, off, strict=True):
        assert got.dtype == was.dtype
        tiny = 2.0**-24 if got.dtype == np.float16 else 2.0**-149
        # Two products and a sum in float64 at worst, then one rounding.
        size = np.abs(np.asarray(was, np.float64)) * abs(1 - momentum) + np.abs(want)
        assert_within(got, want, error + eps_of(got.dtype) * np.abs(want) + 4 * 2.0**-52 * size + tiny)
