"""mean_var, mean, var, std, minmax, moments and Moments: NumPy's answers for any axis, dtype and layout."""

import sys
from itertools import combinations, product

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, SHAPES, SMALL, layouts, outputs, same, supported_isas, threshold, uniform

import fastnorm
from fastnorm import _ops

EVERY_AXIS = [(shape, axis) for shape in [*SMALL, (4, 3, 2, 5)] for axis in (None, *range(-len(shape), len(shape)))]


def ramp(shape, dtype=np.float64):
    return np.asarray(uniform(shape, dtype) + np.dtype(dtype).type(3))


# ---- mean_var and its kin


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mean_var_is_the_twins(shape, dtype):
    x = ramp(shape, dtype)
    for axis in (None, *range(x.ndim)):
        reference.assert_mean_var(*fastnorm.mean_var(x, axis), x, axis)


@pytest.mark.parametrize(("shape", "axis"), EVERY_AXIS, ids=str)
def test_axis_keepdims_and_ddof_as_numpy(shape, axis, dtype):
    x = ramp(shape, dtype)
    for keepdims in (False, True):
        for ddof in (0, 1, 0.5):
            if reference.count(x, axis) > ddof:
                mean, var = fastnorm.mean_var(x, axis, ddof=ddof, keepdims=keepdims)
                reference.assert_mean_var(mean, var, x, axis, ddof, keepdims)


def test_any_set_of_axes_of_six():
    x = ramp((2, 3, 4, 1, 5, 2), np.float32)
    for n in range(7):
        for axes in combinations(range(6), n):
            reference.assert_mean_var(*fastnorm.mean_var(x, axes), x, axes)
            assert same(fastnorm.minmax(x, axes), outputs(reference.minmax(x, axes)))


def test_mean_var_and_std_are_the_parts_of_mean_var(dtype):
    x = ramp((70, 33), dtype)
    for kwargs in ({}, {"axis": 0}, {"axis": -1, "keepdims": True}, {"axis": (0, 1), "ddof": 1}):
        mean, var = fastnorm.mean_var(x, **kwargs)
        kept = {k: v for k, v in kwargs.items() if k != "ddof"}
        assert same(outputs(fastnorm.mean(x, **kept)), outputs(mean))
        assert same(outputs(fastnorm.var(x, **kwargs)), outputs(var))
        wide = fastnorm.var(x, **kwargs, dtype=np.float64)
        std = fastnorm.std(x, **kwargs)
        assert std.dtype == dtype
        np.testing.assert_array_equal(std, np.sqrt(wide).astype(dtype))  # rooted before it is rounded


def test_full_reductions_are_numpy_scalars(dtype):
    x = ramp((5, 7), dtype)
    for value in (*fastnorm.mean_var(x), fastnorm.mean(x), fastnorm.var(x), fastnorm.std(x), *fastnorm.minmax(x)):
        assert type(value) is dtype.type
    assert type(fastnorm.mean(x[0], axis=0)) is dtype.type
    assert type(fastnorm.minmax(np.arange(3, dtype=np.int16))[1]) is np.int16
    for value in fastnorm.mean_var(x, axis=1):
        assert type(value) is np.ndarray


def test_dtype_chooses_the_result(dtype):
    x = ramp((301, 3), dtype)
    for wanted in (np.float32, np.float64, "f4", float):
        for axis in (None, 0, 1):
            reference.assert_mean_var(*fastnorm.mean_var(x, axis, dtype=wanted), x, axis, dtype=wanted)
            assert fastnorm.std(x, axis, dtype=wanted).dtype == wanted
    big = np.full(3, 1e300)
    with reference.strict():
        assert fastnorm.mean(big, dtype=np.float32) == np.inf


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_and_booleans_give_float64(integer):
    for shape in [(), (1,), (513,), (70, 8), (9, 65), (2, 33, 4), (4097, 3)]:
        x = uniform(shape, integer)
        for axis in (None, *range(x.ndim)):
            reference.assert_mean_var(*fastnorm.mean_var(x, axis), x, axis)
            assert same(outputs(fastnorm.minmax(x, axis)), outputs(reference.minmax(x, axis)))
    reference.assert_mean_var(*fastnorm.mean_var(x, 0, dtype=np.float32), x, 0, dtype=np.float32)


def test_ddof_of_n_or_more_is_numpys_infinity_or_nan(dtype):
    with reference.strict():
        assert np.isnan(fastnorm.var(np.ones(1, dtype), ddof=1))
        assert np.isnan(fastnorm.std(np.ones(3, dtype), ddof=5))
        assert fastnorm.var(np.array([1, 2], dtype), ddof=2) == np.inf
        assert fastnorm.var(np.array([1, 2], dtype), ddof=3) == np.inf
        np.testing.assert_array_equal(fastnorm.std(np.array([[1, 2], [3, 3]], dtype), 1, ddof=2), [np.inf, np.nan])


