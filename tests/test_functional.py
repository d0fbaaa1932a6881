"""The forward norms: the float64 twins' answers for any axes, parameters, dtype, layout and out=."""

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, SHAPES, SMALL, layouts, outputs, same, uniform
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


def test_nan_that_is_omitted_stays_and_spoils_nothing(dtype):
    x = ramp((300, 7), dtype)
    gone = uniform(x.shape, bool, 5) & (np.arange(300) > 1)[:, None]
    holes = np.where(gone, dtype.type(np.nan), x)
    for axis in (0, 1, None):
        y, mean, std = fastnorm.standardize(holes, axis, nan_policy="omit", return_stats=True)
        assert (np.isnan(y) == gone).all()
        with reference.silent():
            want_mean, want_std = (np.asarray(f(holes.astype(np.float64), axis)) for f in (np.nanmean, np.nanstd))
            twin = holes.astype(np.float64) - np.expand_dims(want_mean, axis or 0 if axis is not None else ())
            spread = np.expand_dims(want_std, axis or 0 if axis is not None else ())
            twin = np.where(spread == 0, 0 * twin, twin / spread)
        # The twin subtracts a mean of about 3: its own error is n eps of that in float64.
        c = (reference.norm_eps(dtype) * reference.eps_of(dtype) + 300 * 2.0**-50) * 8
        reference.assert_within(y, twin, c * np.maximum(np.abs(twin), 1))
        np.testing.assert_allclose(mean, want_mean, rtol=4 * reference.eps_of(dtype) + 300 * 2.0**-52)
        np.testing.assert_allclose(std, want_std, rtol=40 * reference.eps_of(dtype) + 300 * 2.0**-50, atol=1e-14)
    # Both are within NORM_EPS of exact, at |z| < 2.5.
    bound = 5 * reference.NORM_EPS[dtype] * reference.eps_of(dtype)
    np.testing.assert_allclose(fastnorm.standardize(x, nan_policy="omit"), fastnorm.standardize(x), rtol=0, atol=bound)
    for call in (fastnorm.standardize, fastnorm.min_max_scale):
        before = holes.tobytes()
        with pytest.raises(ValueError, match="NaN"):
            call(holes, nan_policy="raise", out=holes)
        assert holes.tobytes() == before
        assert same((call(x, nan_policy="raise"),), (call(x),))
        with pytest.raises(ValueError, match="nan_policy"):
            call(x, nan_policy="ignore")


# ---- where


@pytest.mark.parametrize("shape", [(1,), (67,), (5, 1), (70, 8), (9, 65), (3, 1030), (2, 40001), (3, 5, 7)], ids=str)
def test_what_does_not_count_has_no_part(shape, dtype):
    x = ramp(shape, dtype)
    where = uniform(shape, bool, 9)
    weight, bias = ramp(shape[-1], dtype, 1), uniform(shape[-1], dtype, 2)
    for axis in range(x.ndim):
        affine = (weight, bias) if axis == x.ndim - 1 else (None, None)
        want_y, want_mean, want_rstd = reference.masked_layer_norm(x, axis, where, *affine)
        for filler in (np.nan, np.inf, 0, 1e30):
            filled = np.where(where, x, dtype.type(filler))
            with reference.strict():
                y, mean, rstd = fastnorm.layer_norm(filled, None, *affine, axis=axis, where=where, return_stats=True)
            assert not y[~where].any()
            reference.assert_normalized(y, x, want_y, *affine, twin_error=2.0**-52)
            # rstd: 1 ulp, or half of the variance's 64 eps, and a rounding; the mean, as in check_layer_norm.
            slack = (1 if dtype == np.float32 else 33) * reference.eps_of(dtype)
            bound = reference.eps_of(dtype) * (np.abs(want_mean) + reference.NORM_EPS[dtype] / want_rstd)
            reference.assert_within(mean, want_mean, bound)
            reference.assert_within(rstd, want_rstd, slack * want_rstd)


