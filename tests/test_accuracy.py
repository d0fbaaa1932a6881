"""The promised accuracy, each sentence against exact arithmetic."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import reference
from cases import VALUES, uniform
from reference import exact_layer_norm, exact_mean_var, ulps

import fastnorm
from fastnorm import Moments, preprocessing

NIST = json.loads((Path(__file__).parent / "data" / "nist_strd_univariate.json").read_text())["sets"]
# The numerical-accuracy sets are defined by rules: 1.1 and 1.3 in turn, shifted, after one value in the middle.
for number, base in ((2, 1.2), (3, 1000000.2), (4, 10000000.2)):
    pair = [round(base - 0.1, 1), round(base + 0.1, 1)]
    NIST[f"NumAcc{number}"] = {"mean": base, "std": 0.1, "values": [base, *pair * 500]}
NIST["NumAcc1"] = {"mean": 10000002, "std": 1.0, "values": [10000001, 10000003, 10000002]}

LENGTHS = [1, 2, 3, 63, 64, 65, 1000, 4097, 32768, 32769, 70001]


def hostile(dtype):
    """(label, values) that break one-pass sums, sums about a bad shift, or sums in the result's own precision."""
    t = dtype.type
    for n in LENGTHS:
        u = uniform(n, dtype)
        yield f"uniform {n}", u
        yield f"offset 1e4 {n}", u + t(1e4)
        yield f"powers {n}", VALUES["powers"]((n,), dtype, 3)
        yield f"ramp {n}", np.arange(n).astype(dtype)
        yield f"ramp far from its first values {n}", (np.arange(n)[::-1] ** 2 // 7).astype(dtype)
        outlier = u.copy()
        outlier[n // 2] = 1e7
        yield f"one outlier {n}", outlier
        first = u.copy()
        first[0] = 1e9
        yield f"outlier first {n}", first
        yield f"alternating huge {n}", np.where(np.arange(n) % 2, u + t(1e18), u - t(1e18))
        yield f"last bit {n}", np.where(u > 0, np.nextafter(t(1), t(2)), t(1))


def check_exact(mean, var, values, ddof=0):
    """Mean: 1 ulp (float64: 4) + 2^-50 mean|x|. Variance: 1 ulp (float32), 64 eps (float64)."""
    exact_mean, exact_var = exact_mean_var(values, ddof)
    if mean is not None:
        ulp = 1 if mean.dtype == np.float32 else 4
        size = float(np.mean(np.abs(np.asarray(values, np.float64))))
        spacing = float(np.spacing(np.abs(mean.dtype.type(float(exact_mean)))))
        assert abs(Fraction(float(mean)) - exact_mean) <= Fraction(ulp * spacing + 2.0**-50 * size)
    if var is not None:
        if var.dtype == np.float32:
            assert ulps(var, exact_var) <= 1
        else:
            assert abs(Fraction(float(var)) - exact_var) <= 64 * Fraction(2) ** -52 * exact_var


# ---- statistics


def streamed(values):
    m = Moments()
    for part in np.array_split(values, 7):
        m.update(part)
    return m.mean, m.var(ddof=1), m.std(ddof=1)


def scaled(values):
    scaler = preprocessing.StandardScaler(ddof=1)
    for part in np.array_split(values, 3):
        scaler.partial_fit(part[:, None])
    return scaler.mean_[0], scaler.var_[0], scaler.scale_[0]


WAYS = {
    "whole": lambda values: (*fastnorm.mean_var(values, ddof=1), fastnorm.std(values, ddof=1)),
    "chunks": streamed,
    "StandardScaler": scaled,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NIST)
def test_nist_sets_to_their_certified_digits(name, way):
    values = np.array(NIST[name]["values"], np.float64)
    mean, var, std = WAYS[way](values)
    check_exact(mean, var, values, ddof=1)
    # Decimal values are rounded to float64 on the way in: half an ulp of the largest, against the spread.
    rounding = float(np.spacing(np.abs(values).max())) / 2
    for got, certified in ((mean, NIST[name]["mean"]), (std, NIST[name]["std"])):
        fifteenth_digit = 10.0 ** (math.floor(math.log10(abs(certified))) - 14)
        assert abs(got - certified) <= fifteenth_digit / 2 + 2 * rounding + np.spacing(abs(certified))


def test_any_values_of_any_length_on_any_axis(dtype):
    for _label, x in hostile(dtype):
        check_exact(*fastnorm.mean_var(x), x)
        check_exact(*fastnorm.mean_var(x, dtype=np.float64), x)
        column = np.stack([x[::-1], x, x + dtype.type(1)], axis=1)
        mean, var = fastnorm.mean_var(column, 0)
        check_exact(mean[1], var[1], x)
        m = fastnorm.moments(column, 0)
        check_exact(m.mean[1], m.var()[1], x)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 8, 9, 31, 33, 63, 64, 65, 100, 513])
