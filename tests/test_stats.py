"""mean_var, mean, var, std, minmax, moments and Moments: NumPy's answers for any axis, dtype and layout."""

from itertools import combinations

import numpy as np
import pytest
import reference
from cases import INTEGERS, SHAPES, SMALL, layouts, outputs, same, supported_isas, uniform

import fastnorm

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
