"""batch_norm_backward, group_norm_backward, instance_norm_backward: the gradients of the twin, for any axes and layout.

A norm is named by what shares a mean: "batch", "evaluation" (given statistics), "instance", "given" (an instance norm
with given statistics), or "group" followed by how many groups there are.
"""

import functools
import itertools
import tracemalloc

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, layouts, mask, same, uniform
from memory import garbage, guarded, place

import fastnorm

SHAPES = [(4, 3), (40, 7), (300, 6), (70, 64), (1025, 18), (70, 600), (1050, 520), (5, 1), (3000, 3), (9000, 2)]
SHAPES += [(8, 4, 14, 14), (8, 16, 7, 7), (3, 6, 2, 3), (2, 4, 64), (2, 3, 4100), (5, 18, 70), (3, 4, 3, 5, 7)]
SMALL = [(70, 8), (9, 6, 10), (3, 4, 65), (3, 4, 6, 12), (40, 6, 3, 3), (2, 4, 700)]
FEW = [(5, 2), (3, 4, 3), (2, 4, 2, 2)]


def norms(shape, axis):
    """What can be asked of such an array."""
    axis %= len(shape)
    yield from ("batch", "evaluation")
    if axis == 0:
        return
    if len(shape) > 2:
        yield "instance"
    yield "given"
    channels = shape[axis]
    for groups in {1, channels // 2, 2 if channels % 2 == 0 else channels}:
        if groups and channels % groups == 0 and np.prod(shape[1:]) // groups > 1:
            yield f"group {groups}"


def cells(norm, x, axis):
    """X with its channel axis split into groups if there are any, and the axes that share statistics."""
    axis %= x.ndim
    kind, _, groups = norm.partition(" ")
    kept = {axis} if kind in ("batch", "evaluation", "given") else {0, axis}
    if groups:
        x = x.reshape(*x.shape[:axis], int(groups), -1, *x.shape[axis + 1 :])
    return x, tuple(a for a in range(x.ndim) if a not in kept)


def per_channel(values, x, axis):
    return values.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])


def problem(shape, dtype, axis=1, seed=0):
    """Make dy, x and weight. x lies about 3, so that its mean is rounded."""
    dy = np.asarray(uniform(shape, dtype, seed + 1))
    x = np.asarray(uniform(shape, dtype, seed + 2)) + np.asarray(3, dtype)
    compute = np.float64 if x.dtype.itemsize == 8 else np.float32
    return dy, x.astype(dtype), np.asarray(uniform(shape[axis], compute, seed + 3) + 1, compute)


def saved(norm, x, axis=1, eps=1e-5, where=None):
    """Mean and rstd; those that are given are not those of x."""
    split, axes = cells(norm, x, axis)
    if where is not None:
        where, _ = cells(norm, np.broadcast_to(where, x.shape), axis)
    mean, rstd = reference.saved_statistics(split, axes, eps, where)
    return (mean + mean.dtype.type(0.25), rstd) if norm in ("evaluation", "given") else (mean, rstd)


def call(norm, dy, x, mean, rstd, weight=None, axis=1, **kwargs):
    """The call under test."""
    kwargs["channel_axis"] = axis
    kind, _, groups = norm.partition(" ")
    if groups:
        return fastnorm.group_norm_backward(dy, x, mean, rstd, int(groups), weight, **kwargs)
    if kind in ("instance", "given"):
        return fastnorm.instance_norm_backward(dy, x, mean, rstd, weight, use_input_stats=kind == "instance", **kwargs)
    return fastnorm.batch_norm_backward(dy, x, mean, rstd, weight, training=kind == "batch", **kwargs)


def twin(norm, dy, x, mean, rstd, weight=None, axis=1, y=None, where=None):
    """dx, dweight and dbias in extended precision, with what the error bounds of `reference` are made of."""
    counts = np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape)
    dy, x = (np.asarray(v).astype(np.longdouble) for v in (dy, x))
    if y is not None:
        dy = np.where(y <= 0, 0, dy)
    dy = np.where(counts, dy, 0)
    g = dy if weight is None else dy * per_channel(np.asarray(weight).astype(np.longdouble), x, axis)
    (x_in, axes), (g_in, _), (counts_in, _) = (cells(norm, v, axis) for v in (x, g, counts))
    n = np.maximum(counts_in.sum(axes, keepdims=True), 1)

    def average(v):
        return np.where(counts_in, v, 0).sum(axes, keepdims=True) / n

    with reference.silent():
        scale, center = (np.expand_dims(np.asarray(v).astype(np.longdouble), axes) for v in (rstd, mean))
        if norm in ("evaluation", "given"):
            xhat = (x_in - center) * scale
            dx = scale * g_in
        else:
            near = np.where(counts_in, x_in, 0).max(axes, keepdims=True, initial=0)
            near = np.where(np.isfinite(near), near, 0)
            xhat = (x_in - near - average(x_in - near)) * scale
            dx = scale * (g_in - average(g_in) - xhat * average(g_in * xhat))
        dx_scale = scale * np.abs(g_in).max(axes, keepdims=True, initial=0) + 0 * dx
        xhat, dx, dx_scale = (v.reshape(x.shape) for v in (xhat, dx, dx_scale))
        over = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        return {
            "dx": np.where(counts, dx, 0),
            "dweight": np.where(counts, dy * xhat, 0).sum(over),
            "dbias": dy.sum(over),
            "xhat": xhat,
            "dx_scale": dx_scale,
            "dweight_scale": np.where(counts, np.abs(dy) * (1 + np.abs(xhat)), 0).sum(over),
            "dbias_scale": np.abs(dy).sum(over),
        }


