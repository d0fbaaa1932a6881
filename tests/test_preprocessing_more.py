"""What scalers do beyond scikit-learn's: streams, merges, groups, any axis, outputs, saved states, exactness, bits."""

import copy
import itertools
import json
from fractions import Fraction

import numpy as np
import preprocessing as given
import pytest
import reference
import sklearn.preprocessing as theirs
from cases import supported_isas, threshold, uniform
from memory import garbage, peak_growth
from preprocessing import SCALERS, dense, gain, holed, shifted, sizes, table
from scipy import sparse

import fastnorm
from fastnorm import _ops
from fastnorm import preprocessing as ours

BY_MOMENTS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler")  # take groups, and merge without loss
FLOATS = (np.float64, np.float32, np.float16)


def new(name, **parameters):
    return getattr(ours, name)(**parameters)


def every(names=SCALERS):
    """(label, a function that makes a new scaler) for every set of parameters."""
    for name in names:
        for parameters in given.parameters(name):
            yield f"{name}({parameters})", lambda name=name, parameters=parameters: new(name, **parameters)


def saved(scaler):
    """Everything that a scaler knows."""
    return json.dumps(scaler.to_dict())


def eps_of(x):
    return float(np.finfo(x.dtype).eps)


def assert_near(mine, other, x, label, eps=None):
    """Two fitted scalers scale x alike: their statistics agree to some eps, and transforms round four times."""
    got, want = mine.transform(x), other.transform(x)
    bound = 4 * (eps or eps_of(want)) * (np.abs(dense(want)) + sizes(x) * gain(other) + shifted(other))
    given.assert_close(got, want, bound, label)


# ---- streams and merges


def cut(x, places):
    return [x[start:stop] for start, stop in itertools.pairwise([0, *places, len(x)])]


@pytest.mark.parametrize("columns", [1, 7, 30])
def test_aligned_chunks_are_the_whole_byte_for_byte(columns):
    for dtype in (np.float32, np.float64):
        rows = fastnorm.Moments().update(table(dtype, 1, columns)).block_rows
        x = table(dtype, 3 * rows + 5, columns) + dtype(100)
        for label, make in every(BY_MOMENTS):
            whole = make().fit(x)
            for places in ((rows,), (rows, 3 * rows), (rows, 2 * rows, 3 * rows)):
                parts = make()
                for chunk in cut(x, places):
                    parts.partial_fit(chunk)
                given.assert_same_state(parts, whole, f"{label} {dtype}")
                assert saved(parts) == saved(whole)
                assert parts.transform(x).tobytes() == whole.transform(x).tobytes()


def test_any_chunks_and_any_merges_are_near_the_whole():
    for dtype in (np.float64, np.float32):
        x = holed(table(dtype, 500), [(3, 1), (77, 2), (300, 0)])
        chunks = cut(x, (1, 2, 130, 131, 400))
        for label, make in every(BY_MOMENTS):
            whole = make().fit(x)
            one = make()
            for chunk in chunks:
                one.partial_fit(chunk)
            pieces = [make().fit(chunk) for chunk in chunks]
            before = [saved(piece) for piece in pieces]
            in_turn = make()  # not fitted: the identity
            for piece in pieces:
                assert in_turn.merge(piece) is in_turn
            in_turn.merge(make())
            right = pieces[-1]
            for piece in pieces[-2::-1]:
                right = piece + right
            left, middle = sum(pieces[1:], pieces[0]), pieces[:]
            while len(middle) > 1:
                middle = [sum(pair[1:], pair[0]) for pair in (middle[i : i + 2] for i in range(0, len(middle), 2))]
            assert [saved(piece) for piece in pieces] == before, f"{label}: + changed its operands"
            for how, got in (("parts", one), ("merge", in_turn), ("right", right), ("left", left), ("tree", middle[0])):
                assert_near(got, whole, x, f"{label} {how}")
                np.testing.assert_array_equal(got.n_samples_seen_, whole.n_samples_seen_)
                assert got.n_features_in_ == 5
                if not label.startswith("Standard"):
                    given.assert_same_state(got, whole, f"{label} {how}")  # extrema do not round
                else:
                    # Chunks are summed and merged in double-double: some eps, at most, of exact statistics.
                    for name in ("mean_", "var_"):
                        if getattr(whole, name) is not None:
                            size = sizes(x) ** (2 if name == "var_" else 1)
                            assert (np.abs(getattr(got, name) - getattr(whole, name))[:4] <= 2.0**-50 * size[:4]).all()


def test_what_cannot_be_merged_is_refused_and_changes_nothing():
    x = table()
    named = given.pd.DataFrame(x, columns=list("abcde"))
    grouped = np.arange(given.ROWS) % 3
    for name in BY_MOMENTS:
        scaler = new(name).fit(named)
        before = saved(scaler)
        for other, kind in (
            (new(name).fit(x[:, :3]), ValueError),
            (new(name).fit(named.rename(columns={"a": "x"})), ValueError),
            (new(name).fit(x, groups=grouped), ValueError),
            (new("MaxAbsScaler" if name != "MaxAbsScaler" else "MinMaxScaler").fit(x), TypeError),
            (getattr(theirs, name)().fit(x), TypeError),
            (3, TypeError),
        ):
            with pytest.raises(kind):
                scaler.merge(other)
            with pytest.raises(kind):
                scaler + other
        assert saved(scaler) == before


