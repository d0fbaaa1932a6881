"""Moments: chunks, merges and saved states tell the same story as the whole."""

import copy
import itertools
import json
import pickle
from fractions import Fraction

import numpy as np
import pytest
import reference
from cases import outputs, same, uniform

import fastnorm
from fastnorm import Moments

ORDERS = (2, 3, 4)
MASKS = ({}, {"where": True}, {"weights": True}, {"where": True, "weights": True}, {"nan_policy": "omit"})


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
        lambda: Moments(order=0),
        lambda: Moments(order=1),
        lambda: Moments(order=True),
        m.skewness,
        m.kurtosis,
        lambda: Moments(3).kurtosis(),
        lambda: m.merge(fastnorm.moments(x, 0, order=3)),
        lambda: fastnorm.moments(x, 0, order=4).merge(fastnorm.moments(x, 0, order=3)),
        lambda: m.update(x, where=np.ones((3, 50), bool)),
        lambda: m.update(x, weights=np.ones(3)),
        lambda: m.update(x, weights=-np.ones(50)),
        lambda: m.update(x, weights=np.full(50, np.nan)),
        lambda: m.update(x, nan_policy="drop"),
        lambda: m.update(np.full((4, 3), np.nan), nan_policy="raise"),
        lambda: m.update(np.full((4, 3), np.nan), nan_policy="raise", where=np.eye(4, 3, dtype=bool)),
        lambda: Moments.from_dict({**m.to_dict(), "order": 3}),
        lambda: fastnorm.moments(x, order=5),
        lambda: Moments.from_dict({}),
        lambda: Moments.from_dict({**m.to_dict(), "order": 7}),
        lambda: Moments.from_dict({**m.to_dict(), "mean": m.to_dict()["mean"][:-1]}),
        lambda: Moments.from_dict({**m.to_dict(), "mean": 0.0}),
        lambda: Moments.from_dict({**m.to_dict(), "mean": ["a", "b", "c"]}),
        lambda: Moments.from_dict({**m.to_dict(), "var": [[1.0], [1.0, 2.0]]}),
        lambda: Moments.from_dict({**m.to_dict(), "shape": [10**15]}),
        lambda: Moments.from_dict({**m.to_dict(), "shape": [-3]}),
    ):
        with pytest.raises(ValueError, match=r"."):
            refused()
    for refused in (
        lambda: m.update(x.astype(complex)),
        lambda: m.update(["a"]),
        lambda: m.update(x, where=np.ones(x.shape)),
        lambda: m.update(x, weights=np.ones(50, complex)),
        lambda: m.merge(3),
        lambda: m + 3,
        lambda: m.var(ddof="1"),
    ):
        with pytest.raises(TypeError):
            refused()
    assert pickle.dumps(m.to_dict()) == before
    with pytest.raises(ValueError, match="minmax"):
        _ = m.min


# ---- orders 3 and 4


def shape_of(m):
    """All that a Moments of any order says."""
    said = [m.count, m.mean, m.var(), m.std(ddof=1)]
    said += [m.min, m.max] if m._minmax else []
    said += [m.skewness()] if m._order > 2 else []
    return outputs(tuple(said + ([m.kurtosis()] if m._order > 3 else [])))


def skewed(shape, dtype=np.float64, seed=0):
    """Values of a skewness and a kurtosis that are not 0, exact in the dtype."""
    u = uniform(shape, np.float32, seed).astype(np.float64)
    return np.asarray((np.floor(u * u * u * 4096) / 1024).astype(dtype))


def relative(got, want):
    return float(abs(Fraction(float(got)) - want) / max(1, abs(want)))


def some(shape, seed=3):
    return np.asarray(uniform(shape, np.float64, seed) < 0.25)


def kept(what, shape, x=None):
    """The keywords that MASKS names, and x with NaN where it is omitted."""
    given = dict(what)
    if "where" in given:
        given["where"] = some(shape)
    if "weights" in given:
        given["weights"] = np.floor((uniform(shape, np.float64, 4) + 1) * 16) / 8
    if x is not None and "nan_policy" in given:
        x = np.where(some(shape), x, np.nan).astype(x.dtype)
    return given, x


