"""Moments: chunks, merges and saved states tell the same story as the whole."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import reference
from cases import outputs, same, uniform

import fastnorm
from fastnorm import Moments


def ramp(shape, dtype=np.float64):
    return np.asarray(uniform(shape, dtype) + np.dtype(dtype).type(3))


def check(m, x, axis):
    reference.assert_mean_var(m.mean, m.var(), x, axis, dtype=np.float64)
    reference.assert_mean_var(None, m.var(ddof=1), x, axis, ddof=1, dtype=np.float64)
    np.testing.assert_array_equal(m.std(ddof=1), np.sqrt(m.var(ddof=1)))
    assert m.count == reference.count(x, axis)
    assert type(m.count) is int


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_moments_over_any_axes(axis, dtype):
    x = ramp((33, 5, 17), dtype)
    m = fastnorm.moments(x, axis, minmax=True)
    check(m, x, axis)
    low, high = reference.minmax(x.astype(np.float64), axis)
    np.testing.assert_array_equal(m.min, low)
    np.testing.assert_array_equal(m.max, high)
    assert same(outputs(Moments(minmax=True).update(x, axis)), outputs(m))


def test_updates_count_every_value_once(dtype):
    x = ramp((5000, 7), dtype)
    m = Moments(minmax=True)
    for lo, hi in ((0, 1), (1, 1), (1, 700), (700, 701), (701, 5000)):
        assert m.update(x[lo:hi]) is m
    check(m, x, 0)
    np.testing.assert_array_equal(m.min, x.min(0))
    np.testing.assert_array_equal(m.max, x.max(0))


def test_updates_of_different_kinds_agree_on_the_kept_shape():
    x = ramp((6, 5, 4))
    m = Moments().update(x[:2].astype(np.float32), (0, 1)).update(x[2].astype(np.float32), 0)
    m.update(np.asfortranarray(x[3:].astype(np.float32)).astype(">f4"), (0, 1))
    check(m, x.astype(np.float32), (0, 1))
    flat = Moments()
    for part in x:
        flat.update(part, None)
    check(flat, x, None)
    assert isinstance(flat.mean, np.float64)
    integers = np.arange(12, dtype=np.int8).reshape(4, 3)
    check(Moments().update(integers[:2]).update(integers[2:].tolist()), integers, 0)


def test_any_split_is_within_the_bound_of_the_whole(dtype):
    # Both are within the bound of assert_mean_var of the exact value, so each split is checked against the twin.
    x = ramp((9000, 3), dtype) + dtype.type(1000)
    cuts = sorted((uniform(40, np.uint16) % 9000).tolist())
    m = Moments()
    for lo, hi in zip([0, *cuts], [*cuts, 9000], strict=True):
        m.update(x[lo:hi])
    check(m, x, 0)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8, 30, 64, 100, 511, 512, 513, 1100])
def test_a_stream_of_aligned_chunks_is_the_whole_byte_for_byte(columns, dtype):
    rows = Moments().update(ramp((1, columns), dtype)).block_rows
    assert type(rows) is int
    assert rows > 0
    x = ramp((5 * rows + 13, columns), dtype)
    whole = outputs(fastnorm.moments(x, 0, minmax=True))
    for cuts in ((1, 2, 3, 4, 5), (3,), (1, 5), (2, 4)):
        m = Moments(minmax=True)
        bounds = [0, *(rows * c for c in cuts), len(x)]
        for lo, hi in itertools.pairwise(bounds):
            m.update(x[lo:hi])
            assert m.block_rows == rows
        assert same(outputs(m), whole)


def test_merge_and_sum_are_the_whole(dtype):
    x = ramp((2000, 5), dtype)
    a, b = (fastnorm.moments(part, 0, minmax=True) for part in (x[:300], x[300:]))
    before = outputs(a), outputs(b)
    check(a + b, x, 0)
    assert same(outputs(a), before[0])
    assert same(outputs(b), before[1])
    assert a.merge(b) is a
    check(a, x, 0)
    assert same(outputs(b), before[1])
    np.testing.assert_array_equal(a.min, x.min(0))
    np.testing.assert_array_equal(a.max, x.max(0))
    check(b.merge(b), np.concatenate([x[300:], x[300:]]), 0)


def test_nothing_is_the_identity_of_merge():
    full = fastnorm.moments(ramp((50, 3)), 0, minmax=True)
    want = outputs(full)
    for empty in (Moments(minmax=True), Moments(minmax=True).update(np.empty((0, 3)))):
        assert empty.count == 0
        assert same(outputs(full.copy().merge(empty)), want)
        assert same(outputs(empty.copy().merge(full)), want)
        assert same(outputs(empty + full), want)
        assert same(outputs(full + empty), want)
    assert (Moments() + Moments()).count == 0
    with reference.strict():
        nothing = Moments().update(np.empty((0, 3)))
        assert np.isnan(nothing.mean).all()
        assert np.isnan(nothing.var()).all()
        assert nothing.mean.shape == (3,)


def test_saved_states_come_back_whole(dtype):
    x = ramp((4000, 3), dtype)
    x[7, 1] = np.inf
    x[9, 2] = np.nan
    for minmax in (False, True):
        m = Moments(minmax=minmax).update(x[:100])
        for back in (
            m.copy(),
            copy.copy(m),
            copy.deepcopy(m),
            pickle.loads(pickle.dumps(m)),
            Moments.from_dict(m.to_dict()),
            Moments.from_dict(json.loads(json.dumps(m.to_dict()))),
        ):
            assert back.to_dict() == m.to_dict() or np.isnan(x).any()
            assert back.count == 100
            assert back.mean.tobytes() == m.mean.tobytes()
            assert back.block_rows == m.block_rows
            assert back.var().tobytes() == m.var().tobytes()
            assert back.update(x[100:]).mean.tobytes() == m.copy().update(x[100:]).mean.tobytes()
            assert back.count == 4000
            assert m.count == 100
    empty = Moments.from_dict(json.loads(json.dumps(Moments(minmax=True).to_dict())))
    assert empty.count == 0
    assert empty.update(x[:1]).min.shape == (3,)
    scalar = pickle.loads(pickle.dumps(fastnorm.moments(x[:, 0])))
    assert scalar.mean == fastnorm.moments(x[:, 0]).mean
    assert isinstance(scalar.mean, np.float64)


def test_results_are_not_windows_into_the_state():
    m = fastnorm.moments(ramp((50, 3)), 0, minmax=True)
    before = outputs(m)
    for value in (m.mean, m.var(), m.min, m.max):
        if value.flags.writeable:
            value[...] = -1
    assert same(outputs(m), before)


def test_refusals_leave_the_state_as_it_was():
    x = ramp((50, 3))
    m = fastnorm.moments(x, 0)
    before = pickle.dumps(m.to_dict())
    for refused in (
        lambda: m.update(x[:, :2]),
        lambda: m.update(x, 1),
        lambda: m.update(x, None),
        lambda: m.update(x, 2),
        lambda: m.merge(fastnorm.moments(x[:, :2], 0)),
        lambda: m.merge(fastnorm.moments(x)),
        lambda: m.merge(fastnorm.moments(x, 0, minmax=True)),
        lambda: m + fastnorm.moments(x[:, :2], 0),
        lambda: m.min,
        lambda: m.max,
        lambda: Moments(order=3),
        lambda: Moments(order=0),
        lambda: fastnorm.moments(x, order=5),
        lambda: Moments.from_dict({}),
        lambda: Moments.from_dict({**m.to_dict(), "order": 7}),
    ):
        with pytest.raises(ValueError, match=r"."):
            refused()
    for refused in (
        lambda: m.update(x.astype(complex)),
        lambda: m.update(["a"]),
        lambda: m.merge(3),
        lambda: m + 3,
        lambda: m.var(ddof="1"),
    ):
        with pytest.raises(TypeError):
            refused()
    assert pickle.dumps(m.to_dict()) == before
    with pytest.raises(ValueError, match="minmax"):
        _ = m.min
