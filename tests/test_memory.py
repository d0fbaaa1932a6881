"""No read or write outside an array, no byte left unwritten, no temporary that grows with the input."""

import gc
import mmap
import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from cases import FLOATS, HALVES, INTEGERS, OPS, same, uniform
from memory import GARBAGE, garbage, guarded, peak_growth

import fastnorm

each_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
EDGES = [
    *[(n,) for n in (1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 513, 4097, 32769)],
    *[(1, 1), (3, 1), (5, 2), (97, 3), (70, 7), (67, 8), (9, 31), (5, 33), (3, 63), (4, 65), (3, 513), (2, 1030)],
    *[(4097, 3), (4099, 8), (1100, 31), (70, 600), (3, 5, 7), (2, 64, 33), (2, 3, 130), (3, 70, 2)],
]


@each_op
@pytest.mark.wide
@pytest.mark.parametrize("side", ["before", "behind"])
@pytest.mark.usefixtures("isa", "stores", "no_work_threshold")
def test_nothing_outside_the_arrays_is_touched(op, side):
    for threads in (1, 3):
        with fastnorm.threads(threads):
            shapes = EDGES if threads == 1 else EDGES[::4]
            for label, x in (*op.cases(FLOATS, shapes), *op.cases(HALVES, shapes[::3])):
                want = op(x)
                parameters = [guarded(p, side) for p in op.parameters(x)]
                out = {"out": guarded(garbage(x.shape, x.dtype), side)} if op.has_out else {}
                got = op.call(guarded(x, side), *parameters, **out)
                if out:
                    assert same((out["out"],), want[:1]), label
                elif isinstance(got, tuple):
                    assert same([np.asarray(g) for g in got], want), label


@each_op
@pytest.mark.wide
@pytest.mark.parametrize("side", ["before", "behind"])
def test_nothing_outside_strided_and_converted_arrays_is_touched(op, side):
    # The first and the last element of each view lie against the guard page.
    for dtype in (*FLOATS, *HALVES, *INTEGERS):
        for label, x in op.cases([dtype], [(130,), (70, 9), (9, 130), (3, 5, 66)]):
            want = op(x)
            whole = guarded(np.zeros((*x.shape[:-1], 2 * x.shape[-1] - 1), dtype), side)
            views = {"every second": whole[..., ::2], "reversed": guarded(x, side)[..., ::-1]}
            views["every second"][...] = x
            views["reversed"][...] = x.copy()
            views["swapped"] = guarded(x.astype(x.dtype.newbyteorder()), side)
            views["transposed"] = np.moveaxis(guarded(np.moveaxis(x, -1, 0).copy(), side), 0, -1)
            for layout, view in views.items():
                np.testing.assert_array_equal(view, x)
                got = op(view)
                assert [g.shape for g in got] == [w.shape for w in want]
                for g, w in zip(got, want, strict=True):  # other orders of addition: close, not equal
                    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5, err_msg=f"{label} {layout}")


@pytest.mark.parametrize("around", [0.0, np.nan, 1e30])
def test_a_single_number_does_not_depend_on_its_neighbours(around, dtype):
    buffer = np.full(201, around, dtype)
    buffer[100] = 3
    y, mean, std = fastnorm.standardize(buffer[100:101].reshape(()), None, return_stats=True)
    assert (y, mean, std) == (0, 3, 0)
    np.testing.assert_array_equal(fastnorm.layer_norm(buffer[100:101]), [0])
    for x in uniform(200, dtype):
        buffer[:] = dtype.type(around) + uniform(201, dtype, 1) * dtype.type(1e9)  # where x - neighbour loses digits
        buffer[100] = x
        y, mean, std = fastnorm.standardize(buffer[100:101].reshape(()), None, return_stats=True)
        assert (y, mean, std) == (0, x, 0)


def test_out_in_gaps_leaves_the_gaps_alone(dtype):
    for op in (op for op in OPS if op.has_out):
        for label, x in op.cases([dtype], [(67,), (70, 8), (9, 65), (3, 5, 7)]):
            space = garbage((*x.shape, 3), dtype)
            op(x, out=space[..., 1])
            rest = np.ascontiguousarray(space[..., ::2])
            assert (rest.view(np.uint8) == GARBAGE).all(), (op.name, label)
            np.testing.assert_allclose(space[..., 1], op(x)[0], rtol=1e-5, atol=1e-6)