def test_nothing_has_mean_and_variance_nan(dtype):
    with reference.strict():
        for shape, axis, kept in [((0,), None, ()), ((0, 3), 0, (3,)), ((3, 0), 1, (3,)), ((2, 0, 4), (0, 1), (4,))]:
            for value in fastnorm.mean_var(np.empty(shape, dtype), axis):
                assert value.shape == kept
                assert value.dtype == dtype
                assert np.isnan(value).all()
        for value in fastnorm.mean_var(np.empty((0, 3), dtype), 1):
            assert value.shape == (0,)
        assert np.isnan(fastnorm.mean(np.empty(0, np.int8)))


@pytest.mark.parametrize("shape", [(), (67,), (70, 8), (9, 65), (3, 5, 7), (2, 33, 4), (1025, 3)], ids=str)
def test_memory_layout_does_not_matter(shape, dtype):
    x = ramp(shape, dtype)
    for label, y in layouts(x):
        np.testing.assert_array_equal(y, x, err_msg=label)
        for axis in (None, *range(x.ndim)):
            reference.assert_mean_var(*fastnorm.mean_var(y, axis), x, axis)
            assert same(outputs(fastnorm.minmax(y, axis)), outputs(reference.minmax(x, axis))), label
            reference.assert_mean_var(fastnorm.moments(y, axis).mean, None, x, axis, dtype=np.float64)
    for integer in (np.int16, np.uint64, bool):
        x = uniform(shape, integer)
        for label, y in layouts(x):
            reference.assert_mean_var(*fastnorm.mean_var(y, -1 if shape else None), x, -1 if shape else None)
            assert same(outputs(fastnorm.minmax(y)), outputs(reference.minmax(x))), label


def test_broadcast_input(dtype):
    row = ramp((37,), dtype)
    for x in (np.broadcast_to(row, (5, 37)), np.broadcast_to(row[:, None], (37, 64)), np.broadcast_to(row[3], (2, 3))):
        for axis in (None, 0, 1):
            reference.assert_mean_var(*fastnorm.mean_var(x, axis), x, axis)
            assert same(outputs(fastnorm.minmax(x, axis)), outputs(reference.minmax(x, axis)))


def test_whatever_asarray_takes():
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, 2.0], [3.0, 6.0]])

    for x in ([[1, 2], [3, 6]], ((1.0, 2.0), (3.0, 6.0)), Frame(), memoryview(np.array([[1.0, 2.0], [3.0, 6.0]]))):
        assert fastnorm.mean(x) == 3
        np.testing.assert_array_equal(fastnorm.var(x, axis=0), [1, 4])
        np.testing.assert_array_equal(fastnorm.minmax(x, axis=1)[1], [2, 6])
    assert fastnorm.mean_var(7) == (7, 0)
    assert fastnorm.minmax(2.5) == (2.5, 2.5)


# ---- minmax


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_minmax_is_the_twins(shape, dtype):
    x = uniform(shape, dtype)
    for axis in (None, *range(x.ndim)):
        for keepdims in (False, True):
            got = fastnorm.minmax(x, axis, keepdims=keepdims)
            assert same(outputs(got), outputs(reference.minmax(x, axis, keepdims)))


def test_nan_propagates_as_the_canonical_one(dtype):
    quiet = np.array([{4: 0x7FC00000, 8: 0x7FF8000000000000}[dtype.itemsize]], f"u{dtype.itemsize}").view(dtype)
    other = np.array([{4: 0xFFC12345, 8: 0xFFF8000012345678}[dtype.itemsize]], f"u{dtype.itemsize}").view(dtype)[0]
    for n, d in ((5, 3), (300, 70), (3, 4097)):
        x = uniform((n, d), dtype)
        x[n - 1, 1] = other
        for axis, at in ((0, 1), (1, n - 1)):
            for result in (*fastnorm.minmax(x, axis), *fastnorm.mean_var(x, axis), fastnorm.std(x, axis)):
                assert result[at : at + 1].tobytes() == quiet.tobytes()
                assert np.isnan(result).sum() == 1


