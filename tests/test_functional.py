"""layer_norm and standardize: the float64 twin's answers for any axes, parameters, layout and out=."""

import numpy as np
import pytest
import reference
from cases import INTEGERS, SHAPES, SMALL, layouts, outputs, same, uniform
from memory import garbage

import fastnorm


def ramp(shape, dtype=np.float64, seed=0):
    return np.asarray(uniform(shape, dtype, seed) + np.dtype(dtype).type(3))


def check_layer_norm(got, x, axis, weight=None, bias=None, eps=1e-5):
    """Check y, mean and rstd."""
    y, mean, rstd = got
    axes = np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
    full = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    want_y, want_mean, want_rstd = reference.layer_norm(x, axes, weight, bias, eps)
    placed = [None if p is None else np.reshape(p, full) for p in (weight, bias)]
    reference.assert_normalized(y, x, want_y, *placed)
    eps_of, twin = reference.eps_of(y.dtype), x.size * 2.0**-52
    for statistic, want in ((mean, want_mean), (rstd, want_rstd)):
        reference.assert_layout(statistic, want.shape, y.dtype)
    # The mean: an ulp for rounding it, and before that no more than the normalized value may be off.
    bound = eps_of * np.abs(want_mean) + (reference.NORM_EPS[y.dtype] * eps_of + twin) / want_rstd
    reference.assert_within(mean, want_mean, bound)
    slack = 1 if y.dtype == np.float32 else 33  # 1 ulp of float32; half of the variance's 64 eps, and a rounding
    reference.assert_within(rstd, want_rstd, (slack * eps_of + twin) * want_rstd)


# ---- layer_norm


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_norm_is_the_twins(shape, dtype):
    x = ramp(shape, dtype)
    for axis in range(x.ndim):
        weight, bias = ramp(x.shape[axis], dtype, 1), uniform(x.shape[axis], dtype, 2)
        check_layer_norm(fastnorm.layer_norm(x, axis=axis, return_stats=True), x, axis)
        got = fastnorm.layer_norm(x, None, weight, bias, axis=axis, return_stats=True)
        check_layer_norm(got, x, axis, weight, bias)


def test_normalized_shape_names_trailing_axes(dtype):
    x = ramp((3, 4, 5, 6), dtype)
    weight, bias = ramp((5, 6), dtype, 1), uniform((5, 6), dtype, 2)
    want = fastnorm.layer_norm(x, (5, 6), weight, bias, return_stats=True)
    check_layer_norm(want, x, (2, 3), weight, bias)
    for shape in ([5, 6], None):
        assert same(fastnorm.layer_norm(x, shape, weight, bias, return_stats=True), want)
    assert same(fastnorm.layer_norm(x, None, weight, bias, axis=(2, 3), return_stats=True), want)
    last = outputs(fastnorm.layer_norm(x))
    for shape in (6, (6,), np.int64(6)):
        assert same(outputs(fastnorm.layer_norm(x, shape)), last)
    assert same(outputs(fastnorm.layer_norm(x, axis=-1)), last)
    check_layer_norm(fastnorm.layer_norm(x, x.shape, return_stats=True), x, (0, 1, 2, 3))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, (0, 1), (0, 2), (1, 3), (3, 0), (2, 1), (0, 1, 3), (0, 1, 2, 3)], ids=str)
def test_any_axes_with_parameters_in_the_order_of_x(axis, dtype):
    x = ramp((4, 3, 5, 2), dtype)
    axes = sorted(np.atleast_1d(axis).tolist())
    shape = [x.shape[i] for i in axes]
    weight, bias = ramp(shape, dtype, 1), uniform(shape, dtype, 2)
    check_layer_norm(fastnorm.layer_norm(x, None, weight, bias, axis=axis, return_stats=True), x, axes, weight, bias)
    check_layer_norm(fastnorm.layer_norm(x, axis=axis, return_stats=True), x, axes)


def test_weight_without_bias_and_bias_without_weight(dtype):
    for d in (5, 64, 300):
        x, weight, bias = ramp((7, d), dtype), ramp(d, dtype, 1), uniform(d, dtype, 2)
        check_layer_norm(fastnorm.layer_norm(x, d, weight, return_stats=True), x, 1, weight)
        check_layer_norm(fastnorm.layer_norm(x, d, bias=bias, return_stats=True), x, 1, bias=bias)


