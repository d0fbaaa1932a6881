"""One list of operations, one list of shapes and one generator of values: every sweep is fed from here.

Values come from integers alone (no libm, no random generator of NumPy's), so digests of results mean the same
everywhere.
"""

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from memory import place

import fastnorm
from fastnorm import _ops, image

try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None

THREADS = (1, 2, 3, 7, 16)
UNEVEN = 3  # the thread count that every build is tested with: it leaves remainders and shares what it can
FLOATS = tuple(np.dtype(t) for t in ("float32", "float64"))
HALVES = (np.dtype("float16"), *([np.dtype(ml_dtypes.bfloat16)] if ml_dtypes else ()))
INTEGERS = tuple(
    np.dtype(t) for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
)


def supported_isas():
    names = []
    for name in ("baseline", "avx2", "avx512"):
        try:
            with fastnorm.use_isa(name):
                names.append(name)
        except ValueError:
            pass
    return names


@contextlib.contextmanager
def threshold(change, n):
    """Hold one of the thresholds in `_ops` at n, through the hook that sets it and returns the old one."""
    old = change(n)
    try:
        yield
    finally:
        change(old)


# ---- values


def words(n, seed=0):
    """N well-mixed 64-bit words (the SplitMix64 sequence)."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, n + 1, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


DIGITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


@functools.cache  # NumPy makes a new string for every name
def is_float(dtype):
    return np.dtype(dtype).name in DIGITS


def uniform(shape, dtype, seed=0):
    """[-1, 1) on a grid that the dtype represents exactly; integers fill their whole range."""
    dtype, shape = np.dtype(dtype), np.broadcast_shapes(shape)
    z = words(math.prod(shape), seed)
    if dtype.kind == "b":
        return (z >> np.uint64(63)).astype(bool).reshape(shape)
    if dtype.kind in "iu":
        return (z >> np.uint64(64 - 8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype).reshape(shape)
    digits = DIGITS[dtype.name]
    z = (z >> np.uint64(64 - digits)).astype(np.int64) - (1 << (digits - 1))
    return np.ldexp(z.astype(np.float64), 1 - digits).astype(dtype).reshape(shape)


def _powers(shape, dtype, seed):
    exponent = (words(math.prod(shape), seed + 1) % np.uint64(41)).astype(np.int32).reshape(shape) - 20
    return np.ldexp(uniform(shape, dtype, seed), exponent)


def _specials(shape, dtype, seed):
    x = uniform(shape, dtype, seed)
    places = words(x.size, seed + 2) % np.uint64(61)
    for i, value in enumerate((np.nan, np.inf, -np.inf, -0.0, 0.0, -np.nan)):
        x.reshape(-1)[places == i] = value
    return x


VALUES = {
    "uniform": uniform,
    "positive": lambda shape, dtype, seed: uniform(shape, dtype, seed) + np.dtype(dtype).type(1),
    "offset": lambda shape, dtype, seed: uniform(shape, dtype, seed) + np.dtype(dtype).type(1000),
    "powers": _powers,
    "specials": _specials,
    "huge": lambda shape, dtype, seed: np.ldexp(uniform(shape, dtype, seed), np.finfo(dtype).maxexp),
    "subnormal": lambda shape, dtype, seed: np.ldexp(uniform(shape, dtype, seed), np.finfo(dtype).minexp),
    "constant": lambda shape, dtype, seed: np.full(shape, 14.62 + seed, dtype),
}


@functools.cache
def sample(value, dtype, shape, seed):
    """Make a read-only array of one kind of value; kept, because many operations ask for it."""
    x = np.asarray(VALUES[value](shape, dtype, seed)) if math.prod(shape) else np.empty(shape, dtype)
    x.flags.writeable = False
    return x


SHAPES = [
    *[(n,) for n in (1, 2, 7, 63, 64, 65, 127, 511, 512, 513, 4095, 4096, 4097, 32767, 32768, 32769, 131101)],
    *[(1, 1), (3, 1), (97, 2), (70, 3), (67, 8), (37, 30), (33, 63), (17, 64), (13, 65), (9, 100), (7, 511)],
    *[(6, 512), (5, 513), (5, 1000), (3, 4097), (2, 32769), (300, 31), (129, 7)],
    *[(40009, 1), (20011, 2), (11003, 3), (4097, 8), (12293, 8), (2203, 30), (1057, 31), (1025, 64), (331, 100)],
    *[(171, 600), (40, 1030), (2, 2111)],
    *[(3, 5, 7), (2, 64, 33), (4, 1025, 3), (3, 7, 513), (2, 1, 5), (5, 2, 3, 2), (2, 3, 2, 1, 3, 2)],
]
SMALL = [(1,), (67,), (513,), (5, 3), (70, 8), (9, 65), (3, 130), (3, 5, 7), (2, 33, 4)]
ODD = [(), (0,), (0, 5), (5, 0), (3, 0, 4), (0, 0)]
WAVE = [(64 * 32768 + 12345,), (64 * 4096 + 77, 8)]  # more chunks than are folded at once


# ---- operations


class Op(NamedTuple):
    name: str
    call: Callable  # (x, *parameters) and out= where has_out
    ndim: int = 0  # the least x.ndim it takes
    parameters: Callable = lambda _x: ()  # the arrays that it takes besides x
    has_out: bool = False
    takes_empty: bool = True
    suits: Callable = lambda _x: True  # whether it takes an array of that shape

    def takes(self, x):
        return x.ndim >= self.ndim and (x.size > 0 or self.takes_empty) and self.suits(x)

    def __call__(self, x, **kwargs):
        return outputs(self.call(x, *self.parameters(x), **kwargs))

    def cases(self, dtypes, shapes, values=("uniform",)):
        """(label, x) for everything this operation takes."""
        for dtype in dtypes:
            for value in values if is_float(dtype) else ("uniform",):
                for shape in shapes:
                    x = sample(value, dtype, shape, len(shape))
                    if self.takes(x):
                        yield f"{value} {np.dtype(dtype)}{list(shape)}", x


def outputs(result):
    """Turn any result into a tuple of arrays, a Moments included."""
    if isinstance(result, fastnorm.Moments):
        m = result
        higher = (m.skewness(), m.kurtosis()) if "order=4" in repr(m) else ()
        return tuple(np.asarray(v) for v in (m.count, m.mean, m.var(), m.std(ddof=1), m.min, m.max, *higher))
    return tuple(np.asarray(v) for v in (result if isinstance(result, tuple) else (result,)))


def result_dtype(x):
    """The dtype that x is normalized in, in this machine's byte order."""
    return x.dtype.newbyteorder("=") if is_float(x.dtype) else np.dtype(np.float64)


