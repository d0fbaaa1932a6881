"""layer_norm_backward and rms_norm_backward: the gradients of the twin, for any axes, layout, mask and range."""

import itertools
import tracemalloc

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, SHAPES, SMALL, THREADS, layouts, mask, same, supported_isas, uniform
from memory import garbage, guarded, place

import fastnorm

EDGES = [(1, 1), (5, 1), (3, 2), (70, 3), (9, 64), (37, 65), (18, 130), (5, 513), (6, 1025), (3, 4100), (2, 16385)]
EDGES += [(1100, 3), (1025, 18), (2, 33, 4), (3, 5, 7)]


def axes_of(x, axis):
    return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)))


def problem(shape, dtype, axis, seed=0):
    """Make dy, x and weight. x lies about 3, so that its mean is rounded."""
    dy = np.asarray(uniform(shape, dtype, seed + 1))
    x = np.asarray(uniform(shape, dtype, seed + 2)) + np.asarray(3, dtype)
    along = tuple(shape[a] for a in axes_of(x, axis))
    compute = np.float64 if x.dtype.itemsize == 8 else np.float32
    return dy, x.astype(dtype), np.asarray(uniform(along, compute, seed + 3) + 1, compute)


def layer(dy, x, weight, axis, where=None, eps=1e-5, **kwargs):
    """The call under test, with the saved statistics of the twin."""
    mean, rstd = reference.saved_statistics(x, axes_of(x, axis), eps, where)
    return fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, where=where, **kwargs)


def rms(dy, x, weight, axis, eps=1e-5, **kwargs):
    _, rstd = reference.saved_statistics(x, axes_of(x, axis), eps, rms=True)
    return fastnorm.rms_norm_backward(dy, x, rstd, weight, axis=axis, **kwargs)


def check(got, dy, x, weight, axis, where=None, *, eps=1e-5, is_rms=False):
    axes = axes_of(x, axis)
    _, rstd = reference.saved_statistics(x, axes, eps, where, rms=is_rms)
    reference.assert_gradients(got, reference.norm_backward(dy, x, rstd, weight, axes, where, rms=is_rms), x, weight)


# ---- the twin's answers


@pytest.mark.wide
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_the_twins(shape, dtype):
    pairs = [p for p in itertools.combinations(range(len(shape)), 2) if len(shape) < 5]
    for axis in (*range(len(shape)), *pairs):
        dy, x, weight = problem(shape, dtype, axis)
        for w in (weight, None):
            check(layer(dy, x, w, axis), dy, x, w, axis)
            check(rms(dy, x, w, axis), dy, x, w, axis, is_rms=True)


def test_normalized_shape_names_trailing_axes(dtype):
    dy, x, weight = problem((3, 4, 5, 6), dtype, (2, 3))
    want = layer(dy, x, weight, (2, 3))
    mean, rstd = reference.saved_statistics(x, (2, 3))
    for shape in (None, (5, 6), [5, 6]):
        assert same(fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, normalized_shape=shape), want)
    dy, x, weight = problem((7, 9), dtype, 1)
    mean, rstd = reference.saved_statistics(x, (1,))
    want = layer(dy, x, weight, 1)
    for shape in (None, 9, (9,), np.int64(9)):
        assert same(fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, normalized_shape=shape), want)
    _, rstd = reference.saved_statistics(x, (1,), rms=True)
    assert same(fastnorm.rms_norm_backward(dy, x, rstd, weight, normalized_shape=9), rms(dy, x, weight, 1))
    everything = layer(dy, x, None, (0, 1))  # scalars of statistics
    check(everything, dy, x, None, (0, 1))


