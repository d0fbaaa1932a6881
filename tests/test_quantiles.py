"""Quantiles: exact ones are those of a sorted column, sketched ones are within the bound that they state."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
from cases import HALVES, INTEGERS, THREADS, supported_isas, threshold, uniform, words
from memory import guarded, peak_growth

import fastnorm
from fastnorm import _arguments, _ops
from fastnorm._quantiles import QuantileSketch

QUARTERS = np.array([0.25, 0.5, 0.75])
MANY = np.array([0.0, 0.001, 0.3, 0.5, 0.5, 0.93, 1.0])


def normal(shape, seed=0):
    """Sums of uniforms: bell-shaped, of both signs."""
    return np.asarray(sum(uniform(shape, np.float64, seed + i) for i in range(4)))


def expected(x, q):
    """Order statistics of each column, NaN left out, and numpy.nanquantile's interpolation between them."""
    values = np.full((len(q), x.shape[1]), np.nan)
    for j, column in enumerate(np.sort(x.astype(np.float64) + 0.0, axis=0).T):
        count = np.count_nonzero(~np.isnan(column))
        if count == 0:
            continue
        place = (count - 1) * q
        previous = place.astype(int)
        a, b, t = column[previous], column[np.minimum(previous + 1, count - 1)], place - previous
        with np.errstate(all="ignore"):
            values[:, j] = np.where(t >= 0.5, b - (b - a) * (1 - t), a + (b - a) * t)
    return values


def check(x, axis=1, q=QUARTERS, what=""):
    table = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float64)
    values, counts, flags = _ops.quantiles(_arguments.array("x", x), axis, q)
    np.testing.assert_array_equal(values, expected(table, q), err_msg=what)
    np.testing.assert_array_equal(counts, np.count_nonzero(~np.isnan(table), axis=0), err_msg=what)
    assert flags == 2 * np.isinf(table).any(), what
    return values.tobytes()


