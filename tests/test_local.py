"""normalize and local_response_norm, forward and backward: any p and beta, any axes, layout and range."""

import itertools
import math
import tracemalloc

import mpmath
import numpy as np
import pytest
import reference
import reference_local as twin
from cases import FLOATS, HALVES, INTEGERS, SHAPES, SMALL, VALUES, layouts, result_dtype, same, uniform
from memory import garbage, guarded, place

import fastnorm

INF = math.inf
FAST = (2.0, 1.0, INF)
ORDERS = (*FAST, 0.0, 3.0, 0.5, 1.5, 7.25, -1.0, -0.5, -INF)
# size, alpha, beta, k
WINDOWS = [(5, 1e-4, 0.75, 1.0), (4, 2.0, 0.5, 0.5), (3, 0.7, 1.0, 2.0), (1, 1.0, 0.6, 1.0), (2, 3.0, -0.4, 1.5)]
WIDE_WINDOWS = [(17, 1.0, 0.75, 1.0), (18, 1.0, 2.0, 0.1), (63, 4.0, 0.75, 2.0), (1000, 9.0, 0.3, 1.0)]
CHANNELS = [
    (1, 1, 1),
    (2, 7, 5),
    (3, 5, 7),
    (2, 64, 33),
    (2, 1, 5),
    (5, 2, 3, 2),
    (2, 130, 300),
    (3, 65, 4, 5),
    (0, 3, 4),
]


def bound_of(p, dtype):
    """How many eps y may be off.

    float: the roundings of the norm and of the quotient, one half each. double: also those of the sums, at most 80
    additions one after another, and of the powers of any other p, whose errors the root divides by p.
    """
    if dtype.itemsize < 8:
        return 1.5
    return 42 if p in FAST else 6 + 6 / abs(p) if p else 2


def check(x, p=2.0, axis=1, eps=1e-12, **kwargs):
    got = fastnorm.normalize(x, p, axis, eps, **kwargs)
    twin.assert_close(got, twin.normalize(x, p, axis, eps), x, bound_of(p, result_dtype(x)))
    return got


def check_backward(dy, x, p=2.0, axis=1, eps=1e-12):
    """The sum of dy y is off by the bound above relative to the sum of |dy y|; the slope by |p - 1| times that."""
    dx, sizes = twin.normalize_backward(dy, x, p, axis, eps)
    c = 3 + 2 * bound_of(p, result_dtype(x)) * (1 + (abs(p - 1) if abs(p) < INF else 0))
    got = fastnorm.normalize_backward(dy, x, p, axis, eps)
    twin.assert_close(got, dx, x, c, sizes)
    return got


def response_bound(x, size, beta):
    """How many eps y may be off.

    float: 1/2 of the base, times beta, 1/2 each of two roots, their product and the quotient. double: also the sum of
    the window.
    """
    return 3 + abs(beta) + (0 if result_dtype(x).itemsize < 8 else abs(beta) * min(size, 2 * x.shape[1]))


def check_response(x, size, alpha=1e-4, beta=0.75, k=1.0, **kwargs):
    got = fastnorm.local_response_norm(x, size, alpha, beta, k, **kwargs)
    twin.assert_close(got, twin.local_response_norm(x, size, alpha, beta, k), x, response_bound(x, size, beta))
    return got


def check_response_backward(dy, x, size, alpha=1e-4, beta=0.75, k=1.0):
    dx, sizes = twin.local_response_norm_backward(dy, x, size, alpha, beta, k)
    got = fastnorm.local_response_norm_backward(dy, x, size, alpha, beta, k)
    twin.assert_close(got, dx, x, 4 + 3 * response_bound(x, size, abs(beta) + 1), sizes)
    return got


def pair(shape, dtype, seed=0):
    """Dy and x."""
    return np.asarray(uniform(shape, dtype, seed + 1)), np.asarray(uniform(shape, dtype, seed + 2))


# ---- the twins' answers


@pytest.mark.wide
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_vectors_have_unit_norm(shape, dtype):
    dy, x = pair(shape, dtype)
    orders = ORDERS if x.size < 5000 else (*FAST, 3.0) if x.size < 50000 else FAST
    for axis, p in itertools.product((*range(x.ndim), None), orders):
        check(x, p, axis)
        check_backward(dy, x, p, axis)
    if x.ndim > 2:
        for axis in ((0, 2), (-1, 0), (1, 2)):
            check(x, 2.0, axis)
            check_backward(dy, x, 1.0, axis)


@pytest.mark.parametrize("p", ORDERS)
def test_shorter_vectors_are_divided_by_eps(p, dtype):
    dy, x = pair((9, 65), dtype)
    x[::2] *= dtype.type(2.0**-20)
    for eps in (0.5, 2.0**-16, 1e3, 0.0):
        check(x, p, 1, eps)
        check_backward(dy, x, p, 1, eps)
        check(x, p, 0, eps)