@pytest.mark.parametrize("shape", [(67,), (70, 8), (300, 1), (9, 65), (3, 5, 7), (2, 33, 4), (20, 1030)], ids=str)
def test_memory_layout_does_not_matter(shape, dtype):
    for axis in range(len(shape)):
        dy, x, weight = problem(shape, dtype, axis)
        where = mask(x)[0]
        for (_, a), (_, b), (_, w) in zip(layouts(dy), layouts(x), layouts(weight), strict=False):
            check(layer(a, b, w, axis), dy, x, weight, axis)
            check(layer(dy, b, w, axis, where), dy, x, weight, axis, where)
            check(rms(a, x, weight, axis), dy, x, weight, axis, is_rms=True)
        for label, out in layouts(garbage(shape, dtype)):
            if label not in ("big-endian", "strided, swapped", "read-only"):
                got = layer(dy, x, weight, axis, out=out)
                assert got[0] is out
                check(got, dy, x, weight, axis)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision(half):
    for shape, axis in (((9, 65), 1), ((70, 8), 0), ((3, 5, 7), 1), ((5, 1100), 1), ((17, 16), 1)):
        dy, x, weight = problem(shape, half, axis)
        for w in (weight, weight.astype(half), None):
            for d in (dy, dy.astype(np.float32)):
                got = layer(d, x, w, axis)
                assert [g.dtype for g in got if g is not None] == [
                    half,
                    *[half if w is None else w.dtype] * (2 - (w is None)),
                ]
                check(got, d, x, w, axis)
                check(rms(d, x, w, axis), d, x, w, axis, is_rms=True)


@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_are_differentiated_in_float64(integer):
    x = (uniform((9, 33), integer).astype(np.float64) % 100).astype(integer)
    dy = uniform(x.shape, np.float64, 1)
    check(layer(dy, x, None, 1), dy, x, None, 1)
    with pytest.raises(TypeError, match="dy has dtype float32"):
        layer(dy.astype(np.float32), x, None, 1)


def test_gradients_of_parameters_have_their_dtype():
    dy, x, weight = problem((9, 65), np.float32, 1)
    for kind in ("float16", "float32", "float64", ">f4", ">f8"):
        dx, dweight, dbias = layer(dy, x, weight.astype(kind), 1)
        assert dx.dtype == np.float32
        assert dweight.dtype == dbias.dtype == np.dtype(kind).newbyteorder("=")
    dx, dweight, dbias = layer(dy, x, np.ones(65, np.int32), 1)
    assert dweight.dtype == dbias.dtype == np.float64
    # The same sums, rounded to float32 or not.
    np.testing.assert_allclose(layer(dy, x, weight.astype(np.float64), 1)[1], layer(dy, x, weight, 1)[1], rtol=2.0**-23)


def test_without_weight_there_is_no_gradient_of_it(dtype):
    dy, x, _ = problem((5, 70), dtype, 1)
    assert layer(dy, x, None, 1)[1] is None
    assert rms(dy, x, None, 1)[1] is None
    ones = np.ones(70, dtype)
    np.testing.assert_array_equal(layer(dy, x, None, 1)[0], layer(dy, x, ones, 1)[0])
    np.testing.assert_array_equal(layer(dy, x, None, 1)[2], layer(dy, x, ones, 1)[2])


def test_empty_arrays(dtype):
    with reference.strict():
        for shape, axis in (((0, 5), 1), ((5, 0), 1), ((0, 5), 0), ((3, 0, 4), 2), ((3, 0, 4), 1)):
            dy, x, weight = problem(shape, dtype, axis)
            kept = [n for a, n in enumerate(shape) if a != axis]
            ones = np.ones(kept, dtype)
            dx, dweight, dbias = fastnorm.layer_norm_backward(dy, x, ones, ones, weight, axis=axis)
            assert dx.shape == shape
            assert dweight.shape == dbias.shape == weight.shape
            assert not dweight.any()
            assert not dbias.any()
            assert fastnorm.rms_norm_backward(dy, x, ones, weight, axis=axis)[1].shape == weight.shape


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