def rows_of(given, lo, hi):
    return {name: value if isinstance(value, str) else value[lo:hi] for name, value in given.items()}


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("what", MASKS, ids=str)
def test_skewness_and_kurtosis_are_the_twins(axis, what, dtype):
    given, x = kept(what, (33, 5, 17), skewed((33, 5, 17), dtype))
    m = fastnorm.moments(x, axis, order=4, minmax=True, **given)
    counts = {name: value for name, value in given.items() if name != "nan_policy"}
    total, mean, m2, m3, m4 = reference.masked_moments(x, axis, **counts, omit="nan_policy" in given)
    with reference.silent():
        # A few roundings of numbers a few times the result; the mean of m.mean's bound.
        reference.assert_within(m.skewness(), m3 / m2**1.5, 1e-13 * np.maximum(1, np.abs(m3 / m2**1.5)))
        reference.assert_within(m.kurtosis(), m4 / m2**2 - 3, 1e-13 * np.maximum(1, m4 / m2**2))
    reference.assert_within(m.mean, mean, 2.0**-50 * np.abs(x[np.isfinite(x)]).max())
    np.testing.assert_array_equal(m.count, total)
    assert m.skewness().shape == m.kurtosis().shape == np.shape(mean)
    third = fastnorm.moments(x, axis, order=3, **given)
    assert same(outputs(third.skewness()), outputs(m.skewness()))
    assert same(outputs((third.mean, third.var())), outputs((m.mean, m.var())))


def test_scipy_agrees(dtype):
    stats = pytest.importorskip("scipy.stats")
    x = skewed((3000, 7), dtype) + dtype.type(2)
    wide = x.astype(np.float64)
    for axis in (None, 0, 1):
        m = fastnorm.moments(x, axis, order=4)
        # SciPy's mean is off by up to some eps of 2, and its powers by a few eps for each of the sums' terms.
        np.testing.assert_allclose(m.skewness(), stats.skew(wide, axis), rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(m.kurtosis(), stats.kurtosis(wide, axis), rtol=1e-11, atol=1e-11)


@pytest.mark.wide
@pytest.mark.parametrize("offset", [0, 1e6, 1e8])
@pytest.mark.parametrize("what", MASKS, ids=str)
def test_shape_at_large_offsets_against_exact_moments(offset, what):
    # Differences from the guess of a chunk are exact, sums of 2^15 of them good to some 1e-14; m3 and m4 about the
    # mean follow without large cancellation, and merges add increments. 1e-12 is the promise.
    n = 100_000
    x = skewed(n) + offset
    given, x = kept(what, n, x)
    counts = np.ones(n) if "weights" not in given else given["weights"]
    counts = np.where(given["where"], counts, 0) if "where" in given else counts
    counts = np.where(np.isnan(x), 0, counts)
    skewness, kurtosis = reference.exact_shape(x[counts != 0], counts[counts != 0])
    whole = fastnorm.moments(x, order=4, **given)
    cuts = [0, *sorted((uniform(11, np.uint32, 5) % n).tolist()), n]
    pieces = [fastnorm.moments(x[lo:hi], order=4, **rows_of(given, lo, hi)) for lo, hi in itertools.pairwise(cuts)]
    in_turn, backwards = Moments(4), Moments(4)
    for piece in pieces:
        in_turn.merge(piece)
        backwards = piece + backwards
    for piece in pieces[::-1]:
        backwards = backwards + Moments(4).merge(piece)  # everything twice: the same shape
    while len(pieces) > 1:
        pieces = [sum(pair[1:], pair[0]) for pair in (pieces[i : i + 2] for i in range(0, len(pieces), 2))]
    for m in (whole, in_turn, backwards, pieces[0]):
        assert relative(m.skewness(), skewness) <= 1e-12
        assert relative(m.kurtosis(), kurtosis) <= 1e-12


@pytest.mark.parametrize("order", ORDERS)
def test_merging_follows_the_formulas_exactly(order):
    # Small integers: every state, and what they merge to, against exact rationals.
    for seed in range(30):
        a, b = (uniform(1 + (seed * k) % 40, np.int8, seed + k).astype(np.float64) for k in (3, 7))
        weights = [np.abs(uniform(len(v), np.int8, 90 + seed).astype(np.float64)) + 1 for v in (a, b)]
        m = fastnorm.moments(a, order=order, weights=weights[0])
        m += fastnorm.moments(b, order=order, weights=weights[1])
        values, counts = np.concatenate([a, b]), np.concatenate(weights)
        exact = reference.exact_moments(values, counts)
        state = m.to_dict()
        assert m.count == counts.sum()
        for name, want in list(zip(("mean", "var", "m3", "m4"), exact, strict=True))[:order]:
            got = Fraction(state[name][0]) + Fraction(state[f"{name}_lo"][0])
            size = 128.0 ** {"mean": 1, "var": 2, "m3": 3, "m4": 4}[name]
            assert abs(got - want) <= 2.0**-48 * size, name


def test_shape_of_extreme_spreads():
    x = skewed(2000)
    want = fastnorm.moments(x, order=4)
    for exponent in (-300, -200, -100, 100, 200, 300):  # powers of two change no digit
        scaled = np.ldexp(x, exponent)
        assert fastnorm.moments(scaled, order=3).skewness() == want.skewness()
        if abs(exponent) <= 200:
            assert fastnorm.moments(scaled, order=4).kurtosis() == want.kurtosis()
    with reference.strict():
        for scale in (1e150, 1e300, 1e-75, 1e-150, 1e-300):  # past the documented range
            assert not np.isfinite(fastnorm.moments(x * scale, order=4).kurtosis())
            assert np.isfinite(fastnorm.moments(x * scale).mean)
        m = fastnorm.moments(
            np.array([[1.0, 2.0, np.nan, np.inf], [1.0, 4.0, 3.0, 5.0], [1.0, 9.0, 1.0, 2.0]]), 0, order=4
        )
        assert np.isnan(m.skewness()).tolist() == np.isnan(m.kurtosis()).tolist() == [True, False, True, True]
        for empty in (Moments(4), fastnorm.moments(np.empty((0, 3)), 0, order=4)):
            assert np.isnan(empty.skewness()).all()
            assert np.isnan(empty.kurtosis()).all()


@pytest.mark.parametrize("n", [1, 2, 15, 64, 1000, 32768, 32769, 100_001])
def test_constants_have_moments_of_exactly_zero(n, dtype):
    x = np.full((n, 3), 0.1, dtype)
    for m in (fastnorm.moments(x, 0, order=4), fastnorm.moments(x, 0, order=4) + fastnorm.moments(x[:1], 0, order=4)):
        state = m.to_dict()
        for name in ("var", "var_lo", "m3", "m3_lo", "m4", "m4_lo"):
            assert state[name] == [0, 0, 0]
        assert (m.mean == x[0]).all()
        assert np.isnan(m.skewness()).all()


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 8, 30, 64, 100, 511, 512, 513, 1100])
@pytest.mark.parametrize(("order", "what"), [(3, {}), (4, {}), *((4, what) for what in MASKS[1:]), (2, MASKS[3])])
def test_masked_streams_of_aligned_chunks_are_the_whole_byte_for_byte(columns, order, what):
    rows = fastnorm.moments(np.zeros((1, columns)), 0).block_rows
    for kind in (np.float32, np.float64):
        given, x = kept(what, (4 * rows + 13, columns), skewed((4 * rows + 13, columns), kind))
        whole = shape_of(fastnorm.moments(x, 0, order=order, minmax=True, **given))
        for cuts in ((1, 2, 3, 4), (3,), (1, 4)):
            m = Moments(order, minmax=True)
            for lo, hi in itertools.pairwise([0, *(rows * c for c in cuts), len(x)]):
                m.update(x[lo:hi], **rows_of(given, lo, hi))
            assert same(shape_of(m), whole)