def test_minus_zero_is_below_zero(dtype):
    for n in (2, 65, 4097):
        for at in (0, n // 2, n - 1):
            for value in (0.0, -0.0):
                x = np.full((n, 3), -value, dtype)
                x[at] = value
                for axis in (0, None):
                    low, high = fastnorm.minmax(x, axis)
                    assert np.signbit(low).all()
                    assert not np.signbit(high).any()
    low, high = fastnorm.minmax(np.full((40, 2), -0.0, dtype), 0)
    assert np.signbit(low).all()
    assert np.signbit(high).all()


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integer_extremes_are_kept_exactly(integer):
    limits = (False, True) if integer.kind == "b" else (np.iinfo(integer).min, np.iinfo(integer).max)
    x = np.full((1000, 3), limits[1], integer)
    x[777, 1] = limits[0]
    low, high = fastnorm.minmax(x, 0)
    assert low.dtype == high.dtype == integer
    assert low.tolist() == [limits[1], limits[0], limits[1]]
    assert high.tolist() == [limits[1]] * 3
    assert fastnorm.minmax(x[:1, 0]) == (limits[1], limits[1])


@pytest.mark.parametrize("kind", [*FLOATS, *HALVES, *INTEGERS], ids=str)
def test_one_element_is_both_extremes(kind):
    for shape, axis in (
        ((1, 5), 0),
        ((1, 70001), 0),
        ((70001, 1), 1),
        ((3, 1, 700), 1),
        ((1, 9, 130), 0),
        ((4, 1), -1),
    ):
        x = uniform(shape, kind)
        for label, given in layouts(x):
            for n in (1, 3):
                with fastnorm.threads(n), threshold(_ops.set_work_threshold, 0):
                    low, high = fastnorm.minmax(given, axis)
                assert same((low, high), (x.squeeze(axis),) * 2), (label, shape)
    if kind.kind in "iu":
        return
    x = np.array([[np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-7]]).astype(kind)
    want = np.where(np.isnan(x), kind.type(np.nan), x)[0]
    for policy in ("propagate", "omit"):
        assert same(fastnorm.minmax(x, 0, nan_policy=policy), (want, want))


def test_minmax_of_nothing_is_an_error(dtype):
    for shape, axis in (((0,), None), ((0, 3), 0), ((3, 0), 1), ((0, 3), (0, 1))):
        with pytest.raises(ValueError, match="x"):
            fastnorm.minmax(np.empty(shape, dtype), axis)
    assert fastnorm.minmax(np.empty((0, 3), dtype), 1)[0].shape == (0,)


@pytest.mark.parametrize("isa_name", supported_isas())
def test_every_position_reaches_the_extremes(isa_name):
    with fastnorm.use_isa(isa_name):
        for n in (1, 63, 64, 65, 130):
            for at in range(n):
                x = np.zeros(n, np.float32)
                x[at] = 2
                assert fastnorm.minmax(x) == (0 if n > 1 else 2, 2)
                assert fastnorm.mean(x) == np.float32(2 / n)


# ---- masks, weights and NaN


def half(shape, seed=7):
    """A mask of about half of the elements."""
    return np.asarray(uniform(shape, np.float64, seed) < 0)


def heft(shape, dtype=np.float64, seed=8):
    """Weights from 0 to 2, one in eight of them 0."""
    w = uniform(shape, dtype, seed) + np.dtype(dtype).type(1)
    return np.where(uniform(shape, np.float64, seed + 1) < -0.75, 0, w).astype(dtype)


def with_nan(x, where):
    """X where `where` holds, NaN elsewhere."""
    return np.where(where, x, np.nan).astype(x.dtype)


def moments_of(x, axis=None, **kwargs):
    """All that is kept of x, by name."""
    m = fastnorm.moments(x, axis, order=4, minmax=True, **kwargs)
    return outputs((m.mean, m.var(ddof=0.5), m.std(), m.skewness(), m.kurtosis(), m.min, m.max))


@pytest.mark.parametrize(("shape", "axis"), EVERY_AXIS, ids=str)
def test_masks_weights_and_omitted_nan_are_the_twins(shape, axis, dtype):
    x, where, weights = ramp(shape, dtype), half(shape), heft(shape)
    hidden = with_nan(x, where)
    for ddof, keepdims in ((0, False), (0.5, True)):
        for y, what_counts in (
            (hidden, {"where": where}),
            (x, {"weights": weights}),
            (x, {"where": where, "weights": weights}),
            (hidden, {"where": where, "weights": weights}),
        ):
            got = fastnorm.mean_var(y, axis, ddof=ddof, keepdims=keepdims, **what_counts)
            reference.assert_counted(*got, y, axis, ddof, keepdims, **what_counts)
        for what_counts in ({}, {"weights": weights}, {"where": half(shape, 9)}):
            got = fastnorm.mean_var(hidden, axis, ddof=ddof, keepdims=keepdims, nan_policy="omit", **what_counts)
            reference.assert_counted(*got, hidden, axis, ddof, keepdims, omit=True, **what_counts)


def test_numpy_and_this_library_agree(dtype):
    x, where, weights = ramp((300, 41), dtype), half((300, 41)), heft((300, 41))
    hidden, wide = with_nan(x, where), x.astype(np.float64)
    bound = 300 * 41 * 2 * reference.eps_of(dtype)  # NumPy's own error
    for axis in (None, 0, 1):
        pairs = [
            (fastnorm.mean(x, axis, where=where), wide.mean(axis, where=where)),
            (fastnorm.var(x, axis, where=where, ddof=1), wide.var(axis, where=where, ddof=1)),
            (fastnorm.mean(x, axis, weights=weights), np.average(wide, axis, weights)),
            (fastnorm.mean(hidden, axis, nan_policy="omit"), np.nanmean(hidden.astype(np.float64), axis)),
            (fastnorm.var(hidden, axis, nan_policy="omit"), np.nanvar(hidden.astype(np.float64), axis)),
            (fastnorm.std(hidden, axis, nan_policy="omit", ddof=1), np.nanstd(hidden.astype(np.float64), axis, ddof=1)),
        ]
        for got, want in pairs:
            np.testing.assert_allclose(got, want, rtol=bound)
        low, high = fastnorm.minmax(x, axis, where=where)
        np.testing.assert_array_equal(low, np.min(x, axis, where=where, initial=np.inf))
        np.testing.assert_array_equal(high, np.max(x, axis, where=where, initial=-np.inf))
        low, high = fastnorm.minmax(hidden, axis, nan_policy="omit")
        np.testing.assert_array_equal(low, np.nanmin(hidden, axis))
        np.testing.assert_array_equal(high, np.nanmax(hidden, axis))


@pytest.mark.parametrize(
    "shape", [(1,), (513,), (40009,), (5, 3), (70, 8), (3, 130), (2003, 30), (171, 600), (3, 7, 513)]
)
def test_minmax_of_what_counts(shape, dtype):
    x, where = uniform(shape, dtype), half(shape)
    hidden = with_nan(x, where)
    for axis in (None, *range(x.ndim)):
        something = where.any(axis)
        low = np.where(something, np.min(x, axis, where=where, initial=np.inf), np.nan)
        high = np.where(something, np.max(x, axis, where=where, initial=-np.inf), np.nan)
        for got, want in zip(fastnorm.minmax(hidden, axis, nan_policy="omit"), (low, high), strict=True):
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, want)
        if something.all():
            for got, want in zip(fastnorm.minmax(hidden, axis, where=where), (low, high), strict=True):
                np.testing.assert_array_equal(got, want)
        m = fastnorm.moments(hidden, axis, minmax=True, where=where)
        np.testing.assert_array_equal(m.min, low)
        np.testing.assert_array_equal(m.max, high)


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_masked_and_weighted(integer):
    for shape in [(1,), (513,), (70, 8), (9, 65), (2, 33, 4), (4097, 3)]:
        x, where, weights = uniform(shape, integer), half(shape), uniform(shape, np.uint8)
        for axis in (None, *range(x.ndim)):
            reference.assert_counted(*fastnorm.mean_var(x, axis, where=where), x, axis, where=where)
            reference.assert_counted(*fastnorm.mean_var(x, axis, weights=weights), x, axis, weights=weights)
            for policy in ("omit", "raise"):  # which mean nothing to integers
                assert same(outputs(fastnorm.minmax(x, axis, nan_policy=policy)), outputs(fastnorm.minmax(x, axis)))
                assert same(moments_of(x, axis, nan_policy=policy), moments_of(x, axis))
                assert same(outputs(fastnorm.mean_var(x, axis, nan_policy=policy)), outputs(fastnorm.mean_var(x, axis)))
            if where.any(axis).all():
                limits = (False, True) if integer.kind == "b" else (np.iinfo(integer).min, np.iinfo(integer).max)
                low, high = fastnorm.minmax(x, axis, where=where)
                assert low.dtype == high.dtype == integer
                np.testing.assert_array_equal(low, np.min(x, axis, where=where, initial=limits[1]))
                np.testing.assert_array_equal(high, np.max(x, axis, where=where, initial=limits[0]))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_counts_like_the_same_values_in_single(name):
    storage = np.dtype(np.float16) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    for shape in [(67,), (40009,), (70, 8), (300, 31), (2, 33, 4)]:
        x = ramp(shape, np.float32).astype(storage)
        single, where, weights = x.astype(np.float32), half(shape), heft(shape, np.float32).astype(storage)
        hidden = np.where(where, single, np.nan).astype(storage)
        for axis in (None, *range(x.ndim)):
            for y, kwargs in (
                (x, {"where": where}),
                (x, {"weights": weights}),
                (hidden, {"nan_policy": "omit"}),
                (hidden, {"where": where, "nan_policy": "raise"}),
            ):
                wide = fastnorm.mean_var(y.astype(np.float32), axis, dtype=np.float64, **kwargs)
                assert same(outputs(fastnorm.mean_var(y, axis, dtype=np.float64, **kwargs)), outputs(wide))
                for got, want in zip(fastnorm.mean_var(y, axis, **kwargs), wide, strict=True):
                    assert got.dtype == storage
                    np.testing.assert_array_equal(got.astype(np.float64), want.astype(storage).astype(np.float64))
                m = fastnorm.moments(y, axis, order=4, minmax=True, **kwargs)
                n = fastnorm.moments(y.astype(np.float32), axis, order=4, minmax=True, **kwargs)
                assert same(outputs((m.skewness(), m.kurtosis(), m.min)), outputs((n.skewness(), n.kurtosis(), n.min)))
            low, high = fastnorm.minmax(hidden, axis, nan_policy="omit")
            assert low.dtype == high.dtype == storage
            want = fastnorm.minmax(hidden.astype(np.float32), axis, nan_policy="omit")
            np.testing.assert_array_equal(low.astype(np.float32), want[0])
            np.testing.assert_array_equal(high.astype(np.float32), want[1])
            if where.any(axis).all():
                assert not np.isnan(fastnorm.minmax(hidden, axis, where=where)[0].astype(np.float32)).any()


