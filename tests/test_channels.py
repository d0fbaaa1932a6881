"""Batch, group and instance norm: the float64 twins' answers in every layout, dtype and range, with the same bits."""

import itertools

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, layouts, outputs, same, uniform
from channels import (
    BATCH,
    EVALUATION,
    GROUP,
    INSTANCE,
    LARGE,
    NORMS,
    SHAPES,
    Norm,
    parameters,
    placed,
    problem,
    running,
    some,
)
from memory import garbage, guarded

import fastnorm

each_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda n: n.name)


# ---- the twin's answers


@each_norm
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_norms_are_the_twins(norm, shape, dtype):
    for axis in norm.axes(shape):
        _, x, weight, bias = problem(shape, dtype, axis)
        for w, b in parameters(weight, bias):
            norm.check(x, w, b, channel_axis=axis, out=garbage(x.shape, dtype))
        norm.check(x, weight, bias, 0.25, channel_axis=axis - x.ndim)


@each_norm
def test_planes_of_every_size(norm, dtype):
    for size, axis in itertools.product(range(1, 71), (1, 2)):
        if norm.takes((3, 4, size)):
            _, x, weight, bias = problem((3, 4, size), dtype, axis)
            norm.check(x, weight, bias, channel_axis=axis)


@pytest.mark.parametrize(("norm", "shape"), LARGE, ids=lambda v: v.name if isinstance(v, Norm) else str(v))
def test_large_channels(norm, shape, dtype):
    for axis in norm.ends(shape):
        _, x, weight, bias = problem(shape, dtype, axis)
        norm.check(x, weight, bias, channel_axis=axis)


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_every_number_of_groups(groups, dtype):
    for shape in ((5, 12), (3, 12, 5), (2, 12, 4, 3), (2, 12, 65)):
        for axis in GROUP.axes(shape):
            if np.prod(shape[2:]) * (12 // groups) == 1:
                continue
            _, x, weight, bias = problem(shape, dtype, axis)
            got = fastnorm.group_norm(x, groups, weight, bias, channel_axis=axis, return_stats=True)
            reference.assert_channel_norm(got, x, weight, bias, channel_axis=axis, groups=groups)
            assert got[1].shape == (shape[0], groups)


@each_norm
@pytest.mark.parametrize("shape", [(67, 5), (3, 6, 7), (2, 4, 5, 3), (2, 33, 65)], ids=str)
def test_memory_layout_does_not_matter(norm, shape, dtype):
    for axis in norm.axes(shape):
        _, x, weight, bias = problem(shape, dtype, axis)
        for (_, v), (_, w), (_, b) in zip(layouts(x), itertools.cycle(layouts(weight)), layouts(bias), strict=False):
            np.testing.assert_array_equal(v, x)
            norm.check(v, w, b, values=x, channel_axis=axis)
        wide = np.broadcast_to(x[:1], x.shape)
        norm.check(wide, weight, bias, channel_axis=axis)
        for label, out in layouts(garbage(x.shape, dtype)):
            if label not in ("big-endian", "strided, swapped", "read-only"):
                assert norm.check(x, weight, bias, channel_axis=axis, out=out)[0] is out


@each_norm
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision(norm, half):
    for shape in ((70, 8), (3, 6, 65), (2, 4, 7, 9), (5, 2, 1031)):
        for axis in norm.ends(shape):
            _, x, weight, bias = problem(shape, half, axis)
            for kind in (np.float32, half):
                w, b = weight.astype(kind), bias.astype(kind)
                y, mean, rstd = norm.check(x, w, b, channel_axis=axis, out=garbage(x.shape, half))
                assert mean.dtype == rstd.dtype == np.float32
                assert y.dtype == half


@each_norm
@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_are_normalized_in_float64(norm, integer):
    for shape in ((3, 4, 33), (2, 4, 5, 7)):
        for axis in norm.ends(shape):
            x = placed((uniform(shape, integer).astype(np.float64) % 100).astype(integer), axis)
            y, mean, _ = norm.check(x, np.arange(1, 5), np.arange(4), channel_axis=axis)
            assert y.dtype == mean.dtype == np.float64


@each_norm
def test_parameters_of_other_dtypes_are_the_same_parameters(norm, dtype):
    _, x, weight, bias = problem((3, 6, 65), dtype)
    weight, bias = weight.astype(np.float16), bias.astype(np.float16)
    want = outputs(norm.forward(x, weight.astype(dtype), bias.astype(dtype), return_stats=True))
    for kind in (*FLOATS, *HALVES[:1], ">f4", ">f8"):
        for (_, w), (_, b) in zip(layouts(weight.astype(kind)), layouts(bias.astype(kind)), strict=True):
            assert same(outputs(norm.forward(x, w, b, return_stats=True)), want)
    assert same(outputs(norm.forward(x, weight.tolist(), bias.tolist(), return_stats=True)), want)


@each_norm
def test_what_is_asked_for_changes_no_bit(norm, dtype):
    for shape, axis in (((63, 65), 1), ((3, 6, 65), 1), ((2, 14, 14, 6), 3), ((9, 3, 5000), 1)):
        if norm.takes((shape[0], shape[axis], *shape[1:axis], *shape[axis + 1 :])):
            x = uniform(shape, dtype, 5)
            want = norm.forward(x, channel_axis=axis)
            gaps = garbage([n + 1 for n in shape], dtype)[tuple(slice(1, None) for _ in shape)]
            for out in (None, garbage(shape, dtype), gaps, x.copy()):
                for stats in (False, True):
                    given = out if out is not None and same((out,), (x,)) else x
                    got = outputs(norm.forward(given.copy(), channel_axis=axis, out=out, return_stats=stats))
                    assert same(got[:1], (want,))


@each_norm
def test_the_input_may_be_its_own_output(norm, dtype):
    for shape in ((67, 6), (3, 6, 65), (2, 4, 7, 9)):
        for axis in norm.axes(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            for _label, v in layouts(x):
                if v.flags.writeable and v.dtype.isnative:
                    want = np.array(norm.forward(v, weight, bias, channel_axis=axis))
                    assert norm.forward(v, weight, bias, channel_axis=axis, out=v) is v
                    np.testing.assert_array_equal(v, want)


# ---- ranges


@each_norm
@pytest.mark.parametrize("shape", [(300, 5), (3, 4, 333), (2, 6, 17, 13), (2, 2, 7001)], ids=str)
def test_a_mean_of_ten_thousand_deviations(norm, shape, dtype):
    for axis in norm.ends(shape):
        _, x, weight, bias = problem(shape, dtype, axis)
        x = x + dtype.type(2e4)
        var = np.full(shape[1], 0.3, dtype)
        given = (var + dtype.type(20003), var) if norm.evaluation else None
        norm.check(x, weight, bias, channel_axis=axis, given=given)
        norm.check(x, None, None, channel_axis=axis, given=given)


@pytest.mark.parametrize("norm", [n for n in NORMS if n is not GROUP], ids=lambda n: n.name)
def test_a_constant_channel_gives_bias_exactly(norm, dtype):
    for shape in ((7, 4), (2, 4, 63), (3, 4, 5, 7), (2, 4, 4097), (20011, 4)):
        for axis in norm.axes(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            first = tuple(0 if a == axis else slice(None) for a in range(len(shape)))
            given = norm.given(4, dtype.type) if norm.evaluation else None
            clean = norm.forward(x, weight, bias, channel_axis=axis, given=given)
            for value in (0, 1, 14.62, -1e-3, 1e30, 3e-39):
                x[first] = value
                if norm.evaluation:
                    given[0][0] = value
                with reference.strict():
                    y, mean, _ = norm.forward(x, weight, bias, channel_axis=axis, given=given, return_stats=True)
                np.testing.assert_array_equal(y[first], np.full_like(y[first], bias[0]))
                np.testing.assert_array_equal(mean[..., 0], x[first].flat[0])
                np.testing.assert_array_equal(np.moveaxis(y, axis, 0)[1:], np.moveaxis(clean, axis, 0)[1:])


def test_a_constant_group_gives_bias_exactly(dtype):
    _, x, weight, bias = problem((3, 6, 65), dtype)
    for value, eps in itertools.product((0, 1, 14.62, -1e-3, 1e30, 3e-39), (1e-5, 0.0)):
        x[1] = value
        with reference.strict():
            y = fastnorm.group_norm(x, 2, weight, bias, eps)
            instances = fastnorm.instance_norm(x, None, None, weight, bias, eps=eps)
        for got in (y, instances):
            np.testing.assert_array_equal(got[1], np.broadcast_to(bias[:, None], (6, 65)))


@pytest.mark.parametrize("norm", [BATCH, GROUP, INSTANCE], ids=lambda n: n.name)
def test_huge_and_vanishing_values(norm, dtype):
    info = np.finfo(dtype)
    for shape in ((64, 6), (3, 4, 65), (2, 4, 13, 5), (2, 2, 4099)):
        for axis in norm.ends(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            for power in (100, info.maxexp - 2, -100, info.minexp, info.minexp - info.nmant // 2):
                for eps in (1e-5,) if norm is BATCH else (1e-5, 0.0):
                    # Multiples of 2^-8 at most: on the grid of subnormals, too.
                    coarse = np.ldexp(np.round(np.ldexp(x - dtype.type(3), 8)), -8).astype(dtype)
                    scaled = np.ldexp(coarse, power)
                    with reference.strict():
                        got = norm.forward(scaled, weight, bias, eps, channel_axis=axis)
                    groups = norm.twin(shape[1])
                    want = reference.channel_norm(scaled, weight, bias, eps, channel_axis=axis, **groups)[0]
                    along = [-1 if a == axis else 1 for a in range(len(shape))]
                    placed_parameters = weight.reshape(along), bias.reshape(along)
                    reference.assert_normalized(got, scaled, want, *placed_parameters, twin_error=2.0**-52)


@each_norm
def test_nan_and_infinity_stay_in_their_channel(norm, dtype):
    for shape in ((64, 6), (3, 6, 65), (2, 6, 7, 9), (2, 6, 4097)):
        for axis in norm.ends(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            view, axes = reference.grouped(x, axis, **norm.twin(6))
            one = np.zeros(view.shape, bool)
            one.reshape(*view.shape[:3], -1)[-1, 1, 0, -1] = True
            whole = one if norm.evaluation else np.broadcast_to(one.any(axes, keepdims=True), view.shape)
            whole, one = (reference.ungrouped(v, x, axis) for v in (whole, one))
            clean = outputs(norm.forward(x, weight, bias, channel_axis=axis))[0]
            for value in (np.nan, np.inf, -np.inf):
                spoiled = np.where(one, dtype.type(value), x)
                with reference.strict():
                    y = norm.forward(spoiled, weight, bias, channel_axis=axis)
                if norm.evaluation and np.isinf(value):
                    assert np.isinf(y[one]).all()
                else:
                    assert y[whole].tobytes() == np.full(whole.sum(), np.nan, dtype).tobytes()  # the canonical NaN
                np.testing.assert_array_equal(y[~whole], clean[~whole])


def test_large_halves_do_not_overflow():
    x = np.asarray([[40000.0, -40000.0, 60000.0, 65504.0]], np.float16).T.copy()
    statistics = np.zeros(1, np.float32), np.ones(1, np.float32)
    with reference.strict():
        got = fastnorm.batch_norm(x, *statistics, training=True, return_stats=True)
    mean, var = reference.assert_channel_norm(got, x)
    reference.assert_updated(statistics, (np.zeros(1, np.float32), np.ones(1, np.float32)), mean, var, 4, 0.1, x.dtype)


# ---- bits and memory


def everything():
    """Results and running statistics over layouts and flags."""
    results = []
    for dtype, norm in itertools.product(FLOATS, NORMS):
        for shape in ((131, 7), (3, 6, 65), (2, 4, 14, 14), (5, 4, 1031), (4099, 6)):
            for axis in norm.ends(shape):
                _, x, weight, bias = problem(shape, dtype, axis)
                given = running(shape[1]) if norm in (BATCH, INSTANCE) else None
                results += norm.forward(x, weight, bias, channel_axis=axis, given=given, return_stats=True)
                results += given or ()
                if norm in (BATCH, EVALUATION):
                    given = running(shape[1]) if norm is BATCH else None
                    flags = {"where": some(x.shape, axis), "activation": "relu", "return_stats": True}
                    results += norm.forward(x, weight, bias, channel_axis=axis, given=given, **flags)
                    results += given or ()
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


@pytest.mark.wide
@each_norm
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
def test_nothing_outside_the_arrays_is_touched(norm, side):
    for shape, dtype in itertools.product(
        [(5, 3), (17, 65), (3, 5, 7), (2, 64, 33), (3, 2, 7, 9), (2, 3, 1031)], FLOATS
    ):
        for axis in norm.ends(shape):
            _, x, weight, bias = problem(shape, dtype, axis)
            learns = norm in (BATCH, INSTANCE)
            statistics = [running(shape[1]) if learns else norm.given(shape[1]) for _ in range(2)]
            masks = [{"where": some(x.shape, axis)}] if norm in (BATCH, EVALUATION) else []
            for mask in [{}, *masks]:
                want = norm.forward(x, weight, bias, channel_axis=axis, given=statistics[0], return_stats=True, **mask)
                fenced = [guarded(v, side) for v in (x, weight, bias, *statistics[1])]
                how = {name: guarded(v, side) for name, v in mask.items()}
                how |= {"given": tuple(fenced[3:]), "out": guarded(garbage(x.shape, dtype), side), "return_stats": True}
                assert same(norm.forward(*fenced[:3], channel_axis=axis, **how), want)
                if learns:
                    assert same(fenced[3:], statistics[0])
                    statistics[0], statistics[1] = (tuple(v.copy() for v in fenced[3:]) for _ in range(2))