@pytest.mark.parametrize("eps", [1e-5, 0.5, 0.0])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 5), 1), ((4, 3), 0), ((2, 3, 4), (1, 2)), ((2, 3, 4), (0, 2))], ids=str
)
def test_layer_norm_by_central_differences(shape, axis, eps):
    # A difference of step h is off by h^2 f''' / 6 + 2^-52 |f| / h, where f''' is some tens times rstd^3.
    dy, x, weight = problem(shape, np.float64, axis)
    bias = uniform(weight.shape, np.float64, 9)
    for where in (None, mask(x)[0]):
        _, mean, rstd = fastnorm.layer_norm(x, None, weight, bias, eps, axis=axis, where=where, return_stats=True)
        if not np.isfinite(rstd).all():
            continue  # eps = 0 and a single value that counts

        def loss(x, weight, bias, where=where):
            return float((dy * fastnorm.layer_norm(x, None, weight, bias, eps, axis=axis, where=where)).sum())

        got = fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, where=where)
        want = (
            differences(lambda v: loss(v, weight, bias), x),
            differences(lambda v: loss(x, v, bias), weight),
            differences(lambda v: loss(x, weight, v), bias),
        )
        bound = 2e-9 * max(1, float(np.max(rstd))) ** 3 + 1e-9
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=0, atol=bound)
        if where is None:
            plain = fastnorm.layer_norm_backward(dy, x, mean, rstd, axis=axis)
            unit = np.ones_like(weight)
            slope = differences(lambda v, unit=unit: loss(v, unit, bias), x)
            np.testing.assert_allclose(plain[0], slope, rtol=0, atol=bound)


@pytest.mark.parametrize(("shape", "axis"), [((3, 5), 1), ((4, 3), 0), ((2, 3, 4), (1, 2)), ((5, 1), 1)], ids=str)
def test_rms_norm_by_central_differences(shape, axis):
    # As above; x lies about 3, so that rstd is below 1 and the difference's own rounding is most of the error.
    dy, x, weight = problem(shape, np.float64, axis)
    for eps in (None, 1e-2):
        _, rstd = fastnorm.rms_norm(x, None, weight, eps, axis=axis, return_stats=True)

        def loss(x, weight, eps=eps):
            return float((dy * fastnorm.rms_norm(x, None, weight, eps, axis=axis)).sum())

        dx, dweight = fastnorm.rms_norm_backward(dy, x, rstd, weight, axis=axis)
        np.testing.assert_allclose(dx, differences(lambda v: loss(v, weight), x), rtol=0, atol=2e-7)
        np.testing.assert_allclose(dweight, differences(lambda v: loss(x, v), weight), rtol=0, atol=2e-7)


# ---- ranges


def test_a_single_normalized_element_has_no_gradient(dtype):
    for shape, axis in (((7, 1), 1), ((1, 5), 0), ((1,), 0), ((3, 1, 4), 1)):
        dy, x, weight = problem(shape, dtype, axis)
        for scale in (1, 1e30, 1e-30):
            for shift in (0, 1e-3):  # a mean that somebody else has rounded
                mean = np.squeeze(x, axis) * dtype.type(1 + shift)
                rstd = np.full(mean.shape, 316.2, dtype)
                dx, dweight, _ = fastnorm.layer_norm_backward(dy * dtype.type(scale), x, mean, rstd, weight, axis=axis)
                assert not dx.any()
                assert not dweight.any()


@pytest.mark.parametrize("shape", [(9, 64), (5, 300), (3, 1024), (2, 20000)], ids=str)
def test_a_mean_of_ten_thousand_deviations(shape, dtype):
    for axis in (0, 1):
        dy, x, weight = problem(shape if axis else shape[::-1], dtype, axis)
        x = (x + dtype.type(2e4)).astype(dtype)
        check(layer(dy, x, weight, axis, eps=0.0), dy, x, weight, axis, eps=0.0)