def test_inputs_are_never_written():
    for op in OPS:
        for label, x in op.cases((*FLOATS, *INTEGERS), [(67,), (70, 8), (9, 65), (2, 33, 4), (4099, 3)]):
            before = x.tobytes()
            parameters = op.parameters(x)
            parameters_before = [p.tobytes() for p in parameters]
            op.call(x, *parameters)
            assert x.tobytes() == before, (op.name, label)
            assert [p.tobytes() for p in parameters] == parameters_before, (op.name, label)


# ---- temporaries


def traced(call):
    """Bytes that NumPy and Python held at the peak of one call beyond what they held before it and its result."""
    call()
    tracemalloc.start()
    try:
        result = call()
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del result
    return peak - held


@each_op
@pytest.mark.wide
def test_numpy_makes_no_temporary(op):
    for dtype in (np.float32, np.float64, np.int16, ">f4"):
        base = uniform((600, 300), np.dtype(dtype).newbyteorder("=")).astype(dtype)
        for x in (base, base.T, base[::2, ::-1], base.reshape(20, 30, 300).transpose(1, 2, 0)):
            if op.takes(x):
                parameters = op.parameters(x)
                # 64 KiB holds statistics per row and the interpreter's own objects; x alone is 180 KB or more. Pictures
                # keep six times their parameters: mean and std of each channel, of which there are hundreds here, and
                # five numbers folded from them, once for the default dtype and once for that of x.
                copies = 6 if op.name.startswith("image.") else 1
                small = copies * sum(p.nbytes for p in parameters) + (1 << 16)
                assert traced(lambda x=x, p=parameters: op.call(x, *p)) < small, (dtype, x.strides)


BIG = 6_000_000  # elements; a copy as float64 would be 48 MB
JOBS = [
    ("mean_var float32", "x = filled(BIG, 'f4')", "fastnorm.mean_var(x)"),
    ("mean_var int8", "x = filled(BIG, 'i1')", "fastnorm.mean_var(x)"),
    ("mean_var int64 axis 0", "x = filled((BIG // 8, 8), 'i8')", "fastnorm.mean_var(x, 0)"),
    ("mean_var swapped", "x = filled((BIG // 8, 8), '>f4')", "fastnorm.mean_var(x, 0)"),
    ("mean_var strided", "x = filled((BIG // 8, 8), 'f4')[::2, ::-2]", "fastnorm.mean_var(x, 0)"),
    ("mean_var transposed", "x = filled((BIG // 8, 8), 'f4').T", "fastnorm.mean_var(x, 1)"),
    ("mean_var middle axis", "x = filled((2, BIG // 8, 4), 'f4')", "fastnorm.mean_var(x, 1)"),
    ("mean_var three axes", "x = filled((BIG // 8, 2, 2, 2), 'f4')", "fastnorm.mean_var(x, (0, 2))"),
    ("minmax uint16", "x = filled((BIG // 8, 8), 'u2')", "fastnorm.minmax(x, 0)"),
    ("moments", "x = filled((BIG // 8, 8), 'f8')", "fastnorm.moments(x, 0, minmax=True)"),
    ("layer_norm out", "x = filled((BIG // 8, 8), 'f4'); y = filled(x.shape, 'f4')", "fastnorm.layer_norm(x, out=y)"),
    ("layer_norm in place", "x = filled((BIG // 8, 8), 'f8')", "fastnorm.layer_norm(x, axis=0, out=x)"),
    ("layer_norm int8", "x = filled((8, BIG // 8), 'i1'); y = filled(x.shape, 'f8')", "fastnorm.layer_norm(x, out=y)"),
    ("layer_norm transposed", "x = filled((8, BIG // 8), 'f4').T; y = filled(x.shape, 'f4')",
     "fastnorm.layer_norm(x, out=y)"),
    ("standardize in place", "x = filled((BIG // 8, 8), 'f4')", "fastnorm.standardize(x, out=x)"),
    ("standardize strided", "x = filled((BIG // 8, 8), 'f4')[:, ::2]", "fastnorm.standardize(x, out=x)"),
    ("standardize bool", "x = filled((BIG // 8, 8), 'u1').view(bool); x[...] = True; y = filled(x.shape, 'f8')",
     "fastnorm.standardize(x, out=y)"),
    ("min_max_scale in place", "x = filled((BIG // 8, 8), 'f4')", "fastnorm.min_max_scale(x, out=x)"),
    ("rms_norm float16", "x = filled((BIG // 8, 8), 'f2')", "fastnorm.rms_norm(x, out=x)"),
    ("add_layer_norm in place", "x = filled((BIG // 8, 8), 'f4'); z = x.copy()",
     "fastnorm.add_layer_norm(x, z, out=(x, z))"),
    ("layer_norm where", "x = filled((BIG // 8, 8), 'f4'); w = x > 0", "fastnorm.layer_norm(x, where=w, out=x)"),
    ("mean_var float16", "x = filled((BIG // 8, 8), 'f2')", "fastnorm.mean_var(x, 0)"),
    ("mean_var where", "x = filled((BIG // 8, 8), 'f4'); w = x > 0", "fastnorm.mean_var(x, 0, where=w)"),
    ("mean_var one mask", "x = filled((BIG // 8, 8), 'i1')", "fastnorm.mean_var(x, 0, where=[True] * 7 + [False])"),
    ("mean_var weights", "x = filled((BIG // 8, 8), 'f4'); w = filled(BIG // 8, 'f8')",
     "fastnorm.mean_var(x, 0, weights=w)"),
    ("mean_var omit", "x = filled((BIG // 8, 8), 'f4')", "fastnorm.mean_var(x, 0, nan_policy='omit')"),
    ("mean_var raise", "x = filled((BIG // 8, 8), 'f4')", "fastnorm.mean_var(x, 0, nan_policy='raise')"),
    ("minmax omit", "x = filled((BIG // 8, 8), 'f4')", "fastnorm.minmax(x, 0, nan_policy='omit')"),
    ("moments of order 4", "x = filled((BIG // 8, 8), 'i2')", "fastnorm.moments(x, 0, order=4)"),
    *[(f"layer_norm_backward {shape}", f"x = filled({shape}, 'f4'); dy = x.copy(); "
       f"_, mean, rstd = fastnorm.layer_norm(x, axis={axis}, return_stats=True)",
       f"fastnorm.layer_norm_backward(dy, x, mean, rstd, axis={axis}, out=dy)")
      for shape, axis in (("(BIG // 8, 8)", 1), ("(BIG // 1000, 1000)", 1), ("(BIG // 60000, 60000)", 1),
                          ("(1000, BIG // 1000)", 0))],
]  # fmt: skip