@pytest.mark.parametrize("shape", [(67,), (40009,), (70, 8), (9, 65), (2003, 7), (2, 33, 4), (171, 600)], ids=str)
def test_what_does_not_count_changes_no_byte(shape, dtype):
    x, where = ramp(shape, dtype), half(shape)
    weights = np.where(where, heft(shape), 0)
    for axis in (None, *range(x.ndim)):
        want = outputs(fastnorm.mean_var(np.where(where, x, 0).astype(dtype), axis, where=where))
        weighted = outputs(fastnorm.mean_var(np.where(where, x, 0).astype(dtype), axis, weights=weights))
        for garbage in (np.nan, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal):
            y = np.where(where, x, garbage).astype(dtype)
            with reference.strict():
                assert same(outputs(fastnorm.mean_var(y, axis, where=where)), want)
                assert same(outputs(fastnorm.mean_var(y, axis, weights=weights)), weighted)
                assert same(outputs(fastnorm.mean_var(y, axis, weights=weights, where=where)), weighted)
        y = with_nan(x, where)
        assert same(outputs(fastnorm.mean_var(y, axis, nan_policy="omit")), want)
        assert same(outputs(fastnorm.mean_var(y, axis, nan_policy="omit", weights=heft(shape))), weighted)
        assert same(outputs(fastnorm.mean_var(y, axis, weights=where)), want)  # booleans weigh 0 and 1