def test_a_padded_batch_normalizes_like_the_unpadded_one(dtype):
    lengths, width = (5, 1, 8, 3), 6
    where = np.arange(8)[:, None] < np.asarray(lengths)[:, None, None]
    batch = np.full((4, 8, width), np.nan, dtype)
    for i, n in enumerate(lengths):
        batch[i, :n] = ramp((n, width), dtype, i)
    y = fastnorm.layer_norm(batch, axis=(1, 2), where=where)
    for i, n in enumerate(lengths):
        # Both are within NORM_EPS of exact, at |z| < 4.
        bound = 8 * reference.NORM_EPS[dtype] * reference.eps_of(dtype)
        np.testing.assert_allclose(y[i, :n], fastnorm.layer_norm(batch[i, :n], (n, width)), rtol=0, atol=bound)
        assert not y[i, n:].any()


def test_a_mask_of_any_layout_is_the_same_mask(dtype):
    x = ramp((30, 40), dtype)
    row = uniform(40, bool, 3)
    want = fastnorm.layer_norm(x, where=np.broadcast_to(row, x.shape).copy())
    wide = np.zeros((30, 80), bool)
    wide[:, ::2] = row
    for where in (row, row.tolist(), row[None], np.asfortranarray(np.broadcast_to(row, x.shape)), wide[:, ::2]):
        np.testing.assert_array_equal(fastnorm.layer_norm(x, where=where), want)
    place = x.copy()
    assert fastnorm.layer_norm(place, where=row, out=place) is place
    np.testing.assert_array_equal(place, want)
    # Both are within NORM_EPS of exact, at |z| < 2.5.
    bound = 5 * reference.NORM_EPS[dtype] * reference.eps_of(dtype)
    np.testing.assert_allclose(fastnorm.layer_norm(x, where=True), fastnorm.layer_norm(x), rtol=0, atol=bound)
    for where, error in ((row.astype(int), TypeError), (row[:7], ValueError), ("yes", TypeError)):
        with pytest.raises(error, match="where"):
            fastnorm.layer_norm(x, where=where)


# ---- rms_norm


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm_is_the_twins(shape, dtype):
    x = ramp(shape, dtype)
    slack = (1 if dtype == np.float32 else 33) * reference.eps_of(dtype) + x.size * 2.0**-52
    for axis in (*range(x.ndim), *([(0, -1)] if x.ndim > 1 else [])):
        axes = np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
        full = [n if i in axes else 1 for i, n in enumerate(x.shape)]
        weight = ramp([x.shape[i] for i in sorted(axes)], dtype, 1)
        for w in (None, weight):
            y, rstd = fastnorm.rms_norm(x, None, w, 1e-5, axis=axis, return_stats=True)
            want_y, want_rstd = reference.rms_norm(x, axis, w)
            reference.assert_layout(rstd, want_rstd.shape, dtype)
            reference.assert_within(rstd, want_rstd, slack * want_rstd)
            reference.assert_normalized(y, x, want_y, None if w is None else w.reshape(full))


def test_rms_norm_of_extreme_rows(dtype):
    info = np.finfo(dtype)
    rows = [info.max * 0.5, info.max, 1e30, 1e-30, info.tiny, info.smallest_subnormal * 8, 1.0]
    x = np.asarray(rows, dtype)[:, None] * uniform((len(rows), 300), dtype, 2)
    with reference.strict():
        y = fastnorm.rms_norm(x, eps=0.0)
        tall = fastnorm.rms_norm(x.T.copy(), axis=0, eps=0.0)
    scaled = np.frexp(np.abs(x).max(1))[1][:, None]
    want = reference.rms_norm(np.ldexp(x.astype(np.float64), -scaled), eps=0)[0]
    reference.assert_normalized(y, x, want)
    reference.assert_normalized(tall.T, x, want)
    for eps in (0.0, 1e-5):
        assert not fastnorm.rms_norm(np.zeros((3, 70), dtype), eps=eps).any()
    bad = uniform((4, 70), dtype)
    want = fastnorm.rms_norm(bad)
    bad[1, 5], bad[2, 6] = np.nan, np.inf
    y = fastnorm.rms_norm(bad)
    assert np.isnan(y[1:3]).all()
    assert y[::3].tobytes() == want[::3].tobytes()


