"""Gradients of batch, group and instance norm: those of the twin, in every layout, and of central differences."""

import functools
import itertools

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, layouts, same, uniform
from channels import (
    BATCH,
    EVALUATION,
    GROUP,
    INSTANCE,
    INSTANCE_EVALUATION,
    LARGE,
    NORMS,
    SHAPES,
    Norm,
    parameters,
    placed,
    problem,
    some,
)
from memory import garbage, guarded

import fastnorm

each_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda n: n.name)
each_batch_norm = pytest.mark.parametrize("norm", [BATCH, EVALUATION], ids=lambda n: n.name)


def gradients(norm, dy, x, weight=None, axis=1, *, eps=1e-5, values=None, where=None, activation=None, **kwargs):
    """Call with the statistics of the twin and compare with its gradients; `values`: dy and x as it is to see them."""
    seen_dy, seen_x = values or (dy, x)
    mean, rstd = norm.saved(seen_x, eps, channel_axis=axis, where=where)
    twin = {"channel_axis": axis, "where": where}
    if where is not None:
        kwargs["where"] = where
    if activation:
        twin["y"] = kwargs["y"]
        kwargs["activation"] = activation
    with reference.strict():
        got = norm.backward(dy, x, mean, rstd, weight, channel_axis=axis, **kwargs)
    norm.check_backward(got, seen_dy, seen_x, mean, rstd, weight, **twin)
    return got


# ---- the twin's answers


@each_norm
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_the_twins(norm, shape, dtype):
    for axis in norm.axes(shape):
        dy, x, weight, _ = problem(shape, dtype, axis)
        for w in (weight, None):
            gradients(norm, dy, x, w, axis, out=garbage(x.shape, dtype))
            gradients(norm, dy, x, w, axis - x.ndim, eps=0.25)


@each_norm
def test_planes_of_every_size(norm, dtype):
    for size, axis in itertools.product(range(1, 71), (1, 2)):
        if norm.takes((3, 4, size)):
            dy, x, weight, _ = problem((3, 4, size), dtype, axis)
            gradients(norm, dy, x, weight, axis)