def test_rows_and_columns_of_every_width(d, dtype):
    x = uniform((4200, d), dtype) * dtype.type(3) + dtype.type(500)
    for axis, lines in ((0, x.T), (1, x)):
        mean, var = fastnorm.mean_var(x, axis)
        for i in (0, len(lines) // 2, len(lines) - 1):
            check_exact(mean[i], var[i], lines[i])


def test_standard_deviation_is_within_an_ulp():
    # The float64 variance is within 64 eps, so its root within 32; both vanish in float32, one rounding is left.
    for _label, x in hostile(np.dtype(np.float32)):
        exact = reference.root(exact_mean_var(x)[1])
        if exact:
            assert ulps(fastnorm.std(x), exact) <= 1
            assert abs(Fraction(float(fastnorm.std(x, dtype=np.float64))) / exact - 1) <= 33 * Fraction(2) ** -52


def test_twenty_million_ones():
    mean, var = fastnorm.mean_var(np.ones((20_000_000, 2), np.float32), axis=0)
    assert mean.tolist() == [1, 1]
    assert var.tolist() == [0, 0]


@pytest.mark.parametrize("offset", [1e8, 1e10, 1e12, 1e15])
def test_a_large_mean_does_not_cost_the_variance(offset):
    for n in (10, 1001, 40001):
        x = np.arange(n) % 8 * 0.25 + offset
        for y in (x, np.stack([x, x], 1), np.stack([x] * 9)):
            axis = y.ndim - 1 if len(y) == 9 else 0
            mean, var = fastnorm.mean_var(y, axis)
            check_exact(np.atleast_1d(mean)[0], np.atleast_1d(var)[0], x)
        m = Moments()
        for part in np.array_split(x, 5):
            m.merge(fastnorm.moments(part))
        check_exact(m.mean, m.var(), x)


def test_constants_are_exact_and_tiny_spreads_kept(dtype):
    for n in (1, 2, 3, 10, 65, 1000, 4097, 100003):
        for value in (14.62, 0.1, -1e-30, 3.0000001, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal):
            x = np.full((n, 2), value, dtype)
            for axis, y in ((0, x), (1, np.ascontiguousarray(x.T)), (None, x)):
                mean, var = fastnorm.mean_var(y, axis)
                assert (mean == dtype.type(value)).all()
                assert (var == 0).all()
    x = 1.0 + 1e-13 * (np.arange(10001) % 2)
    check_exact(*fastnorm.mean_var(x), x)
    assert abs(fastnorm.std(x) / 0.5e-13 - 1) < 2e-3  # 1 + 1e-13 is 450.36 ulp, stored as 450


def test_values_near_the_maximum_do_not_overflow(dtype):
    top = np.finfo(dtype).max
    with reference.strict():
        for n in (2, 3, 100, 5001):
            x = np.full(n, top)
            assert fastnorm.mean(x) == top
            assert fastnorm.var(x) == 0
            assert (fastnorm.mean(np.stack([x, -x], 1), 0) == [top, -top]).all()
        x = np.tile([top, -top], 3000)
        assert fastnorm.mean(x) == 0
        assert fastnorm.var(x) == np.inf
        assert (fastnorm.mean_var(x.reshape(-1, 2).T.copy(), 0)[0] == 0).all()
        single = np.tile(np.array([1, -1], np.float32) * np.finfo(np.float32).max, 50)
        assert fastnorm.var(single, dtype=np.float64) == float(np.finfo(np.float32).max) ** 2


def test_a_variance_near_the_maximum_is_finite():
    for n in (10, 5001, 70001):  # the sum of squares of so many would overflow; the variance of no part does
        x = uniform(n, np.float64) * 1.3e154
        check_exact(*fastnorm.mean_var(x), x)
        y = np.stack([x, x], 1)
        mean, var = fastnorm.mean_var(y, 0)
        check_exact(mean[1], var[1], x)
        m = Moments()
        for part in np.array_split(x, 7):
            m.update(part)
        check_exact(m.mean, m.var(), x)


def test_subnormals_count(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.arange(1001, dtype=dtype) * tiny
    assert fastnorm.mean(x) == dtype.type(500) * tiny
    assert fastnorm.minmax(x) == (0, x[-1])
    small = np.arange(1001) * 2.0**-530  # their squares are normal, barely
    check_exact(*fastnorm.mean_var(small), small)
    if dtype == np.float32:
        check_exact(None, fastnorm.var(x, dtype=np.float64), x)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-23), (np.float64, 1e-170)])