def test_partial_fit_never_ends():
    # A state merged with itself has twice the count, and the same mean and variance: no bound of integers, none of
    # sums, and 2^53 + 1 samples are counted.
    x = table(rows=8)
    first = ours.StandardScaler().fit(x)
    scaler = ours.StandardScaler().fit(x)
    for _ in range(50):
        scaler.merge(scaler)
    assert scaler.n_samples_seen_ == 2**53
    assert_near(scaler, first, x, "doubled fifty times")
    scaler.partial_fit(x[:1])
    assert scaler.n_samples_seen_ == 2**53 + 1
    assert_near(scaler, first, x, "and one more")
    for name in ("MinMaxScaler", "MaxAbsScaler"):
        scaler = new(name).fit(x)
        for _ in range(50):
            scaler += scaler
        assert scaler.n_samples_seen_ == 2**53
        assert scaler.transform(x).tobytes() == new(name).fit(x).transform(x).tobytes()


def test_what_is_refused_leaves_scalers_as_they_were():
    x = table()
    named = given.pd.DataFrame(x, columns=list("abcde"))
    for label, make in every():
        scaler = make().fit(named)
        before = saved(scaler)
        calls = [scaler.fit, scaler.fit_transform, *([scaler.partial_fit] if hasattr(scaler, "partial_fit") else [])]
        for call in calls:
            for bad in ([["a", "b"]], np.ones(5), np.empty((0, 5)), x.astype(complex), np.ones((2, 5, 2))):
                with pytest.raises((ValueError, TypeError)), reference.silent():  # names are missing, too
                    call(bad)
                assert saved(scaler) == before, label
        for call in calls[2:]:
            for bad in (named.rename(columns={"a": "x"}), named.iloc[:, :3]):
                with pytest.raises(ValueError, match="feature"):
                    call(bad)
                assert saved(scaler) == before, label


def test_values_near_the_largest_keep_their_means():
    # Sums of 10^6 such values overflow (float64), and sums of squares of far fewer.
    for dtype in (np.float64, np.float32):
        unit = np.finfo(dtype).max / dtype(1e5)
        x = (np.abs(uniform((50_000, 3), dtype)) + dtype(1)) * unit
        with reference.strict():
            scaler = ours.StandardScaler(with_std=dtype == np.float32)
            for _ in range(20):
                scaler.partial_fit(x)
            mean, _ = zip(*(reference.exact_mean_var(column) for column in x.T), strict=True)
            for got, want in zip(scaler.mean_.tolist(), mean, strict=True):
                assert abs(Fraction(got) - want) <= Fraction(2) ** -50 * want
            assert np.isfinite(scaler.transform(x)).all()
        if dtype == np.float32:
            y = scaler.transform(x).astype(np.float64)
            np.testing.assert_allclose(y.std(0), 1, rtol=1e-5)


def test_the_largest_values_are_not_taken_for_infinity():
    for dtype in FLOATS:
        most = np.finfo(dtype).max
        x = np.full((70, 6), most)
        x[::2, 1], x[::3, 2], x[1:, 3], x[:, 4], x[7, 5] = -most, 0, 1, -most, np.nan
        for label, make in every((*SCALERS, "Normalizer")):
            finite = x[:, :5] if label.startswith("Normalizer") else x
            with reference.strict():
                scaler = make().fit(finite)
                if hasattr(scaler, "partial_fit") and hasattr(scaler, "merge"):
                    scaler.partial_fit(finite)
                y = scaler.transform(finite)
            # Where neither a range nor a norm is past the largest number, results are finite.
            if label.startswith(("MaxAbs", "MinMaxScaler({})", "Normalizer({'norm': 'max'")):
                assert np.isfinite(y[:, [0, 2, 4]]).all(), f"{label} {np.dtype(dtype)}"


# ---- exactness


def constants(value, dtype, n):
    x = np.full((n, 3), value, dtype)
    x[:, 2] = -value
    return x