def test_nan_and_infinity_that_count_stay_in_their_column(dtype):
    x, where = ramp((700, 9), dtype), half((700, 9))
    where[5] = True
    x[5, 2], x[5, 4], x[5, 6] = np.nan, np.inf, -np.inf
    x[~where] = np.nan
    with reference.strict():
        mean, var = fastnorm.mean_var(x, 0, where=where)
        low, high = fastnorm.minmax(x, 0, where=where)
        m = fastnorm.moments(x, 0, order=4, where=where)
        assert np.flatnonzero(np.isnan(m.kurtosis())).tolist() == [2, 4, 6]
        assert np.flatnonzero(np.isnan(m.skewness())).tolist() == [2, 4, 6]
        assert np.flatnonzero(np.isnan(m.mean)).tolist() == [2]
    assert np.flatnonzero(np.isnan(mean)).tolist() == [2]
    assert mean[4] == np.inf
    assert mean[6] == -np.inf
    assert np.flatnonzero(np.isnan(var)).tolist() == [2, 4, 6]
    assert np.flatnonzero(np.isnan(low)).tolist() == [2] == np.flatnonzero(np.isnan(high)).tolist()
    assert high[4] == np.inf
    assert low[6] == -np.inf
    clean = [0, 1, 3, 5, 7, 8]
    reference.assert_counted(mean[clean], var[clean], x[:, clean], 0, where=where[:, clean])