def test_parameters_of_other_dtypes_and_layouts(dtype):
    x = ramp((7, 30), dtype)
    weight, bias = ramp(30, np.float32, 1), uniform(30, np.float32, 2)
    want = outputs(fastnorm.layer_norm(x, 30, weight.astype(dtype), bias.astype(dtype)))
    for kind in (np.float32, np.float64, ">f4"):
        for (_, w), (_, b) in zip(layouts(weight.astype(kind)), layouts(bias.astype(kind)), strict=True):
            assert same(outputs(fastnorm.layer_norm(x, 30, w, b)), want)
    assert same(outputs(fastnorm.layer_norm(x, 30, weight.tolist(), bias.tolist())), want)


@pytest.mark.parametrize("shape", [*SMALL, (0,), (0, 3), (3, 0)], ids=str)
def test_out_receives_the_result(shape, dtype):
    x = ramp(shape, dtype)
    for call in (fastnorm.layer_norm, fastnorm.standardize):
        want = outputs(call(x, return_stats=True))
        out = garbage(shape, dtype)
        result = call(x, out=out, return_stats=True)
        assert result[0] is out
        assert same(outputs(result), want)
        for label, target in layouts(garbage(shape, dtype)):
            if label not in ("big-endian", "strided, swapped", "read-only"):
                assert call(x, out=target) is target
                np.testing.assert_array_equal(target, want[0], err_msg=label)


@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_the_input_may_be_its_own_output(shape, dtype):
    for call in (fastnorm.layer_norm, fastnorm.standardize):
        for _label, x in layouts(ramp(shape, dtype)):
            if x.flags.writeable and x.dtype.isnative:
                want = np.array(call(x))
                assert call(x, out=x) is x
                np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_are_normalized_in_float64(integer):
    x = (uniform((9, 33), integer).astype(np.float64) % 100).astype(integer)
    check_layer_norm(fastnorm.layer_norm(x, return_stats=True), x, 1)
    check_layer_norm(fastnorm.layer_norm(x, axis=0, return_stats=True, out=garbage(x.shape, np.float64)), x, 0)
    y, mean, std = fastnorm.standardize(x, return_stats=True)
    assert y.dtype == mean.dtype == std.dtype == np.float64
    reference.assert_normalized(y, x, reference.standardize(x)[0])


@pytest.mark.parametrize("shape", [(67,), (70, 8), (9, 65), (3, 5, 7), (2, 33, 4)], ids=str)
def test_memory_layout_of_x_does_not_matter(shape, dtype):
    x = ramp(shape, dtype)
    for _label, y in layouts(x):
        for axis in range(x.ndim):
            check_layer_norm(fastnorm.layer_norm(y, axis=axis, return_stats=True), x, axis)
            reference.assert_normalized(fastnorm.standardize(y, axis), x, reference.standardize(x, axis)[0])
    wide = np.broadcast_to(x, (4, *shape))
    check_layer_norm(fastnorm.layer_norm(wide, return_stats=True), wide, -1)
    np.testing.assert_array_equal(fastnorm.standardize(wide), np.zeros(wide.shape))


def test_a_constant_row_gives_bias_exactly(dtype):
    for d in (1, 2, 31, 64, 65, 1000, 4097, 40000):
        bias, weight = uniform(d, dtype), ramp(d, dtype)
        for value in (0, 1, 14.62, -1e-3, 1e30, 3e-39):
            x = np.full((3, d), value, dtype)
            for eps in (1e-5, 0.0):
                with reference.strict():
                    y, mean, rstd = fastnorm.layer_norm(x, d, weight, bias, eps, return_stats=True)
                np.testing.assert_array_equal(y, np.broadcast_to(bias, x.shape))
                assert not fastnorm.layer_norm(x, eps=eps).any()
                assert (mean == x[:, 0]).all()
                assert (rstd == (np.inf if eps == 0 else dtype.type(1 / np.sqrt(1e-5)))).all()
        x = np.full((d, 3), 14.62, dtype)
        np.testing.assert_array_equal(
            fastnorm.layer_norm(x, bias=bias, axis=0), np.broadcast_to(bias[:, None], x.shape)
        )