@pytest.mark.parametrize("shape", [(9, 5), (300, 5), (8, 64), (5, 300), (2, 1030), (2, 17000)], ids=str)
def test_values_near_the_ends_of_the_type(shape, dtype):
    dy, x, weight = problem(shape, dtype, 1)
    x -= dtype.type(3)
    most, least = np.finfo(dtype).maxexp, np.finfo(dtype).minexp
    rows = (most, 100, -100, least, 0)
    for i, power in enumerate(rows[: shape[0]]):
        x[i] = np.ldexp(x[i], power)
    finite = reference.saved_statistics(x, (1,), 0.0)[1] < np.finfo(dtype).max
    for y_power in (0, most - 1, -100, 110):
        d = np.ldexp(dy, y_power)
        for eps in (0.0, 1e-5):
            mean, rstd = reference.saved_statistics(x, (1,), eps)
            got = fastnorm.layer_norm_backward(d, x, mean, rstd, weight)
            want = reference.norm_backward(d, x, rstd, weight, (1,))
            sure = finite if eps == 0 else np.ones(len(x), bool)
            scale = np.abs(rstd[:, None] * np.abs(d * weight).max(1, keepdims=True).astype(np.longdouble))
            bound = (
                8 * reference.eps_of(dtype) * scale * (1 + np.abs(want["xhat"])) + np.finfo(dtype).smallest_subnormal
            )
            with reference.silent():
                sure = sure[:, None] & (np.abs(want["dx"]) < np.finfo(dtype).max) & (scale < np.finfo(dtype).max)
                far = np.abs(got[0] - want["dx"]) > bound
            assert not (far & sure).any(), (y_power, eps, np.argwhere(far & sure)[:3])


def test_nan_and_infinity_stay_in_their_rows(dtype):
    for shape in ((9, 5), (40, 5), (300, 1), (11, 64), (6, 300), (5, 1500), (4, 17000)):
        dy, x, weight = problem(shape, dtype, 1)
        clean = layer(dy, x, weight, 1)[0]
        for target, value in itertools.product(("x", "dy", "mean", "rstd"), (np.nan, np.inf, -np.inf)):
            mean, rstd = (np.array(v) for v in reference.saved_statistics(x, (1,)))
            spoiled = {"x": x.copy(), "dy": dy.copy(), "mean": mean, "rstd": rstd}
            spoiled[target][1, ..., None][0] = value
            with reference.strict():
                dx, dweight, dbias = fastnorm.layer_norm_backward(spoiled["dy"], spoiled["x"], mean, rstd, weight)
            quiet = np.full(shape[1], np.nan, dtype).tobytes()
            assert dx[1].tobytes() == quiet, (target, value)
            kept = np.arange(len(dx)) != 1
            np.testing.assert_array_equal(dx[kept], clean[kept])
            if target == "dy":
                assert np.isfinite(dbias[1:]).all()
            if target == "x":
                assert np.isnan(dweight).any()
        bad = weight.copy()
        bad[-1] = np.nan
        dx, dweight, dbias = layer(dy, x, bad, 1)
        assert np.isnan(dx).all()
        assert np.isfinite(dweight).all()
        assert np.isfinite(dbias).all()


def test_a_constant_row_without_eps_is_nan_by_itself(dtype):
    dy, x, weight = problem((6, 40), dtype, 1)
    clean = layer(dy, x, weight, 1, eps=0.0)[0]
    x[2] = 14.62
    mean, rstd = reference.saved_statistics(x, (1,), 0.0)
    rstd[2] = np.inf
    dx = fastnorm.layer_norm_backward(dy, x, mean, rstd, weight)[0]
    assert np.isnan(dx[2]).all()
    np.testing.assert_array_equal(np.delete(dx, 2, 0), np.delete(clean, 2, 0))


# ---- masks