def test_at_eps_the_slope_of_the_norm_counts(dtype):
    dy, x = pair((1, 4), dtype)
    x[0] = 0.25, -0.5, 0.125, 0.0625
    for p, norm in ((INF, 0.5), (1.0, 0.9375), (-INF, 0.0625), (0.0, 4.0)):
        below, at, above = (fastnorm.normalize_backward(dy, x, p, 1, norm * f) for f in (0.5, 1, 1.0 + 2.0**-10))
        assert same([at], [below])
        np.testing.assert_allclose(above, dy / (norm * (1.0 + 2.0**-10)), rtol=2 * reference.eps_of(dtype))


@pytest.mark.parametrize("p", ORDERS)
def test_zeros_and_ties(p, dtype):
    dy, x = pair((12, 40), dtype)
    x[0] = 0
    x[1, 1:] = 0
    x[2, ::2] = 0
    x[3] = np.where(x[3] < 0, -0.75, 0.75)
    x[4, ::3] = 1
    x[5] = -0.0
    for a, b in ((dy, x), (np.tile(dy, (1, 3)), np.tile(x, (1, 3)))):
        with reference.strict():
            got = check(b, p, 1)
            check_backward(a, b, p, 1)
        check(b.T.copy(), p, 0)
        check_backward(a.T.copy(), b.T.copy(), p, 0)
        assert np.signbit(got[5]).all()
        assert not got[0].any()


@pytest.mark.parametrize("shape", CHANNELS, ids=str)
def test_neighbouring_channels_divide(shape, dtype):
    dy, x = pair(shape, dtype)
    x = x * dtype.type(4)
    for window in WINDOWS + WIDE_WINDOWS:
        check_response(x, *window)
        check_response_backward(dy, x, *window)


def test_every_size_of_window(dtype):
    dy, x = pair((2, 11, 3), dtype)
    for size in (*range(1, 25), 10**6, 2**40):
        check_response(x, size, float(size))
        check_response_backward(dy, x, size, float(size))


def test_an_even_window_has_one_more_channel_before_than_after():
    x = np.zeros((1, 5, 1))
    x[0, 2] = 2.0
    got = fastnorm.local_response_norm(np.where(x == 0, 1e-9, x), 2, alpha=2.0, beta=1.0).ravel() * 1e9
    np.testing.assert_allclose(got[[0, 1, 3, 4]], [1, 1, 0.2, 1], rtol=1e-15)


def test_long_windows_over_many_channels(dtype):
    dy, x = pair((1, 3000, 2), dtype)
    for size in (2999, 1501, 64):
        check_response(x, size, float(size))
        check_response_backward(dy, x, size, float(size))
    x = np.ones((1, 17000, 1), dtype)  # a window that no thread's scratch holds
    got = fastnorm.local_response_norm(x, 40001, 40001.0, 1.0, 0.0)
    np.testing.assert_array_equal(got, dtype.type(1) / dtype.type(17000))
    got = fastnorm.local_response_norm_backward(x, x, 40001, 40001.0, 1.0, 0.0)
    np.testing.assert_allclose(got, -1 / 17000, rtol=20000 * reference.eps_of(np.float64) + reference.eps_of(dtype))


# ---- dtypes and layouts


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision(half):
    for shape in ((9, 65), (70, 8), (3, 5, 7), (2, 1100)):
        dy, x = pair(shape, half)
        for p in ORDERS:
            check(x, p)
            check_backward(dy, x, p)
            check_backward(dy.astype(np.float32), x, p)
        if x.ndim > 2:
            for window in WINDOWS:
                check_response(x, *window)
                check_response_backward(dy, x, *window)


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_are_taken_in_float64(integer):
    x = uniform((4, 9, 5), integer)
    dy = uniform(x.shape, np.float64, 1)
    for p in (2.0, 1.0, INF, 0.0, 3.0):
        check(x, p)
        check_backward(dy, x, p)
    check_response(x, 3)
    check_response_backward(dy, x, 3)


@pytest.mark.parametrize("shape", [(67,), (70, 8), (9, 65), (3, 5, 7), (2, 33, 4), (20, 1030), (2, 70, 3, 4)], ids=str)
def test_memory_layout_does_not_matter(shape, dtype):
    dy, x = pair(shape, dtype)
    for axis, p in itertools.product(range(len(shape)), (*FAST, 3.0)):
        for (_, a), (_, b) in zip(layouts(dy), layouts(x), strict=True):
            check(b, p, axis)
            check_backward(a, b, p, axis)
            check_backward(dy, b, p, axis)
    if x.ndim > 2:
        for window in WINDOWS:
            for (_, a), (_, b) in zip(layouts(dy), layouts(x), strict=True):
                check_response(b, *window)
                check_response_backward(a, b, *window)
                check_response_backward(dy, b, *window)
    for label, out in layouts(garbage(shape, dtype)):
        if label not in ("big-endian", "strided, swapped", "read-only"):
            assert fastnorm.normalize(x, 2.0, 0, out=out) is out
            assert same([out], [fastnorm.normalize(x, 2.0, 0)])
            if x.ndim > 2:
                assert fastnorm.local_response_norm(x, 3, out=out) is out
                assert same([out], [fastnorm.local_response_norm(x, 3)])