# ---- masked updates


def test_counts_are_sums_of_weights_once_something_was_masked():
    x, where, weights = skewed((50, 3)), some((50, 3)), np.full((50, 3), 0.25)
    plain = Moments().update(x)
    assert type(plain.count) is int
    for kwargs, counts in (
        ({"where": where}, where.sum(0)),
        ({"weights": weights}, [12.5] * 3),
        ({"nan_policy": "omit"}, [50] * 3),
    ):
        m = Moments().update(x, **kwargs)
        assert m.count.dtype == np.float64
        assert m.count.tolist() == list(counts)
        assert m.update(x).count.tolist() == [n + 50 for n in counts]
        assert (plain + m).count.tolist() == (m + plain).count.tolist() == [n + 100 for n in counts]
        assert type(plain.count) is int
        assert (Moments() + m).count.tolist() == m.count.tolist()
        assert isinstance(m.copy().count, np.ndarray)
        assert str(m.count) in repr(m)
    scalar = Moments().update(x, None, where=where)
    assert type(scalar.count) is np.float64
    assert scalar.count == where.sum()
    assert type(Moments().update(x, nan_policy="raise").count) is int


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("what", MASKS[1:], ids=str)
def test_masked_and_plain_updates_mix(order, what, dtype):
    x = skewed((5000, 4), dtype)
    given, y = kept(what, (5000, 4), x)
    counts = {name: value for name, value in given.items() if name != "nan_policy"}
    weights, _ = reference.counted(y, **counts, omit="nan_policy" in given)
    both, all_weights = np.concatenate([np.where(weights == 0, 0, y), x]), np.concatenate([weights, np.ones(x.shape)])
    total, mean, m2, m3, m4 = reference.masked_moments(both, 0, weights=all_weights)
    m = Moments(order, minmax=True).update(y[:100], **rows_of(given, 0, 100)).update(x)
    m.merge(fastnorm.moments(y[100:], 0, order=order, minmax=True, **rows_of(given, 100, 5000)))
    np.testing.assert_array_equal(m.count, total)
    reference.assert_within(m.mean, mean, 2.0**-50 * np.abs(x).max())
    reference.assert_within(m.var(), m2, 64 * 2.0**-52 * m2)
    np.testing.assert_array_equal(m.min, x.min(0))
    np.testing.assert_array_equal(m.max, x.max(0))
    if order > 2:
        reference.assert_within(m.skewness(), m3 / m2**1.5, 1e-12 * np.maximum(1, np.abs(m3 / m2**1.5)))
    if order > 3:
        reference.assert_within(m.kurtosis(), m4 / m2**2 - 3, 1e-12 * np.maximum(1, m4 / m2**2))