@pytest.mark.parametrize(
    "shape", [(67,), (70, 8), (9, 65), (3, 5, 7), (2, 33, 4), (18, 1030), (3, 17000), (1500, 5)], ids=str
)
def test_what_is_masked_never_counts(shape, dtype):
    for axis in range(len(shape)):
        dy, x, weight = problem(shape, dtype, axis)
        where = mask(x)[0]
        want = layer(dy, x, weight, axis, where)
        check(want, dy, x, weight, axis, where)
        assert not want[0][~where].any()
        mean, rstd = reference.saved_statistics(x, axes_of(x, axis), where=where)
        for value in (np.nan, np.inf, np.finfo(dtype).max):
            a, b = np.where(where, dy, dtype.type(value)), np.where(where, x, dtype.type(value))
            with reference.strict():
                got = fastnorm.layer_norm_backward(a, b, mean, rstd, weight, axis=axis, where=where)
            assert same(got, want)


def test_padding_changes_no_more_than_rounding(dtype):
    dy, x, _ = problem((6, 20), dtype, 1)
    plain = layer(dy, x, None, 1)
    wide = np.full((6, 29), np.nan, dtype)
    wide_x, wide_dy = wide.copy(), wide.copy()
    wide_x[:, :20], wide_dy[:, :20] = x, dy
    padded = layer(wide_dy, wide_x, None, 1, np.arange(29) < 20)
    check((padded[0][:, :20], None, padded[2][:20]), dy, x, None, 1)
    # Either is within the bound of assert_gradients: 8 eps rstd max|g| (1 + |xhat|), with |g| <= 1.
    bound = 2 * 8 * reference.eps_of(dtype) * np.max(reference.saved_statistics(x, (1,))[1]) * (1 + np.sqrt(20))
    np.testing.assert_allclose(padded[0][:, :20], plain[0], rtol=0, atol=bound)
    assert not padded[0][:, 20:].any()


def test_a_row_where_nothing_counts_has_no_gradient(dtype):
    dy, x, weight = problem((5, 30), dtype, 1)
    where = mask(x)[0].copy()
    where[3] = False
    mean, rstd = (np.array(v) for v in reference.saved_statistics(x, (1,), where=where))
    want = fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, where=where)
    mean[3] = rstd[3] = np.nan
    got = fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, where=where)
    assert not got[0][3].any()
    assert same(got, want)


# ---- bits


def everything(place_at=0):
    """Results over shapes, axes, masks and awkward values, each array at an offset from a cache line."""
    results = []
    for dtype in FLOATS:
        for shape in (*SMALL, (130, 64), (40, 1030), (21, 4100), (3, 17000), (17000, 3), (1025, 64)):
            for axis in range(len(shape)):
                dy, x, weight = problem(shape, dtype, axis)
                if x.size > 20:
                    x.reshape(-1)[5], dy.reshape(-1)[11] = 1e30, np.nan
                mean, rstd = reference.saved_statistics(x, axes_of(x, axis))
                dy, x, weight = (place(v, place_at) for v in (dy, x, weight))
                where = mask(x)[0]
                out = place(garbage(shape, dtype), (3 * place_at) % 64)
                results += fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, out=out)
                results += fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, where=where)
                results += fastnorm.rms_norm_backward(dy, x, rstd, weight, axis=axis)
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
@pytest.mark.parametrize("offset", [1, 4, 8, 20, 36, 60])
@pytest.mark.usefixtures("stores")
def test_any_address_gives_the_same_bytes(offset, expected):
    assert same(everything(offset), expected)


def test_the_list_of_threads_and_isas_is_not_vacuous():
    assert len(THREADS) >= 5
    assert "baseline" in supported_isas()


# ---- memory


@pytest.mark.parametrize("shape", [*SMALL, (9, 1030), (3, 17000), (1100, 5)], ids=str)
@pytest.mark.usefixtures("stores")
def test_dx_may_replace_dy_or_x(shape, dtype):
    for axis in range(len(shape)):
        dy, x, weight = problem(shape, dtype, axis)
        x.reshape(-1)[0] = 1e30  # one row goes the careful way
        dy.reshape(-1)[-1] = np.inf  # and another one
        mean, rstd = reference.saved_statistics(x, axes_of(x, axis))
        for which, order in itertools.product((0, 1), "CF"):
            given = [np.array(v, order=order) for v in (dy, x)]
            want = fastnorm.layer_norm_backward(*given, mean, rstd, weight, axis=axis, out=np.empty_like(given[0]))
            got = fastnorm.layer_norm_backward(*given, mean, rstd, weight, axis=axis, out=given[which])
            assert got[0] is given[which]
            assert same(got, want)


