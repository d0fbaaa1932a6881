"""fold_batch_norm: a layer and the batch norm behind it become one layer."""

import numpy as np
import pytest
import reference
from cases import FLOATS, HALVES, INTEGERS, layouts, same, uniform

import fastnorm


def problem(channels, dtype=np.float64):
    """Running mean and variance, weight and bias of a batch norm."""
    return tuple(uniform(channels, dtype, 11 + i) + np.dtype(dtype).type(shift) for i, shift in enumerate((0, 2, 1, 0)))


@pytest.mark.parametrize("eps", [1e-5, 0.0, 0.5])
def test_a_matmul_and_its_batch_norm_become_a_matmul(eps, dtype):
    x, weight, bias = uniform((7, 5), dtype, 1), uniform((4, 5), dtype, 2), uniform(4, dtype, 3)
    mean, var, w, b = problem(4, dtype)
    for bn_weight, bn_bias, own in ((w, b, bias), (None, b, bias), (w, None, bias), (w, b, None), (None, None, None)):
        plain = x @ weight.T + (0 if own is None else own)
        want = fastnorm.batch_norm(plain, mean, var, bn_weight, bn_bias, eps=eps)
        folded, shift = fastnorm.fold_batch_norm(weight, own, mean, var, bn_weight, bn_bias, eps)
        assert folded.dtype == shift.dtype == dtype
        turned, same_shift = fastnorm.fold_batch_norm(weight.T, own, mean, var, bn_weight, bn_bias, eps, channel_axis=1)
        np.testing.assert_array_equal(turned.T, folded)
        np.testing.assert_array_equal(same_shift, shift)
        # Five products, each at most 2 / sqrt(var + eps) after folding, and a bias of as much: some eps of each.
        scale = 2 / np.sqrt(var + eps)
        reference.assert_within(x @ folded.T + shift, want, 24 * reference.eps_of(dtype) * (scale * 6 + 1))


@pytest.mark.parametrize("kind", [*FLOATS, *HALVES, np.dtype(">f4"), np.dtype(">f2")], ids=str)
def test_the_result_is_exact_but_for_one_rounding(kind):
    weight, bias = uniform((4, 3, 5), kind.newbyteorder("="), 1).astype(kind), uniform(4, np.float32, 2)
    mean, var, w, b = problem(4)
    for axis in range(3):
        moved = np.moveaxis(weight, 0, axis)
        folded, shift = fastnorm.fold_batch_norm(moved, bias, mean, var, w, b, 1e-3, channel_axis=axis)
        scale = w.astype(np.longdouble) / np.sqrt(var.astype(np.longdouble) + 1e-3)
        want = np.moveaxis(weight.astype(np.longdouble) * scale[:, None, None], 0, axis)
        reference.assert_layout(folded, want.shape, kind.newbyteorder("="))
        reference.assert_layout(shift, (4,), kind.newbyteorder("="))
        # Six roundings to float64, then one to the dtype of weight, of a half through float32.
        eps = 6 * 2.0**-52 + reference.eps_of(kind) / 2 * (1 + 2.0**-12)
        tiny = 2.0**-24 if kind.itemsize == 2 else 0
        reference.assert_within(folded, want, eps * np.abs(want) + tiny)
        large = np.abs(bias) + np.abs(mean)
        want = (bias.astype(np.longdouble) - mean) * scale + b
        bound = eps * np.abs(want) + 6 * 2.0**-52 * (large * scale + np.abs(b)) + tiny
        reference.assert_within(shift, want, bound)


@pytest.mark.parametrize("kind", [*FLOATS, *HALVES[:1], *INTEGERS[:2]], ids=str)
@pytest.mark.usefixtures("machine", "stores")
def test_products_of_every_layout_are_those_in_double_rounded_once(kind):
    for shape in ((3, 5, 7), (70, 9), (9, 70), (1100, 3), (3, 2100), (1, 5), (5, 1), (40, 33, 2, 3), (2, 40001)):
        weight = uniform(shape, kind, 1)
        for axis, channels in enumerate(shape):
            mean, var, w, b = problem(channels)
            scale = np.expand_dims(w / np.sqrt(var + 1e-5), [a for a in range(weight.ndim) if a != axis])
            products = weight.astype(np.float64) * scale
            want = products if kind.kind in "iu" else products.astype(kind)
            for label, given in layouts(weight):
                folded, _ = fastnorm.fold_batch_norm(given, b, mean, var, w, b, channel_axis=axis)
                assert folded.strides == np.empty_like(given, want.dtype).strides, label
                assert same((folded,), (want,)), (shape, axis, label)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_repeated_weights_are_folded_as_their_copies_are(axes, dtype):
    one = uniform([1 if a in axes else n for a, n in enumerate((4, 65, 3))], dtype)
    weight = np.broadcast_to(one, (4, 65, 3))
    for axis, channels in enumerate(weight.shape):
        numbers = (None, *problem(channels))
        got = fastnorm.fold_batch_norm(weight, *numbers, channel_axis=axis)
        assert same(got, fastnorm.fold_batch_norm(weight.copy(), *numbers, channel_axis=axis))


