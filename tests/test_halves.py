"""Batch norm of float16 and bfloat16 beside that of the same numbers in float32, whose bits it rounds."""

import numpy as np
import pytest
from cases import HALVES
from memory import garbage

import fastnorm

each_half = pytest.mark.parametrize("half", HALVES, ids=lambda dtype: np.dtype(dtype).name)
# Channels along rows of every length about a vector's, in strips that leave a rest, and planes of short and long runs.
SHAPES = [(1, 1, 1), (5, 3), (3, 15), (2, 16), (1, 17), (7, 40), (9, 64), (33, 100), (6, 512), (5, 513), (4, 1000)]
SHAPES += [(2, 3, 4), (3, 5, 16), (2, 600, 17), (3, 7, 49), (2, 20, 196), (2, 2, 5000), (2, 1, 40000)]


def arguments(shape, half):
    """Numbers with NaN of several payloads and infinities; statistics, weight and bias of channels."""
    rng = np.random.default_rng(shape)
    x = (3 * rng.standard_normal(shape)).astype(half)
    if x.size > 8:
        bits = x.reshape(-1).view(np.uint16)
        infinity = np.array(np.inf, half).view(np.uint16)
        bits[::7] = np.resize([infinity, infinity | 0x8000, infinity + 1, infinity | 0x8011, 0x8000, 1], bits[::7].size)
    channels = shape[1]
    mean, bias = rng.standard_normal((2, channels)).astype(np.float32)
    var, weight = rng.uniform(0.1, 2, (2, channels)).astype(np.float32)
    return x, mean, var, weight, bias


def assert_rounded(y, wide):
    """Compare with what `wide` holds, rounded once, with the canonical NaN."""
    with np.errstate(over="ignore"):
        expected = np.where(np.isnan(wide), np.float32("nan"), wide).astype(y.dtype)
    np.testing.assert_array_equal(y.view(np.uint16), expected.view(np.uint16))


@each_half
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.usefixtures("machine", "stores")
def test_evaluation_is_that_of_float32_rounded(half, shape, activation):
    x, mean, var, weight, bias = arguments(shape, half)
    wide = fastnorm.batch_norm(x.astype(np.float32), mean, var, weight, bias, activation=activation)
    assert_rounded(fastnorm.batch_norm(x, mean, var, weight, bias, activation=activation), wide)


@each_half
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("isa")
def test_where_arrays_lie_changes_no_bit(half, shape):
    x, mean, var, weight, bias = arguments(shape, half)
    wide = fastnorm.batch_norm(x.astype(np.float32), mean, var, weight, bias)
    for shift in range(1, 5):  # bytes: odd addresses, too
        held, out = (garbage((2 * x.size + 64,), np.uint8) for _ in range(2))
        before = out.copy()
        moved = held[shift : shift + 2 * x.size].view(half).reshape(shape)
        moved[...] = x
        to = out[2 * shift + 1 :][: 2 * x.size].view(half).reshape(shape)
        fastnorm.batch_norm(moved, mean, var, weight, bias, out=to)
        assert_rounded(to.copy(), wide)
        np.testing.assert_array_equal(out[: 2 * shift + 1], before[: 2 * shift + 1])
        np.testing.assert_array_equal(out[2 * shift + 1 + 2 * x.size :], before[2 * shift + 1 + 2 * x.size :])
        fastnorm.batch_norm(moved, mean, var, weight, bias, out=moved)  # in place
        assert_rounded(moved.copy(), wide)


@each_half
@pytest.mark.parametrize("shape", [(600, 17), (700, 520), (4, 20, 49), (8, 3, 196), (2, 1, 40000)], ids=str)
@pytest.mark.usefixtures("machine", "stores")
def test_training_is_that_of_float32_rounded(half, shape):
    x, _, _, weight, bias = arguments(shape, half)
    x = np.where(np.isfinite(x.astype(np.float32)), x, np.array(0, half))
    y, mean, rstd = fastnorm.batch_norm(x, None, None, weight, bias, training=True, return_stats=True)
    wide, wide_mean, wide_rstd = fastnorm.batch_norm(
        x.astype(np.float32), None, None, weight, bias, training=True, return_stats=True
    )
    np.testing.assert_array_equal(mean, wide_mean)
    np.testing.assert_array_equal(rstd, wide_rstd)
    assert_rounded(y, wide)


@each_half
@pytest.mark.parametrize(
    "shape", [(16, 5), (9, 16), (8, 17), (24, 64), (100, 100), (512, 256), (251, 997), (65, 1000), (3, 530)], ids=str
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.usefixtures("machine", "stores")
def test_gradients_are_those_of_float32_rounded(half, shape, training):
    x, mean, var, weight, _ = arguments(shape, half)
    x = np.where(np.isfinite(x.astype(np.float32)), x, np.array(1, half))
    dy = np.random.default_rng(5).standard_normal(shape).astype(half)
    known = mean, 1 / np.sqrt(var), weight
    wide = fastnorm.batch_norm_backward(dy.astype(np.float32), x.astype(np.float32), *known, training=training)
    in_x, in_dy = x.copy(), dy.copy()
    for of_dy, of_x, out in ((dy, x, garbage(shape, half)), (dy, in_x, in_x), (in_dy, x, in_dy)):
        dx, dweight, dbias = fastnorm.batch_norm_backward(of_dy, of_x, *known, training=training, out=out)
        assert_rounded(dx, wide[0])
        np.testing.assert_array_equal(dweight, wide[1])
        np.testing.assert_array_equal(dbias, wide[2])