@pytest.mark.parametrize("shape", [(100, 3), (5000, 3)])
def test_a_deviation_whose_square_vanishes_is_right(dtype, size, shape):
    x = np.where(np.arange(shape[0])[:, None] % 2, size, -size).astype(dtype) * np.ones(shape, dtype)
    for eps in (0.0, 1e-5):
        y, _mean, std = fastnorm.standardize(x, eps=eps, return_stats=True)
        np.testing.assert_allclose(std, np.abs(x[0]), rtol=1e-6)
        expected = x / (np.abs(x) if eps == 0 else np.sqrt(eps))
        np.testing.assert_allclose(y, expected, rtol=1e-6)


def test_counts_beyond_two_to_the_53rd():
    values = [1.0, 2.0, 6.0]
    m = fastnorm.moments(np.array(values))
    for _ in range(60):
        m.merge(m.copy())
    mean, var = exact_mean_var(values)
    assert m.count == 3 << 60
    assert abs(Fraction(float(m.mean)) - mean) <= 4 * Fraction(2) ** -52 * mean
    assert abs(Fraction(float(m.var())) - var) <= 64 * Fraction(2) ** -52 * var
    m.update(np.array([5.0]))
    assert m.count == (3 << 60) + 1
    m.merge(Moments.from_dict(m.to_dict()))
    assert m.count == (3 << 61) + 2
    assert abs(m.var() / float(var) - 1) < 64 * 2.0**-52


def test_merging_many_states_loses_nothing():
    # Each merge may round in float64 once; kept as two doubles, ten thousand of them stay within the bound of one.
    x = uniform(30000, np.float64) + 1e6
    m = Moments()
    for i in range(0, 30000, 3):
        m.merge(fastnorm.moments(x[i : i + 3]))
    check_exact(m.mean, m.var(), x)


# ---- norms


def check_rows(x, eps=1e-5):
    """Y within NORM_EPS of exact and, for float32, rstd within 1 ulp."""
    y, mean, rstd = fastnorm.layer_norm(x, eps=eps, return_stats=True)
    across = fastnorm.layer_norm(np.ascontiguousarray(x.T), axis=0, eps=eps, return_stats=True)
    for i, row in enumerate(x):
        want, exact_mean, exact_rstd = exact_layer_norm(row, eps)
        c_eps = reference.NORM_EPS[x.dtype] * reference.eps_of(x.dtype)
        bound = c_eps * np.maximum(np.abs(want), 1)
        for values, saved_mean, saved_rstd in ((y[i], mean[i], rstd[i]), (across[0][:, i], across[1][i], across[2][i])):
            reference.assert_within(values, want, bound)
            # An ulp for rounding it, and no more error before that than the normalized value may have.
            ulp = float(np.spacing(np.abs(x.dtype.type(float(exact_mean)))))
            slack = ulp + c_eps * float(1 / exact_rstd)
            assert abs(Fraction(float(saved_mean)) - exact_mean) <= Fraction(slack)
            if x.dtype == np.float32:
                assert ulps(saved_rstd, exact_rstd) <= 1
            else:
                assert abs(Fraction(float(saved_rstd)) / exact_rstd - 1) <= 33 * Fraction(2) ** -52


@pytest.mark.parametrize("d", [2, 3, 8, 31, 63, 64, 65, 100, 768, 1000, 4097])
def test_layer_norm_is_within_its_bound_of_exact(d, dtype):
    for offset in (0, 1, 1e4):  # the spread is about 0.58: mean / std goes beyond 1e4
        check_rows(uniform((3, d), dtype) + dtype.type(offset))


def test_layer_norm_at_a_mean_of_ten_thousand_deviations():
    for d in (64, 256, 768, 1024, 5000):
        x = uniform((4, d), np.float32) * np.float32(3**0.5) + np.float32(1e4)
        want = np.stack([exact_layer_norm(row)[0] for row in x])
        assert np.abs(fastnorm.layer_norm(x) - want).max() < 2e-6
        tall = np.ascontiguousarray(x.T)
        assert np.abs(fastnorm.standardize(tall) - np.stack([exact_layer_norm(row, 0)[0] for row in x]).T).max() < 2e-6


