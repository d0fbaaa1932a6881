"""What normalize and the local response norm should answer, forward and backward: the formulas in extended precision.

Each twin comes with what its error bound is made of; the bounds are in `assert_close`.
"""

import numpy as np
import reference


def axes_of(x, axis):
    return tuple(range(x.ndim)) if axis is None else np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)


def p_norm(x, p, axes):
    """(sum |x|^p)^(1/p) with the axes kept, in units of the largest or the least, so that nothing overflows."""
    size = np.abs(x)
    if p == 0:
        return (x != 0).sum(axes, keepdims=True).astype(np.longdouble)
    unit = (size.max if p > 0 else size.min)(axes, keepdims=True)
    if np.isinf(p):
        return unit
    ratio = size / np.where(np.isfinite(unit) & (unit != 0), unit, 1)
    norm = unit * ((ratio ** np.longdouble(p)).sum(axes, keepdims=True) ** (1 / np.longdouble(p)))
    return np.where(np.isfinite(unit) & (unit != 0), norm, unit)


def normalize(x, p=2.0, axis=1, eps=1e-12):
    """Answer x / max(norm, eps)."""
    x, axes = np.asarray(x).astype(np.longdouble), axes_of(np.asarray(x), axis)
    with reference.silent():
        return x / np.maximum(p_norm(x, p, axes), np.longdouble(eps))


def normalize_backward(dy, x, p=2.0, axis=1, eps=1e-12):
    """dx, and the sizes of its terms."""
    axes = axes_of(np.asarray(x), axis)
    dy, x = (np.asarray(v).astype(np.longdouble) for v in (dy, x))
    with reference.silent():
        norm = p_norm(x, p, axes)
        divisor = np.maximum(norm, np.longdouble(eps))
        y, sign = x / divisor, np.sign(x)
        if p == 0:
            slope = np.zeros_like(x)
        elif np.isinf(p):
            at = np.abs(x) == norm
            slope = sign * at / np.maximum(at.sum(axes, keepdims=True), 1)
        else:
            slope = np.where(x == 0, 0, sign * np.abs(y) ** np.longdouble(p - 1))
        slope = np.where(norm >= eps, slope, 0)
        dx = (dy - slope * (dy * y).sum(axes, keepdims=True)) / divisor
        return dx, (np.abs(dy) + np.abs(slope) * np.abs(dy * y).sum(axes, keepdims=True)) / divisor


def window_sums(v, before, after):
    """Sums over the channels from c - before to c + after, each added by itself."""
    channels = v.shape[1]
    return np.stack(
        [v[:, max(0, c - before) : min(channels, c + after + 1)].sum(1) for c in range(channels)], 1
    ).reshape(v.shape)


def response_base(x, size, alpha, k):
    return k + np.longdouble(alpha) / size * window_sums(x * x, size // 2, (size - 1) // 2)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """Answer x / (k + alpha / size * sum(x^2))^beta."""
    x = np.asarray(x).astype(np.longdouble)
    with reference.silent():
        return x / response_base(x, size, alpha, k) ** np.longdouble(beta)


def local_response_norm_backward(dy, x, size, alpha=1e-4, beta=0.75, k=1.0):
    """dx, and the sizes of its terms."""
    dy, x = (np.asarray(v).astype(np.longdouble) for v in (dy, x))
    with reference.silent():
        base = response_base(x, size, alpha, k)
        slope = dy / base ** np.longdouble(beta)
        terms, before, after = slope * x / base, (size - 1) // 2, size // 2
        factor = 2 * np.longdouble(alpha) / size * beta * x
        dx = slope - factor * window_sums(terms, before, after)
        return dx, np.abs(slope) + np.abs(factor) * window_sums(np.abs(terms), before, after)


def assert_close(got, want, x, c, sizes=None):
    """|got - want| <= c eps |want| (or of the sizes of its terms), and a unit of the subnormals.

    eps is that of the compute type; half precision rounds once more.
    """
    dtype = reference.result_dtype(x)
    reference.assert_layout(got, np.shape(x), dtype)
    sizes = np.abs(want) if sizes is None else sizes
    compute = 2.0**-23 if dtype.itemsize < 8 else 2.0**-52
    tiny = {"float16": 2.0**-24, "bfloat16": 2.0**-133, "float32": 2.0**-149, "float64": 2.0**-1074}[dtype.name]
    most = {"float16": 65504.0, "bfloat16": 3.3895e38}.get(dtype.name) or float(np.finfo(dtype).max)
    with reference.silent():
        bound = c * compute * sizes + (reference.eps_of(dtype) * np.abs(want) if dtype.itemsize == 2 else 0) + tiny
        far = ~((np.abs(got.astype(np.longdouble) - want) <= bound) | (got == want) | (np.isnan(got) & np.isnan(want)))
        far &= ~(np.isinf(got) & (np.sign(got) == np.sign(want)) & (np.abs(want) + bound >= most))
    if far.any():
        at = tuple(int(i) for i in np.argwhere(far)[0])
        raise AssertionError(
            f"{int(far.sum())} of {far.size} off, first at {at}: got {got[at]!r}, want {want[at]!r},"
            f" off by {float(abs(got[at] - want[at]) / (compute * sizes[at])):.3g} eps of {c}"
        )