@pytest.mark.parametrize("order", ORDERS)
def test_columns_and_chunks_where_nothing_counts(order, dtype):
    x, where = skewed((300, 5), dtype), some((300, 5))
    where[:, 2] = False
    full = Moments(order, minmax=True).update(x, where=where)
    want = shape_of(full)
    for value in want[1:]:
        assert np.flatnonzero(np.isnan(value)).tolist() == [2]
    assert full.count[2] == 0
    for nothing in (
        {"where": np.zeros(x.shape, bool)},
        {"where": False},
        {"weights": np.zeros(300)},
        {"weights": np.zeros((1, 1))},
    ):
        with reference.strict():
            garbage = np.full(x.shape, np.nan, dtype)
            assert same(shape_of(full.copy().update(garbage, **nothing)), want)
            empty = Moments(order, minmax=True).update(garbage, **nothing)
            assert empty.count.tolist() == [0] * 5
            assert all(np.isnan(value).all() for value in shape_of(empty)[1:])
            assert same(shape_of(empty + full), want)
            assert same(shape_of(full + empty), want)
    hidden = np.where(where, x, np.nan).astype(dtype)
    assert same(shape_of(Moments(order, minmax=True).update(hidden, nan_policy="omit")), want)
    filled = full.copy().update(x)
    assert np.isfinite(filled.mean).all()
    reference.assert_mean_var(filled.mean[2:3], filled.var()[2:3], x[:, 2:3], 0, dtype=np.float64)


@pytest.mark.parametrize("order", ORDERS)
def test_saved_masked_states_come_back_whole(order):
    x, where = skewed((4000, 3)), some((4000, 3))
    where[:, 1] = False
    for minmax in (False, True):
        for kwargs in ({}, {"where": where[:100]}, {"weights": np.linspace(0, 1, 100)}):
            m = Moments(order, minmax).update(x[:100], **kwargs)
            for back in (
                m.copy(),
                copy.deepcopy(m),
                pickle.loads(pickle.dumps(m)),
                Moments.from_dict(m.to_dict()),
                Moments.from_dict(json.loads(json.dumps(m.to_dict()))),
            ):
                assert back.to_dict() == m.to_dict()
                assert repr(back) == repr(m)
                assert type(back.count) is type(m.count)
                assert same(shape_of(back), shape_of(m))
                assert same(shape_of(back.update(x, where=where)), shape_of(m.copy().update(x, where=where)))
    before_masks = {k: v for k, v in fastnorm.moments(x, 0).to_dict().items() if k != "masked"}
    assert Moments.from_dict(before_masks).count == 4000


def test_a_refused_first_update_leaves_no_shape_behind():
    m = Moments(4)
    for bad in ({"weights": [-1.0, 1.0]}, {"where": [True, False, True]}, {"nan_policy": "raise"}):
        with pytest.raises(ValueError, match=r"weights|where|NaN"):
            m.update([1.0, np.nan], **bad)
    assert m.to_dict() == Moments(4).to_dict()
    assert m.update(np.ones((3, 2))).mean.tolist() == [1, 1]