@pytest.mark.parametrize("kind", [*FLOATS, *HALVES], ids=str)
@pytest.mark.usefixtures("stores")
def test_the_result_may_replace_x(kind):
    for shape in (*SMALL, (9, 1030), (3, 33000), (2500, 5), (2, 70, 300)):
        x = uniform(shape, kind)
        x.reshape(-1)[0] = 1e30 if kind.itemsize > 2 else 3  # one group goes the careful way
        for order, axis, p in itertools.product("CF", range(len(shape)), (2.0, INF, 0.5)):
            if p == 0.5 and x.size > 10000:
                continue
            given = np.array(x, order=order)
            want = fastnorm.normalize(given, p, axis)
            assert fastnorm.normalize(given, p, axis, out=given) is given
            assert same([given], [want])
        for order, window in itertools.product("CF", WINDOWS + WIDE_WINDOWS):
            if x.ndim > 2:
                given = np.array(x, order=order)
                want = fastnorm.local_response_norm(given, *window)
                assert fastnorm.local_response_norm(given, *window, out=given) is given
                assert same([given], [want])
    backwards = uniform((5, 6, 7), kind)[::-1, ::-1, ::-1]
    want = fastnorm.local_response_norm(backwards, 3)
    fastnorm.local_response_norm(backwards, 3, out=backwards)
    assert same([backwards], [want])


def test_lists_and_numbers_of_any_kind_are_taken():
    assert same([fastnorm.normalize([[3, 4]])], [np.array([[0.6, 0.8]])])
    assert same([fastnorm.normalize(np.float64(-3.0), axis=None)], [np.array(-1.0)])
    x = uniform((3, 5, 7), np.float32)
    want = fastnorm.normalize(x, 2.0, (0, 2))
    for p, axis, eps in ((2, [2, 0], np.float32(1e-12)), (np.int64(2), (-1, 0), np.array(1e-12))):
        np.testing.assert_array_equal(fastnorm.normalize(x, p, axis, eps), want)
    np.testing.assert_array_equal(
        fastnorm.local_response_norm(x, np.int8(3), np.float64(0.5), 1, 2),
        fastnorm.local_response_norm(x, 3, 0.5, 1.0, 2.0),
    )


def test_empty_arrays(dtype):
    with reference.strict():
        for shape in ((0, 5), (5, 0), (3, 0, 4), (0, 0, 0), (2, 3, 0, 4)):
            dy, x = pair(shape, dtype)
            for axis, p in itertools.product((0, 1, None), ORDERS):
                assert fastnorm.normalize(x, p, axis).shape == shape
                assert fastnorm.normalize_backward(dy, x, p, axis).shape == shape
            if len(shape) > 2:
                assert fastnorm.local_response_norm(x, 5).shape == shape
                assert fastnorm.local_response_norm_backward(dy, x, 5).shape == shape


# ---- range


@pytest.mark.wide
@pytest.mark.parametrize("value", [v for v in VALUES if v != "specials"])
@pytest.mark.parametrize("shape", [(9, 65), (70, 8), (2, 33, 4), (3, 2100), (2100, 3), (2, 40000)], ids=str)
def test_every_magnitude_has_a_direction(value, shape, dtype):
    x, dy = VALUES[value](shape, dtype, 1), uniform(shape, dtype, 2)
    for axis, p in itertools.product(range(x.ndim), (*FAST, 3.0, -1.0)):
        if p not in FAST and x.size > 13000:
            continue
        for eps in (0.0, 1e-12):
            check(x, p, axis, eps)
            check_backward(dy, x, p, axis, eps)


@pytest.mark.parametrize("p", [*FAST, 3.0, 0.75, -2.0])
def test_norms_beyond_the_range(p, dtype):
    info = np.finfo(dtype)
    for size in (info.max, info.max / 2, 1e30, 1e-30, info.tiny, info.smallest_subnormal * 100):
        x = (uniform((5, 70), np.float64, 3) * float(size)).astype(dtype)
        x[:, 0] = size
        for dy_size in (1.0, float(info.max) / 4, 1e-30, float(info.tiny) * 4):
            dy = (uniform(x.shape, np.float64, 4) * dy_size).astype(dtype)
            for eps in (0.0, 1e-12):
                with reference.strict():
                    got = check(x, p, 1, eps)
                    check_backward(dy, x, p, 1, eps)
        if eps == 0:
            assert np.abs(got).max() > 0.01