def check(norm, dy, x, weight=None, axis=1, eps=1e-5, given=None, **kwargs):
    """Call with the arrays `given` (the same values in other memory); compare with the twin."""
    where = kwargs.get("where")
    mean, rstd = saved(norm, x, axis, eps, where)
    got = call(norm, *(given or (dy, x)), mean, rstd, weight, axis, **kwargs)
    want = twin(norm, dy, x, mean, rstd, weight, axis, kwargs.get("y"), where)
    reference.assert_gradients(got, want, x, weight)
    return got


def each_norm(shapes, *, last=True):
    """(shape, axis, norm) over the places where channels can lie."""
    for shape in shapes:
        for axis in (1, -1) if last and len(shape) > 2 else (1,):
            for norm in norms(shape, axis):
                yield shape, axis, norm


# ---- the twin's answers


@pytest.mark.wide
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_the_twins(shape, dtype):
    for axis in range(len(shape)):
        dy, x, weight = problem(shape, dtype, axis)
        for norm in norms(shape, axis):
            for w in (weight, None):
                check(norm, dy, x, w, axis)


def test_a_relu_stops_what_was_not_positive(dtype):
    for shape, axis, norm in each_norm(SHAPES):
        if norm not in ("batch", "evaluation"):
            continue
        dy, x, weight = problem(shape, dtype, axis)
        y = uniform(shape, dtype, 5)
        y.reshape(-1)[::3] = 0
        y.reshape(-1)[1] = -0.0
        check(norm, dy, x, weight, axis, activation="relu", y=y)
        mean, rstd = saved(norm, x, axis)
        stopped = np.where(y > 0, dy, 0).astype(dtype)
        want = call(norm, stopped, x, mean, rstd, weight, axis)
        assert same(call(norm, dy, x, mean, rstd, weight, axis, activation="relu", y=y), want)
        y[y > 0] = np.nan  # lets the gradient pass, as a comparison with 0 does
        assert same(call(norm, dy, x, mean, rstd, weight, axis, activation="relu", y=y), want)


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_memory_layout_does_not_matter(shape, dtype):
    for _, axis, norm in each_norm([shape]):
        dy, x, weight = problem(shape, dtype, axis)
        masked = {"where": mask(x)[0]} if norm in ("batch", "evaluation") else {}
        for (_, a), (_, b), (_, w) in zip(layouts(dy), layouts(x), layouts(weight), strict=False):
            check(norm, dy, x, w, axis, given=(a, b))
            check(norm, dy, x, w, axis, given=(a, x), **masked)
            check(norm, dy, x, w, axis, given=(dy, b), **masked)
        for order in itertools.permutations(range(len(shape))):
            back = np.argsort(order)
            a, b = (np.ascontiguousarray(v.transpose(order)).transpose(back) for v in (dy, x))
            check(norm, dy, x, weight, axis, given=(a, b), **masked)
        for label, out in layouts(garbage(shape, dtype)):
            if label not in ("big-endian", "strided, swapped", "read-only"):
                got = check(norm, dy, x, weight, axis, out=out)
                assert got[0] is out


def test_a_gradient_may_be_repeated(dtype):
    for shape, axis, norm in each_norm(SMALL):
        _, x, weight = problem(shape, dtype, axis)
        for dy in (np.broadcast_to(dtype.type(0.75), shape), np.broadcast_to(x[:, :1], shape)):
            check(norm, dy, x, weight, axis)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision(half):
    for shape, axis, norm in each_norm(SMALL):
        dy, x, weight = problem(shape, half, axis)
        for w in (weight, weight.astype(half), None):
            for d in (dy, dy.astype(np.float32)):
                got = check(norm, d, x, w, axis)
                assert [g.dtype for g in got if g is not None] == [
                    half,
                    *[half if w is None else w.dtype] * (2 - (w is None)),
                ]
        if norm == "batch":
            check(norm, dy, x, weight, axis, activation="relu", y=uniform(shape, half, 7))


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_are_differentiated_in_float64(integer):
    for shape, axis, norm in each_norm([(9, 33), (2, 4, 70)]):
        x = (uniform(shape, integer).astype(np.float64) % 100).astype(integer)
        dy = uniform(x.shape, np.float64, 1)
        check(norm, dy, x, None, axis)
        mean, rstd = saved(norm, x, axis)
        with pytest.raises(TypeError, match="dy has dtype float32"):
            call(norm, dy.astype(np.float32), x, mean, rstd, None, axis)