def kept(x, axes):
    """The shape of x over those axes."""
    return tuple(x.shape[i] for i in sorted(np.lib.array_utils.normalize_axis_tuple(axes, x.ndim)))


def affine(axes):
    """Weight and bias over those axes of x."""

    def make(x):
        shape, dtype = kept(x, axes), result_dtype(x)
        return sample("positive", dtype, shape, 101), sample("uniform", dtype, shape, 102)

    return make


def mask(x):
    """Which elements count: about half of them."""
    return (sample("uniform", np.dtype(bool), x.shape, 103),)


def weights(x):
    """Weights of the first axis, a quarter of them 0."""
    found = np.maximum(sample("uniform", np.dtype(np.float32), x.shape[:1], 104) + np.float32(0.5), np.float32(0))
    return (found,)


def residual(x):
    return (sample("uniform", result_dtype(x), x.shape, 105), *affine(-1)(x))


def gradient(axes, norm):
    """What a backward pass takes beside x: dy, the saved statistics and the weight."""

    def make(x):
        saved = norm(x, axis=axes, return_stats=True)[1:]
        return sample("uniform", result_dtype(x), x.shape, 106), *map(np.asarray, saved), affine(axes)(x)[0]

    return make


def _list_ops():
    for label, axis, ndim in (("all", None, 0), ("0", 0, 1), ("-1", -1, 1), ("1", 1, 3), ("0,-1", (0, -1), 2)):

        def mean_var(x, axis=axis):
            return fastnorm.mean_var(x, axis, ddof=1)

        def minmax(x, axis=axis):
            return fastnorm.minmax(x, axis)

        def moments(x, axis=axis):
            return fastnorm.moments(x, axis, minmax=True)

        def norm(x, *parameters, axis=axis, out=None):
            return fastnorm.layer_norm(x, None, *parameters, axis=axis, out=out, return_stats=True)

        def standardize(x, axis=axis, out=None):
            return fastnorm.standardize(x, axis, out=out, return_stats=True)

        yield Op(f"mean_var[{label}]", mean_var, ndim)
        yield Op(f"minmax[{label}]", minmax, ndim, takes_empty=False)
        yield Op(f"standardize[{label}]", standardize, ndim, has_out=True)
        if label != "1":
            yield Op(f"moments[{label}]", moments, ndim, takes_empty=False)
        if axis is not None:
            yield Op(f"layer_norm[axis={label}]", norm, ndim, affine(axis), has_out=True)

    def plain(x, out=None):
        return fastnorm.layer_norm(x, out=out)

    def trailing(x, *parameters, out=None):
        return fastnorm.layer_norm(x, x.shape[-2:], *parameters, out=out)

    def weight_only(x, weight, _bias, out=None):
        return fastnorm.layer_norm(x, weight=weight, eps=0, out=out)

    yield Op("mean", fastnorm.mean)
    yield Op("var[dtype]", lambda x: fastnorm.var(x, -1, ddof=1, keepdims=True, dtype=np.float64), 1)
    yield Op("std[dtype]", lambda x: fastnorm.std(x, 0, dtype=np.float32), 1)
    yield Op("layer_norm", plain, 1, has_out=True)
    yield Op("layer_norm[trailing]", trailing, 2, affine((-2, -1)), has_out=True)
    yield Op("layer_norm[weight]", weight_only, 1, affine(-1), has_out=True)
    yield from _list_masked_ops()
    yield from _list_row_ops()


