"""Both passes of batch, group and instance norm agree: gradients are the slopes of what the forward pass computes."""

import itertools

import numpy as np
import pytest
import reference
from cases import HALVES, same, uniform
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
    some,
)
from memory import garbage

each_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda n: n.name)
each_batch_norm = pytest.mark.parametrize("norm", [BATCH, EVALUATION], ids=lambda n: n.name)


def both_ways(norm, dy, x, weight, bias, axis):
    """Run the backward pass with what the forward pass saved, and compare it with the twin."""
    _, mean, rstd = norm.forward(x, weight, bias, channel_axis=axis, return_stats=True)
    with reference.strict():
        got = norm.backward(dy, x, mean, rstd, weight, channel_axis=axis, out=garbage(x.shape, x.dtype))
    norm.check_backward(got, dy, x, mean, rstd, weight, channel_axis=axis)
    return got


@each_norm
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_the_forward_pass_saves_serves_the_backward_pass(norm, shape, dtype):
    for axis in norm.axes(shape):
        dy, x, weight, bias = problem(shape, dtype, axis)
        both_ways(norm, dy, x, weight, bias, axis)


@each_norm
def test_planes_of_every_size(norm, dtype):
    for size, axis in itertools.product(range(1, 71), (1, 2)):
        if norm.takes((3, 4, size)):
            both_ways(norm, *problem((3, 4, size), dtype, axis), axis)


@pytest.mark.wide
@pytest.mark.parametrize(("norm", "shape"), LARGE, ids=lambda v: v.name if isinstance(v, Norm) else str(v))
def test_large_channels(norm, shape, dtype):
    for axis in norm.ends(shape):
        both_ways(norm, *problem(shape, dtype, axis), axis)


@each_norm
@pytest.mark.parametrize("kind", [*HALVES, np.dtype(np.int16)], ids=str)
def test_parameters_wider_than_x(norm, kind):
    for shape in ((70, 8), (3, 6, 65), (2, 4, 7, 9)):
        for axis in norm.ends(shape):
            dy, x, weight, bias = problem(shape, kind, axis)
            x = x if kind.kind == "f" or kind.name == "bfloat16" else x % np.int16(100)
            out = garbage(x.shape, reference.result_dtype(x))
            _, mean, rstd = norm.forward(x, weight, bias, channel_axis=axis, return_stats=True)
            got = norm.backward(dy, x, mean, rstd, weight, channel_axis=axis, out=out)
            assert got[1].dtype == got[2].dtype == weight.dtype
            norm.check_backward(got, dy, x, mean, rstd, weight, channel_axis=axis)


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


@pytest.mark.parametrize("norm", [BATCH, GROUP, INSTANCE], ids=lambda n: n.name)
def test_a_constant_channel_has_finite_gradients(norm, dtype):
    for shape in ((64, 6), (3, 6, 65), (2, 6, 7, 9)):
        for axis in norm.ends(shape):
            dy, x, weight, bias = problem(shape, dtype, axis)
            np.moveaxis(x, axis, 0)[:3] = 14.62
            got = both_ways(norm, dy, x, weight, bias, axis)
            assert all(np.isfinite(g).all() for g in got)
            assert not got[1][:3].any()


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
            whole, one = (reference.ungrouped(v, x, axis) for v in (whole, one))
            for value, target in itertools.product((np.nan, np.inf, -np.inf), ("dy", "x")):
                d, v = (np.where(one, dtype.type(value), a) if t == target else a for t, a in (("dy", dy), ("x", x)))
                with reference.strict():
                    dx, dweight, dbias = norm.backward(d, v, mean, rstd, weight, channel_axis=axis)
                if norm.evaluation:  # dx = dy * weight * rstd one by one, rounded twice in either order
                    assert np.isfinite(dx[one]).all() == (target == "x")
                    np.testing.assert_allclose(dx[~one], clean[0][~one], rtol=2 * reference.eps_of(dtype))
                else:
                    assert dx[whole].tobytes() == np.full(whole.sum(), np.nan, dtype).tobytes()  # the canonical NaN
                np.testing.assert_array_equal(dx[~whole], clean[0][~whole])
                assert not np.isfinite(dweight[channel]).any()
                np.testing.assert_array_equal(dweight[~group], clean[1][~group])
                assert (~np.isfinite(dbias) == (channel if target == "dy" else False)).all()


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