def test_no_temporary_grows_with_the_input():
    # Statistics of a row or column each are part of the result: at most BIG / 8 of them, not asked for here.
    grown = peak_growth(JOBS, BIG)
    assert {name: n for name, n in grown.items() if n > 3 << 20} == {}


def test_many_calls_leave_nothing_behind():
    x = uniform((70, 30), np.float32)
    m = fastnorm.Moments(minmax=True).update(x)

    def once():
        for op in OPS:
            if op.takes(x):
                op(x)
        for refused in (lambda: fastnorm.layer_norm(x, 7), lambda: fastnorm.mean(x, 5), lambda: m.update(x[:, :3])):
            with pytest.raises(ValueError, match=r"."):
                refused()
        m.update(x)
        m.copy().merge(m)

    for _ in range(3):
        once()
    gc.collect()
    tracemalloc.start()
    try:
        once()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            once()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 4096  # one array header for each repetition would be twice that


LONG = pytest.mark.skipif("FASTNORM_LONG" not in os.environ, reason="FASTNORM_LONG asks for minutes of calls")


def resident():
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@each_op
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the resident memory is read in /proc/self/statm")
@pytest.mark.parametrize("calls", [100, pytest.param(100_000, marks=LONG)])
def test_calls_leave_no_memory_and_no_reference_behind(op, calls):
    x = next(x for x in (uniform((7, 6), np.float32), uniform((2, 3, 7), np.float32)) if op.takes(x))
    parameters = op.parameters(x)
    held = [x, None, *parameters]

    def repeat(count):
        for _ in range(count):
            op.call(x, *parameters)

    repeat(100)
    references, before = [sys.getrefcount(v) for v in held], resident()
    repeat(calls)
    # A lost reference for each call would be `calls` more; one header of an array 100 bytes for each.
    more = [sys.getrefcount(v) - n for v, n in zip(held, references, strict=True)]
    assert max(map(abs, more)) < 20
    assert calls == 100 or resident() - before < 2 << 20


def test_native_scratch_is_given_back():
    calls = "x = filled((BIG // 8, 8), 'f4'); y = x.copy()"
    loop = "[(fastnorm.mean_var(x, 0), fastnorm.moments(x, 0), fastnorm.standardize(x, out=y)) for _ in range(3000)]"
    assert peak_growth([("loop", calls, loop + " and None")], 8000)["loop"] < 2 << 20