def test_no_rows_and_no_columns(dtype):
    with reference.strict():
        for shape, axis, kept in (((0, 5), -1, (0,)), ((5, 0), -1, (5,)), ((0, 5), 0, (5,)), ((3, 0, 4), 2, (3, 0))):
            y, mean, rstd = fastnorm.layer_norm(np.empty(shape, dtype), axis=axis, return_stats=True)
            assert y.shape == shape
            assert mean.shape == rstd.shape == kept
            assert y.dtype == mean.dtype == dtype
            y, mean, std = fastnorm.standardize(np.empty(shape, dtype), axis, return_stats=True)
            assert y.shape == shape
            assert mean.shape == std.shape == kept


# ---- standardize


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_standardize_is_the_twins(shape, dtype):
    x = ramp(shape, dtype)
    for axis in (*range(x.ndim), None):
        y, mean, std = fastnorm.standardize(x, axis, return_stats=True)
        want_y, _, want_std = reference.standardize(x, axis)
        reference.assert_normalized(y, x, want_y)
        reference.assert_mean_var(mean, None, x, axis)
        reference.assert_layout(std, mean.shape, dtype)
        slack = 1 if dtype == np.float32 else 33
        reference.assert_within(std, want_std, (slack * reference.eps_of(dtype) + x.size * 2.0**-52) * want_std)


def test_ddof_and_eps(dtype):
    x = ramp((40, 5), dtype)
    for axis in (0, 1, -1, None, (0, 1)):
        for ddof, eps in ((1, 0.0), (0, 0.25), (0.5, 1e-3)):
            y, _, std = fastnorm.standardize(x, axis, ddof=ddof, eps=eps, return_stats=True)
            want, _, want_std = reference.standardize(x, axis, ddof, eps)
            reference.assert_normalized(y, x, want)
            reference.assert_within(std, want_std, 33 * reference.eps_of(dtype) * want_std)  # eps is not in it
    big = ramp((3, 4, 5, 6), dtype)
    reference.assert_normalized(fastnorm.standardize(big, (0, 2)), big, reference.standardize(big, (0, 2))[0])


def test_out_of_one_row_may_be_the_row_itself(dtype):
    a = np.arange(24).reshape(2, 3, 4).astype(dtype)
    expected = fastnorm.layer_norm(a[:1, :, ::2])
    fastnorm.layer_norm(a[:1, :, ::2], out=a[::2][:, :, ::2])
    np.testing.assert_array_equal(a[:1, :, ::2], expected)


def test_asking_for_statistics_changes_no_byte(dtype):
    for scale in (1, 1e-22, 1e-40):
        x = (np.arange(1, 301).reshape(3, 100) * scale).astype(dtype)
        for eps in (0.0, 1e-5):
            for axis in (0, 1):
                y, _, _ = fastnorm.standardize(x, axis, eps=eps, return_stats=True)
                assert y.tobytes() == fastnorm.standardize(x, axis, eps=eps).tobytes()


def test_a_constant_becomes_zero(dtype):
    for shape in ((1, 3), (2, 3), (70, 3), (4097, 1), (40, 600)):
        x = np.full(shape, 14.62, dtype)
        with reference.strict():
            for ddof in (0, 1 if shape[0] > 1 else 0):
                assert not fastnorm.standardize(x, ddof=ddof).any()
            assert not fastnorm.standardize(x, None, eps=1e-3).any()
        x[:, 0] = ramp(shape[0], dtype)
        assert not fastnorm.standardize(x)[:, 1:].any()


def test_the_returned_statistics_undo_it(dtype):
    # x - (y std + mean): y is off by c eps |y|, std by half its variance's error, and three roundings of about |x|.
    x = ramp((300, 7), dtype)
    y, mean, std = fastnorm.standardize(x, return_stats=True)
    bound = reference.eps_of(dtype) * (4 * np.abs(x) + (reference.NORM_EPS[dtype] + 33) * np.abs(y * std))
    reference.assert_within(y * std + mean, x, bound)