@pytest.mark.wide
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
def test_nothing_outside_the_arrays_is_touched(side):
    for shape, dtype in itertools.product(EDGES, FLOATS):
        for axis in range(len(shape)):
            dy, x, weight = problem(shape, dtype, axis)
            where = mask(x)[0]
            mean, rstd = reference.saved_statistics(x, axes_of(x, axis))
            for counts in (None, where):
                want = fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, where=counts)
                arrays = [guarded(np.asarray(v), side) for v in (dy, x, mean, rstd, weight)]
                fenced = None if counts is None else guarded(counts, side)
                out = guarded(garbage(shape, dtype), side)
                got = fastnorm.layer_norm_backward(*arrays, axis=axis, where=fenced, out=out)
                assert same(got, want)


@pytest.mark.wide
def test_numpy_makes_no_temporary(dtype):
    # Beside the gradients of weight and bias: array headers and the interpreter's own objects.
    for shape, axis in (((60000, 40), 1), ((40, 60000), 1), ((60000, 40), 0), ((3000, 800), 1)):
        dy, x, weight = problem(shape, dtype, axis)
        mean, rstd = reference.saved_statistics(x, (axis,))
        out = np.empty_like(x)
        fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, out=out)
        tracemalloc.start()
        fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, out=out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * weight.nbytes + (1 << 14)


# ---- refusals


def test_bad_input_is_refused_by_name_and_changes_nothing(dtype):
    dy, x, weight = problem((6, 8), dtype, 1)
    mean, rstd = reference.saved_statistics(x, (1,))
    other = np.dtype(np.float64 if dtype == np.float32 else np.float32)
    good = {"dy": dy, "x": x, "mean": mean, "rstd": rstd, "weight": weight}
    overlap = np.zeros(100, dtype)
    read_only = np.zeros_like(x)
    read_only.flags.writeable = False
    wrong = [
        (ValueError, "dy has shape", {"dy": dy[:5]}),
        (TypeError, "dy has dtype", {"dy": dy.astype(other)}),
        (TypeError, "dy has dtype complex", {"dy": dy.astype(complex)}),
        (TypeError, "x has dtype", {"x": x.astype(complex)}),
        (ValueError, "mean has shape", {"mean": mean[:5]}),
        (ValueError, "mean has shape", {"mean": mean[:, None]}),
        (ValueError, "rstd has shape", {"rstd": rstd[:1]}),
        (TypeError, "mean has dtype", {"mean": None}),
        (ValueError, "weight", {"weight": weight[:5]}),
        (ValueError, "weight has shape", {"weight": weight[:5], "axis": 1}),
        (ValueError, "normalized_shape", {"normalized_shape": 7}),
        (ValueError, "axis", {"axis": 2}),
        (TypeError, "where has dtype", {"where": np.ones(x.shape)}),
        (ValueError, "where has shape", {"where": np.ones((5, 8), bool)}),
        (ValueError, "out has dtype", {"out": np.zeros(x.shape, other)}),
        (ValueError, "out has shape", {"out": np.zeros((6, 9), dtype)}),
        (ValueError, "out is read-only", {"out": read_only}),
        (ValueError, "out overlaps x", {"x": overlap[:48].reshape(6, 8), "out": overlap[4:52].reshape(6, 8)}),
        (ValueError, "out overlaps dy", {"dy": overlap[:48].reshape(6, 8), "out": overlap[4:52].reshape(6, 8)}),
        (ValueError, "out overlaps mean", {"mean": overlap[:6], "out": overlap[:48].reshape(6, 8)}),
        (ValueError, "out overlaps rstd", {"rstd": overlap[47:53], "out": overlap[:48].reshape(6, 8)}),
        (ValueError, "out overlaps weight", {"weight": overlap[:8], "out": overlap[:48].reshape(6, 8)}),
    ]
    for error, message, change in wrong:
        out = change.get("out", np.zeros_like(x))
        before = out.tobytes()
        with pytest.raises(error, match=message):
            fastnorm.layer_norm_backward(**{**good, "out": out, **change})
        assert out.tobytes() == before, message
    bits = np.zeros(x.nbytes, np.uint8)
    with pytest.raises(ValueError, match="out overlaps where"):
        fastnorm.layer_norm_backward(
            **good, where=bits[:48].view(bool).reshape(6, 8), out=bits.view(dtype).reshape(6, 8)
        )
    with pytest.raises(ValueError, match="rstd has shape"):
        fastnorm.rms_norm_backward(dy, x, rstd[:2], weight)


