"""The private doors of the scalers: rescaling by given numbers, and the search for NaN and infinity."""

import itertools

import numpy as np
import pytest
from cases import FLOATS, HALVES, INTEGERS, THREADS, is_float, result_dtype, supported_isas, threshold, uniform
from memory import garbage, place

import fastnorm
from fastnorm import _ops

INF = np.inf
for _half in HALVES:  # as `_arguments` does for every call: bfloat16 is known to the doors from here on
    fastnorm.mean(np.zeros(1, _half))

LARGE = 2.0**100  # float computes with operands up to here, float64 with larger ones


def operand(values, none):
    return np.asarray(none if values is None else values, np.float64)


def formula(x, center, center_lo, scale, shift, inverse):
    """NumPy's arithmetic in the dtype of its arrays; an operand that is None is left out, as is a residual of 0."""
    if inverse:
        y = x if shift is None else x - shift
        y = y if scale is None else y * scale
        y = y if center_lo is None else np.where(center_lo == 0, y, y + center_lo)
        return y if center is None else y + center
    y = x if center is None else x - center
    y = y if center_lo is None else np.where(center_lo == 0, y, y - center_lo)
    y = y if scale is None else y / scale
    return y if shift is None else y + shift


def twin(x, axis, center, center_lo, scale, shift, least, most, inverse):
    """(y, flags) the obvious way. Operands go along the last axis."""
    x = np.moveaxis(np.asarray(x, result_dtype(x)), axis, -1)
    operands = (center, center_lo, scale, shift)
    with np.errstate(all="ignore"):
        wide = np.asarray(formula(x.astype(np.float64), *operands, inverse))
        if x.dtype == np.float64:
            y = wide
        else:
            single = [None if v is None else v.astype(np.float32) for v in operands]
            if center is not None or center_lo is not None:
                rest = operand(center, 0) - operand(single[0], 0) + operand(center_lo, 0)
                single[1] = rest.astype(np.float32)
            y = np.asarray(formula(x.astype(np.float32), *single, inverse))
            sizes = [np.abs(operand(v, 0)) for v in (center, center_lo, shift)]
            divisor = np.abs(operand(scale, 1))
            held = np.all([np.broadcast_to(size <= LARGE, x.shape[-1:]) for size in sizes], axis=0)
            held &= (divisor >= np.finfo(np.float32).tiny) & (divisor <= np.finfo(np.float32).max)
            y = np.where(held, y, wide.astype(np.float32))
        y = np.where(y < y.dtype.type(least), y.dtype.type(least), y)
        y = np.where(y > y.dtype.type(most), y.dtype.type(most), y)
        y = np.where(np.isnan(y), np.nan, y).astype(x.dtype)
    return np.moveaxis(y, -1, axis), bool(np.isnan(x).any()) + 2 * bool(np.isinf(x).any())


def layouts(x):
    """The same elements as C-ordered, Fortran-ordered, with gaps, backwards, in the other byte order, anywhere."""
    yield "C", x
    yield "F", np.asfortranarray(x)
    gaps = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    gaps[tuple(slice(1, None, 2) for _ in x.shape)] = x
    yield "gaps", gaps[tuple(slice(1, None, 2) for _ in x.shape)]
    yield (
        "backwards",
        np.ascontiguousarray(x[tuple(slice(None, None, -1) for _ in x.shape)])[
            tuple(slice(None, None, -1) for _ in x.shape)
        ],
    )
    yield "turned", np.ascontiguousarray(x.T[::-1]).T[..., ::-1]
    if x.dtype.kind != "V" and x.dtype.itemsize > 1:
        yield "swapped", x.astype(x.dtype.newbyteorder())
    yield "unaligned", place(x, 1)


def operands_of(features, seed=0):
    """All four, as fitted estimators have them: no operand is a float32."""
    center, shift = uniform(features, np.float64, seed + 1) + 3.1, uniform(features, np.float64, seed + 2) / 3
    center_lo = uniform(features, np.float64, seed + 3) * 2.0**-54
    return center, center_lo, uniform(features, np.float64, seed + 4) / 3 + 0.7, shift


def check(x, axis, operands, bounds=(-INF, INF), inverse=False, out=None, label="", **kwargs):
    """Compare bytes and flags with the twin; return y."""
    want, flags = twin(x, axis, *operands, *bounds, inverse)
    result = _ops.rescale(x, axis, *operands, *bounds, inverse, out, **kwargs)
    assert result is not None, label
    y, found = result
    assert y.dtype == want.dtype and y.shape == want.shape and y.dtype.isnative, label
    assert y is out or out is None, label
    assert found == flags, (label, found, flags)
    differ = np.flatnonzero(
        np.ascontiguousarray(y).reshape(-1).view(f"u{y.itemsize}")
        != np.ascontiguousarray(want).reshape(-1).view(f"u{y.itemsize}")
    )
    assert differ.size == 0, (label, differ[:5], y.reshape(-1)[differ[:5]], want.reshape(-1)[differ[:5]])
    return y