def test_squares_beyond_the_range(dtype):
    info = np.finfo(dtype)
    for size in (info.max, 1e30, 1e19, 1e-18, 1e-30, info.tiny, info.smallest_subnormal * 100):
        x = (uniform((2, 9, 5), np.float64, 3) * float(size)).astype(dtype)
        x[0, 4] = 1
        for width, beta, k in itertools.product((1, 3, 4), (0.75, 0.5, 1.0, 0.3), (0.0, 1.0)):
            with reference.strict():
                check_response(x, width, 1.0, beta, k)
                for dy_size in (1.0, 1e-30):
                    dy = (uniform(x.shape, np.float64, 4) * dy_size).astype(dtype)
                    check_response_backward(dy, x, width, 1.0, beta, k)


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_and_infinity_stay_in_their_group(axis, dtype):
    for shape, p in itertools.product(((9, 65), (40, 30), (3, 33000), (2100, 7)), ORDERS):
        if p not in FAST and math.prod(shape) > 20000:
            continue
        dy, x = pair(shape, dtype)
        clean, clean_dx = fastnorm.normalize(x, p, axis), fastnorm.normalize_backward(dy, x, p, axis)
        for value in (np.nan, INF, -INF, -np.nan):
            x, d = x.copy(), dy.copy()
            at = (1, slice(None)) if axis else (slice(None), 1)
            x[at].flat[2] = value
            others = np.delete(np.arange(shape[1 - axis]), 1)
            got = check(x, p, axis)
            dx = fastnorm.normalize_backward(d, x, p, axis)
            for a, b in ((got, clean), (dx, clean_dx)):
                assert same([a.take(others, 1 - axis)], [b.take(others, 1 - axis)])
                assert same([a[np.isnan(a)]], [np.full(np.isnan(a).sum(), np.nan, dtype)])  # the canonical one
            if math.isnan(value) and p != 0:
                assert np.isnan(got[at]).all()
                assert np.isnan(dx[at]).all()
            x[at].flat[2] = 0.5
            d[at].flat[1] = value
            dx = fastnorm.normalize_backward(d, x, p, axis)
            assert not np.isfinite(dx[at].flat[1])
            want = fastnorm.normalize_backward(dy, x, p, axis)
            assert same([dx.take(others, 1 - axis)], [want.take(others, 1 - axis)])
            assert same([dx[np.isnan(dx)]], [np.full(np.isnan(dx).sum(), np.nan, dtype)])


@pytest.mark.parametrize("value", [np.nan, INF, -INF])
def test_nan_and_infinity_reach_the_windows_that_hold_them(value, dtype):
    dy, x = pair((2, 40, 9), dtype)
    for window in WINDOWS + WIDE_WINDOWS[:2]:
        size, beta = window[0], window[2]
        before, after = size // 2, (size - 1) // 2
        bad, bad_dy = x.copy(), dy.copy()
        bad[1, 20, 4], bad_dy[0, 11, 2] = value, value
        got, clean = check_response(bad, *window), fastnorm.local_response_norm(x, *window)
        reached = np.zeros(x.shape, bool)
        reached[1, max(0, 20 - after) : 20 + before + 1, 4] = True
        assert same([got[~reached]], [clean[~reached]])
        assert np.isnan(got[1, 20, 4]) if math.isnan(value) or beta > 0 else got[1, 20, 4] == value
        finite = got[reached & (x == bad)]
        assert np.isnan(finite).all() if math.isnan(value) else not finite.any() if beta > 0 else np.isinf(finite).all()
        assert same([got[np.isnan(got)]], [np.full(np.isnan(got).sum(), np.nan, dtype)])
        clean_dx = fastnorm.local_response_norm_backward(dy, x, *window)
        dx = fastnorm.local_response_norm_backward(dy, bad, *window)
        reached[1, max(0, 20 - before - after) : 20 + before + after + 1, 4] = True
        assert same([dx[~reached]], [clean_dx[~reached]])
        assert np.isnan(dx[1, 20, 4])
        dx = fastnorm.local_response_norm_backward(bad_dy, x, *window)
        reached[...] = False
        reached[0, max(0, 11 - before) : 11 + after + 1, 2] = True
        assert same([dx[~reached]], [clean_dx[~reached]])
        assert not np.isfinite(dx[reached]).any()