def test_the_default_eps_is_that_of_the_compute_type():
    x = np.full((2, 5), 1e-4)
    for given, compute in ((np.float64, np.float64), (np.float32, np.float32), (np.float16, np.float32)):
        eps = float(np.finfo(compute).eps)
        small = x.astype(given)
        assert same((fastnorm.rms_norm(small),), (fastnorm.rms_norm(small, eps=eps),))


# ---- norms of a sum


NORMS_OF_A_SUM = [(fastnorm.add_layer_norm, fastnorm.layer_norm), (fastnorm.add_rms_norm, fastnorm.rms_norm)]
each_sum = pytest.mark.parametrize(("add", "norm"), NORMS_OF_A_SUM, ids=["add_layer_norm", "add_rms_norm"])


@each_sum
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@pytest.mark.usefixtures("stores")
def test_a_residual_is_added_first(add, norm, dtype):
    for shape in [*SMALL, (300, 8), (16, 768), (3, 40001), (0, 5)]:
        x, z = uniform(shape, dtype, 1), uniform(shape, dtype, 2)
        parameters = [uniform(shape[-1], dtype, i) for i in ((3, 4) if norm is fastnorm.layer_norm else (3,))]
        total = x + z
        want = norm(total, None, *parameters, return_stats=True)
        y, s, *stats = add(x, z, None, *parameters, return_stats=True)
        assert same((s, y, *map(np.asarray, stats)), (total, *map(np.asarray, want)))
        assert same(add(x, z, None, *parameters), (y, s))
        for order in (0, 1):  # both results over the inputs, either way round
            pair = x.copy(), z.copy()
            out = pair if order == 0 else pair[::-1]
            got = add(*pair, None, *parameters, out=out)
            assert got[0] is out[0]
            assert got[1] is out[1]
            assert same(got, (y, s))
        gaps = garbage((*shape, 4), dtype)
        add(x, z, None, *parameters, out=(gaps[..., 0], gaps[..., 2]))
        assert same((gaps[..., 0], gaps[..., 2]), (y, s))
        for _label, a in layouts(x) if dtype in FLOATS else ():
            got = add(a, z, None, *parameters)
            np.testing.assert_array_equal(got[1], total)
            np.testing.assert_allclose(got[0], y, rtol=0, atol=64 * reference.eps_of(dtype))


@each_sum
def test_a_residual_that_does_not_fit_is_refused(add, norm):
    x = uniform((6, 5), np.float32)
    del norm
    for residual, error in (
        (x[:, :4], ValueError),
        (x[:1], ValueError),
        (x.astype(np.float64), TypeError),
        (x.astype(complex), TypeError),
        (None, TypeError),
    ):
        with pytest.raises(error, match="residual"):
            add(x, residual)
    y, s = garbage(x.shape, x.dtype), garbage(x.shape, x.dtype)
    before = y.tobytes()
    refused = {
        ValueError: [(y, y), (y, s.T), (y, s.astype(np.float64)), (y[:5], s)],
        TypeError: [y, (y,), (y, None)],
    }
    for error, out in ((error, out) for error, outs in refused.items() for out in outs):
        with pytest.raises(error, match="out"):
            add(x, x, out=out)
    space = uniform((13, 5), np.float32)
    with pytest.raises(ValueError, match="residual"):
        add(x, space[1:7], out=(space[:6], s))
    assert y.tobytes() == s.tobytes() == before