def columns(n, dtype):
    """Every kind of column that an algorithm by samples and brackets may dislike, by name."""
    info, z = np.finfo(dtype), normal(n)
    sign = np.where(words(n, 9) % 2 == 0, 1.0, -1.0)
    exponent = (words(n, 8) % np.uint64(info.maxexp - info.minexp)).astype(int) + info.minexp
    rare = words(n, 7) % np.uint64(3000) == 0
    kinds = {
        "normal": z,
        "constant": np.full(n, 14.62),
        "sorted": np.sort(z),
        "rounded": np.round(z, 2),
        "two values": np.round(np.abs(z) / 4),
        "half zeros": np.where(z < 0, 0, z),
        "zeros of both signs": np.where(z < 0, 0.0, -0.0),
        "nearly all NaN": np.where(rare, z, np.nan),
        "all NaN": np.full(n, np.nan),
        "NaN of both signs": np.where(z > 0.5, np.copysign(np.nan, sign), z),
        "infinite": np.where(z > 0.5, np.inf, np.where(z < -0.6, -np.inf, z)),
        "every exponent": np.ldexp(sign, exponent - 1),
        "subnormal": np.round(z * 1000) * float(info.smallest_subnormal),
        "one outlier": np.where(np.arange(n) == n // 2, float(info.max), z + 1e6),
        "hidden": z * 1e-3 + 100,
    }
    if n > 4096:  # the sample sees other data than there are
        k = np.arange(1, 2049, dtype=np.uint64)
        with np.errstate(over="ignore"):
            word = k * np.uint64(0x9E3779B97F4A7C15)
            word = (word ^ (word >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        step = np.uint64(n // 2048)
        kinds["hidden"][((k - np.uint64(1)) * step + (word ^ (word >> np.uint64(32))) % step).astype(int)] = -1e-30
    with np.errstate(all="ignore"):
        return list(kinds), np.stack(list(kinds.values()), axis=1).astype(dtype)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 17, 1000, 9001, 70001])
def test_quantiles_are_those_of_the_sorted_columns(n, dtype):
    names, x = columns(n, dtype)
    for layout, q in itertools.product("CF", (QUARTERS, MANY)):
        check(np.asarray(x, order=layout), q=q, what=f"{layout} {q}: {names}")


def test_quantiles_are_numpys_bit_for_bit(dtype):
    x = columns(501, dtype)[1]
    x = x[:, np.isfinite(x).all(0)] + dtype.type(0)
    np.testing.assert_array_equal(_ops.quantiles(x, 1, MANY)[0], np.nanpercentile(x.astype(float), MANY * 100, axis=0))


def test_quantiles_have_the_same_bits_on_any_isa_and_thread_count(dtype):
    x = columns(9001, dtype)[1]
    with threshold(_ops.set_work_threshold, 0):
        for layout in "CF":
            seen = set()
            for isa, threads in itertools.product(supported_isas(), THREADS):
                with fastnorm.use_isa(isa), fastnorm.threads(threads):
                    assert fastnorm.isa() == isa
                    values, counts, flags = _ops.quantiles(np.asarray(x, order=layout), 1, QUARTERS)
                    seen.add((values.tobytes(), counts.tobytes(), flags))
            assert len(seen) == 1


def test_quantiles_of_any_dtype_and_layout():
    for dtype in (*HALVES, *INTEGERS, np.dtype(">f4"), np.dtype(">i8")):
        check(np.asarray(uniform((6001, 5), dtype.newbyteorder("="))).astype(dtype), what=str(dtype))
    x = normal((7, 40, 11, 33))
    for axis in range(4):
        check(x, axis)
        check(x[::-1, 1::2, ::-2], axis)
        check(x.transpose(2, 0, 3, 1).astype(np.float32), axis)
    check(np.broadcast_to(x[0, 0], (9000, 11, 33)), 2)
    check(np.lib.stride_tricks.as_strided(normal(20001), (6000, 3), (24, 8)))
    unaligned = np.zeros(8 * 6000 * 3 + 1, np.uint8)[1:].view(np.float64).reshape(6000, 3)
    unaligned[...] = normal((6000, 3))
    check(unaligned)
    check(np.zeros((0, 4)))
    check(np.zeros((1, 1)))
    for rows in (0, 4):
        values, counts, flags = _ops.quantiles(np.zeros((rows, 0)), 1, QUARTERS)
        assert (values.shape, counts.shape, flags) == ((3, 0), (0,), 0)
    assert _ops.quantiles(np.zeros(5), 0, QUARTERS)[0].shape == (3, 5)


@pytest.mark.parametrize("side", ["before", "behind"])
def test_quantiles_read_nothing_but_the_array(side, dtype):
    for cols in (1, 2, 3, 5, 8, 11, 15, 16, 17, 30):
        check(guarded(normal((8009, cols)).astype(dtype), side), what=str(cols))


def test_the_door_of_quantiles_leaves_the_unusual_to_others():
    x = np.ones((3, 2))
    for args in (
        ([[1.0]], 1, QUARTERS),
        (x.astype(complex), 1, QUARTERS),
        (x, -1, QUARTERS),
        (x, 2, QUARTERS),
        (x, None, QUARTERS),
        (x, 1, [0.5]),
        (x, 1, QUARTERS[::-1]),
        (x, 1, QUARTERS[::2]),
        (x, 1, np.array([])),
        (x, 1, np.array([1.5])),
        (x, 1, np.array([np.nan])),
        (x, 1, QUARTERS.astype(np.float32)),
    ):
        assert _ops.quantiles(*args) is None


def test_quantiles_need_no_memory_that_grows():
    call = "_ops.quantiles(x, 1, np.array([0.25, 0.5, 0.75]))"
    jobs = [
        (name, f"from fastnorm import _ops; x = filled((BIG, 32), np.{name})", call) for name in ("float32", "float16")
    ]
    for name, grown in peak_growth(jobs, 1 << 20).items():
        assert grown < 16 << 20, f"{name}: {grown} bytes"


# ---- the sketch


def ranks_off(values, x, q):
    """How far each value's ranks in a column are from the wanted rank, beyond the step that is interpolated over."""
    column = np.sort(x)
    place = (column.size - 1) * q
    least, most = np.searchsorted(column, values, "left"), np.searchsorted(column, values, "right") - 1
    return np.maximum(np.maximum(least - np.floor(place) - 1, np.floor(place) - np.maximum(least, most)), 0)


def streams(n):
    z = normal(n)
    inward = np.empty(n)
    inward[::2], inward[1::2] = np.sort(z)[: (n + 1) // 2], np.sort(z)[: (n - 1) // 2 : -1]
    return {
        "random": z,
        "ascending": np.sort(z),
        "descending": np.sort(z)[::-1],
        "inward": inward,
        "outward": inward[::-1],
        "blocks": np.concatenate([np.sort(z[i : i + 64])[:: 1 - 2 * (i // 64 % 2)] for i in range(0, n, 64)]),
        "few values": np.round(z),
    }


def test_a_sketch_keeps_its_bound():
    n, k, q = 40_000, 64, np.linspace(0, 1, 201)
    kinds = streams(n)
    x = np.stack(list(kinds.values()), axis=1)
    whole = QuantileSketch(k).update(x)
    parts = [QuantileSketch(k).update(part) for part in np.array_split(x, 23)]
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    promised = (np.log2(n / k) / 2 + 1.5) / k
    for sketch, most in ((whole, promised), (merged, 2 * promised)):
        assert (sketch.counts == n).all()
        assert (sketch.rank_error > 0).all()
        assert (sketch.rank_error <= most).all()
        values = sketch.quantile(q)
        for j, name in enumerate(kinds):
            off = ranks_off(values[:, j], x[:, j], q).max()
            assert off <= sketch.rank_error[j] * n, f"{name}: {off} ranks, bound {sketch.rank_error[j] * n}"


def test_a_sketch_is_exact_until_a_column_has_seen_k_values(dtype):
    x = columns(900, dtype)[1]
    k = int(np.count_nonzero(~np.isnan(x), axis=0).max())
    sketch = QuantileSketch(k).update(x[:1]).update(x[1:400]).merge(QuantileSketch(k).update(x[400:]))
    np.testing.assert_array_equal(sketch.quantile(MANY), _ops.quantiles(x, 1, MANY)[0])
    np.testing.assert_array_equal(sketch.counts, _ops.quantiles(x, 1, MANY)[1])
    assert not sketch.rank_error.any()
    assert QuantileSketch(k).update(normal((k + 1, 1))).rank_error > 0


def test_a_sketch_depends_on_the_stream_and_not_on_its_chunks():
    x = normal((5000, 3))
    x[::7, 1] = np.nan
    whole = QuantileSketch(64).update(x)
    for size in (1, 63, 64, 65, 1000):
        chunks = QuantileSketch(64)
        for start in range(0, len(x), size):
            chunks.update(x[start : start + size])
            if start % 3 == 0:
                assert chunks.counts[0] == start + len(x[start : start + size])  # reading changes nothing
        assert chunks.to_dict() == whole.to_dict()


def test_a_sketch_is_saved_and_copied():
    x = normal((3000, 2))
    sketch = QuantileSketch(32).update(x[:2000])
    twins = [
        copy.copy(sketch),
        copy.deepcopy(sketch),
        pickle.loads(pickle.dumps(sketch)),
        QuantileSketch.from_dict(json.loads(json.dumps(sketch.to_dict()))),
    ]
    before = sketch.to_dict()
    for twin in twins:
        assert twin.to_dict() == before
        twin.update(x[2000:])
        assert twin.to_dict() == twins[0].to_dict()
    assert sketch.to_dict() == before
    assert QuantileSketch.from_dict(QuantileSketch().to_dict()).quantile(QUARTERS).shape == (3, 0)
    other = QuantileSketch(32)
    assert other.merge(QuantileSketch(32)).merge(sketch).merge(QuantileSketch(32)).to_dict() == before
    assert other.update(x[:100]).counts.tolist() == [2100, 2100]
    assert sketch.to_dict() == before


def test_a_sketch_refuses_what_does_not_fit():
    sketch = QuantileSketch(8).update(np.ones((3, 2)))
    for call in (
        lambda: QuantileSketch(7),
        lambda: QuantileSketch(0),
        lambda: sketch.update(np.ones(3)),
        lambda: sketch.update(np.ones((3, 3))),
        lambda: sketch.merge(QuantileSketch(8).update(np.ones((3, 3)))),
        lambda: sketch.merge(QuantileSketch(16)),
        lambda: QuantileSketch.from_dict({"k": 8}),
        lambda: QuantileSketch.from_dict({"k": 8, "columns": [{"levels": [[1.0]]}]}),
        lambda: QuantileSketch.from_dict({"k": 8, "columns": [{"levels": [[1.0]], "raised": [0], "lowered": []}]}),
        lambda: QuantileSketch.from_dict({"k": 8, "columns": [{"levels": [["a"]], "raised": [0], "lowered": [0]}]}),
        lambda: QuantileSketch.from_dict({"k": 8, "columns": [{"levels": [[[1]]], "raised": [0], "lowered": [0]}]}),
        lambda: QuantileSketch.from_dict({"k": 8, "columns": [{"levels": [[1.0]], "raised": [-1], "lowered": [0]}]}),
    ):
        with pytest.raises(ValueError, match=r"expected|must"):
            call()
    assert sketch.counts.tolist() == [3, 3]


def test_signalling_nan_is_left_out_without_a_word():
    x = np.array([[0], [1], [2], [3]], np.float32)
    x.view(np.uint32)[0] = 0x7F800001
    with np.errstate(all="raise"):
        sketch = QuantileSketch().update(x)
        assert sketch.quantile(0.5) == 2
    assert sketch.counts == 3