def test_gradients_of_parameters_have_their_dtype():
    for shape, axis, norm in each_norm(SMALL):
        dy, x, weight = problem(shape, np.float32, axis)
        for kind in ("float16", "float32", "float64", ">f4", ">f8"):
            dx, dweight, dbias = check(norm, dy, x, weight.astype(kind), axis)
            assert dx.dtype == np.float32
            assert dweight.dtype == dbias.dtype == np.dtype(kind).newbyteorder("=")
        dx, dweight, dbias = check(norm, dy, x, np.ones(x.shape[axis], np.int32), axis)
        assert dweight.dtype == dbias.dtype == np.float64


def test_parameters_of_other_kinds_are_taken(dtype):
    dy, x, weight = problem((6, 4, 70), dtype)
    for norm in norms(x.shape, 1):
        mean, rstd = saved(norm, x)
        want = call(norm, dy, x, mean, rstd, weight)
        assert same(
            call(
                norm,
                dy.tolist() if dtype == np.float64 else dy,
                x,
                *map(np.asfortranarray, (mean, rstd)),
                weight.tolist() if dtype == np.float64 else weight,
                -2,
            ),
            want,
        )
        assert same(call(norm, dy, x, mean.astype(np.longdouble).astype(dtype), rstd, weight, np.int64(1)), want)


def test_empty_arrays(dtype):
    for shape, axis in (((0, 4), 1), ((5, 0), 1), ((0, 4, 70), 1), ((3, 4, 0), 1), ((3, 0, 4), -1), ((0, 4), 0)):
        dy, x, weight = problem(shape, dtype, axis)
        channels = np.ones(shape[axis], dtype)
        given = {"batch": channels, "evaluation": channels}
        if axis:
            given |= {"given": channels, "instance": np.ones((shape[0], shape[axis]), dtype)}
            given |= {"group 2": np.ones((shape[0], 2), dtype), "group 4": np.ones((shape[0], 4), dtype)}
        for norm, statistic in given.items():
            with reference.strict():
                dx, dweight, dbias = call(norm, dy, x, statistic, statistic, weight, axis)
            assert dx.shape == shape
            assert dweight.shape == dbias.shape == channels.shape
            assert dx.dtype == dweight.dtype == dbias.dtype == dtype
            assert not dweight.any()
            assert not dbias.any()


def test_more_samples_than_are_worked_on_at_once(dtype):
    for shape, groups in (((1100, 64, 2), 4), ((17000, 1, 3), 1), ((2500, 8, 64), 2)):
        dy, x, weight = problem(shape, dtype)
        check("instance", dy, x, weight)
        check(f"group {groups}", dy, x, weight)
        mean, rstd = saved("instance", x)
        whole = call("instance", dy, x, mean, rstd, weight)
        half = len(x) // 2
        part = call("instance", dy[:half], x[:half], mean[:half], rstd[:half], weight)
        assert part[0].tobytes() == whole[0][:half].tobytes()


@pytest.mark.slow
def test_more_chunks_than_are_folded_at_once():
    for shape in ((1, 2, 64 * 32768 + 12345), (64 * 65536 + 77, 2)):
        dy, x, weight = problem(shape, np.float32)
        with fastnorm.threads(1):
            want = check("batch", dy, x, weight)
        mean, rstd = saved("batch", x)
        with fastnorm.threads(3):
            assert same(call("batch", dy, x, mean, rstd, weight), want)


# ---- against differences of the forward function


def forward(norm, x, weight, bias, axis, eps, where=None, statistics=None):
    """The norm, in float64."""
    split, axes = cells(norm, x, axis)
    counts, _ = cells(norm, np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape), axis)
    if statistics is None:
        n = counts.sum(axes, keepdims=True)
        mean = np.where(counts, split, 0).sum(axes, keepdims=True) / n
        rstd = 1 / np.sqrt(np.where(counts, (split - mean) ** 2, 0).sum(axes, keepdims=True) / n + eps)
    else:
        mean, rstd = (np.expand_dims(v, axes) for v in statistics)
    y = ((split - mean) * rstd).reshape(x.shape) * per_channel(weight, x, axis) + per_channel(bias, x, axis)
    return np.where(True if where is None else where, y, 0)


def differences(function, x, step=1e-5):
    """Central differences of a scalar function."""
    slope = np.empty_like(x)
    for i in np.ndindex(x.shape):
        moved = x.copy()
        moved[i] = x[i] + step
        above = function(moved)
        moved[i] = x[i] - step
        slope[i] = (above - function(moved)) / (2 * step)
    return slope