@pytest.mark.parametrize("kind", HALVES, ids=str)
@pytest.mark.usefixtures("isa")
def test_halves_are_rounded_once(kind):
    """Scales about the middle between two halves, and as far from it as float32 does not tell apart."""
    halves = np.arange(0x0001, 0x7BFF if kind == np.float16 else 0x7F7F, dtype=np.uint16)
    lower, upper = (bits.view(kind).astype(np.float64) for bits in (halves, halves + np.uint16(1)))
    middle = (lower + upper) / 2
    nothing, one = np.zeros(len(halves)), np.ones(len(halves))
    for scale, want in (
        (middle, np.where(halves % 2 == 0, lower, upper)),
        (np.nextafter(middle, 0), lower),
        (np.nextafter(middle, np.inf), upper),
    ):
        for sign in (1, -1):
            given = nothing, one, sign * scale, sign * scale  # a mean and a variance that leave the scale as it is
            for axis, shape in ((0, (-1, 1)), (1, (1, -1))):
                weight = one.reshape(shape).astype(kind)
                folded, shift = fastnorm.fold_batch_norm(weight, None, *given, 0.0, channel_axis=axis)
                np.testing.assert_array_equal(folded.astype(np.float64).ravel(), sign * want)
                np.testing.assert_array_equal(shift.astype(np.float64), sign * want)


def test_nothing_is_folded_into_nothing(dtype):
    for shape in ((0, 3), (4, 0), (0, 0), (4, 0, 3), (4, 3, 0)):
        for axis, channels in enumerate(shape):
            mean, var, w, b = problem(channels)
            folded, shift = fastnorm.fold_batch_norm(np.empty(shape, dtype), None, mean, var, w, b, channel_axis=axis)
            reference.assert_layout(folded, shape, dtype)
            np.testing.assert_array_equal(shift, (b - mean * (w / np.sqrt(var + 1e-5))).astype(dtype))


def test_nan_is_the_canonical_one(dtype):
    weight = np.array([[-np.nan, np.inf, 1.0], [2.0, -np.inf, -np.nan]], dtype)
    for axis in (0, 1):
        numbers = np.zeros(weight.shape[axis]), np.ones(weight.shape[axis])
        for factor, broken in ((1.0, np.isnan(weight)), (0.0, ~np.isfinite(weight))):
            with reference.strict():
                folded, shift = fastnorm.fold_batch_norm(
                    weight, -np.nan * numbers[1], *numbers, factor * numbers[1], channel_axis=axis
                )
            np.testing.assert_array_equal(np.isnan(folded), broken)
            assert {v.tobytes() for v in (*folded[broken], *shift)} == {dtype.type(np.nan).tobytes()}


def test_every_argument_is_left_as_it_was():
    weight, bias = uniform((4, 5), np.float32, 1), uniform(4, np.float32, 2)
    given = [weight, bias, *problem(4, np.float32)]
    before = [v.tobytes() for v in given]
    folded, shift = fastnorm.fold_batch_norm(*given)
    folded[...], shift[...] = 7, 7
    assert [v.tobytes() for v in given] == before


def test_lists_and_integers_are_folded_in_float64():
    got = fastnorm.fold_batch_norm([[1, 2], [3, 4]], [1, 0], [0, 1], [4, 1], eps=0)
    want = np.array([[0.5, 1.0], [3.0, 4.0]]), np.array([0.5, -1.0])
    assert same(got, want)


def test_nan_and_infinity_stay_in_their_channel(dtype):
    weight, bias = uniform((4, 5), dtype, 1), uniform(4, dtype, 2)
    mean, var, w, b = problem(4, dtype)
    want = fastnorm.fold_batch_norm(weight, bias, mean, var, w, b)
    for broken in (mean, var, w, b):
        held, broken[1] = broken[1], np.nan
        with reference.strict():
            folded, shift = fastnorm.fold_batch_norm(weight, bias, mean, var, w, b)
        broken[1] = held
        np.testing.assert_array_equal(np.delete(folded, 1, 0), np.delete(want[0], 1, 0))
        np.testing.assert_array_equal(np.isnan(shift), [False, True, False, False])
    with reference.strict():
        folded, _ = fastnorm.fold_batch_norm(weight, bias, mean, 0 * var, w, b, eps=0)
        assert np.isinf(folded).all()
        assert fastnorm.fold_batch_norm(np.full((4, 5), 60000, np.float16), bias, mean, var / 8)[0].dtype == np.float16


def test_bad_input_is_refused_by_name():
    weight, bias = uniform((4, 5), np.float32, 1), uniform(4, np.float32, 2)
    mean, var, w, b = problem(4)
    good = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": var, "bn_weight": w, "bn_bias": b}
    for name, values in good.items():
        for value, error in (
            (np.ones(3), ValueError),
            (np.ones((4, 1)) if name != "weight" else 3.0, ValueError),
            (np.ones((4, 5), complex), TypeError),
            (np.ma.masked_array(values), TypeError),
        ):
            with pytest.raises(error, match=rf"\b{name} "):
                fastnorm.fold_batch_norm(**good | {name: value})
    for name in ("weight", "running_mean", "running_var"):
        with pytest.raises(TypeError, match=rf"\b{name} "):
            fastnorm.fold_batch_norm(**good | {name: None})
    for value, error in ((-1e-5, ValueError), (np.nan, ValueError), (None, TypeError), ("1", TypeError)):
        with pytest.raises(error, match="eps"):
            fastnorm.fold_batch_norm(**good, eps=value)
    for value, error in ((2, ValueError), (-3, ValueError), (None, TypeError), ((0,), TypeError), (0.0, TypeError)):
        with pytest.raises(error, match="channel_axis"):
            fastnorm.fold_batch_norm(**good, channel_axis=value)
    with pytest.raises(ValueError, match="one value for each output channel"):
        fastnorm.fold_batch_norm(**good, channel_axis=1)