# ---- peers


@pytest.mark.peers
@pytest.mark.parametrize(
    ("shape", "normalized"),
    [
        ((8, 64), (64,)),
        ((3, 7), (7,)),
        ((5, 1), (1,)),
        ((16, 768), (768,)),
        ((3, 5, 31), (5, 31)),
        ((2, 4097), (4097,)),
    ],
    ids=str,
)
def test_gradients_are_torchs(shape, normalized, dtype):
    torch = pytest.importorskip("torch")
    axes = tuple(range(len(shape) - len(normalized), len(shape)))
    dy, x, weight = problem(shape, dtype, axes)
    taken = [torch.from_numpy(v.copy()).requires_grad_() for v in (x, weight, np.zeros_like(weight))]
    torch.nn.functional.layer_norm(taken[0], normalized, *taken[1:]).backward(torch.from_numpy(dy))
    _, mean, rstd = fastnorm.layer_norm(x, normalized, weight, return_stats=True)
    got = fastnorm.layer_norm_backward(dy, x, mean, rstd, weight)
    # Theirs sums in its own precision, about a mean of 5 deviations; rstd is 316 where there is one element.
    rows = int(np.prod(shape)) // weight.size
    scale = 1.0 if weight.size > 1 else 316.0
    for g, t, terms in zip(got, taken, (1, rows, rows), strict=True):
        np.testing.assert_allclose(g, t.grad.numpy(), rtol=0, atol=400 * reference.eps_of(dtype) * terms * scale)
    taken = [torch.from_numpy(v.copy()).requires_grad_() for v in (x, weight)]
    torch.nn.functional.rms_norm(taken[0], normalized, taken[1], 1e-5).backward(torch.from_numpy(dy))
    _, rstd = fastnorm.rms_norm(x, normalized, weight, 1e-5, return_stats=True)
    for g, t, terms in zip(fastnorm.rms_norm_backward(dy, x, rstd, weight), taken, (1, rows), strict=True):
        np.testing.assert_allclose(g, t.grad.numpy(), rtol=0, atol=100 * reference.eps_of(dtype) * terms)


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_where_dx_goes_changes_no_bit(masked, dtype):
    for shape, order, axis in (((16, 5, 3), (0, 1, 2), 0), ((64, 5, 3), (1, 0, 2), 1), ((3000, 5, 3), (0, 1, 2), 0)):
        x = uniform(shape, dtype, 1).transpose(order)
        dy, weight = uniform(x.shape, dtype, 2), uniform(x.shape[axis], dtype, 3)
        where = uniform(x.shape, bool, 4) if masked else None
        _, *stats = fastnorm.layer_norm(x, axis=axis, where=where, return_stats=True)
        want = fastnorm.layer_norm_backward(dy, x, *stats, weight, axis=axis, where=where)
        gaps = garbage([n + 1 for n in x.shape], dtype)[1:, 1:, 1:]
        itself = x.copy(order="K")
        for given, out in ((x, gaps), (itself, itself)):
            got = fastnorm.layer_norm_backward(dy, given, *stats, weight, axis=axis, where=where, out=out)
            assert same(got, want)