@pytest.mark.parametrize(("norm", "shape"), LARGE, ids=lambda v: v.name if isinstance(v, Norm) else str(v))
def test_large_channels(norm, shape, dtype):
    for axis in norm.ends(shape):
        dy, x, weight, _ = problem(shape, dtype, axis)
        gradients(norm, dy, x, weight, axis)


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_every_number_of_groups(groups, dtype):
    for shape in ((5, 12), (3, 12, 5), (2, 12, 4, 3), (2, 12, 65)):
        for axis in GROUP.axes(shape):
            if np.prod(shape[2:]) * (12 // groups) == 1:
                continue
            dy, x, weight, _ = problem(shape, dtype, axis)
            how = {"channel_axis": axis, "groups": groups}
            _, mean, _, rstd = (np.asarray(v, dtype) for v in reference.channel_norm(x, **how))
            got = fastnorm.group_norm_backward(dy, x, mean, rstd, groups, weight, channel_axis=axis)
            reference.assert_gradients(got, reference.channel_norm_backward(dy, x, rstd, weight, **how), x, weight)


@each_norm
@pytest.mark.parametrize("shape", [(67, 6), (3, 6, 7), (2, 4, 5, 3), (2, 33, 65)], ids=str)
def test_memory_layout_does_not_matter(norm, shape, dtype):
    for axis in norm.axes(shape):
        dy, x, weight, _ = problem(shape, dtype, axis)
        for (_, d), (_, v), (_, w) in zip(layouts(dy), layouts(x), itertools.cycle(layouts(weight)), strict=False):
            gradients(norm, d, v, w, axis, values=(dy, x))
            gradients(norm, dy, v, w, axis, values=(dy, x))
            gradients(norm, d, x, weight, axis, values=(dy, x))
        for label, out in layouts(garbage(x.shape, dtype)):
            if label not in ("big-endian", "strided, swapped", "read-only"):
                assert gradients(norm, dy, x, weight, axis, out=out)[0] is out


@each_norm
@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision(norm, half):
    for shape in ((70, 8), (3, 6, 65), (2, 4, 7, 9), (5, 2, 1031)):
        for axis in norm.ends(shape):
            dy, x, weight, _ = problem(shape, half, axis)
            for w, d in itertools.product((weight, weight.astype(half), None), (dy, dy.astype(np.float32))):
                got = gradients(norm, d, x, w, axis, out=garbage(x.shape, half))
                assert got[0].dtype == half
                assert got[2].dtype == (half if w is None else w.dtype)


@each_norm
@pytest.mark.parametrize("integer", INTEGERS, ids=str)
def test_integers_are_differentiated_in_float64(norm, integer):
    for axis in (1, 2):
        x = placed((uniform((3, 4, 33), integer).astype(np.float64) % 100).astype(integer), axis)
        dy = uniform(x.shape, np.float64, 1)
        gradients(norm, dy, x, None, axis)
        assert gradients(norm, dy, x, np.arange(1, 5), axis)[1].dtype == np.float64
    with pytest.raises(TypeError, match="dy has dtype float32"):
        norm.backward(dy.astype(np.float32), x, *norm.saved(x, channel_axis=2), channel_axis=2)


@each_norm
def test_gradients_of_parameters_have_their_dtype(norm, dtype):
    dy, x, weight, _ = problem((3, 6, 65), dtype)
    for kind in (*FLOATS, *HALVES, ">f4", ">f8"):
        _, dweight, dbias = gradients(norm, dy, x, weight.astype(kind))
        assert dweight.dtype == dbias.dtype == np.dtype(kind).newbyteorder("=")
    assert gradients(norm, dy, x, np.ones(6, np.int32))[1].dtype == np.float64
    ones = np.ones(6, dtype)
    assert gradients(norm, dy, x)[1] is None
    assert same(gradients(norm, dy, x, ones)[::2], gradients(norm, dy, x)[::2])


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


def variants(norm, shape):
    """The flags that this norm has, each with each: a mask or none, relu or none."""
    masks = [None]
    if norm in (BATCH, EVALUATION):
        where = uniform(shape, bool, 7)
        where[:2] = True
        masks.append(where)
        yield from itertools.product(masks, (None, "relu"))
    else:
        yield None, None


@each_norm
@pytest.mark.parametrize("shape", [(5, 4), (4, 6), (3, 4, 3), (2, 4, 2, 3), (2, 4, 2, 1, 3)], ids=str)
def test_gradients_by_central_differences(norm, shape):
    # A difference of step h is off by h^2 f''' / 6 + 2^-52 |f| / h, where f''' is some tens times rstd^3; relu has no
    # third derivative at 0, which no value here comes near.
    for axis in norm.axes(shape):
        dy, x, weight, bias = problem(shape, np.float64, axis)
        for where, activation in variants(norm, shape):
            mask = None if where is None else placed(where, axis)
            flags = {"channel_axis": axis} | ({"where": mask} if where is not None else {})
            flags |= {"activation": activation} if activation else {}
            for eps, (w, b) in [(0.5, (weight, bias)), *((1e-5, pair) for pair in parameters(weight, bias))]:

                def loss(x, w=w, b=b, dy=dy, eps=eps, flags=flags):
                    return float((dy * norm.forward(x, w, b, eps, **flags)).sum())

                y, mean, rstd = norm.forward(x, w, b, eps, return_stats=True, **flags)
                if activation:
                    plain = norm.forward(x, w, b, eps, **flags | {"activation": None})
                    assert np.abs(plain[plain != 0]).min() > 1e-4
                saved = flags | ({"y": y} if activation else {})
                dx, dweight, dbias = norm.backward(dy, x, mean, rstd, w, **saved)
                bound = 2e-9 * max(1, float(np.max(rstd))) ** 3 + 1e-9
                np.testing.assert_allclose(dx, differences(loss, x), rtol=0, atol=bound)
                if w is not None:
                    slope = differences(lambda v, loss=loss, x=x, b=b: loss(x, v, b), w)
                    np.testing.assert_allclose(dweight, slope, rtol=0, atol=bound)
                if b is not None:
                    slope = differences(lambda v, loss=loss, x=x, w=w: loss(x, w, v), b)
                    np.testing.assert_allclose(dbias, slope, rtol=0, atol=bound)


# ---- relu


@each_batch_norm
@pytest.mark.parametrize("kind", [*FLOATS, *HALVES], ids=str)
def test_relu_passes_the_gradient_where_y_is_positive(norm, kind):
    for shape in ((64, 5), (3, 5, 65), (2, 5, 7, 9), (2, 5, 4097), (131, 70)):
        for axis in norm.axes(shape):
            dy, x, weight, bias = problem(shape, kind, axis)
            bias[1], weight[1] = 0, 0  # y is 0 in a whole channel
            y = norm.forward(x, weight, bias, channel_axis=axis, activation="relu")
            mean, rstd = norm.saved(x, channel_axis=axis)
            got = gradients(norm, dy, x, weight, axis, activation="relu", y=y)
            kept = np.where(y > 0, dy, np.asarray(0, kind))
            want = norm.backward(kept, x, mean, rstd, weight, channel_axis=axis)
            for g, w in zip(got, want, strict=True):
                np.testing.assert_array_equal(np.asarray(g, np.float64), np.asarray(w, np.float64))
            assert got[2][1] == 0
            zeros = -np.zeros_like(y)
            for g in gradients(norm, dy, x, weight, axis, activation="relu", y=zeros):
                assert not g.any()


def test_relu_of_any_layout(dtype):
    dy, x, weight, bias = problem((3, 6, 33), dtype)
    y = BATCH.forward(x, weight, bias, activation="relu")
    for _label, v in layouts(y):
        gradients(BATCH, dy, x, weight, activation="relu", y=v)
    with pytest.raises(ValueError, match=r"\by\b"):
        BATCH.backward(dy, x, *BATCH.saved(x), weight, activation="relu")


def test_relu_passes_nan(dtype):
    dy, x, weight, _ = problem((6, 5), dtype)
    y = EVALUATION.forward(x, weight, activation="relu")
    y[2, 3] = np.nan  # not <= 0: as torch
    mean, rstd = EVALUATION.saved(x)
    dx = EVALUATION.backward(dy, x, mean, rstd, weight, activation="relu", y=y)[0]
    assert dx[2, 3] == pytest.approx(dy[2, 3] * weight[3] * rstd[3])


# ---- ranges


@each_norm
@pytest.mark.parametrize("shape", [(300, 6), (3, 4, 333), (2, 6, 17, 13), (2, 2, 7001)], ids=str)
def test_a_mean_of_ten_thousand_deviations(norm, shape, dtype):
    for axis in norm.ends(shape):
        dy, x, weight, _ = problem(shape, dtype, axis)
        gradients(norm, dy, (x + dtype.type(2e4)).astype(dtype), weight, axis)


@pytest.mark.parametrize("norm", [BATCH, GROUP, INSTANCE], ids=lambda n: n.name)
def test_values_near_the_ends_of_the_type(norm, dtype):
    info = np.finfo(dtype)
    for shape in ((64, 6), (3, 4, 65), (2, 4, 13, 5), (2, 2, 4099)):
        for axis in norm.ends(shape):
            dy, x, weight, _ = problem(shape, dtype, axis)
            for power, slope_power in itertools.product((0, 100, info.maxexp - 1, -100, info.minexp), (0, -100, 100)):
                v = np.ldexp(x - dtype.type(3), power)
                d = np.ldexp(dy, slope_power)
                mean, rstd = norm.saved(v, channel_axis=axis)
                with reference.strict():
                    got = norm.backward(d, v, mean, rstd, weight, channel_axis=axis)
                want = reference.channel_norm_backward(d, v, rstd, weight, channel_axis=axis, **norm.twin(shape[1]))
                eps = reference.eps_of(dtype)
                bound = 8 * eps * want["dx_scale"] * (1 + np.abs(want["xhat"])) + info.smallest_subnormal
                fits = (np.abs(want["dx"]) < info.max) & (want["dx_scale"] < info.max)
                reference.assert_within(got[0][fits], want["dx"][fits], bound[fits])
                for g, name in zip(got[1:], ("dweight", "dbias"), strict=True):
                    bound = 7 * eps * want[f"{name}_scale"] + info.smallest_subnormal
                    reference.assert_within(g, want[name], bound)


@pytest.mark.parametrize("norm", [BATCH, GROUP, INSTANCE], ids=lambda n: n.name)
def test_a_constant_channel_has_finite_gradients(norm, dtype):
    for shape in ((64, 6), (3, 6, 65), (2, 6, 7, 9)):
        for axis in norm.ends(shape):
            dy, x, weight, _ = problem(shape, dtype, axis)
            np.moveaxis(x, axis, 0)[:3] = 14.62
            got = gradients(norm, dy, x, weight, axis)
            assert all(np.isfinite(g).all() for g in got)
            assert not got[1][:3].any()


def test_a_single_normalized_value_has_no_gradient(dtype):
    dy, x, _, _ = problem((3, 5), dtype)
    rstd = np.full((3, 5), 316.2, dtype)
    for scale in (1, 1e30, 1e-30):
        for shift in (0, 1e-3):  # a mean that somebody else has rounded
            dx, dweight, _ = fastnorm.group_norm_backward(dy * dtype.type(scale), x, x * dtype.type(1 + shift), rstd, 5)
            assert not dx.any()
            assert dweight is None


@each_norm
def test_nan_and_infinity_stay_in_their_channel(norm, dtype):
    for shape in ((64, 6), (3, 6, 65), (2, 6, 7, 9), (2, 6, 4097)):
        for axis in norm.ends(shape):
            dy, x, weight, _ = problem(shape, dtype, axis)
            mean, rstd = norm.saved(x, channel_axis=axis)
            clean = norm.backward(dy, x, mean, rstd, weight, channel_axis=axis)
            view, axes = reference.grouped(x, axis, **norm.twin(6))
            one = np.zeros(view.shape, bool)
            one.reshape(*view.shape[:3], -1)[-1, 1, 0, -1] = True
            whole = np.broadcast_to(one.any(axes, keepdims=True), view.shape)
            channel, group = (v.any((0, *range(3, one.ndim))).ravel() for v in (one, whole))
            whole, one = (reference.ungrouped(v, x, axis) for v in (one if norm.evaluation else whole, one))
            for value, target in itertools.product((np.nan, np.inf, -np.inf), ("dy", "x")):
                d, v = (np.where(one, dtype.type(value), a) if t == target else a for t, a in (("dy", dy), ("x", x)))
                with reference.strict():
                    dx, dweight, dbias = norm.backward(d, v, mean, rstd, weight, channel_axis=axis)
                if norm.evaluation:  # dx = dy * weight * rstd, one by one
                    assert np.isfinite(dx[one]).all() == (target == "x")
                else:
                    assert dx[whole].tobytes() == np.full(whole.sum(), np.nan, dtype).tobytes()  # the canonical NaN
                np.testing.assert_array_equal(dx[~whole], clean[0][~whole])
                assert not np.isfinite(dweight[channel]).any()
                np.testing.assert_array_equal(dweight[~group], clean[1][~group])
                assert (~np.isfinite(dbias) == (channel if target == "dy" else False)).all()


@pytest.mark.parametrize(
    "shape", [(0, 5), (0, 5, 3), (2, 5, 0), (0, 5, 3, 4), (2, 5, 0, 3), (2, 0, 3), (0, 0)], ids=str
)
def test_an_empty_batch_has_gradients_of_zero(shape, dtype):
    for norm, axis in itertools.product(NORMS, {1, len(shape) - 1}):
        x = placed(np.empty(shape, dtype), axis)
        channels = shape[1]
        per_sample = norm in (GROUP, INSTANCE)
        stats = np.ones((shape[0], norm.groups(channels)) if per_sample else (channels,), dtype)
        with reference.strict():
            dx, dweight, dbias = norm.backward(x, x, stats, stats, np.ones(channels, dtype), channel_axis=axis)
        assert dx.shape == x.shape
        assert dweight.shape == dbias.shape == (channels,)
        assert not dweight.any()
        assert not dbias.any()


# ---- where


@each_batch_norm
@pytest.mark.parametrize("shape", [(67, 5), (9, 65), (3, 4, 65), (2, 5, 7, 9), (2, 3, 4097), (4099, 3)], ids=str)
def test_what_is_masked_never_counts(norm, shape, dtype):
    for axis in norm.axes(shape):
        dy, x, weight, bias = problem(shape, dtype, axis)
        where = some(x.shape, axis)
        for activation in (None, "relu"):
            y = norm.forward(x, weight, bias, channel_axis=axis, where=where)
            want = None
            for filler in (0, np.nan, np.inf, np.finfo(dtype).max):
                d, v, z = (np.where(where, a, dtype.type(filler)) for a in (dy, x, y))
                relu = {"activation": activation, "y": z} if activation else {}
                got = gradients(norm, d, v, weight, axis, values=(dy, x), where=where, **relu)
                assert not got[0][~where].any()
                want = want or got
                assert same(got, want)


@each_batch_norm
def test_masks_broadcast(norm, dtype):
    dy, x, weight, _ = problem((4, 6, 5, 7), dtype)
    full = some(x.shape, 1)
    mean, rstd = norm.saved(x)
    for where in (full, full[:, :1], full[:1, :1], full[0, :, :1], full[:, :1, :1, :1], np.bool(True), full.tolist()):
        wide = np.broadcast_to(where, x.shape).copy()
        want = norm.backward(dy, x, mean, rstd, weight, where=wide)
        for mask in (where, np.asfortranarray(where), np.flip(np.flip(where).copy())):
            assert same(norm.backward(dy, x, mean, rstd, weight, where=mask), want)


@pytest.mark.parametrize("axis", [1, 2, 0])
@pytest.mark.parametrize("activation", [None, "relu"])
@each_batch_norm
def test_a_padded_batch_has_the_gradients_of_the_unpadded_one(norm, axis, activation, dtype):
    lengths = (5, 1, 8, 3, 0)
    where = np.broadcast_to(np.arange(8) < np.asarray(lengths)[:, None, None], (5, 6, 8))
    dy, x, weight, bias = problem((5, 6, 8), dtype)
    padded_dy, padded_x = (placed(np.where(where, v, np.nan), axis) for v in (dy, x))
    flat_dy, flat_x = (np.concatenate([v[i, :, :n].T for i, n in enumerate(lengths)]) for v in (dy, x))
    how = {"channel_axis": axis, "where": placed(where, axis)}
    relu, flat_relu = {}, {}
    if activation:
        y = norm.forward(padded_x, weight, bias, activation="relu", **how)
        moved = np.moveaxis(y, axis, 1)
        flat_y = np.concatenate([moved[i, :, :n].T for i, n in enumerate(lengths)])
        relu, flat_relu = ({"activation": "relu", "y": v} for v in (y, flat_y))
    mean, rstd = norm.saved(padded_x, **how)
    dx, *sums = norm.backward(padded_dy, padded_x, mean, rstd, weight, **how, **relu)
    mean, rstd = norm.saved(flat_x)
    want = norm.backward(flat_dy, flat_x, mean, rstd, weight, **flat_relu)
    moved = np.moveaxis(dx, axis, 1)
    got = np.concatenate([moved[i, :, :n].T for i, n in enumerate(lengths)]), *sums
    # The same bounds hold for both: the unpadded batch's own.
    twin = {"y": flat_relu["y"]} if activation else {}
    for gradient in (got, want):
        norm.check_backward(gradient, flat_dy, flat_x, mean, rstd, weight, **twin)
    assert not any(moved[i, :, n:].any() for i, n in enumerate(lengths))


def test_a_channel_in_which_nothing_counts_has_no_gradient(dtype):
    for shape, norm in itertools.product(((64, 5), (3, 5, 65)), (BATCH, EVALUATION)):
        for axis in norm.axes(shape):
            dy, x, weight, _ = problem(shape, dtype, axis)
            where = some(x.shape, axis)
            np.moveaxis(where, axis, 0)[1] = False
            mean, rstd = (np.array(v) for v in norm.saved(x, channel_axis=axis, where=where))
            mean[1] = rstd[1] = np.nan
            with reference.strict():
                dx, dweight, dbias = norm.backward(dy, x, mean, rstd, weight, channel_axis=axis, where=where)
            assert not np.moveaxis(dx, axis, 0)[1].any()
            assert dweight[1] == dbias[1] == 0
            assert np.isfinite(dx).all()
            assert np.isfinite(dweight).all()


# ---- bits, memory and refusals


def everything():
    """Gradients over layouts and flags."""
    results = []
    for dtype, norm in itertools.product(FLOATS, NORMS):
        for shape in ((131, 7), (3, 6, 65), (2, 4, 14, 14), (5, 4, 1031), (4099, 6)):
            for axis in norm.ends(shape):
                dy, x, weight, bias = problem(shape, dtype, axis)
                mean, rstd = saved = norm.saved(x, channel_axis=axis)
                results += norm.backward(dy, x, mean, rstd, weight, channel_axis=axis)
                if norm in (BATCH, EVALUATION):
                    y = norm.forward(x, weight, bias, channel_axis=axis)
                    flags = {"where": some(x.shape, axis), "activation": "relu", "y": y}
                    results += norm.backward(dy, x, *saved, weight, channel_axis=axis, **flags)
    return results


@pytest.fixture(scope="module")
def expected():
    with fastnorm.use_isa("baseline"), fastnorm.threads(1):
        return everything()


@pytest.mark.usefixtures("isa", "num_threads")
def test_any_instruction_set_and_thread_count_gives_the_same_bytes(expected):
    assert same(everything(), expected)


@pytest.mark.usefixtures("no_stream_threshold", "isa")
def test_stores_past_the_cache_give_the_same_bytes(expected):
    assert same(everything(), expected)


@each_norm
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
def test_nothing_outside_the_arrays_is_touched(norm, side):
    for shape, dtype in itertools.product(
        [(5, 3), (17, 65), (3, 5, 7), (2, 64, 33), (3, 2, 7, 9), (2, 3, 1031)], FLOATS
    ):
        for axis in norm.ends(shape):
            dy, x, weight, _ = problem(shape, dtype, axis)
            arrays = dy, x, *norm.saved(x, channel_axis=axis), weight
            relu = {"where": some(x.shape, axis), "y": dy.copy()}
            for flags in ({}, relu) if norm in (BATCH, EVALUATION) else ({},):
                how = {"channel_axis": axis} | ({"activation": "relu"} if flags else {})
                want = norm.backward(*arrays, **how, **flags)
                fenced = {name: guarded(v, side) for name, v in flags.items()}
                fenced["out"] = guarded(garbage(x.shape, dtype), side)
                assert same(norm.backward(*(guarded(v, side) for v in arrays), **how, **fenced), want)


@each_norm
@pytest.mark.usefixtures("stores")
def test_dx_may_replace_dy_or_x(norm, dtype):
    for shape in ((67, 6), (3, 6, 65), (2, 4, 7, 9), (9, 3, 1030)):
        for axis in norm.axes(shape):
            dy, x, weight, _ = problem(shape, dtype, axis)
            mean, rstd = norm.saved(x, channel_axis=axis)
            for which, order in itertools.product((0, 1), "CF"):
                given = [np.array(v, order=order) for v in (dy, x)]
                want = norm.backward(*given, mean, rstd, weight, channel_axis=axis, out=np.empty_like(given[0]))
                got = norm.backward(*given, mean, rstd, weight, channel_axis=axis, out=given[which])
                assert got[0] is given[which]
                assert same(got, want)


@each_norm
def test_bad_input_is_refused_by_name_and_changes_nothing(norm, dtype):
    dy, x, weight, _ = problem((3, 4, 5), dtype)
    mean, rstd = norm.saved(x)
    other = np.dtype(np.float64 if dtype == np.float32 else np.float32)
    good = {"dy": dy, "x": x, "mean": mean, "rstd": rstd, "weight": weight}
    space = np.zeros(200, dtype)
    out = space[:60].reshape(3, 4, 5)
    read_only = np.zeros_like(x)
    read_only.flags.writeable = False
    stat = space[4 : 4 + mean.size].reshape(mean.shape)
    wrong = [
        (ValueError, "dy has shape", {"dy": dy[:2]}),
        (TypeError, "dy has dtype", {"dy": dy.astype(other)}),
        (TypeError, "dy has dtype complex", {"dy": dy.astype(complex)}),
        (TypeError, "x has dtype", {"x": x.astype(complex)}),
        (ValueError, r"\bx\b", {"x": x[0, 0], "dy": dy[0, 0]}),
        (ValueError, "mean has shape", {"mean": mean[:-1]}),
        (ValueError, "rstd has shape", {"rstd": rstd[..., None]}),
        (TypeError, "mean has dtype", {"mean": None}),
        (ValueError, "weight has shape", {"weight": weight[:3]}),
        (TypeError, "weight has dtype", {"weight": weight.astype(complex)}),
        (ValueError, "channel_axis", {"channel_axis": 3}),
        (TypeError, "channel_axis", {"channel_axis": None}),
        (ValueError, "out has dtype", {"out": np.zeros(x.shape, other)}),
        (ValueError, "out has shape", {"out": np.zeros((3, 5, 4), dtype)}),
        (ValueError, "out is read-only", {"out": read_only}),
        (ValueError, "out overlaps x", {"x": space[8:68].reshape(3, 4, 5), "out": out}),
        (ValueError, "out overlaps dy", {"dy": space[8:68].reshape(3, 4, 5), "out": out}),
        (ValueError, "out overlaps mean", {"mean": stat, "out": out}),
        (ValueError, "out overlaps rstd", {"rstd": stat, "out": out}),
        (ValueError, "out overlaps weight", {"weight": space[4:8], "out": out}),
    ]
    if norm in (BATCH, EVALUATION):
        bits = np.zeros(x.nbytes, np.uint8)
        shared = {"where": bits[:60].view(bool).reshape(3, 4, 5), "out": bits.view(dtype).reshape(3, 4, 5)}
        relu = {"activation": "relu"}
        wrong += [
            (TypeError, "where has dtype", {"where": np.ones(x.shape)}),
            (ValueError, "where has shape", {"where": np.ones((3, 4), bool)}),
            (ValueError, "out overlaps where", shared),
            (ValueError, "activation", {"activation": "gelu", "y": x}),
            (ValueError, r"\by\b", relu),
            (ValueError, "y has shape", {"y": x[:2], **relu}),
            (TypeError, "y has dtype", {"y": x.astype(complex), **relu}),
            (ValueError, "out overlaps y", {"y": space[8:68].reshape(3, 4, 5), "out": out, **relu}),
        ]
    if norm in (GROUP, INSTANCE, INSTANCE_EVALUATION):
        wrong.append((ValueError, "channel_axis", {"channel_axis": 0}))
    call = functools.partial(fastnorm.group_norm_backward, num_groups=2) if norm is GROUP else norm.backward
    for error, message, change in wrong:
        arguments = {"out": np.zeros_like(x), **good, **change}
        arrays = [v for v in arguments.values() if isinstance(v, np.ndarray)]
        before = [v.tobytes() for v in arrays]
        with pytest.raises(error, match=message):
            call(**arguments)
        assert [v.tobytes() for v in arrays] == before, message
    if norm is GROUP:
        for groups in (0, 3, -1):
            with pytest.raises(ValueError, match="num_groups"):
                fastnorm.group_norm_backward(dy, x, mean, rstd, groups)