def _list_masked_ops():
    for label, axis, ndim in (("all", None, 0), ("0", 0, 1), ("-1", -1, 1)):

        def mean_var(x, where, axis=axis):
            return fastnorm.mean_var(x, axis, where=where)

        def omit(x, axis=axis):
            return fastnorm.mean_var(x, axis, ddof=1, nan_policy="omit")

        def minmax(x, axis=axis):
            return fastnorm.minmax(x, axis, nan_policy="omit")

        def moments(x, axis=axis):
            return fastnorm.moments(x, axis, order=4, minmax=True)

        def standardize(x, axis=axis, out=None):
            return fastnorm.standardize(x, axis, nan_policy="omit", out=out, return_stats=True)

        yield Op(f"mean_var[where,{label}]", mean_var, ndim, mask)
        yield Op(f"mean_var[omit,{label}]", omit, ndim)
        yield Op(f"minmax[omit,{label}]", minmax, ndim, takes_empty=False)
        yield Op(f"moments[order=4,{label}]", moments, ndim, takes_empty=False)
        yield Op(f"standardize[omit,{label}]", standardize, ndim, has_out=True)

    def weighted(x, w):
        return fastnorm.mean_var(x, 0, weights=w)

    def masked_norm(x, where, out=None):
        return fastnorm.layer_norm(x, where=where, out=out, return_stats=True)

    def masked_columns(x, where, out=None):
        return fastnorm.layer_norm(x, axis=0, where=where, out=out)

    yield Op("mean_var[weights]", weighted, 1, weights)
    yield Op("layer_norm[where]", masked_norm, 1, mask, has_out=True)
    yield Op("layer_norm[where,0]", masked_columns, 1, mask, has_out=True)