# ---- min_max_scale


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_min_max_scale_is_the_twins(shape, dtype):
    x = ramp(shape, dtype)
    for axis in (*range(x.ndim), None):
        for low, high in ((0, 1), (-1, 1), (-3.5, 0.25), (100, 101)):
            with reference.strict():
                y, least, most = fastnorm.min_max_scale(x, axis, (low, high), return_stats=True)
            reference.assert_layout(y, x.shape, dtype)
            # x - min, the scale (rounded up once or twice), their product and the sum: 4 eps of the range, and the
            # rounding of the result.
            bound = reference.eps_of(dtype) * (4 * (high - low) + abs(low) + abs(high))
            reference.assert_within(y, reference.min_max_scale(x, axis, (low, high)), bound)
            np.testing.assert_array_equal(least, x.min(axis))
            np.testing.assert_array_equal(most, x.max(axis))
            assert y.min() >= low
            assert y.max() <= high
            if reference.count(x, axis) > 1 and (low, high) in ((0, 1), (-1, 1)):
                assert (y.min(axis)[x.min(axis) < x.max(axis)] == low).all()
                assert (y.max(axis)[x.min(axis) < x.max(axis)] == high).all()


def test_constants_become_the_low_end_and_bad_columns_only_spoil_themselves(dtype):
    for shape in ((1, 3), (2, 3), (70, 3), (4097, 2), (40, 600)):
        x = np.full(shape, 14.62, dtype)
        with reference.strict():
            assert not fastnorm.min_max_scale(x).any()
            assert (fastnorm.min_max_scale(x, None, (-2, 3)) == -2).all()
    x = ramp((70, 5), dtype)
    want = fastnorm.min_max_scale(x)
    x[3, 1], x[4, 2] = np.nan, -np.inf
    with reference.strict():
        y, least, most = fastnorm.min_max_scale(x, return_stats=True)
    assert np.isnan(y[:, 1:3]).all()
    assert np.isnan(least[1])
    assert (least[2], most[2]) == (-np.inf, x[:, 2].max())
    assert y[:, [0, 3, 4]].tobytes() == want[:, [0, 3, 4]].tobytes()
    omitted = fastnorm.min_max_scale(x, nan_policy="omit")
    assert (np.isnan(omitted[:, 1]) == np.isnan(x[:, 1])).all()
    assert np.nanmax(omitted[:, 1]) == 1


def test_a_range_near_the_ends_of_the_type(dtype):
    info = np.finfo(dtype)
    for ends in ((-info.max, info.max), (0, info.smallest_subnormal * 16), (info.max / 2, info.max), (0, info.tiny)):
        x = np.linspace(0, 1, 5)[:, None].astype(dtype)
        x = (x * dtype.type(ends[1] / 2) + (1 - x) * dtype.type(ends[0] / 2)) * 2
        with reference.strict():
            y = fastnorm.min_max_scale(x)
        np.testing.assert_allclose(y[:, 0], np.linspace(0, 1, 5), atol=4 * reference.eps_of(dtype))


def test_a_feature_range_must_ascend():
    x = uniform((6, 5), np.float32)
    for bad, error in (((1, 0), ValueError), ((1, 1), ValueError), ((0, np.inf), ValueError), ((0, np.nan), ValueError),
                       ((0,), TypeError), (1, TypeError), ((0, "1"), TypeError)):  # fmt: skip
        with pytest.raises(error, match="feature_range"):
            fastnorm.min_max_scale(x, feature_range=bad)