@pytest.mark.parametrize("shape", [(513,), (70, 8), (40009,), (1025, 3), (3, 130)], ids=str)
def test_integer_weights_are_repetition(shape, dtype):
    x, times = ramp(shape, dtype).reshape(shape[0], -1), uniform(shape[:1], np.uint8) % 5
    repeated = np.repeat(x, times, axis=0)
    mean, var = fastnorm.mean_var(x, 0, ddof=1, weights=times)
    reference.assert_mean_var(mean, var, repeated, 0, ddof=1)
    m, n = fastnorm.moments(x, 0, order=4, weights=times), fastnorm.moments(repeated, 0, order=4)
    assert np.all(m.count == n.count)
    # Other orders of addition, in double: some thousand eps is ample, while a wrong count is off by 1e-5 and more.
    np.testing.assert_allclose(m.skewness(), n.skewness(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(m.kurtosis(), n.kurtosis(), rtol=1e-12, atol=1e-12)


def test_weights_of_every_accepted_shape():
    x = ramp((4, 5, 6))
    for axis, weights, wide in (
        (None, heft((4, 5, 6)), heft((4, 5, 6))),
        (0, heft(4), heft(4)[:, None, None]),
        (1, heft(5), heft(5)[:, None]),
        (-1, heft(6), heft(6)),
        ((2, 0), heft((4, 6)), heft((4, 6))[:, None, :]),
        (0, heft((4, 1, 1)), heft((4, 1, 1))),
        ((0, 1), heft((1, 5, 1)), heft((1, 5, 1))),
        (1, heft((4, 5, 1)), heft((4, 5, 1))),
    ):
        reference.assert_counted(*fastnorm.mean_var(x, axis, weights=weights), x, axis, weights=wide)
        m = fastnorm.moments(x, axis, weights=weights.tolist())
        assert same(outputs(m.mean), outputs(fastnorm.mean(x, axis, weights=wide + np.zeros(x.shape))))
    np.testing.assert_allclose(
        fastnorm.mean(x, (0, 2), weights=heft((4, 6))), np.average(x, (0, 2), heft((4, 6))), rtol=1e-14
    )
    assert fastnorm.mean(3.0, weights=2) == 3


@pytest.mark.parametrize("shape", [(67,), (70, 8), (9, 65), (3, 5, 7), (2, 33, 4), (1025, 3), (130, 600)], ids=str)
def test_layout_of_masks_and_weights_does_not_matter(shape, dtype):
    x, where, weights = ramp(shape, dtype), half(shape), heft(shape, np.float32)
    laid_out = list(zip(layouts(x), layouts(where), layouts(weights), strict=True))
    for axis, names in product((None, *range(x.ndim)), (("where",), ("weights",), ("where", "weights"))):
        plain = {name: {"where": where, "weights": weights}[name] for name in names}
        twin, want = reference.counted_twin(x, axis, **plain), moments_of(x, axis, **plain)
        for (label, y), (_, m), (_, w) in laid_out:
            kwargs = {name: {"where": m, "weights": w}[name] for name in names}
            reference.assert_near(*fastnorm.mean_var(y, axis, **kwargs), twin)
            if x.ndim < 3:  # whose axes nothing can keep from being one: masks of any layout, the same bytes
                assert same(moments_of(x, axis, **kwargs), want), label
            if names == ("where",) and where.any(axis).all():
                assert same(outputs(fastnorm.minmax(y, axis, where=m)), outputs(fastnorm.minmax(x, axis, where=where)))


def test_masks_broadcast(dtype):
    x = ramp((70, 33), dtype)
    row, column = half(33), half((70, 1))
    row[0] = column[0] = True
    for where in (row, column, True, [[True]], row & column, half((70, 33))[::-1], np.asfortranarray(half((70, 33)))):
        wide = np.broadcast_to(where, x.shape)
        for axis in (None, 0, 1):
            reference.assert_counted(*fastnorm.mean_var(x, axis, where=where), x, axis, where=wide)
            reference.assert_counted(*fastnorm.mean_var(x.T, axis, where=wide.T), x.T, axis, where=wide.T)
            if wide.any(axis).all():
                low, high = fastnorm.minmax(x, axis, where=where)
                np.testing.assert_array_equal(low, np.min(x, axis, where=wide, initial=np.inf))
                np.testing.assert_array_equal(high, np.max(x, axis, where=wide, initial=-np.inf))


def test_constants_are_exact_whatever_counts(dtype):
    for n in (3, 64, 1000, 70001):
        x = np.full((n, 5), 14.62, dtype)
        where, weights = half(x.shape), heft(x.shape)
        where[1] = True
        weights[1] = 0.1
        for kwargs in ({"where": where}, {"weights": weights}, {"where": where, "weights": weights}):
            for axis in (None, 0, 1):
                if axis == 1 and not np.all(fastnorm.moments(x, axis, **kwargs).count):
                    continue
                mean, var = fastnorm.mean_var(x, axis, **kwargs)
                assert (mean == x[0, 0]).all()
                assert (var == 0).all()
                m = fastnorm.moments(with_nan(x, where), axis, order=4, nan_policy="omit")
                assert ((m.var() == 0) | (m.count == 0)).all()
                assert np.isnan(m.skewness()).all()
                assert np.isnan(m.kurtosis()).all()
                zeros = [row for name, row in m.to_dict().items() if name.startswith(("m3", "m4", "var"))]
                assert len(zeros) == 6
                assert not np.any(zeros)


def test_where_nothing_counts_the_statistics_are_nan(dtype):
    x, where = ramp((300, 5), dtype), half((300, 5))
    where[:, 3] = False
    weights = where.astype(float)
    with reference.strict():
        for kwargs in ({"where": where}, {"weights": weights}, {"weights": weights, "where": where}):
            for value in (*fastnorm.mean_var(x, 0, **kwargs), fastnorm.std(x, 0, ddof=1, **kwargs)):
                assert np.flatnonzero(np.isnan(value)).tolist() == [3]
        hidden = with_nan(x, where)
        for value in (
            *fastnorm.mean_var(hidden, 0, nan_policy="omit"),
            *fastnorm.minmax(hidden, 0, nan_policy="omit"),
            *fastnorm.minmax(hidden, 0, where=half((300, 5), 11), nan_policy="omit"),
        ):
            assert np.flatnonzero(np.isnan(value)).tolist() == [3]
        for value in (
            *fastnorm.mean_var(x, where=False),
            *fastnorm.mean_var(np.full(5, np.nan, dtype), nan_policy="omit"),
            *fastnorm.minmax(np.full(100_001, np.nan, dtype), nan_policy="omit"),
        ):
            assert np.isnan(value)
            assert type(value) is dtype.type
        infinite = np.array([np.inf, np.nan, np.inf], dtype)
        assert fastnorm.minmax(infinite, nan_policy="omit") == (np.inf, np.inf)
        assert fastnorm.minmax(-infinite, nan_policy="omit") == (-np.inf, -np.inf)
        assert fastnorm.var(np.array([1, 2, 4], dtype), weights=[0.5, 0.5, 0], ddof=1) == np.inf
    for y in (x, uniform((300, 5), np.int16)):
        for axis in (0, None):
            with pytest.raises(ValueError, match="where"):
                fastnorm.minmax(y, axis, where=where if axis == 0 else False)


def test_raise_looks_at_what_counts(dtype):
    x = ramp((40, 3), dtype)
    where, weights = np.ones(x.shape, bool), np.ones(x.shape)
    x[7, 1], where[7, 1], weights[7, 1] = np.nan, False, 0
    calls = (fastnorm.mean_var, fastnorm.mean, fastnorm.var, fastnorm.std, fastnorm.minmax, fastnorm.moments)
    for call in calls:
        with pytest.raises(ValueError, match="x contains NaN"):
            call(x, 0, nan_policy="raise")
        call(x, 0, nan_policy="raise", where=where)
        if call is not fastnorm.minmax:
            call(x, 0, nan_policy="raise", weights=weights)
        call(np.where(where, x, np.inf), 0, nan_policy="raise")
        call(np.empty((0, 3), dtype), 1, nan_policy="raise")


def test_bad_masks_weights_and_policies_are_named():
    x = ramp((6, 5))
    calls = [fastnorm.mean_var, fastnorm.mean, fastnorm.var, fastnorm.std, fastnorm.moments]
    for call in [*calls, fastnorm.minmax]:
        for policy in ("ignore", "", None, 1, ["omit"]):
            with pytest.raises(ValueError, match="nan_policy"):
                call(x, 0, nan_policy=policy)
        with pytest.raises(ValueError, match="where"):
            call(x, 0, where=np.ones((5, 6), bool))
        for mask in (np.ones((6, 5)), np.ones((6, 5), np.uint8), [[1] * 5] * 6, np.ma.ones((6, 5), bool)):
            with pytest.raises(TypeError, match="where"):
                call(x, 0, where=mask)
    for call in calls:
        for weights in (-1.0, np.nan, np.inf, -np.inf, sys.float_info.max):
            w = np.ones((6, 5))
            w[2, 3] = weights
            with pytest.raises(ValueError, match="weights"):
                call(x, 0, weights=w)
        for shape in ((5,), (5, 6), (), (7, 5), (1, 6, 5)):
            with pytest.raises(ValueError, match="weights"):
                call(x, 0, weights=np.ones(shape))
        for weights in (np.ones((6, 5), complex), [["a"] * 5] * 6, np.ones((6, 5), object)):
            with pytest.raises(TypeError, match="weights"):
                call(x, 0, weights=weights)


@pytest.mark.parametrize("n", [1, 67, 4095, 4097])
@pytest.mark.parametrize("name", ["float16", "float32", "float64", ">f4", "int8"])
def test_one_weight_that_cannot_weigh_is_found_anywhere(n, name):
    x, kind = uniform((n, 2), np.float32), np.dtype(name)
    bad = (-1,) if kind.kind == "i" else (-1.0, -1e-3, np.nan, np.inf, -np.inf)
    heaviest = 0.999 * sys.float_info.max / (2 * n)
    for value, i in product((*bad, heaviest * 1.002) if kind == np.float64 else bad, {0, n // 2, n - 1}):
        weights = np.ones(n, kind)
        weights[i] = value
        for call in (fastnorm.mean_var, fastnorm.mean, fastnorm.var, fastnorm.moments):
            with pytest.raises(ValueError, match="weights must"):
                call(x, 0, weights=weights)
    weights = np.full(n, 0.5 if kind.kind == "f" else 2, kind)
    weights[0] = 0 if n > 1 else weights[0]
    reference.assert_counted(*fastnorm.mean_var(x, 0, weights=weights), x, 0, weights=weights[:, None])
    if kind == np.float64:
        got = fastnorm.mean(x, 0, weights=np.full(n, heaviest))
        np.testing.assert_allclose(got, x.mean(0, dtype=np.float64), rtol=1e-6, atol=1e-7)


def test_light_and_heavy_weights():
    x = ramp(5000)
    want = fastnorm.mean_var(x, weights=heft(5000))
    for scale in (2.0**-900, 2.0**-300, 2.0**300, 2.0**900):
        assert same(outputs(fastnorm.mean_var(x, weights=heft(5000) * scale)), outputs(want))
    # An outlier of next to no weight comes first and must not be what the others are summed about.
    y, w = np.concatenate([[1e30], x]), np.concatenate([[1e-45], np.ones(5000)])
    mean, m2, *_ = (float(v) for v in reference.exact_moments(y, w))
    assert abs(fastnorm.mean(y, weights=w) - mean) <= 4 * 2.0**-52 * abs(mean)
    assert abs(fastnorm.var(y, weights=w) - m2) <= 64 * 2.0**-52 * m2
    huge = ramp(5000) * 2.0**511  # the variance is a double, the sum of squares is not
    mean, m2, *_ = (float(v) for v in reference.exact_moments(ramp(5000), heft(5000)))
    assert abs(fastnorm.mean(huge, weights=heft(5000)) / 2.0**511 - mean) <= 2.0**-50 * mean
    assert abs(fastnorm.var(huge, weights=heft(5000)) / 2.0**1022 - m2) <= 64 * 2.0**-52 * m2


@pytest.mark.wide
@pytest.mark.parametrize("offset", [0, 1e4, 1e8])
def test_masked_moments_against_exact_ones(offset, dtype):
    # The promise of the unmasked functions: 1 ulp (float64: 4) + 2^-50 mean|x|, and 1 ulp (float64: 64).
    for n in (5, 1000, 32769, 100003):
        x, where, weights = uniform(n, dtype) + dtype.type(offset), half(n), np.abs(uniform(n, np.float32, 5))
        where[0] = True
        for kwargs, values, counts in (
            ({"where": where}, x[where], None),
            ({"weights": weights}, x, weights),
            ({"where": where, "weights": weights}, x[where], weights[where]),
        ):
            mean, m2, *_ = reference.exact_moments(values, counts)
            got_mean, got_var = fastnorm.mean_var(x, **kwargs)
            ulp = 1 if dtype == np.float32 else 4
            spacing = float(np.spacing(np.abs(dtype.type(float(mean)))))
            size = float(np.mean(np.abs(values.astype(np.float64))))
            assert abs(float(got_mean) - mean) <= ulp * spacing + 2.0**-50 * size
            if dtype == np.float32:
                assert reference.ulps(got_var, m2) <= 1
            else:
                assert abs(float(got_var) - m2) <= 64 * 2.0**-52 * m2


MASKED_SHAPES = [(70001,), (300, 70), (20011, 3), (40, 1030), (3, 5, 7)]


def masked_digests():
    """Bytes of a handful of masked and weighted calls."""
    found = []
    for kind in (np.float32, np.float64):
        for shape in MASKED_SHAPES:
            x, where, weights = ramp(shape, kind), half(shape), heft(shape)
            where.reshape(-1, shape[-1])[0] = True
            for axis in (None, 0, -1):
                masks = {"where": where}, {"weights": weights}, {"where": where, "weights": weights}
                found.extend(outputs(fastnorm.mean_var(x, axis, **kwargs)) for kwargs in masks)
                found.append(outputs(fastnorm.mean_var(with_nan(x, where), axis, nan_policy="omit")))
                found.append(outputs(fastnorm.minmax(with_nan(x, where), axis, nan_policy="omit")))
                m = fastnorm.moments(x, axis, order=4, minmax=True, weights=weights)
                n = fastnorm.moments(x, axis, order=3, minmax=True)
                found.append(
                    outputs((m.count, m.mean, m.var(), m.skewness(), m.kurtosis(), m.min, n.skewness(), n.max))
                )
    return found


@pytest.fixture(scope="module")
def plain_digests():
    with fastnorm.use_isa("baseline"), fastnorm.threads(1):
        return masked_digests()


@pytest.mark.usefixtures("machine")
def test_masked_statistics_have_the_same_bytes_everywhere(plain_digests):
    for got, want in zip(masked_digests(), plain_digests, strict=True):
        assert same(got, want)


@pytest.mark.usefixtures("isa")
def test_results_in_half_precision_are_rounded_once():
    """Means of one number each, on both sides of the middle between two halves and at the ends of their range."""
    halves = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float64)
    steps = np.diff(np.append(halves, 65504.0))
    middle = halves + steps / 2
    ends = [65504.0, 65519.99, 65520.0, 65520.01, 1e300, np.inf, 2.0**-25, 2.0**-26, 5e-324]
    values = np.concatenate([halves, middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf), ends])
    x = np.concatenate([values, -values])[np.newaxis]
    with np.errstate(over="ignore"):
        want = x[0].astype(np.float16)
    got = fastnorm.mean(x, axis=0, dtype=np.float16)
    assert np.array_equal(got, want)
    assert np.array_equal(fastnorm.mean(x[:, ::-1][:, :7], axis=0, dtype=np.float16), want[::-1][:7])  # few at a time


@pytest.mark.usefixtures("isa")
def test_bfloat16_is_rounded_once():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    halves = np.arange(0x80, 0x7F7F, dtype=np.uint32) << 16
    lower, upper = halves.view(np.float32).astype(np.float64), (halves + 0x10000).view(np.float32).astype(np.float64)
    middle = (lower + upper) / 2
    even = (halves >> 16) % 2 == 0
    for x, want in (
        (middle, np.where(even, lower, upper)),
        (np.nextafter(middle, 0), lower),
        (np.nextafter(middle, np.inf), upper),
    ):
        for sign in (1, -1):
            got = fastnorm.mean(sign * x[np.newaxis], axis=0, dtype=bfloat16)
            assert np.array_equal(got.astype(np.float64), sign * want)