@pytest.mark.parametrize(("shape", "axis", "norm"), [*each_norm(FEW)], ids=str)
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.parametrize("flags", ["plain", "masked", "relu", "relu, masked"])
def test_gradients_by_central_differences(shape, axis, norm, eps, flags):
    # A difference of step h is off by h^2 f''' / 6 + 2^-52 |f| / h, where f''' is some tens times rstd^3. The kinks of
    # the ReLU are further away than the step moves any y.
    if flags != "plain" and norm not in ("batch", "evaluation"):
        return
    dy, x, weight = problem(shape, np.float64, axis)
    bias = uniform(weight.shape, np.float64, 9)
    where = mask(x)[0].copy() if "masked" in flags else None
    if where is not None:
        where[:2] = True
    mean, rstd = saved(norm, x, axis, eps, where)
    statistics = (mean, rstd) if norm in ("evaluation", "given") else None
    y = forward(norm, x, weight, bias, axis, eps, where, statistics)
    flag = {"where": where} if where is not None else {}
    if "relu" in flags:
        counted = np.abs(y[y != 0])
        assert counted.min() > 1e-5 * 3 * rstd.max() * weight.max()
        flag |= {"activation": "relu", "y": np.maximum(y, 0)}

    def loss(x, weight, bias):
        y = forward(norm, x, weight, bias, axis, eps, where, statistics)
        return float((dy * (np.maximum(y, 0) if "relu" in flags else y)).sum())

    got = call(norm, dy, x, mean, rstd, weight, axis, **flag)
    want = (
        differences(lambda v: loss(v, weight, bias), x),
        differences(lambda v: loss(x, v, bias), weight),
        differences(lambda v: loss(x, weight, v), bias),
    )
    bound = 2e-9 * max(1, float(np.max(rstd))) ** 3 + 1e-9
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=bound)


# ---- ranges