def _list_row_ops():
    for label, axis, ndim in (("0", 0, 1), ("-1", -1, 1), ("0,-1", (0, -1), 2)):

        def rms(x, weight, _bias, axis=axis, out=None):
            return fastnorm.rms_norm(x, None, weight, 1e-5, axis=axis, out=out, return_stats=True)

        def scale(x, axis=axis, out=None):
            return fastnorm.min_max_scale(x, axis, (-1, 2), out=out, return_stats=True)

        def backward(x, dy, mean, rstd, weight, axis=axis, out=None):
            return fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=axis, out=out)

        def rms_backward(x, dy, rstd, weight, axis=axis, out=None):
            return fastnorm.rms_norm_backward(dy, x, rstd, weight, axis=axis, out=out)

        yield Op(f"rms_norm[{label}]", rms, ndim, affine(axis), has_out=True)
        yield Op(f"min_max_scale[{label}]", scale, ndim, has_out=True)
        yield Op(f"layer_norm_backward[{label}]", backward, ndim, gradient(axis, fastnorm.layer_norm), has_out=True)
        yield Op(f"rms_norm_backward[{label}]", rms_backward, ndim, gradient(axis, fastnorm.rms_norm), has_out=True)

    def add(x, z, weight, bias):
        return fastnorm.add_layer_norm(x, z, None, weight, bias, return_stats=True)

    def add_rms(x, z, weight, _bias):
        return fastnorm.add_rms_norm(x, z, None, weight, return_stats=True)

    def masked_backward(x, dy, mean, rstd, weight, where, out=None):
        return fastnorm.layer_norm_backward(dy, x, mean, rstd, weight, axis=-1, where=where, out=out)

    def masked_gradient(x):
        return *gradient(-1, functools.partial(fastnorm.layer_norm, where=mask(x)[0]))(x), *mask(x)

    yield Op("add_layer_norm", add, 1, residual)
    yield Op("add_rms_norm", add_rms, 1, residual)
    yield Op("layer_norm_backward[where]", masked_backward, 1, masked_gradient, has_out=True)


# ---- channel norms: channels lie along axis 1


def several_per_channel(x):
    return x.size == 0 or x.size > x.shape[1]


def several_per_plane(x):
    return x.size == 0 or x.size > x.shape[0] * x.shape[1]


def channel_affine(x):
    """Make weight and bias, one of each per channel."""
    dtype = np.dtype(np.float64 if result_dtype(x).itemsize == 8 else np.float32)
    return sample("positive", dtype, x.shape[1:2], 108), sample("uniform", dtype, x.shape[1:2], 109)


def channel_gradient(axes):
    """What the backward pass of a channel norm takes beside x: dy, mean, rstd and the weight."""

    def make(x):
        reduced = tuple(a for a in range(x.ndim) if a not in axes)
        saved = fastnorm.layer_norm(x, axis=reduced, return_stats=True)[1:]
        return sample("uniform", result_dtype(x), x.shape, 107), *map(np.asarray, saved), channel_affine(x)[0]

    return make


def _list_channel_ops():
    def batch(x, weight, bias, out=None):
        moved = [np.zeros(x.shape[1]), np.ones(x.shape[1], np.float32)]
        return *fastnorm.batch_norm(x, *moved, weight, bias, True, out=out, return_stats=True), *moved

    def evaluation(x, weight, bias, out=None):
        return fastnorm.batch_norm(x, bias, weight, weight, bias, out=out, return_stats=True)

    def relu(x, weight, bias, out=None):
        return fastnorm.batch_norm(x, None, None, weight, bias, True, activation="relu", out=out)

    def last(x):
        return fastnorm.batch_norm(np.moveaxis(x, 1, -1), training=True, channel_axis=-1, return_stats=True)

    def instance(x, weight, bias, out=None):
        return fastnorm.instance_norm(x, None, None, weight, bias, out=out, return_stats=True)

    def group(x, weight, bias, out=None):
        count = max(g for g in (1, 2, 3, 8) if x.shape[1] % g == 0)
        return fastnorm.group_norm(x, count, weight, bias, out=out, return_stats=True)

    several = {"ndim": 2, "suits": several_per_channel}
    yield Op("batch_norm", batch, parameters=channel_affine, has_out=True, **several)
    yield Op("batch_norm[evaluation]", evaluation, 2, channel_affine, has_out=True)
    yield Op("batch_norm[relu]", relu, parameters=channel_affine, has_out=True, **several)
    yield Op("batch_norm[last]", last, **several)
    yield Op("instance_norm", instance, 2, channel_affine, has_out=True, suits=several_per_plane)
    yield Op("group_norm", group, 2, channel_affine, has_out=True, suits=lambda x: x.size != 1)