def test_constants_become_exact_zeros_however_they_are_learnt():
    for dtype in FLOATS:
        for n in (1, 2, 3, 7, 64, 1000, 4097, 100_001 if dtype is np.float32 else 33):
            x = constants(14.62, dtype, n)
            weights = np.abs(uniform(n, np.float64, n)) + 0.1
            scalers = {
                "fit": ours.StandardScaler().fit(x),
                "weighted": ours.StandardScaler().fit(x, sample_weight=weights),
                "chunks": ours.StandardScaler().partial_fit(x[: n // 3 + 1]).partial_fit(x[n // 2 :]),
                "merged": ours.StandardScaler().fit(x) + ours.StandardScaler().fit(x[:1], sample_weight=[0.3]),
                "ddof": ours.StandardScaler(ddof=0.5).fit(x),
                "Fortran": ours.StandardScaler().fit(np.asfortranarray(x)),
            }
            for how, scaler in scalers.items():
                label = f"{np.dtype(dtype)}[{n}] {how}"
                assert given.same(scaler.mean_, x[0].astype(np.float64)), label
                assert given.same(scaler.var_, np.zeros(3)), label
                assert given.same(scaler.scale_, np.ones(3)), label
                assert not scaler.transform(x).any(), label
            for order in (1, 0):
                assert not ours.scale(x if order else x.T, axis=1 - order).any()
            for low, high in ((0, 1), (-1, 1), (0.3, 7)):
                y = ours.MinMaxScaler((low, high)).fit_transform(x)
                assert (y == np.asarray(low).astype(dtype)).all()
            assert (np.abs(ours.MaxAbsScaler().fit_transform(x)) == 1).all()
            if "RobustScaler" in SCALERS:
                scaler = ours.RobustScaler().fit(x)
                assert (scaler.scale_ == 1).all()
                assert not scaler.transform(x).any()


def test_small_spreads_are_scaled_and_not_flattened():
    for dtype in (np.float64, np.float32):
        for size in (1e-13, 1e-30):
            x = uniform((1000, 4), dtype) * dtype(size)
            bound = 2 * reference.NORM_EPS[np.dtype(dtype)] * np.finfo(dtype).eps  # each z, and twice that its square
            y = ours.StandardScaler().fit_transform(x).astype(np.float64)
            np.testing.assert_allclose(y.var(0), 1, rtol=bound)
            np.testing.assert_allclose(y.mean(0), 0, atol=bound)
            y = ours.MinMaxScaler().fit_transform(x)
            assert (y.min(0) == 0).all()
            assert (y.max(0) == 1).all()
            assert (np.abs(ours.MaxAbsScaler().fit_transform(x)).max(0) == 1).all()
            if "RobustScaler" in SCALERS:
                y = ours.RobustScaler().fit_transform(x).astype(np.float64)
                np.testing.assert_allclose(np.percentile(y, 75, axis=0) - np.percentile(y, 25, axis=0), 1, rtol=bound)
    # One digit of 14.62 that moves is a spread: values then lie one standard deviation from the mean.
    x = np.resize([14.62, np.nextafter(14.62, 15)], (100, 1))
    scaler = ours.StandardScaler().fit(x)
    np.testing.assert_allclose(scaler.scale_, np.spacing(14.62) / 2, rtol=1e-9)


@pytest.mark.parametrize("offset", [0, 1e3, 1e8])
def test_transforms_are_right_to_some_eps_at_any_mean(offset):
    # Within NORM_EPS of exact, as the norms: the residual of the rounded mean is kept.
    for dtype in (np.float64, np.float32):
        if dtype == np.float32 and offset > 1e5:
            x = (np.floor(uniform((400, 3), np.float64) * 512) * 16 + offset).astype(dtype)
        else:
            x = (uniform((400, 3), np.float32).astype(np.float64) + offset).astype(dtype)
        halves = ours.StandardScaler().fit(x[:130]) + ours.StandardScaler().fit(x[130:])
        for how, scaler in (("fit", ours.StandardScaler().fit(x)), ("merged", halves)):
            y = scaler.transform(x)
            back = scaler.inverse_transform(y)
            for i in range(3):
                mean, var = reference.exact_mean_var(x[:, i])
                std = reference.root(var)
                exact = np.array([float((Fraction(v) - mean) / std) for v in x[:, i].tolist()])
                bound = reference.NORM_EPS[np.dtype(dtype)] * np.finfo(dtype).eps * np.maximum(np.abs(exact), 1)
                reference.assert_within(y[:, i], exact, bound)
            # y is off by half an eps of itself, the product and the sum once more; then the mean's digits are lost.
            bound = np.finfo(dtype).eps * (2 * np.abs(dense(y)) * scaler.scale_ + np.abs(dense(x)))
            reference.assert_within(back, x, bound)
            assert back.dtype == dtype, how


def test_extrema_map_to_the_ends_of_the_range():
    for dtype in (np.float64, np.float32):
        for seed in range(40):
            x = table(dtype, 50, 7, seed) * dtype(1 / 3) + dtype(seed / 7)
            for low, high in ((0, 1), (-1, 1), (0.1, 0.7), (-3.3, 1e3), (5, 5.1)):
                scaler = ours.MinMaxScaler((low, high)).fit(x)
                y = scaler.transform(x)
                assert (y.min(0) == dtype(low)).all(), f"{seed} {low} {high}"
                assert (y.max(0) <= dtype(high)).all(), f"{seed} {low} {high}"
                if (low, high) in {(0, 1), (-1, 1)}:
                    assert (y.max(0) == dtype(high)).all(), f"{seed} {low} {high}"
                # Values of 4 eps of the range and of themselves, shifted and stretched once.
                reference.assert_within(
                    scaler.inverse_transform(y),
                    x,
                    4
                    * np.finfo(dtype).eps
                    * (sizes(x) + max(abs(low), abs(high)) / (high - low) * np.ptp(dense(x), 0)),
                )
            assert (np.abs(ours.MaxAbsScaler().fit_transform(x)).max(0) == 1).all()


def test_inverses_undo_transforms():
    for dtype in FLOATS:
        x = holed(table(dtype))
        for label, make in every():
            scaler = make().fit(x)
            y = scaler.transform(x)
            bound = 4 * eps_of(x) * (sizes(x) + (sizes(y) + shifted(scaler)) / gain(scaler))
            given.assert_close(scaler.inverse_transform(y), x, bound, label)


def test_ddof_divides_by_one_less():
    x = table()
    for ddof in (0, 1, 2.5):
        scaler = ours.StandardScaler(ddof=ddof).fit(x)
        want = x.var(0) * len(x) / (len(x) - ddof)
        np.testing.assert_allclose(scaler.var_, want, rtol=1e-12)
        np.testing.assert_allclose(scaler.scale_, np.sqrt(want), rtol=1e-12)
        parts = ours.StandardScaler(ddof=ddof).partial_fit(x[:9]).partial_fit(x[9:])
        np.testing.assert_allclose(parts.var_, want, rtol=1e-12)
    weights = np.arange(given.ROWS) % 4
    np.testing.assert_allclose(
        ours.StandardScaler(ddof=1).fit(x, sample_weight=weights).var_,
        np.repeat(x, weights, axis=0).var(0, ddof=1),
        rtol=1e-12,
    )
    for ddof in (-1, "1", np.nan):
        with pytest.raises((ValueError, TypeError), match="ddof"):
            ours.StandardScaler(ddof=ddof).fit(x)


def test_weights_mean_repetition_and_are_not_negative():
    x = holed(table())
    weights = np.arange(given.ROWS) % 4
    weighted = ours.StandardScaler().fit(x, sample_weight=weights)
    repeated = ours.StandardScaler().fit(np.repeat(x, weights, axis=0))
    assert_near(weighted, repeated, x, "repeated")
    before = saved(weighted)
    for wrong in (-1.0 * weights, np.where(weights == 1, np.nan, 1), weights[1:]):
        with pytest.raises(ValueError, match="weight"):
            weighted.partial_fit(x, sample_weight=wrong)
    assert saved(weighted) == before


# ---- infinity


def test_infinity_is_found_wherever_it_is_and_leaves_everything_as_it_was():
    message = r"Input X contains infinity or a value too large for dtype\('float(16|32|64)'\)\."
    for dtype in FLOATS:
        for rows, columns in ((1, 1), (40, 1), (3, 37), (401, 7)):
            clean = table(dtype, rows, columns)
            scalers = [(label, make, make().fit(clean)) for label, make in every((*SCALERS, "Normalizer"))]
            for step in range(6):
                x = clean.copy()
                at = int(uniform(1, np.uint32, 7 * step + rows)[0]) % x.size if step else x.size - 1
                x.reshape(-1)[at] = np.inf if step % 2 else -np.inf
                for kind, bad in (("C", x), ("F", np.asfortranarray(x)), ("strided", np.repeat(x, 2, axis=0)[::2])):
                    bytes_of = bad.tobytes()
                    for label, make, scaler in scalers:
                        where = f"{label} {np.dtype(dtype)}{x.shape} {kind} at {at}"
                        normalizer = label.startswith("Normalizer")
                        before = None if normalizer else saved(scaler)
                        calls = [scaler.transform, lambda b, s=scaler: s.transform(b, copy=False)]
                        out = np.full_like(bad, 77)
                        calls += [lambda b, s=scaler, out=out: s.transform(b, out=out)]
                        calls += [lambda b, s=scaler: s.transform(b, out=b), make().fit_transform]
                        if not normalizer:
                            calls += [scaler.fit, scaler.inverse_transform, scaler.fit_transform]
                            calls += [lambda b, s=scaler: s.inverse_transform(b, out=b)]
                            calls += [scaler.partial_fit] if hasattr(scaler, "partial_fit") else []
                        for call in calls:
                            with pytest.raises(ValueError, match=message):
                                call(bad)
                            assert bad.tobytes() == bytes_of, where
                        assert (out == 77).all(), where
                        assert before is None or saved(scaler) == before, where


def test_infinity_is_found_beside_nan_and_under_no_weight():
    for dtype in FLOATS:
        for place in ((0, 0), (41, 1), (96, 4)):
            x = holed(table(dtype))
            x[:, 1] = np.nan
            x[place] = np.inf
            weights = np.ones(given.ROWS)
            weights[place[0]] = 0
            groups = np.arange(given.ROWS) % 5
            for label, make in every():
                for call in ("fit", "fit_transform"):
                    with pytest.raises(ValueError, match="contains infinity"):
                        getattr(make(), call)(x)
                with pytest.raises(ValueError, match="contains infinity"):
                    make().fit(table(dtype)).transform(x)
                if not label.startswith("Robust"):
                    with pytest.raises(ValueError, match="contains infinity"):
                        make().fit(x, groups=groups)
            for bad in (x, np.where(np.isinf(x), x, table(dtype))):
                with pytest.raises(ValueError, match="contains infinity"):
                    ours.StandardScaler().fit(bad, sample_weight=weights)


# ---- any axis


def test_any_feature_axis_is_that_of_a_moved_and_flattened_array():
    for dtype in (np.float64, np.float32):
        x = np.ascontiguousarray(table(dtype, 6 * 4 * 3, 5).reshape(6, 4, 3, 5))
        x[1, 2, 0, 3] = np.nan
        for axis, place in itertools.product(range(-4, 4), range(4)):
            if axis % 4 != place:
                continue
            y = np.moveaxis(x, -1, place)
            for layout in (np.ascontiguousarray(y), y, np.asfortranarray(y)):
                for label, make in every():
                    flat = make().fit(x.reshape(-1, 5))
                    scaler = make().set_params(feature_axis=axis).fit(layout)
                    where = f"{label} {np.dtype(dtype)} axis {axis}"
                    assert scaler.n_features_in_ == 5
                    if label.startswith("Standard"):
                        np.testing.assert_array_equal(scaler.n_samples_seen_, flat.n_samples_seen_)
                    for call in ("transform", "inverse_transform"):
                        got = getattr(scaler, call)(layout)
                        assert got.shape == layout.shape
                        want = getattr(flat, call)(x.reshape(-1, 5))
                        got = np.moveaxis(got, place, -1).reshape(-1, 5)
                        size = sizes(x.reshape(-1, 5))
                        stretch = gain(flat) if call == "transform" else 1 / gain(flat)
                        shift = shifted(flat) * (1 if call == "transform" else stretch)
                        bound = 4 * eps_of(x) * (np.abs(want) + size * stretch + size + shift)
                        given.assert_close(got, want, bound, f"{where} {call}")
    for label, make in every():
        scaler = make().set_params(feature_axis=1).fit(x)
        with pytest.raises(ValueError, match="features"):
            scaler.transform(x[:, :2])
        with pytest.raises(ValueError, match="feature_axis"):
            make().set_params(feature_axis=4).fit(x)
        with pytest.raises(ValueError, match=r"dim"):
            make().fit(x)
        one = make().set_params(feature_axis=0).fit(x[0, 0, 0])  # one value of each feature
        assert one.n_features_in_ == 5, label
    for name in BY_MOMENTS:
        y = np.ones((5, 3, 2))
        for axis, count in ((0, 6), (1, 10), (2, 15)):
            assert new(name, feature_axis=axis).fit(y).n_samples_seen_ == count, f"{name} {axis}"
    weights = np.array([0, 1, 2, 1, 1, 0.5])
    weighted = ours.StandardScaler(feature_axis=3).fit(x, sample_weight=weights)
    flat = ours.StandardScaler().fit(x.reshape(-1, 5), sample_weight=np.repeat(weights, 12))
    np.testing.assert_allclose(weighted.var_, flat.var_, rtol=1e-12)
    with pytest.raises(ValueError, match="feature_axis"):  # there is no weight of a sample along the first axis
        ours.StandardScaler(feature_axis=0).fit(y, sample_weight=np.ones(5))


# ---- groups


LABELS = {
    "integers": np.array([30, -1, 7]),
    "strings": np.array(["right", "a", "left"]),
    "a list of strings": ["right", "a", "left"],
}


def test_groups_are_a_loop_over_groups():
    order = uniform(given.ROWS, np.uint32, 3) % 3
    weights = np.abs(uniform(given.ROWS, np.float64, 4))
    for kind, labels in LABELS.items():
        groups = np.asarray(labels)[order]
        groups = groups.tolist() if kind.startswith("a list") else groups
        for dtype in (np.float64, np.float32):
            x = holed(table(dtype))
            x[0, -1] = 1  # the only value of its column, in one group
            for label, make in every(BY_MOMENTS):
                for weighted in (False, True) if label.startswith("Standard") else (False,):
                    more = {"sample_weight": weights} if weighted else {}
                    scaler = make().fit(x, groups=groups, **more)
                    where = f"{label} of {np.dtype(dtype)}, {kind}, weighted: {weighted}"
                    assert scaler.groups_.tolist() == sorted(set(np.asarray(labels).tolist())), where
                    y, back = scaler.transform(x, groups=groups), scaler.inverse_transform(x, groups=groups)
                    assert y.dtype == back.dtype == dtype
                    at_once = make().fit_transform(x, groups=groups, **more)
                    assert at_once.tobytes() == y.tobytes(), where
                    for i, name in enumerate(scaler.groups_):
                        mine = np.asarray(groups) == name
                        alone = make().fit(x[mine], **{key: value[mine] for key, value in more.items()})
                        for attribute, value in given.fitted(alone).items():
                            got = getattr(scaler, attribute)
                            if attribute == "n_features_in_" or not isinstance(value, (int, np.generic, np.ndarray)):
                                continue
                            got = np.broadcast_to(got, (3,) if np.shape(got) == () else got.shape)[i]
                            np.testing.assert_allclose(got, value, rtol=1e-12 if dtype is np.float64 else 1e-5)
                        bound = 4 * eps_of(x) * (np.abs(y[mine]) + sizes(x[mine]) * gain(alone) + shifted(alone))
                        given.assert_close(y[mine], alone.transform(x[mine]), bound, where)
                        bound = 4 * eps_of(x) * (sizes(x) + (sizes(x) + shifted(alone)) / gain(alone))
                        given.assert_close(back[mine], alone.inverse_transform(x[mine]), bound, where)


def test_groups_grow_and_merge():
    x = table()
    groups = np.array(["c", "a", "b", "d"])[uniform(given.ROWS, np.uint32, 5) % 4]
    groups[:20] = "b"  # others come later
    for label, make in every(BY_MOMENTS):
        whole = make().fit(x, groups=groups)
        parts = make().partial_fit(x[:20], groups=groups[:20]).partial_fit(x[20:], groups=groups[20:])
        merged = make().fit(x[60:], groups=groups[60:]) + make().fit(x[:60], groups=groups[:60])
        for how, got in (("parts", parts), ("merged", merged)):
            assert got.groups_.tolist() == list("abcd")
            want = whole.transform(x, groups=groups)
            bound = 1e-12 * (1 + np.abs(want))  # spreads are hundreds of eps of the means at least
            given.assert_close(got.transform(x, groups=groups), want, bound, f"{label} {how}")


def test_groups_that_do_not_fit_are_refused():
    x, groups = table(), np.arange(given.ROWS) % 3
    unknown = np.where(groups == 1, np.nan, groups)  # equal to nothing, hence never found again
    for _, make in every(BY_MOMENTS):
        scaler = make().fit(x, groups=groups)
        before = saved(scaler)
        plain = make().fit(x)
        for call in (
            lambda s=scaler: s.transform(x),
            lambda s=scaler: s.inverse_transform(x),
            lambda s=scaler: s.partial_fit(x),
            lambda s=scaler: s.transform(x, groups=groups + 1),
            lambda s=scaler: s.transform(x, groups=groups[1:]),
            lambda s=scaler: s.fit(x, groups=groups[1:]),
            lambda s=scaler: s.fit(x, groups=unknown),
            lambda s=scaler: s.partial_fit(x, groups=groups.astype(str)),  # 1 and "1" are not one label
            lambda s=scaler: s.partial_fit(x, groups=groups[:, None]),
            lambda s=plain: s.transform(x, groups=groups),
            lambda s=plain: s.partial_fit(x, groups=groups),
        ):
            with pytest.raises(ValueError, match="groups"):
                call()
        assert saved(scaler) == before
        out = np.full_like(x, 77)
        with pytest.raises(ValueError, match="groups"):
            scaler.transform(x, groups=groups + 1, out=out)
        assert (out == 77).all()


# ---- outputs


def test_sparse_samples_do_not_join_groups():
    x = np.abs(table(np.float64)) + 1
    for name in ("StandardScaler", "MaxAbsScaler"):
        parameters = {"with_mean": False} if name == "StandardScaler" else {}
        scaler = new(name, **parameters).fit(x, groups=np.arange(len(x)) % 2)
        before = saved(scaler)
        for call in (scaler.partial_fit, scaler.transform, scaler.inverse_transform):
            with pytest.raises(ValueError, match="groups"):
                call(sparse.csr_array(x))
        assert saved(scaler) == before, name


def test_a_scaler_of_wide_data_keeps_its_range_for_narrow_data():
    scaler = new("MinMaxScaler").fit([[2.0**24], [2.0**24 + 3]])  # float32 does not hold the maximum
    narrow = np.array([[2.0**24], [2.0**24 + 2]], np.float32)
    assert np.allclose(scaler.transform(narrow), [[0], [2 / 3]], rtol=2.0**-22)
    scaler = new("MinMaxScaler").fit([[1e9], [1e9 + 30]])  # nor that the two differ
    assert np.allclose(scaler.transform(np.array([[1e9], [1e9 + 64]], np.float32)), [[0], [64 / 30]], rtol=2.0**-22)
    scaler = new("MinMaxScaler").fit([[-1e300], [1e300]])  # nor their magnitude
    with reference.strict():
        scaler.transform(narrow)


def test_parameters_are_those_of_the_scaler_that_is_merged_into():
    x = table()
    for name, mine in (
        ("StandardScaler", {"ddof": 1}),
        ("MinMaxScaler", {"feature_range": (0, 10)}),
        ("RobustScaler", {"quantile_range": (0.0, 100.0)}),
    ):
        got = new(name, **mine).merge(new(name).partial_fit(x))
        want = new(name, **mine).partial_fit(x)
        np.testing.assert_allclose(got.scale_, want.scale_, rtol=2.0**-50, err_msg=name)
        assert np.array_equal(got.transform(x), want.transform(x)), name
    with pytest.raises(ValueError, match="other parameters"):
        new("RobustScaler", quantile_range=(0.0, 100.0)).merge(new("RobustScaler").fit(x))


def test_a_copy_of_a_scaler_learns_by_itself():
    for name in SCALERS:
        scaler = new(name).partial_fit(table())
        before = saved(scaler)
        copy.copy(scaler).partial_fit(table() + 1)
        assert saved(scaler) == before, name


def test_norms_are_right_at_the_ends_of_the_range():
    x = np.array([[1e30, 1e30]], np.float32), np.array([[300, 300]], np.float16), np.array([[1e-200, 1e-200]])
    for sample in x:
        y, norm = ours.normalize(sample, return_norm=True)
        assert np.allclose(norm, np.sqrt(2) * sample[0, 0].astype(np.float64), rtol=1e-3, atol=0)
        assert np.allclose(y, np.sqrt(0.5), rtol=1e-3)


def test_out_takes_the_result_and_nothing_else():
    for dtype in FLOATS:
        plain = table(dtype)
        for kind, x in (("C", plain), ("F", np.asfortranarray(plain)), ("strided", table(dtype, 97, 10)[:, ::2])):
            for label, make in every((*SCALERS, "Normalizer")):
                scaler = make().fit(x)
                want = scaler.transform(x)
                outs = {
                    "fresh": garbage(x.shape, x.dtype),
                    "Fortran": np.asfortranarray(garbage(x.shape, x.dtype)),
                    "strided": garbage((97, 15), x.dtype)[:, ::3],
                    "backwards": garbage(x.shape, x.dtype)[::-1],
                }
                for how, out in outs.items():
                    assert scaler.transform(x, out=out) is out
                    assert out.tobytes() == want.tobytes(), f"{label} {kind} {how}"
                place = x.copy(order="K")
                assert scaler.transform(place, out=place) is place
                assert place.tobytes() == want.tobytes(), f"{label} {kind} in place"
                if hasattr(scaler, "inverse_transform"):
                    back = scaler.inverse_transform(want)
                    assert scaler.inverse_transform(place, out=place) is place
                    assert place.tobytes() == back.tobytes(), f"{label} {kind} back in place"


def test_an_out_that_does_not_fit_is_refused():
    x = table()
    locked = np.empty_like(x)
    locked.flags.writeable = False
    buffer = np.full(x.size + 5, 77.0)
    for _, make in every((*SCALERS, "Normalizer")):
        scaler = make().fit(x)
        for out in (
            np.full(x.shape, 77, np.float32),
            np.full(x.shape, 77, np.int64),
            np.full(x.shape[::-1], 77.0),
            np.full(x.size, 77.0),
            locked,
            x.tolist(),
        ):
            with pytest.raises((ValueError, TypeError), match="out"):
                scaler.transform(x, out=out)
        overlapping = buffer[: x.size].reshape(x.shape)
        with pytest.raises(ValueError, match="overlap"):
            scaler.transform(overlapping, out=buffer[5:].reshape(x.shape))
        assert (buffer == 77).all()


# ---- saved states


def test_states_come_back_from_json_whole():
    groups = np.array(["x", "y"])[np.arange(given.ROWS) % 2]
    for dtype in FLOATS:
        x = holed(table(dtype))
        for label, make in every():
            scalers = {"plain": (make().fit(x), {})}
            if not label.startswith("Robust"):
                scalers["groups"] = make().fit(x, groups=groups), {"groups": groups}
                scalers["numbers"] = make().fit(x, groups=np.arange(97) % 2), {"groups": np.arange(97) % 2}
            if label.startswith("Standard"):
                scalers["weights"] = make().fit(x, sample_weight=np.linspace(0, 1, 97)), {}
            for kind, (scaler, more) in scalers.items():
                where = f"{label} {np.dtype(dtype)} {kind}"
                back = type(scaler).from_dict(json.loads(saved(scaler)))
                assert saved(back) == saved(scaler), where
                assert back.get_params() == scaler.get_params(), where
                given.assert_same_state(back, scaler, where)
                for call in ("transform", "inverse_transform"):
                    want = getattr(scaler, call)(x, **more)
                    assert getattr(back, call)(x, **more).tobytes() == want.tobytes(), where
                if not label.startswith("Robust"):
                    more_data = x[:31], {key: value[:31] for key, value in more.items()}
                    for one in (back, scaler):
                        one.partial_fit(more_data[0], **more_data[1])
                    assert saved(back) == saved(scaler), f"{where}: more data"
    named = ours.MinMaxScaler((-1, 1)).fit(given.pd.DataFrame(table(), columns=list("abcde")))
    back = ours.MinMaxScaler.from_dict(json.loads(saved(named)))
    assert back.get_feature_names_out().tolist() == list("abcde")
    assert back.feature_range == (-1, 1)
    empty = ours.StandardScaler.from_dict(json.loads(saved(ours.StandardScaler(ddof=1))))
    assert empty.ddof == 1
    assert not given.fitted(empty)
    for wrong in ({}, {"class": "StandardScaler"}, named.to_dict()):
        with pytest.raises(ValueError, match="state"):
            ours.StandardScaler.from_dict(wrong)


def test_scikit_learns_estimators_become_ours_and_ours_become_theirs():
    for dtype in (np.float64, np.float32):
        x = holed(table(dtype))
        x[1:, -1] = 1 / np.arange(1, given.ROWS)  # scikit-learn never leaves the NaN of a column without values
        for name in SCALERS:
            for parameters in given.parameters(name):
                label = f"{name}({parameters}) {np.dtype(dtype)}"
                other = getattr(theirs, name)(**parameters)
                with reference.silent():
                    other.fit(x)
                mine = getattr(ours, name).from_sklearn(other)
                assert type(mine) is getattr(ours, name)
                assert {key: mine.get_params()[key] for key in other.get_params()} == other.get_params()
                with reference.silent():
                    assert_near(mine, other, x, f"{label} from scikit-learn")
                    back = mine.to_sklearn()
                    assert type(back) is type(other)
                    assert back.transform(x).tobytes() == other.transform(x).tobytes(), label
                    assert back.inverse_transform(x).tobytes() == other.inverse_transform(x).tobytes(), label
                    native = getattr(ours, name)(**parameters).fit(x)
                    assert_near(native.to_sklearn(), native.to_sklearn().fit(x), x, f"{label} to scikit-learn")
                    if name != "RobustScaler":
                        # Both go on learning, each for itself.
                        before = other.transform(x).tobytes()
                        more = table(dtype, 50, seed=8) + dtype(3)
                        want = getattr(ours, name)(**parameters).fit(np.concatenate([x, more]))
                        assert_near(mine.partial_fit(more), want, more, f"{label} goes on")
                        assert other.transform(x).tobytes() == before, label
                        theirs_on = native.to_sklearn().partial_fit(more)
                        assert_near(want, theirs_on, more, f"{label} goes on in scikit-learn")
    with pytest.raises(TypeError, match="MinMaxScaler"):
        ours.MinMaxScaler.from_sklearn(theirs.StandardScaler().fit(x))
    for beyond in (
        ours.StandardScaler(ddof=1).fit(x),
        ours.StandardScaler(feature_axis=0).fit(x),
        ours.MinMaxScaler().fit(x, groups=np.arange(97) % 2),
    ):
        with pytest.raises(ValueError, match="scikit-learn"):
            beyond.to_sklearn()


# ---- bits and memory


def test_bits_are_the_same_for_any_number_of_threads_and_any_instruction_set():
    cases = []
    for dtype in (*FLOATS, np.int16):
        for rows, columns in ((20_003, 3), (700, 65)):
            x = table(dtype, rows, columns)
            x = x if x.dtype.kind == "i" else holed(x, [(9, 0), (600, 1)])
            cases += [x, np.asfortranarray(x)]
    weights = np.abs(uniform(20_003, np.float64, 4))
    groups = np.arange(20_003) % 3

    def results():
        for x in cases:
            for label, make in every((*SCALERS, "Normalizer")):
                if label.startswith("Normalizer"):
                    yield make().transform(np.nan_to_num(x)).tobytes()
                    continue
                scaler = make().fit(x)
                yield saved(scaler)
                y = scaler.transform(x)
                yield y.tobytes()
                yield scaler.inverse_transform(y).tobytes()
            yield saved(ours.StandardScaler().fit(x, sample_weight=weights[: len(x)]))
            yield ours.MinMaxScaler().fit_transform(x, groups=groups[: len(x)]).tobytes()

    first = None
    with threshold(_ops.set_work_threshold, 0):
        for isa, count in [*((isa, 1) for isa in supported_isas()), *((None, count) for count in (2, 3, 7))]:
            with fastnorm.use_isa(isa or fastnorm.isa()), fastnorm.threads(count):
                digests = [hash(result) for result in results()]
            first = first or digests
            assert digests == first, f"{isa} on {count} threads"


MEGABYTE = 1 << 20
BIG = 400_000


@pytest.mark.slow
def test_fit_and_transform_hold_no_copies():
    # Of 8 columns, a copy takes 12 to 25 MB, and one in double precision 25.
    jobs, limits = [], {}
    for dtype in ("float32", "float16", "int32"):
        for name in (*SCALERS, "Normalizer"):
            setup = f"from fastnorm import preprocessing; x = filled((BIG, 16), '{dtype}'); x[::3] = 1; "
            scaler = f"s = preprocessing.{name}().fit(x[:1000])"
            output = BIG * 16 * (8 if dtype == "int32" else np.dtype(dtype).itemsize)
            for what, call, limit in (
                ("fit", "s.fit(x)", 0),
                ("transform", "y = s.transform(x)", output),
                ("in place", "s.transform(x, copy=False)", 0),
            ):
                if what == "in place" and dtype == "int32":
                    continue
                jobs.append((f"{name} {dtype} {what}", setup + scaler, call))
                limits[jobs[-1][0]] = limit + 16 * MEGABYTE
    grown = peak_growth(jobs, BIG)
    over = {name: f"{size / MEGABYTE:.1f} MB" for name, size in grown.items() if size > limits[name]}
    assert not over, over