def test_a_gradient_that_is_the_same_everywhere_has_none_before(dtype):
    for shape, axis, norm in each_norm(SMALL):
        if norm in ("evaluation", "given"):
            continue
        _, x, _ = problem(shape, dtype, axis)
        mean, rstd = saved(norm, x, axis)
        dx, _, dbias = call(norm, np.ones_like(x), x, mean, rstd, None, axis)
        assert np.abs(dx).max() <= 4 * reference.eps_of(dtype) * rstd.max()
        np.testing.assert_array_equal(dbias, x.size // x.shape[axis])


def test_a_channel_of_one_element_that_counts_has_no_gradient(dtype):
    for shape, axis in (((7, 5), 1), ((3, 4, 70), 1), ((3, 70, 4), -1), ((5, 4, 3, 3), 1)):
        dy, x, weight = problem(shape, dtype, axis)
        where = np.zeros(shape, bool)
        np.moveaxis(where, axis, -1)[(0,) * (x.ndim - 1)] = True
        for scale in (1, 1e30, 1e-30):
            d = dy * dtype.type(scale)
            mean, rstd = saved("batch", x, axis, where=where)
            dx, dweight, dbias = call("batch", d, x, mean, rstd, weight, axis, where=where)
            assert not dx.any()
            assert not dweight.any()
            np.testing.assert_array_equal(dbias, d[where])


def test_a_mean_of_ten_thousand_deviations(dtype):
    for shape, axis, norm in each_norm([(300, 6), (70, 300), (4, 4, 700), (8, 6, 7, 7), (2, 2, 40000)]):
        if norm in ("evaluation", "given"):
            continue  # their mean is taken as it is
        dy, x, weight = problem(shape, dtype, axis)
        check(norm, dy, (x + dtype.type(2e4)).astype(dtype), weight, axis, eps=0.0)


@pytest.mark.parametrize(("shape", "axis", "norm"), [*each_norm([(40, 6), (3, 6, 70), (5, 6, 3, 3)])], ids=str)
def test_values_near_the_ends_of_the_type(shape, axis, norm, dtype):
    dy, x, weight = problem(shape, dtype, axis)
    x -= dtype.type(3)
    most, least = np.finfo(dtype).maxexp, np.finfo(dtype).minexp
    whole = x if norm.startswith("group") else np.moveaxis(x, axis, 0)  # what shares its statistics: samples, channels
    for part, power in zip(whole, (most, 100, -100, least, 0), strict=False):
        part[...] = np.ldexp(part, power)
    tiny = np.finfo(dtype).smallest_subnormal
    split, axes = cells(norm, x, axis)
    for y_power, eps in itertools.product((0, most - 1, -100, 110, least), (0.0, 1e-5)):
        d = np.ldexp(dy, y_power)
        mean, rstd = reference.saved_statistics(split, axes, eps)
        with reference.strict():
            got = call(norm, d, x, mean, rstd, weight, axis)
        want = twin(norm, d, x, mean, rstd, weight, axis)
        usual = np.isfinite(np.expand_dims(rstd, axes) + 0 * split).reshape(shape)
        with reference.silent():
            bound = 8 * reference.eps_of(dtype) * want["dx_scale"] * (1 + np.abs(want["xhat"])) + tiny
            sure = usual & (np.abs(want["dx"]) < np.finfo(dtype).max) & (want["dx_scale"] < np.finfo(dtype).max)
            far = ~(np.abs(got[0] - want["dx"]) <= bound)
        assert not (far & sure).any(), (y_power, eps, np.argwhere(far & sure)[:3])
        over = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        with reference.silent():
            bound = 6 * reference.eps_of(dtype) * want["dweight_scale"] + len(x) * tiny
            sure = usual.all(over) & (want["dweight_scale"] < np.finfo(dtype).max)
            far = ~(np.abs(got[1] - want["dweight"]) <= bound)
        assert not (far & sure).any(), (y_power, eps, got[1], want["dweight"])


def touched(norm, shape, axis, index):
    """The elements that share statistics with the one at `index`."""
    marked = np.zeros(shape, bool)
    marked[index] = True
    split, axes = cells(norm, marked, axis)
    return np.broadcast_to(split.any(axes, keepdims=True), split.shape).reshape(shape)


def test_nan_and_infinity_stay_where_their_statistics_are(dtype):
    for shape, axis, norm in each_norm([(40, 6), (70, 600), (3, 4, 70), (8, 16, 14, 14), (5, 6, 3, 3)]):
        dy, x, weight = problem(shape, dtype, axis)
        mean, rstd = saved(norm, x, axis)
        clean = call(norm, dy, x, mean, rstd, weight, axis)
        index = (1,) * len(shape)
        shared = touched(norm, shape, axis, index)
        channels = shared.any(tuple(a for a in range(x.ndim) if a != axis % x.ndim))
        own = np.arange(shape[axis]) == 1
        for target, value in itertools.product(("x", "dy"), (np.nan, -np.nan, np.inf, -np.inf)):
            given = {"x": x.copy(), "dy": dy.copy()}
            given[target][index] = value
            with reference.strict():
                dx, dweight, dbias = call(norm, given["dy"], given["x"], mean, rstd, weight, axis)
            if norm in ("evaluation", "given"):  # nothing is shared
                hit = np.zeros(shape, bool)
                hit[index] = target == "dy"
                np.testing.assert_array_equal(dx[hit], np.asarray([value] * hit.sum(), dtype))
                np.testing.assert_array_equal(dx[~hit], clean[0][~hit])
            else:
                assert dx[shared].tobytes() == np.full(shared.sum(), np.nan, dtype).tobytes()
                np.testing.assert_array_equal(dx[~shared], clean[0][~shared])
            np.testing.assert_array_equal(dweight[~channels], clean[1][~channels])
            np.testing.assert_array_equal(dbias[~channels], clean[2][~channels])
            np.testing.assert_allclose(
                dbias[~own], clean[2][~own], rtol=0, atol=8 * x.size / len(own) * reference.eps_of(dtype)
            )
            assert not np.isfinite(dweight[1])
            assert np.isfinite(dbias[1]) == (target == "x")


def test_a_constant_channel_without_eps_is_nan_by_itself(dtype):
    for shape in ((40, 6), (3, 6, 70)):
        dy, x, weight = problem(shape, dtype)
        clean = call("batch", dy, x, *saved("batch", x, eps=0.0), weight)[0]
        x[:, 2] = 14.62
        mean, rstd = saved("batch", x, eps=0.0)
        rstd[2] = np.inf
        dx = call("batch", dy, x, mean, rstd, weight)[0]
        assert np.isnan(dx[:, 2]).all()
        np.testing.assert_array_equal(np.delete(dx, 2, 1), np.delete(clean, 2, 1))


def test_a_weight_of_zero_stops_the_gradient(dtype):
    for shape, axis, norm in each_norm([(40, 6), (3, 4, 70)]):
        dy, x, weight = problem(shape, dtype, axis)
        weight[:] = 0
        assert not check(norm, dy, x, weight, axis)[0].any()


# ---- masks


@pytest.mark.parametrize("shape", [(67, 5), (70, 600), (9, 6, 5), (3, 4, 700), (8, 4, 14, 14), (3000, 3)], ids=str)
def test_what_is_masked_never_counts(shape, dtype):
    for axis, norm in itertools.product(range(len(shape)), ("batch", "evaluation")):
        dy, x, weight = problem(shape, dtype, axis)
        where = mask(x)[0]
        y = uniform(shape, dtype, 5)
        want = check(norm, dy, x, weight, axis, where=where)
        both = check(norm, dy, x, weight, axis, where=where, activation="relu", y=y)
        assert not want[0][~where].any()
        mean, rstd = saved(norm, x, axis, where=where)
        for value in (np.nan, np.inf, np.finfo(dtype).max):
            a, b, c = (np.where(where, v, dtype.type(value)) for v in (dy, x, y))
            with reference.strict():
                assert same(call(norm, a, b, mean, rstd, weight, axis, where=where), want)
                assert same(call(norm, a, b, mean, rstd, weight, axis, where=where, activation="relu", y=c), both)


def test_padding_changes_no_more_than_rounding(dtype):
    dy, x, weight = problem((12, 6, 40), dtype)
    mean, rstd = saved("batch", x)
    want = twin("batch", dy, x, mean, rstd, weight)
    wide = [np.pad(v, ((0, 3), (0, 0), (0, 9)), constant_values=np.nan) for v in (dy, x)]
    where = np.zeros((15, 1, 49), bool)
    where[:12, :, :40] = True
    dx, dweight, dbias = call("batch", *wide, mean, rstd, weight, where=where)
    reference.assert_gradients((dx[:12, :, :40].copy(), dweight, dbias), want, x, weight)
    assert not dx[np.broadcast_to(~where, dx.shape)].any()


def test_a_channel_where_nothing_counts_has_no_gradient(dtype):
    for shape in ((40, 6), (3, 6, 70)):
        dy, x, weight = problem(shape, dtype)
        where = mask(x)[0].copy()
        where[:, 3] = False
        mean, rstd = (np.array(v) for v in saved("batch", x, where=where))
        want = call("batch", dy, x, mean, rstd, weight, where=where)
        mean[3] = rstd[3] = np.nan
        got = call("batch", dy, x, mean, rstd, weight, where=where)
        assert not got[0][:, 3].any()
        assert not got[1][3]
        assert not got[2][3]
        assert same(got, want)


# ---- bits


MANY_GROUPS = "group 260"  # of (1050, 520); slow, and what it runs is run for the groups of less wide shapes too
BITS = [*SMALL, (130, 64), (40, 1030), (9000, 3), (1050, 520), (16, 18, 14, 14), (4, 2, 40000), (3, 64, 8, 8)]


@functools.cache
def awkward_problem(shape, dtype, axis):
    """Make dy, x, weight and an output of the ReLU, not all of them finite; kept, as every machine is given them."""
    dy, x, weight = problem(shape, dtype, axis)
    x.reshape(-1)[5], dy.reshape(-1)[x.size // 2] = 1e30, np.nan
    return dy, x, weight, uniform(shape, dtype, 5)


@functools.cache
def awkward_statistics(norm, shape, dtype, axis):
    return saved(norm, awkward_problem(shape, dtype, axis)[1], axis)


def everything(place_at=0):
    """Results over shapes, axes, flags and awkward values, each array at an offset from a cache line."""
    results = []
    for dtype in FLOATS:
        for shape, axis, norm in each_norm(BITS):
            if norm == MANY_GROUPS:
                continue
            arrays = awkward_problem(shape, dtype, axis)
            mean, rstd = awkward_statistics(norm, shape, dtype, axis)
            dy, x, weight, y = (place(v, place_at) for v in arrays)
            out = place(garbage(shape, dtype), (3 * place_at) % 64)
            results += call(norm, dy, x, mean, rstd, weight, axis, out=out)
            if norm in ("batch", "evaluation"):
                results += call(norm, dy, x, mean, rstd, weight, axis, activation="relu", y=y)
                results += call(norm, dy, x, mean, rstd, weight, axis, where=mask(x)[0])
    return results


@pytest.fixture(scope="module")
def expected():
    with fastnorm.use_isa("baseline"), fastnorm.threads(1):
        return everything()


@pytest.mark.usefixtures("machine")
def test_any_instruction_set_and_thread_count_gives_the_same_bytes(expected):
    assert same(everything(), expected)


@pytest.mark.usefixtures("no_stream_threshold", "isa")
def test_stores_past_the_cache_give_the_same_bytes(expected):
    assert same(everything(), expected)


@pytest.mark.sweep
@pytest.mark.parametrize("offset", [1, 4, 8, 36])
@pytest.mark.usefixtures("stores")
def test_any_address_gives_the_same_bytes(offset, expected):
    assert same(everything(offset), expected)


def test_where_dx_goes_changes_no_bit(dtype):
    for shape, axis, norm in each_norm(
        [(16, 6, 3), (64, 4, 5), (3000, 4, 2), (6, 4, 70), (8, 16, 14, 14), (20, 8, 7, 7)]
    ):
        for order in itertools.permutations(range(len(shape))):
            back = np.argsort(order)
            dy, x, weight = problem(shape, dtype, axis)
            dy, x = (np.ascontiguousarray(v.transpose(order)).transpose(back) for v in (dy, x))
            mean, rstd = saved(norm, x, axis)
            masked = {"where": mask(x)[0]} if norm == "batch" else {}
            want = call(norm, dy, x, mean, rstd, weight, axis, **masked)
            gaps = garbage([n + 1 for n in shape], dtype)[(slice(1, None),) * len(shape)]
            itself = x.copy(order="K")
            for given, out in ((x, gaps), (x, garbage(shape, dtype)), (itself, itself)):
                assert same(call(norm, dy, given, mean, rstd, weight, axis, out=out, **masked), want)


def test_unaligned_and_swapped_bytes_change_no_bit(dtype):
    for shape, axis, norm in each_norm([(300, 6), (3, 4, 700), (8, 16, 14, 14), (20, 8, 7, 7)]):
        dy, x, weight = problem(shape, dtype, axis)
        mean, rstd = saved(norm, x, axis)
        want = call(norm, dy, x, mean, rstd, weight, axis)
        other = x.dtype.newbyteorder()
        assert same(call(norm, place(dy, 1), place(x, 1), mean, rstd, weight, axis), want)
        assert same(call(norm, dy.astype(other), x.astype(other), mean, rstd, weight, axis), want)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_where_planes_of_halves_lie_changes_no_bit(half):
    for shape, axis, norm in each_norm([(20, 8, 7, 7), (4, 20, 13, 17)], last=False):
        dy, x, weight = problem(shape, half, axis)
        mean, rstd = saved(norm, x, axis)
        want = call(norm, dy, x, mean, rstd, weight, axis)
        gaps = garbage([n + 1 for n in shape], half)[(slice(1, None),) * len(shape)]
        assert same(call(norm, dy, x, mean, rstd, weight, axis, out=gaps), want)
        assert same(call(norm, place(dy, 1), x.copy(), mean, rstd, weight, axis), want)
        assert same(call(norm, dy, place(x, 1), mean, rstd, weight, axis), want)


# ---- memory


@pytest.mark.wide
@pytest.mark.usefixtures("stores")
def test_dx_may_replace_dy_or_x(dtype):
    for shape, axis, norm in each_norm([*SMALL, (1050, 520), (8, 16, 14, 14), (4, 2, 40000)]):
        if norm == MANY_GROUPS:
            continue
        dy, x, weight = problem(shape, dtype, axis)
        x.reshape(-1)[0] = 1e30  # one channel goes the careful way
        mean, rstd = saved(norm, x, axis)
        y = uniform(shape, dtype, 5)
        flags = [{}, {"activation": "relu", "y": y}, {"where": mask(x)[0]}] if norm == "batch" else [{}]
        for which, order, flag in itertools.product((0, 1), "CF", flags):
            given = [np.array(v, order=order) for v in (dy, x)]
            want = call(norm, *given, mean, rstd, weight, axis, out=np.empty_like(given[0]), **flag)
            got = call(norm, *given, mean, rstd, weight, axis, out=given[which], **flag)
            assert got[0] is given[which]
            assert same(got, want)


@pytest.mark.wide
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
def test_nothing_outside_the_arrays_is_touched(side, dtype):
    for shape, axis, norm in each_norm([*SMALL, (70, 600), (3000, 3), (5, 18, 70), (8, 4, 14, 14)]):
        dy, x, weight = problem(shape, dtype, axis)
        where = mask(x)[0]
        mean, rstd = saved(norm, x, axis)
        relu = {"activation": "relu", "y": uniform(shape, dtype, 5)}
        for flag in ({}, relu, {"where": where}) if norm == "batch" else ({},):
            want = call(norm, dy, x, mean, rstd, weight, axis, **flag)
            arrays = [guarded(np.asarray(v), side) for v in (dy, x, mean, rstd, weight)]
            fenced = {k: guarded(v, side) if isinstance(v, np.ndarray) else v for k, v in flag.items()}
            out = guarded(garbage(shape, dtype), side)
            assert same(call(norm, *arrays, axis, out=out, **fenced), want)


@pytest.mark.wide
def test_numpy_makes_no_temporary(dtype):
    # Beside the gradients of weight and bias: array headers and the interpreter's own objects.
    for shape, axis, norm in each_norm([(60000, 40), (16, 40, 60, 60)]):
        if norm.startswith("group") and len(shape) == 2:
            continue  # NumPy adds up a float64 per channel for each group
        dy, x, weight = problem(shape, dtype, axis)
        mean, rstd = saved(norm, x, axis)
        out = np.empty_like(x)
        call(norm, dy, x, mean, rstd, weight, axis, out=out)
        tracemalloc.start()
        call(norm, dy, x, mean, rstd, weight, axis, out=out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * weight.nbytes + (1 << 14)


# ---- refusals


def test_bad_input_is_refused_by_name_and_changes_nothing(dtype):
    dy, x, weight = problem((6, 8, 64), dtype)
    other = np.dtype(np.float64 if dtype == np.float32 else np.float32)
    overlap = np.zeros(2 * x.size, dtype)
    into = overlap[: x.size].reshape(x.shape)
    read_only = np.zeros_like(x)
    read_only.flags.writeable = False
    shifted = overlap[4 : x.size + 4].reshape(x.shape)
    bits = np.zeros(x.nbytes, np.uint8)
    for norm in ("batch", "instance", "group 4", "given"):
        mean, rstd = saved(norm, x)
        wrong = [
            (ValueError, "dy has shape", {"dy": dy[:5]}),
            (TypeError, "dy has dtype", {"dy": dy.astype(other)}),
            (TypeError, "dy has dtype complex", {"dy": dy.astype(complex)}),
            (TypeError, "x has dtype", {"x": x.astype(complex)}),
            (ValueError, "x has shape", {"x": x[0, 0], "dy": dy[0, 0]}),
            (ValueError, "mean has shape", {"mean": mean[:5]}),
            (ValueError, "mean has shape", {"mean": mean[..., None]}),
            (ValueError, "rstd has shape", {"rstd": rstd[:1]}),
            (TypeError, "mean has dtype", {"mean": None}),
            (TypeError, "rstd has dtype", {"rstd": None}),
            (ValueError, "weight has shape", {"weight": weight[:5]}),
            (TypeError, "weight has dtype", {"weight": weight.astype(complex)}),
            (ValueError, "channel_axis", {"axis": 3}),
            (TypeError, "channel_axis", {"axis": 1.0}),
            (TypeError, "channel_axis", {"axis": None}),
            (ValueError, "out has dtype", {"out": np.zeros(x.shape, other)}),
            (ValueError, "out has shape", {"out": np.zeros((6, 8, 65), dtype)}),
            (ValueError, "out is read-only", {"out": read_only}),
            (TypeError, "out must be an array", {"out": x.tolist()}),
            (ValueError, "out overlaps x", {"x": into, "out": shifted}),
            (ValueError, "out overlaps dy", {"dy": into, "out": shifted}),
            (ValueError, "out overlaps mean", {"mean": overlap[: mean.size].reshape(mean.shape), "out": into}),
            (ValueError, "out overlaps rstd", {"rstd": overlap[5 : rstd.size + 5].reshape(rstd.shape), "out": into}),
            (ValueError, "out overlaps weight", {"weight": overlap[:8], "out": into}),
        ]
        if norm == "batch":
            wrong += [
                (TypeError, "where has dtype", {"where": np.ones(x.shape)}),
                (ValueError, "where has shape", {"where": np.ones((5, 8, 64), bool)}),
                (
                    ValueError,
                    "out overlaps where",
                    {"where": bits[: x.size].view(bool).reshape(x.shape), "out": bits.view(dtype).reshape(x.shape)},
                ),
                (ValueError, "activation must be", {"activation": "gelu", "y": x}),
                (ValueError, "activation must be", {"activation": 1, "y": x}),
                (ValueError, "y is None", {"activation": "relu"}),
                (ValueError, "y has shape", {"activation": "relu", "y": x[:5]}),
                (TypeError, "y has dtype", {"activation": "relu", "y": x.astype(other)}),
                (ValueError, "out overlaps y", {"activation": "relu", "y": into, "out": shifted}),
                (ValueError, "out overlaps y", {"activation": "relu", "y": into, "out": into}),
            ]
        else:
            wrong.append((ValueError, "channel_axis", {"axis": 0}))
        for error, message, change in wrong:
            out = change.get("out", np.zeros_like(x))
            before = out if isinstance(out, list) else out.tobytes()
            with pytest.raises(error, match=message):
                call(norm, **{"dy": dy, "x": x, "mean": mean, "rstd": rstd, "weight": weight, "out": out, **change})
            assert (out if isinstance(out, list) else out.tobytes()) == before, message
    mean, rstd = saved("group 4", x)
    for error, groups in (
        (ValueError, 3),
        (ValueError, 0),
        (ValueError, -4),
        (TypeError, 4.0),
        (TypeError, None),
        (TypeError, (4,)),
        (TypeError, True),
        (ValueError, 16),
        (ValueError, 1 << 70),
    ):
        with pytest.raises(error, match="num_groups"):
            fastnorm.group_norm_backward(dy, x, mean, rstd, groups, weight)


# ---- peers


@pytest.mark.peers
@pytest.mark.parametrize(
    "shape", [(8, 6), (300, 18), (4, 6, 70), (5, 8, 7, 7), (6, 4, 14, 14), (2, 6, 3, 4, 5)], ids=str
)
def test_gradients_are_torchs(shape, dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    dy, x, weight = problem(shape, dtype)
    channels = shape[1]
    running = torch.full((channels,), 2.5, dtype=torch.from_numpy(x).dtype), torch.full((channels,), 0.4)
    running = running[0], running[1].to(running[0].dtype)
    given = running[0].numpy(), (1 / np.sqrt(running[1].numpy().astype(np.float64) + 1e-5)).astype(dtype)
    calls = {
        "batch": lambda x, w, b: functional.batch_norm(x, None, None, w, b, True),
        "evaluation": lambda x, w, b: functional.batch_norm(x, *running, w, b, False),
        "group 2": lambda x, w, b: functional.group_norm(x, 2, w, b),
        "group 1": lambda x, w, b: functional.group_norm(x, 1, w, b),
    }
    if len(shape) > 2:
        calls["instance"] = lambda x, w, b: functional.instance_norm(x, None, None, w, b)
        calls["given"] = lambda x, w, b: functional.instance_norm(x, *running, w, b, False)
    for norm, relu in itertools.product(calls, (False, True)):
        if relu and norm not in ("batch", "evaluation"):
            continue
        taken = [torch.from_numpy(v.copy()).requires_grad_() for v in (x, weight, np.zeros_like(weight))]
        y = calls[norm](*taken)
        y = torch.relu(y) if relu else y
        y.backward(torch.from_numpy(dy))
        mean, rstd = given if norm in ("evaluation", "given") else saved(norm, x)
        flag = {"activation": "relu", "y": y.detach().numpy()} if relu else {}
        got = call(norm, dy, x, mean, rstd, weight, **flag)
        # Theirs sums in its own precision, about a mean of 5 deviations; three values may have an rstd of some tens.
        terms, scale = x.size // channels, 1 + float(rstd.max()) ** 2
        for g, t, count in zip(got, taken, (1, terms, terms), strict=True):
            bound = 400 * reference.eps_of(dtype) * np.sqrt(count) * scale
            np.testing.assert_allclose(g, t.grad.numpy(), rtol=0, atol=bound)