SHAPES = [
    *[((n, f), axis) for f in (1, 4, 15, 16, 17, 63, 64, 65, 511, 512, 513) for n in (1, 7, 131) for axis in (0, 1)],
    *[((0, 3), 1), ((3, 0), 1), ((5,), 0), ((700,), 0), ((4099, 3), 1), ((67, 30), 1), ((2, 4097), 0)],
    *[
        ((2, 3, 5, 7), 1),
        ((2, 3, 5, 7), 2),
        ((5, 3, 9, 9), 1),
        ((2, 3, 65, 3), 2),
        ((3, 4, 2, 600), 3),
        ((40, 6, 70), 0),
    ],
]


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES, *INTEGERS], ids=str)
@pytest.mark.usefixtures("no_work_threshold")
def test_every_layout_is_numpys_formula(dtype):
    for number, (shape, axis) in enumerate(SHAPES):
        operands = operands_of(shape[axis], number)
        for label, x in layouts(np.asarray(uniform(shape, dtype, number))):
            inverse = bool(number % 2)
            y = check(x, axis, operands, inverse=inverse, label=(shape, axis, label))
            y = check(x, axis, operands, (-0.3, 0.4), not inverse, garbage(shape, y.dtype), (shape, axis, label, "out"))


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@pytest.mark.usefixtures("stores")
def test_every_set_of_operands_leaves_the_others_out(dtype):
    x = uniform((77, 37), dtype, 1)
    x[::3, ::2] = -0.0
    for mask in itertools.product((False, True), repeat=4):
        operands = tuple(v if keep else None for v, keep in zip(operands_of(37), mask, strict=True))
        zeros = tuple(None if v is None or k == 2 else 0 * v for k, v in enumerate(operands))
        for bounds in ((-INF, INF), (-0.25, INF), (0, 0.5)):
            for inverse in (False, True):
                for axis, x_ in ((1, x), (0, np.ascontiguousarray(x.T)), (1, np.asfortranarray(x))):
                    check(x_, axis, operands, bounds, inverse, label=(mask, bounds, inverse, axis))
                    check(x_, axis, zeros, bounds, inverse, label=("zeros", mask, bounds, inverse, axis))


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@pytest.mark.usefixtures("stores")
def test_no_bit_depends_on_threads_isa_alignment_or_place(dtype):
    for shape, axis in [((5003, 7), 1), ((4, 20011), 0), ((3, 6, 4001), 1), ((301, 1030), 1), ((900, 6, 3, 3), 1)]:
        x, operands = uniform(shape, dtype, 5), operands_of(shape[axis])
        want = check(x, axis, operands, (-3, 0.5)).tobytes()
        for isa in supported_isas():
            with fastnorm.use_isa(isa), threshold(_ops.set_work_threshold, 0):
                for threads in THREADS:
                    with fastnorm.threads(threads):
                        offset = threads * x.itemsize
                        out = place(garbage(shape, dtype), offset)
                        here = place(x, 3 * offset % 64 + (threads == 7))
                        for x_, y in ((x, None), (here, out), (here, here)):
                            got, _ = _ops.rescale(x_, axis, *operands, -3, 0.5, False, y)
                            assert got.tobytes() == want, (shape, isa, threads, y is here)


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@pytest.mark.usefixtures("stores")
def test_results_go_anywhere_and_nowhere_else(dtype):
    for shape, axis in [((37, 5), 1), ((37, 5), 0), ((3, 70, 4), 1), ((20, 3, 130), 2), ((4, 1), 1)]:
        x, operands = uniform(shape, dtype, 5), operands_of(shape[axis])
        for label, room in layouts(garbage(shape, dtype)):
            if not room.dtype.isnative:
                continue
            base = room if room.base is None else room.base
            y = check(x, axis, operands, out=room, label=(shape, label))
            if label == "gaps":
                rest = np.ones(base.shape, bool)
                rest[tuple(slice(1, None, 2) for _ in shape)] = False
                assert not base[rest].any(), (shape, label)
            y[...] = x
            check(y.copy("K"), axis, operands, label=(shape, label))
            want = twin(x, axis, *operands, -INF, INF, False)[0]
            got, _ = _ops.rescale(y, axis, *operands, -INF, INF, False, y)
            assert got is y and np.array_equal(y, want), (shape, label)


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES], ids=str)
@pytest.mark.parametrize("isa", supported_isas())
def test_nan_and_infinity_are_told_apart_wherever_they_are(dtype, isa):
    signs = [np.nan, -np.nan, INF, -INF]
    with fastnorm.use_isa(isa), threshold(_ops.set_work_threshold, 0):
        for shape in [(1, 1), (7, 3), (501, 17), (3, 700)]:
            operands = operands_of(shape[1])
            for at in {0, 1, np.prod(shape) // 2, np.prod(shape) - 1}:
                for values in [(), *[(v,) for v in signs], (np.nan, INF)]:
                    x = uniform(shape, dtype, 8)
                    x.reshape(-1)[[(at - k) % x.size for k in range(len(values))]] = values
                    for label, x_ in layouts(x):
                        check(x_, 1, operands, (-0.5, 2), label=(shape, at, values, label))
                        found = twin(x, 1, *operands, 0, 1, False)[1]
                        assert _ops.find_nonfinite(x_) == found, (shape, at, values, label)
                    check(x, 1, operands, inverse=True, out=x.copy(), label=(shape, at, values))


def test_finding_nothing_in_integers_nothing_and_a_large_array():
    assert [_ops.find_nonfinite(np.full(3, 1, dtype)) for dtype in INTEGERS] == [0] * len(INTEGERS)
    assert _ops.find_nonfinite(np.empty((0, 4), np.float32)) == 0
    assert [_ops.find_nonfinite(np.array(v)) for v in (1.0, np.nan, INF)] == [0, 1, 2]
    x = np.zeros((70001, 9), np.float32)
    for threads in THREADS:
        with fastnorm.threads(threads):
            assert _ops.find_nonfinite(x) == 0
            x[-1, -1] = INF
            assert _ops.find_nonfinite(x) == _ops.find_nonfinite(x[:, ::2]) == _ops.find_nonfinite(x[:, 8]) == 2
            assert _ops.find_nonfinite(x[:, :8]) == 0
            x[40000, 0] = np.nan
            assert _ops.find_nonfinite(x) == 3
            x[...] = 0


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.usefixtures("stores")
def test_what_float_cannot_hold_is_computed_in_double(inverse):
    special = [0.0, -0.0, 1e-45, 1e-39, 1.2e-38, 1e30, 1.3e30, 3e38, 3.5e38, 1e300, 5e-324, INF, -INF, np.nan, -7.25]
    top = np.finfo(np.float32).max
    rows = np.array([0, -0.0, 1, -1, 1e-45, 1e-38, top, -top, INF, -INF, np.nan, 1.5e38], np.float32)
    for dtype in (*FLOATS, HALVES[0]):
        with np.errstate(over="ignore"):
            x = np.repeat(rows.astype(dtype)[:, None], 4 * len(special), axis=1)
        plain = operands_of(x.shape[1])
        for which in range(4):
            operands = [v.copy() for v in plain]
            operands[which][::4] = special
            for x_, axis in ((x, 1), (np.ascontiguousarray(x.T), 0), (np.asfortranarray(x), 1)):
                check(x_, axis, operands, inverse=inverse, label=(dtype, which))
                check(x_, axis, operands, (-1, 1), inverse, place(x_, 4), label=(dtype, which))
    x = np.array([[top, -top]], np.float32)
    y, _ = _ops.rescale(x, 1, np.array([-2e38, 2e38]), None, np.full(2, 2e38), None, -INF, INF, False, x)
    assert y is x and np.allclose(y, [[2.70141, -2.70141]], rtol=1e-5)


def test_the_unusual_is_left_to_the_caller():
    x, ones = np.ones((6, 4)), np.ones(4)
    calls = {
        "a list": ([[1.0]], 1, None, None, None, None, 0, 1, False, None),
        "no axes": (np.array(1.0), 0, None, None, None, None, 0, 1, False, None),
        "axis out of range": (x, 2, None, None, None, None, 0, 1, False, None),
        "a complex array": (x + 0j, 1, None, None, None, None, 0, 1, False, None),
        "float32 operands": (x, 1, ones.astype(np.float32), None, None, None, 0, 1, False, None),
        "too few operands": (x, 1, None, None, ones[:3], None, 0, 1, False, None),
        "strided operands": (x, 1, None, None, None, np.ones(8)[::2], 0, 1, False, None),
        "a NaN bound": (x, 1, None, None, None, None, np.nan, 1, False, None),
        "a result of another dtype": (x, 1, None, None, None, None, 0, 1, False, np.empty((6, 4), np.float32)),
        "a result of another shape": (x, 1, None, None, None, None, 0, 1, False, np.empty((4, 6))),
        "a read-only result": (x, 1, None, None, None, None, 0, 1, False, np.broadcast_to(0.0, (6, 4))),
        "an operand as result": (ones, 0, None, None, ones, None, 0, 1, False, ones),
    }
    memory = np.zeros(40)
    calls["overlap"] = (memory[:24].reshape(6, 4), 1, None, None, None, None, 0, 1, False, memory[4:28].reshape(6, 4))
    folded = np.lib.stride_tricks.as_strided(np.zeros(40), (6, 4), (16, 8))
    calls["a result on itself"] = (x, 1, None, None, None, None, 0, 1, False, folded)
    for label, call in calls.items():
        assert _ops.rescale(*call) is None, label
    assert _ops.find_nonfinite([1.0]) is None and _ops.find_nonfinite(x + 0j) is None
    assert is_float(x.dtype) and not memory.any()