def test_bases_that_have_no_power_are_nan():
    x = np.array([1.0, 2.0, 0.0, 4.0]).reshape(1, 4, 1)
    for dtype in FLOATS:
        got = fastnorm.local_response_norm(x.astype(dtype), 1, -1.0, 0.75, 1.0).ravel()
        np.testing.assert_array_equal(got, [INF, np.nan, 0, np.nan])
        got = fastnorm.local_response_norm(x.astype(dtype), 1, -1.0, 3.0, 1.0).ravel()
        np.testing.assert_allclose(got, [INF, 2 / -27, 0, 4 / -3375], rtol=reference.eps_of(dtype))
        got = fastnorm.local_response_norm(x.astype(dtype), 1, -1.0, 1.0, 1.0).ravel()
        np.testing.assert_allclose(got, [INF, 2 / -3, 0, 4 / -15], rtol=reference.eps_of(dtype))
        got = fastnorm.local_response_norm(x.astype(dtype), 1, -1.0, 0.0, 1.0).ravel()
        np.testing.assert_array_equal(got, x.ravel())


# ---- powers


def power(x, y):
    """x^y as the library takes it, and one rounding of 1 / x^-y."""
    return fastnorm.local_response_norm(np.ones((1, 1, 1)), 1, 0.0, -y if y else 0.0, x)[0, 0, 0]