def _list_channel_backward_ops():
    def batch(x, dy, *given, out=None):
        return fastnorm.batch_norm_backward(dy, x, *given, out=out)

    def evaluation(x, dy, *given, out=None):
        return fastnorm.batch_norm_backward(dy, x, *given, training=False, out=out)

    def relu(x, dy, *given, out=None):
        y = sample("uniform", result_dtype(x), x.shape, 109)
        return fastnorm.batch_norm_backward(dy, x, *given, activation="relu", y=y, out=out)

    def masked(x, dy, *given, out=None):
        return fastnorm.batch_norm_backward(dy, x, *given, where=mask(x)[0], out=out)

    def instance(x, dy, *given, out=None):
        return fastnorm.instance_norm_backward(dy, x, *given, out=out)

    def group(x, dy, mean, rstd, weight, out=None):
        return fastnorm.group_norm_backward(dy, x, mean[:, None], rstd[:, None], 1, weight, out=out)

    yield Op("batch_norm_backward", batch, 2, channel_gradient((1,)), has_out=True)
    yield Op("batch_norm_backward[evaluation]", evaluation, 2, channel_gradient((1,)), has_out=True)
    yield Op("batch_norm_backward[relu]", relu, 2, channel_gradient((1,)), has_out=True)
    yield Op("batch_norm_backward[where]", masked, 2, channel_gradient((1,)), has_out=True)
    yield Op("instance_norm_backward", instance, 3, channel_gradient((0, 1)), has_out=True)
    yield Op("group_norm_backward", group, 2, channel_gradient((0,)), has_out=True)


# ---- normalize and local response norm


def dy_for(x):
    return (sample("uniform", result_dtype(x), x.shape, 107),)


def _list_local_ops():
    for p, axis in ((2.0, -1), (2.0, 0), (1.0, -1), (math.inf, 0), (3.0, -1)):

        def unit(x, p=p, axis=axis, out=None):
            return fastnorm.normalize(x, p, axis, out=out)

        def unit_backward(x, dy, p=p, axis=axis):
            return fastnorm.normalize_backward(dy, x, p, axis)

        yield Op(f"normalize[{p:g},{axis}]", unit, 1, has_out=True)
        yield Op(f"normalize_backward[{p:g},{axis}]", unit_backward, 1, dy_for)
    for size, beta in ((5, 0.75), (4, 0.6)):

        def response(x, size=size, beta=beta, out=None):
            return fastnorm.local_response_norm(x, size, 2.0, beta, out=out)

        def response_backward(x, dy, size=size, beta=beta):
            return fastnorm.local_response_norm_backward(dy, x, size, 2.0, beta)

        yield Op(f"local_response_norm[{size},{beta:g}]", response, 3, has_out=True)
        yield Op(f"local_response_norm_backward[{size},{beta:g}]", response_backward, 3, dy_for)


def per_feature(axis):
    """Centers, residuals, scales and shifts of the features along an axis of x."""

    def make(x):
        features, dtype = (x.shape[axis],), np.dtype(np.float64)
        center = sample("uniform", dtype, features, 107)
        return center, np.ldexp(center, -30), sample("positive", dtype, features, 108), center[::-1].copy()

    return make


def _list_scaler_ops():
    """What the estimators ask the native module for."""
    quartiles = np.array([0.25, 0.5, 0.75])
    for label, axis, ndim in (("0", 0, 1), ("-1", -1, 1), ("1", 1, 3)):

        def rescale(x, *numbers, axis=axis, out=None):
            numbers = [np.require(value, requirements="A") for value in numbers]
            return _ops.rescale(x, axis % x.ndim, *numbers, -np.inf, np.inf, False, out, True)

        def undo(x, *numbers, axis=axis, out=None):
            numbers = [np.require(value, requirements="A") for value in numbers]
            return _ops.rescale(x, axis % x.ndim, *numbers, -0.75, 1.5, True, out, True)

        def quantiles(x, axis=axis):
            return _ops.quantiles(x, axis % x.ndim, quartiles)

        yield Op(f"rescale[{label}]", rescale, ndim, per_feature(axis), has_out=True)
        yield Op(f"rescale[inverse,{label}]", undo, ndim, per_feature(axis), has_out=True)
        yield Op(f"quantiles[{label}]", quantiles, ndim)


def evaluation(axis):
    """Bias, running mean and variance, weight and bias of a batch norm of the channels along that axis."""

    def make(x):
        channels = (x.shape[axis],)
        kinds = ("uniform", "uniform", "positive", "uniform", "uniform")
        return [sample(kind, np.dtype(np.float64), channels, 112 + i) for i, kind in enumerate(kinds)]

    return make