# ---- half precision


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.usefixtures("isa", "stores")
def test_half_precision_is_float32_rounded_once(half):
    for shape in [*SMALL, (300, 8), (16, 768), (2, 4097), (3, 40001), (4099, 3)]:
        x = uniform(shape, half, 1)
        wide = x.astype(np.float32)
        weight, bias = uniform(shape[-1], half, 2), uniform(shape[-1], half, 3)
        single = weight.astype(np.float32), bias.astype(np.float32)
        for call in (
            lambda v, w, b: fastnorm.layer_norm(v, None, w, b, return_stats=True),
            lambda v, w, _b: fastnorm.rms_norm(v, None, w, 1e-5, return_stats=True),
            lambda v, _w, _b: fastnorm.layer_norm(v, axis=0, return_stats=True),
            lambda v, _w, _b: fastnorm.standardize(v, return_stats=True),
            lambda v, _w, _b: fastnorm.min_max_scale(v),
        ):
            y, *stats = outputs(call(x, weight, bias))
            want, *want_stats = outputs(call(wide, *single))
            assert same((y, *stats), (want.astype(half), *want_stats))
            assert same(outputs(call(x, *single)), (y, *stats))  # parameters in float32: the same values


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_parameters_may_be_wider_or_narrower(half):
    for dtype in FLOATS:
        x = ramp((9, 33), dtype)
        weight = uniform(33, half, 1)
        want = fastnorm.layer_norm(x, weight=weight.astype(dtype), bias=weight.astype(dtype))
        assert same((fastnorm.layer_norm(x, weight=weight, bias=weight),), (want,))


def test_large_halves_do_not_overflow():
    x = np.asarray([[40000.0, -40000.0, 60000.0, 65504.0]], np.float16)
    with reference.strict():
        y, mean, rstd = fastnorm.layer_norm(x, return_stats=True)
        assert fastnorm.var(x) == np.inf  # it does not fit; NumPy says so, too
        assert fastnorm.std(x) == np.float16(np.std(x.astype(np.float64)))
    np.testing.assert_allclose(y, reference.layer_norm(x)[0], atol=2.0**-10)
    assert mean.dtype == rstd.dtype == np.float32
    np.testing.assert_allclose(mean, [31376], rtol=2.0**-24)


@pytest.mark.parametrize("n", [3, 8, 30, 100])
def test_a_sum_stored_in_rows_with_gaps_has_the_same_statistics(n, dtype):
    x, residual = (np.asfortranarray(uniform((n, 5000), dtype, seed)) for seed in (1, 2))
    want, total = fastnorm.add_layer_norm(x, residual)
    y, s = np.empty_like(x), np.zeros((5000, n + 5), dtype).T[:n]
    fastnorm.add_layer_norm(x, residual, out=(y, s))
    np.testing.assert_array_equal(s, total)
    np.testing.assert_array_equal(y, want)


def test_infinity_among_vanishing_values_makes_nan():
    x = np.array([[1e-200, 2e-200, np.inf], [1e-310, np.nan, 2e-310], [1.0, 2.0, 3.0]])
    y, mean, rstd = fastnorm.layer_norm(x, return_stats=True)
    assert np.isnan(y).all(1).tolist() == [True, True, False]
    assert np.isnan(rstd).tolist() == [True, True, False]
    assert mean[0] == np.inf
    assert np.isnan(fastnorm.standardize(x, 1, eps=1e-3)).all(1).tolist() == [True, True, False]


@pytest.mark.parametrize("value", [1e155, 1e200, np.finfo(np.float64).max, 5e-324, 0.0])
@pytest.mark.parametrize("eps", [1e-5, 1e-30, 1.0])
def test_rstd_of_a_constant_is_that_of_eps(value, eps):
    y, mean, rstd = fastnorm.layer_norm(np.full((1, 7), -value), eps=eps, return_stats=True)
    assert (y == 0).all()
    assert mean[0] == -value
    assert rstd[0] == 1 / np.sqrt(eps)


@pytest.mark.parametrize("n", [2, 100, 40000])
def test_extrema_of_a_scale_are_exact_beside_the_largest_numbers(n):
    x = np.full(n, 1e-300)
    x[0] = 1.7e308
    y, low, high = fastnorm.min_max_scale(x, return_stats=True)
    assert (low, high) == (1e-300, 1.7e308)
    assert (y == (x == 1.7e308)).all()