def test_powers_are_right_to_the_last_digits():
    z = uniform(6000, np.float64, 7).tolist()
    worst = 0.0
    with mpmath.workprec(200):
        for i in range(0, 6000, 3):
            base = math.ldexp(1.5 + z[i] / 2, (0, 1, int(z[i + 1] * 1020), int(z[i + 1] * 8))[i // 3 % 4])
            if i % 5 == 0:
                base = 1 + z[i] * 10.0 ** (8 * z[i + 1] - 8)
            exponent = (z[i + 2] * 3, z[i + 2] * 1000, -1 / 3, 10.0 ** (6 + 12 * z[i + 2]))[i // 12 % 4]
            if abs(exponent * math.log2(base)) > 1020 and base != 1:
                exponent = z[i + 2] * 1020 / math.log2(base)
            want = mpmath.power(base, exponent)
            worst = max(worst, float(abs(power(base, exponent) / want - 1)))
    assert worst < 4e-16  # 1.5e-16 of the power, and the quotient


def test_powers_at_the_ends_of_the_range():
    info = np.finfo(np.float64)
    with mpmath.workprec(200):
        for base in (info.smallest_subnormal, 1e-310, info.tiny, 0.5, 2.0, 1e300, info.max):
            for exponent in (0.6, -0.6, 1.0625, -1.0625, 3.0, -3.0, 1e-300, 1e300, -1e300, 4.0):
                want = mpmath.power(mpmath.mpf(float(base)), exponent)
                got = power(float(base), exponent)
                if want > info.max:
                    assert got == INF
                else:
                    assert abs(got - want) <= 4e-16 * want + info.smallest_subnormal, (base, exponent)
    assert power(0.0, 0.6) == 0
    assert power(0.0, -0.6) == INF
    assert power(1.0, 1e308) == 1


def test_equal_elements_have_the_root_of_their_number(dtype):
    with mpmath.workprec(200):
        for n, p in itertools.product((2, 3, 30, 100, 5000), (0.5, 0.3, 3.0, 1.7, 100.0, -2.0, -0.7, 1e300, 5e-3)):
            want = float(mpmath.power(n, -1 / mpmath.mpf(p)))
            got = fastnorm.normalize(np.full((2, n), -7.25, dtype), p)
            np.testing.assert_allclose(got, -want, rtol=2 * reference.eps_of(dtype), atol=np.finfo(dtype).tiny)


# ---- against differences of the forward function


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


@pytest.mark.parametrize("p", ORDERS)
@pytest.mark.parametrize(("shape", "axis"), [((3, 5), 1), ((4, 3), 0), ((2, 3, 4), (0, 2))], ids=str)
def test_normalize_by_central_differences(shape, axis, p):
    # A difference of step h is off by h^2 f''' / 6 + 2^-52 |f| / h; f''' is some tens, more for p < 0 (|y| >= 1).
    dy = uniform(shape, np.float64, 1)
    x = uniform(shape, np.float64, 2)
    x += np.where(x < 0, -0.3, 0.3)
    for eps in (1e-12, 50.0):
        got = fastnorm.normalize_backward(dy, x, p, axis, eps)
        want = differences(lambda v, eps=eps: float((dy * fastnorm.normalize(v, p, axis, eps)).sum()), x)
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7 if p >= 0 else 1e-5)


@pytest.mark.parametrize("window", [*WINDOWS, (7, 5.0, 2.0, 0.5)], ids=str)
def test_local_response_norm_by_central_differences(window):
    for shape in ((2, 6, 2), (1, 3, 2, 2)):
        dy, x = pair(shape, np.float64)
        got = fastnorm.local_response_norm_backward(dy, x, *window)
        want = differences(lambda v, dy=dy: float((dy * fastnorm.local_response_norm(v, *window)).sum()), x)
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-7)


# ---- bits


def everything(offset=0):
    """Results over shapes, axes and awkward values, each array at an offset from a cache line."""
    results = []
    for kind in (*FLOATS, *HALVES):
        for shape in (*SMALL, (130, 64), (40, 30), (21, 1030), (3, 33000), (4100, 3), (2, 70, 300), (3, 200, 2)):
            dy, x = pair(shape, kind)
            if x.size > 20:
                x.reshape(-1)[5], dy.reshape(-1)[11] = 1e4 if kind.name == "float16" else 1e30, np.nan
            dy, x, out = (place(v, offset) for v in (dy, x, garbage(shape, kind)))
            for axis, p in itertools.product(range(len(shape)), (*FAST, 3.0)):
                results.append(fastnorm.normalize(x, p, axis, out=out).copy())
                results.append(fastnorm.normalize_backward(dy, x, p, axis))
            for window in WINDOWS + WIDE_WINDOWS[:2] if len(shape) > 2 else ():
                results.append(fastnorm.local_response_norm(x, *window, out=out).copy())
                results.append(fastnorm.local_response_norm_backward(dy, x, *window))
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
@pytest.mark.parametrize("offset", [1, 2, 8, 20, 60])
@pytest.mark.usefixtures("stores")
def test_any_address_gives_the_same_bytes(offset, expected):
    assert same(everything(offset), expected)


def test_gathered_memory_has_the_bytes_of_what_is_read_in_place(dtype):
    for shape in ((70, 8), (40, 30), (9, 65), (2100, 3), (3, 33000), (2, 33, 40)):
        dy, x = pair(shape, dtype)
        for axis, p in itertools.product(range(len(shape)), FAST):
            want = fastnorm.normalize(x, p, axis), fastnorm.normalize_backward(dy, x, p, axis)
            for view in (place(x, 1), x.astype(x.dtype.newbyteorder())):
                got = fastnorm.normalize(view, p, axis), fastnorm.normalize_backward(dy, view, p, axis)
                assert same(got, want)
        if x.ndim > 2:
            want = fastnorm.local_response_norm(x, 5), fastnorm.local_response_norm_backward(dy, x, 5)
            for (_, view), (_, d) in zip(layouts(x), layouts(dy), strict=True):
                assert same(
                    [fastnorm.local_response_norm(view, 5), fastnorm.local_response_norm_backward(d, view, 5)], want
                )


def test_where_the_result_goes_changes_no_bit(dtype):
    for shape, order, axis in (((16, 5, 3), (0, 1, 2), 0), ((64, 5, 3), (1, 0, 2), 1), ((3000, 5, 3), (0, 1, 2), 0)):
        x = uniform(shape, dtype, 1).transpose(order)
        gaps = garbage([n + 1 for n in x.shape], dtype)[1:, 1:, 1:]
        for p in FAST:
            want = fastnorm.normalize(x, p, axis)
            assert same([fastnorm.normalize(x, p, axis, out=gaps)], [want])
            itself = x.copy(order="K")
            assert same([fastnorm.normalize(itself, p, axis, out=itself)], [want])
        want = fastnorm.local_response_norm(x, 4, 2.0)
        assert same([fastnorm.local_response_norm(x, 4, 2.0, out=gaps)], [want])


# ---- memory


@pytest.mark.wide
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
def test_nothing_outside_the_arrays_is_touched(side):
    for shape, kind in itertools.product(
        (
            (1, 1),
            (5, 1),
            (70, 3),
            (9, 64),
            (37, 65),
            (18, 130),
            (5, 513),
            (2, 33001),
            (2100, 3),
            (2, 9, 4),
            (2, 70, 257),
        ),
        (*FLOATS, HALVES[0]),
    ):
        dy, x = pair(shape, kind)
        fenced = [guarded(v, side) for v in (dy, x)]
        out = guarded(garbage(shape, kind), side)
        for axis, p in itertools.product(range(len(shape)), (2.0, INF)):
            assert same([fastnorm.normalize(fenced[1], p, axis, out=out)], [fastnorm.normalize(x, p, axis)])
            got = fastnorm.normalize_backward(*fenced, p, axis)
            assert same([got], [fastnorm.normalize_backward(dy, x, p, axis)])
        for window in WINDOWS[:3] if len(shape) > 2 else ():
            got = fastnorm.local_response_norm(fenced[1], *window, out=out)
            assert same([got], [fastnorm.local_response_norm(x, *window)])
            got = fastnorm.local_response_norm_backward(*fenced, *window)
            assert same([got], [fastnorm.local_response_norm_backward(dy, x, *window)])


@pytest.mark.wide
def test_numpy_makes_no_temporary(dtype):
    # Array headers and the interpreter's own objects; backward also makes dx.
    for shape, axis in (((60000, 40), 1), ((40, 60000), 1), ((60000, 40), 0), ((30, 200, 400), 1)):
        dy, x = pair(shape, dtype)
        out = np.empty_like(x)
        calls = [
            (lambda x=x, out=out, axis=axis: fastnorm.normalize(x, 2.0, axis, out=out), 0),
            (lambda x=x, dy=dy, axis=axis: fastnorm.normalize_backward(dy, x, 1.0, axis), x.nbytes),
        ]
        if x.ndim > 2:
            calls += [
                (lambda x=x, out=out: fastnorm.local_response_norm(x, 5, out=out), 0),
                (lambda x=x, dy=dy: fastnorm.local_response_norm_backward(dy, x, 5), x.nbytes),
            ]
        for call, made in calls:
            call()
            tracemalloc.start()
            call()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < made + (1 << 14)


# ---- refusals


def refused(call, good, wrong):
    for error, message, change in wrong:
        arguments = {**good, **change}
        out = arguments.get("out")
        before = None if not isinstance(out, np.ndarray) else out.tobytes()
        with pytest.raises(error, match=message):
            call(**arguments)
        assert before is None or out.tobytes() == before, message


def outputs_that_are_refused(shape, dtype):
    size = math.prod(shape)
    read_only, overlap = np.zeros(shape, dtype), np.zeros(size + 20, dtype)
    read_only.flags.writeable = False
    return [
        (ValueError, "out has dtype", {"out": np.zeros(shape, np.float16)}),
        (ValueError, "out has dtype", {"out": np.zeros(shape, dtype.newbyteorder())}),
        (ValueError, "out has shape", {"out": np.zeros((*shape[:-1], shape[-1] + 1), dtype)}),
        (ValueError, "out is read-only", {"out": read_only}),
        (TypeError, "out must be an array, got list", {"out": [0]}),
        (
            ValueError,
            "out has strides",
            {"out": np.lib.stride_tricks.as_strided(overlap, shape, (overlap.itemsize,) * len(shape))},
        ),
        (
            ValueError,
            "out overlaps x in part",
            {"x": overlap[:size].reshape(shape), "out": overlap[4 : size + 4].reshape(shape)},
        ),
    ]


def bad_arrays(x):
    return [
        (TypeError, "x has dtype complex", {"x": x.astype(complex)}),
        (TypeError, "x has dtype object", {"x": x.astype(object)}),
        (TypeError, "x is a masked array", {"x": np.ma.masked_array(x)}),
        (TypeError, "x has dtype <U", {"x": "abc"}),
    ]


def test_normalize_refuses_by_name_and_changes_nothing(dtype):
    dy, x = pair((6, 8), dtype)
    numbers = [
        (ValueError, "p must be a number, got nan", {"p": math.nan}),
        (TypeError, "p must be a number, got 'frobenius'", {"p": "frobenius"}),
        (TypeError, "p must be a number, got None", {"p": None}),
        (TypeError, "p must be a number, got 2j", {"p": 2j}),
        (ValueError, "axis", {"axis": 2}),
        (ValueError, "axis must not repeat an axis", {"axis": (1, -1)}),
        (ValueError, r"axis must name at least one axis, got \(\)", {"axis": ()}),
        (TypeError, "axis must be None, an int or a tuple of ints, got 1.5", {"axis": 1.5}),
        (ValueError, "eps must be a number >= 0, got -1", {"eps": -1.0}),
        (ValueError, "eps must be a number >= 0, got nan", {"eps": math.nan}),
        (TypeError, "eps must be a number >= 0, got None", {"eps": None}),
    ]
    good = {"x": x, "out": np.zeros_like(x)}
    refused(fastnorm.normalize, good, numbers + outputs_that_are_refused(x.shape, dtype))
    refused(fastnorm.normalize, {}, bad_arrays(x))
    with pytest.raises(ValueError, match="axis"):
        fastnorm.normalize(np.ones(3))
    other = np.dtype(np.float64 if dtype == np.float32 else np.float32)
    wrong = [
        (ValueError, r"dy has shape \(5, 8\); expected \(6, 8\)", {"dy": dy[:5]}),
        (TypeError, "dy has dtype", {"dy": dy.astype(other)}),
        (TypeError, "dy has dtype complex", {"dy": dy.astype(complex)}),
        (TypeError, "dy has dtype object", {"dy": None}),
    ]
    refused(fastnorm.normalize_backward, {"dy": dy, "x": x}, numbers + wrong + bad_arrays(x))


def test_local_response_norm_refuses_by_name_and_changes_nothing(dtype):
    dy, x = pair((2, 6, 8), dtype)
    numbers = [
        (ValueError, r"x has shape \(12, 8\); expected at least 3 dimensions", {"x": x.reshape(12, 8)}),
        (ValueError, "size must be a number of channels, 1 or more, got 0", {"size": 0}),
        (ValueError, "size must be a number of channels, 1 or more, got -3", {"size": -3}),
        (TypeError, "size must be an int, got 2.5", {"size": 2.5}),
        (TypeError, "size must be an int, got True", {"size": True}),
        (TypeError, "size must be an int, got None", {"size": None}),
        *[(ValueError, f"{name} must be a number, got nan", {name: math.nan}) for name in ("alpha", "beta", "k")],
        *[(ValueError, f"{name} must be a finite number, got -inf", {name: -INF}) for name in ("alpha", "beta", "k")],
        *[(TypeError, f"{name} must be a number, got 'a'", {name: "a"}) for name in ("alpha", "beta", "k")],
    ]
    good = {"x": x, "size": 3, "out": np.zeros_like(x)}
    refused(fastnorm.local_response_norm, good, numbers + outputs_that_are_refused(x.shape, dtype))
    refused(fastnorm.local_response_norm, {"size": 3}, bad_arrays(x))
    wrong = [
        (ValueError, "dy has shape", {"dy": dy[:1]}),
        (TypeError, "dy has dtype", {"dy": dy.astype(np.int64 if dtype == np.float32 else np.float32)}),
    ]
    good = {"dy": dy, "x": x, "size": 3}
    refused(fastnorm.local_response_norm_backward, good, numbers[1:] + wrong + bad_arrays(x))
    with pytest.raises(ValueError, match=r"x has shape \(6, 8\); expected at least 3 dimensions"):
        fastnorm.local_response_norm_backward(dy[0], x[0], 3)


# ---- peers


@pytest.mark.peers
@pytest.mark.parametrize("p", ORDERS)
def test_normalize_is_torchs(p, dtype):
    torch = pytest.importorskip("torch")
    for shape, axes in (((12, 40), (0, 1, -1, None, (0, 1))), ((3, 5, 7), (1, (0, 2), 2)), ((5, 1000), (1,))):
        dy, x = pair(shape, dtype)
        x.reshape(-1)[: shape[-1]] = 0
        x.reshape(-1)[shape[-1] : 3 * shape[-1] : 4] = 0
        x.reshape(-1)[3 * shape[-1] : 4 * shape[-1]] = 0.75
        for axis, eps in itertools.product(axes, (1e-12, 0.5)):
            t = torch.tensor(x, requires_grad=True)
            want = torch.nn.functional.normalize(t, p, axis, eps)
            want.backward(torch.tensor(dy))
            got = fastnorm.normalize(x, p, axis, eps)
            assert got.dtype == want.detach().numpy().dtype
            # Theirs sums up to 1000 powers in its own precision, and divides by their root.
            c = 64 * (1 + 4 / abs(p or 1)) * reference.eps_of(dtype)
            np.testing.assert_allclose(got, want.detach().numpy(), rtol=c, atol=c)
            size = np.asarray(twin.normalize_backward(dy, x, p, axis, eps)[1], np.float64)
            assert (np.abs(fastnorm.normalize_backward(dy, x, p, axis, eps) - t.grad.numpy()) <= 4 * c * size).all()


@pytest.mark.peers
def test_nan_and_infinity_are_torchs(dtype):
    torch = pytest.importorskip("torch")
    x = np.array([[np.nan, 1, 2], [INF, 1, -INF], [INF, 0, 2], [1, -INF, 0.5]], dtype)
    for p in ORDERS:
        want = torch.nn.functional.normalize(torch.tensor(x), p)
        np.testing.assert_allclose(fastnorm.normalize(x, p), want.numpy(), rtol=1e-5)
    x = np.array([1, INF, 1, 1, np.nan, 1, 1], dtype).reshape(1, 7, 1)
    for beta in (0.75, 0.5, 1.0, 0.3):
        want = torch.nn.functional.local_response_norm(torch.tensor(x), 3, beta=beta)
        np.testing.assert_allclose(fastnorm.local_response_norm(x, 3, beta=beta), want.numpy(), rtol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("window", [*WINDOWS, *WIDE_WINDOWS], ids=str)
def test_local_response_norm_is_torchs(window, dtype):
    torch = pytest.importorskip("torch")
    for shape in CHANNELS[:-1]:
        dy, x = pair(shape, dtype)
        t = torch.tensor(x * 3, requires_grad=True)
        want = torch.nn.functional.local_response_norm(t, *window)
        want.backward(torch.tensor(dy))
        got = fastnorm.local_response_norm(x * 3, *window)
        c = 16 * (2 + abs(window[2])) * reference.eps_of(dtype)
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=c, atol=0)
        size = np.asarray(twin.local_response_norm_backward(dy, x * 3, *window)[1], np.float64)
        got = fastnorm.local_response_norm_backward(dy, x * 3, *window)
        assert (np.abs(got - t.grad.numpy()) <= 8 * c * size).all()