def _list_folding_ops():
    for label, axis, ndim in (("0", 0, 2), ("-1", -1, 2), ("1", 1, 3)):

        def fold(x, *numbers, axis=axis):
            return fastnorm.fold_batch_norm(x, *numbers, channel_axis=axis)

        yield Op(f"fold_batch_norm[{label}]", fold, ndim, evaluation(axis))


def channels_of(x, axis):
    """The shape of what goes with each channel. Two axes are pixels of one row (axis -1), or planes of one (-3)."""
    return (x.shape[max(axis, -x.ndim)],)


def is_picture(x, axis=-1, dtypes=("uint8", "uint16", "bool", *FLOATS, *HALVES)):
    """Whether x, with channels along that axis, is a picture of one of the dtypes."""
    known = x.dtype.newbyteorder("=") in dtypes
    return known and 2 <= x.ndim <= 4 and 0 < channels_of(x, axis)[0] <= 4096


def constants(axis):
    """Mean and standard deviation of the channels along that axis."""

    def make(x):
        channels, dtype = channels_of(x, axis), np.dtype(np.float64)
        return sample("uniform", dtype, channels, 110), sample("positive", dtype, channels, 111)

    return make


def _list_picture_ops():
    def row(x):
        return x[None] if x.ndim == 2 else x

    def planes(x):
        return x[:, None] if x.ndim == 2 else x

    def normalize(x, mean, std):
        return image.normalize(row(x), mean, std, input_layout="HWC")

    def pixels(x, mean, std, out=None):
        norm = image.Normalize(mean, std, layout="HWC", input_layout="HWC", dtype=x.dtype.newbyteorder("="))
        return norm(row(x), out=None if out is None else row(out)).reshape(x.shape)

    def half(x, mean, std):
        return image.normalize(planes(x), mean, std, layout="HWC", input_layout="CHW", dtype=np.float16)

    def inverse(x, mean, std):
        norm = image.Normalize(mean, std)
        return norm.inverse(planes(x)), norm.inverse(planes(x), dtype=np.float32)

    tensors = (*FLOATS[:1], *HALVES)
    last, first, same = (functools.partial(is_picture, **how) for how in ({}, {"axis": -3}, {"dtypes": tensors}))
    yield Op("image.to_tensor", image.to_tensor, 2, suits=last)
    yield Op("image.normalize[HWC,CHW]", normalize, 2, constants(-1), suits=last)
    yield Op("image.normalize[HWC]", pixels, 2, constants(-1), has_out=True, suits=same)
    yield Op("image.normalize[CHW,HWC]", half, 2, constants(-3), suits=first)
    yield Op("image.inverse", inverse, 2, constants(-3), suits=functools.partial(first, dtypes=(*FLOATS, *HALVES)))


OPS = [
    *_list_ops(),
    *_list_channel_ops(),
    *_list_channel_backward_ops(),
    *_list_local_ops(),
    *_list_scaler_ops(),
    *_list_folding_ops(),
    *_list_picture_ops(),
]


def same(got, want):
    """Byte for byte, with shape and dtype."""
    return len(got) == len(want) and all(
        g.dtype == w.dtype and g.shape == w.shape and g.tobytes() == w.tobytes() for g, w in zip(got, want, strict=True)
    )


def digest(arrays):
    """One hash of shapes, dtypes and bytes (little-endian)."""
    h = hashlib.sha256()
    for a in arrays:
        h.update(f"{a.dtype.name}{a.shape}".encode())
        h.update(a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes())
    return h.hexdigest()


# ---- layouts


def layouts(x):
    """(label, array) with the values of x in every kind of memory that NumPy has."""
    yield "contiguous", x
    yield "fortran", np.asfortranarray(x)
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    yield "reversed", np.flip(np.flip(x).copy())
    yield "unaligned", place(x, 1)
    third = (..., *[slice(1, None, 3)] * x.ndim)
    padded = np.full([3 * n for n in x.shape], 99).astype(x.dtype)
    strided = padded[third]
    strided[...] = x
    yield "strided", strided
    swapped = padded.astype(padded.dtype.newbyteorder())
    yield "strided, swapped", swapped[third]
    locked = x.copy()
    locked.flags.writeable = False
    yield "read-only", locked
    if x.ndim > 1:
        yield "transposed", np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)
        yield "rows with gaps", np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 3)])[..., : x.shape[-1]]