@pytest.mark.parametrize("kind", ["powers", "huge", "outlier", "ramp", "alternating"])
def test_hostile_rows_normalize_right(kind, dtype):
    for d in (2, 9, 64, 300, 5000):
        if kind == "outlier":
            x = uniform((2, d), dtype)
            x[0, 0], x[1, d // 2] = 1e7, -1e9
        elif kind == "ramp":
            x = np.stack([np.arange(d), np.arange(d)[::-1] ** 2]).astype(dtype)
        elif kind == "alternating":
            x = np.where(np.arange(d) % 2, dtype.type(1e18), dtype.type(-1e18)) * (2 + uniform((2, d), dtype))
        elif kind == "huge":
            x = uniform((2, d), dtype) * dtype.type(1e30)
        else:
            x = VALUES[kind]((2, d), dtype, 5)
        check_rows(x)


def test_rows_of_the_largest_and_smallest_values(dtype):
    info = np.finfo(dtype)
    with reference.strict():
        for d in (2, 64, 1000):
            top = np.tile(np.array([info.max, -info.max]), d // 2)
            np.testing.assert_allclose(fastnorm.layer_norm(top), np.sign(top), rtol=4 * info.eps)
            np.testing.assert_allclose(fastnorm.standardize(top), np.sign(top), rtol=4 * info.eps)
            low = np.tile(np.array([info.smallest_subnormal, -info.smallest_subnormal]), d // 2)
            np.testing.assert_allclose(fastnorm.layer_norm(low, eps=0), np.sign(low), rtol=4 * info.eps)
            np.testing.assert_allclose(fastnorm.standardize(low), np.sign(low), rtol=4 * info.eps)
            assert not np.isnan(fastnorm.layer_norm(low)).any()
            assert np.abs(fastnorm.layer_norm(low)).max() < 1e-30


def test_rows_of_1e30_have_unit_variance():
    for shape in ((4, 100), (100, 4)):
        x = uniform(shape, np.float32) * np.float32(1e30)
        axis = int(np.argmax(shape))
        y = fastnorm.layer_norm(x, axis=axis).astype(np.float64)
        # y is off by 4 eps max(|y|, 1) < 8 eps, its variance by twice that.
        np.testing.assert_allclose(y.var(axis), 1, rtol=16 * 2.0**-23)


# ---- NaN and infinity


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(5, 7), (70, 8), (9, 65), (300, 33), (3, 4100), (4100, 3)], ids=str)
def test_nan_and_infinity_spoil_their_own_row_or_column_only(shape, bad, dtype):
    clean = uniform(shape, dtype)
    x = clean.copy()
    at = (shape[0] - 1, shape[1] // 2)
    x[at] = bad
    for axis in (0, 1):
        with reference.strict():
            spoiled = [*fastnorm.mean_var(x, axis), *fastnorm.minmax(x, axis)]
            norms = [fastnorm.layer_norm(x, axis=axis), fastnorm.standardize(x, axis)]
            m = fastnorm.moments(x, axis)
            spoiled += [m.mean, m.var()]
        whole = [*fastnorm.mean_var(clean, axis), *fastnorm.minmax(clean, axis)]
        m = fastnorm.moments(clean, axis)
        whole += [m.mean, m.var()]
        keep = np.arange(shape[1 - axis]) != at[1 - axis]
        for got, want in zip(spoiled, whole, strict=True):
            assert got[keep].tobytes() == want[keep].tobytes()
        mean, var = spoiled[0][~keep], spoiled[1][~keep]
        assert np.isnan(var).all()
        assert (np.isnan(mean) if np.isnan(bad) else mean == bad).all()
        for got, want in zip(
            norms, (fastnorm.layer_norm(clean, axis=axis), fastnorm.standardize(clean, axis)), strict=True
        ):
            lines, clean_lines = np.moveaxis(got, axis, 0), np.moveaxis(want, axis, 0)
            assert lines[:, keep].tobytes() == clean_lines[:, keep].tobytes()
            assert np.isnan(lines[:, ~keep]).all()


def test_infinities_of_both_signs_have_no_mean(dtype):
    x = np.array([[np.inf, 1, np.inf], [-np.inf, np.inf, 3]], dtype)
    with reference.strict():
        np.testing.assert_array_equal(fastnorm.mean(x, 0), [np.nan, np.inf, np.inf])
        assert np.isnan(fastnorm.mean(x))
        assert np.isnan(fastnorm.var(x))
        low, high = fastnorm.minmax(x, 0)
        np.testing.assert_array_equal([low, high], [[-np.inf, 1, 3], [np.inf, np.inf, np.inf]])
        m = fastnorm.moments(x[0, :1], 0).merge(fastnorm.moments(x[0, 2:], 0))
        assert m.mean == np.inf
        assert np.isnan(m.var())
        assert np.isnan(m.merge(fastnorm.moments(x[1, :1], 0)).mean)
