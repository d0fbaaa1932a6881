"""RobustScaler is scikit-learn's, and goes on where that ends: parts, merging, axes."""

import itertools
import json

import numpy as np
import pytest
from cases import uniform
from memory import peak_growth

sklearn_preprocessing = pytest.importorskip("sklearn.preprocessing")
from scipy import sparse  # noqa: E402  # scikit-learn brings it

from fastnorm.preprocessing import RobustScaler, robust_scale  # noqa: E402

Theirs = sklearn_preprocessing.RobustScaler


def table(n=500, features=6, dtype=np.float64):
    x = np.asarray(uniform((n, features), np.float64)) ** 3 * 10 + np.arange(features)
    x[:, 0] = 14.62
    x[::3, 1] = np.nan
    x[5, 2] = 1e6
    return x.astype(dtype)


def attributes(scaler):
    return scaler.center_, scaler.scale_


def assert_alike(ours, theirs, rtol=1e-14):
    for mine, other in zip(attributes(ours), attributes(theirs), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            np.testing.assert_allclose(mine, other, rtol=rtol)
            assert mine.dtype == np.float64


def test_it_is_scikit_learns(dtype):
    x, other = table(dtype=dtype), table(31, dtype=dtype)
    eps = np.finfo(dtype).eps
    for centering, scaling, unit, span in itertools.product(
        (True, False), (True, False), (True, False), ((25.0, 75.0), (10, 60), (60, 99.5), (0.0, 100.0))
    ):
        params = {
            "with_centering": centering,
            "with_scaling": scaling,
            "unit_variance": unit,
            "quantile_range": span,
        }
        if unit and span == (0.0, 100.0):
            continue  # of a normal distribution, infinite
        ours, theirs = RobustScaler(**params).fit(x), Theirs(**params).fit(x.astype(np.float64))
        assert_alike(ours, theirs)
        y = ours.transform(other)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, theirs.transform(other.astype(np.float64)), rtol=16 * eps, atol=64 * eps)
        np.testing.assert_allclose(ours.inverse_transform(y), other, rtol=1e-4, atol=64 * eps)


def test_sparse_input_is_scikit_learns(dtype):
    dense = np.where(uniform((400, 5), np.float64) > 0.2, table(400, 5), 0).astype(dtype)
    for x in (sparse.csc_array(dense), sparse.csr_array(dense), sparse.csr_matrix(dense)):
        ours, theirs = RobustScaler(with_centering=False).fit(x), Theirs(with_centering=False).fit(x)
        assert_alike(ours, theirs, 1e-6 if dtype == np.float32 else 1e-14)
        assert_alike(ours, RobustScaler(with_centering=False).partial_fit(x))
        y = ours.transform(x)
        assert y.format == x.format
        np.testing.assert_allclose(y.toarray(), theirs.transform(x).toarray(), rtol=1e-6)
        np.testing.assert_allclose(ours.inverse_transform(y).toarray(), dense, rtol=1e-6)
        np.testing.assert_allclose(
            robust_scale(x, with_centering=False).toarray(),
            sklearn_preprocessing.robust_scale(x, with_centering=False).toarray(),
            rtol=1e-6,
        )
        for learn in (RobustScaler().fit, RobustScaler().partial_fit):
            with pytest.raises(ValueError, match="Cannot center sparse matrices"):
                learn(x)


def test_the_function_is_scikit_learns():
    x = table(40, 7)
    for axis, given in ((0, x), (1, x), (0, x[:, 2])):
        np.testing.assert_allclose(
            robust_scale(given, axis=axis), sklearn_preprocessing.robust_scale(given, axis=axis), rtol=1e-12, atol=1e-14
        )


def test_a_stream_and_its_parts_are_within_the_bound_of_the_whole():
    x = np.asarray(uniform((60_000, 3), np.float32)) ** 3
    x[::5, 1] = np.nan
    stream, parts = RobustScaler(), []
    for chunk in np.array_split(x, 17):
        assert stream.partial_fit(chunk) is stream
        parts.append(RobustScaler().partial_fit(chunk))
    merged = parts[0]
    for part in parts[1:]:
        merged = merged + part
    whole = RobustScaler().partial_fit(x)
    assert [a.tobytes() for a in attributes(whole)] == [a.tobytes() for a in attributes(stream)]
    for scaler in (stream, merged):
        assert scaler.sketch_.rank_error.max() < 0.008
        for j, column in enumerate(np.sort(x.astype(np.float64), axis=0).T):
            column = column[~np.isnan(column)]  # noqa: PLW2901
            off = scaler.sketch_.rank_error[j] + 2 / column.size
            low, high = np.quantile(column, [0.5 - off, 0.5 + off])
            assert low <= scaler.center_[j] <= high
            (a, b), (c, d) = (
                np.quantile(column, [0.25 - off, 0.25 + off]),
                np.quantile(column, [0.75 - off, 0.75 + off]),
            )
            assert c - b <= scaler.scale_[j] <= d - a


def test_few_samples_in_parts_are_exact():
    x = table()
    assert_alike(RobustScaler().partial_fit(x[:100]).partial_fit(x[100:]), RobustScaler().fit(x), 0)
    assert_alike(RobustScaler().partial_fit(x[:100]) + RobustScaler().partial_fit(x[100:]), RobustScaler().fit(x), 0)
    again = RobustScaler().partial_fit(x[:9]).fit(x)
    assert_alike(again, RobustScaler().fit(x), 0)
    assert again.sketch_ is None


def test_what_holds_no_sketch_cannot_go_on():
    x = table()
    fitted, streamed = RobustScaler().fit(x), RobustScaler().partial_fit(x)
    for call in (
        lambda: fitted + streamed,
        lambda: streamed + fitted,
        lambda: streamed.merge(RobustScaler.from_sklearn(Theirs().fit(x))),
    ):
        before = [dict(vars(fitted)), streamed.to_dict()]
        with pytest.raises(ValueError, match="expected one fitted by partial_fit"):
            call()
        assert [dict(vars(fitted)), streamed.to_dict()] == before
    with pytest.raises(AttributeError, match="partial_fit") as refusal:
        fitted.partial_fit(x)
    assert "expected one fitted by partial_fit" in str(refusal.value.__cause__)
    assert hasattr(RobustScaler(), "partial_fit")
    assert hasattr(streamed, "partial_fit")
    assert_alike(fitted + RobustScaler(), fitted, 0)
    assert_alike(RobustScaler() + fitted, fitted, 0)


def test_infinity_and_bad_ranges_are_refused_before_anything_changes():
    x = table()
    for learn in ("fit", "partial_fit"):
        scaler = getattr(RobustScaler(), learn)(x)
        before = scaler.to_dict()
        bad = x.copy()
        bad[7, 3] = -np.inf
        with pytest.raises(ValueError, match="infinity"):
            getattr(scaler, learn)(bad)
        with pytest.raises(ValueError, match="features"):
            scaler.partial_fit(x[:, 1:]) if learn == "partial_fit" else scaler.transform(x[:, 1:])
        assert scaler.to_dict() == before
        fresh = RobustScaler()
        with pytest.raises(ValueError, match="infinity"):
            getattr(fresh, learn)(bad)
        assert "sketch_" not in vars(fresh)
        for span in ((75, 25), (-1, 50), (50, 101)):
            with pytest.raises(ValueError, match="Invalid quantile range"):
                getattr(RobustScaler(quantile_range=span), learn)(x)


def test_state_is_saved_and_converted():
    x = table(3000)
    for scaler in (RobustScaler(quantile_range=(10, 80)).fit(x), RobustScaler().partial_fit(x), RobustScaler()):
        twin = RobustScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
        assert twin.to_dict() == scaler.to_dict()
        if "center_" in vars(scaler):
            theirs = scaler.to_sklearn()
            np.testing.assert_allclose(theirs.transform(x), scaler.transform(x), rtol=1e-13, atol=1e-14)
            assert_alike(RobustScaler.from_sklearn(theirs), scaler, 0)
            assert not hasattr(theirs, "sketch_")
    more = RobustScaler.from_dict(RobustScaler().partial_fit(x[:1000]).to_dict()).partial_fit(x[1000:])
    assert_alike(more, RobustScaler().partial_fit(x), 0)


def test_features_lie_along_any_axis():
    x = np.asarray(uniform((6, 50, 4, 9), np.float32))
    for axis in (0, 1, -1):
        flat = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
        ours, theirs = RobustScaler(feature_axis=axis).fit(x), Theirs().fit(flat.astype(np.float64))
        assert_alike(ours, theirs)
        assert_alike(RobustScaler(feature_axis=axis).partial_fit(x), theirs)
        y = np.moveaxis(ours.transform(x), axis, -1).reshape(flat.shape)
        np.testing.assert_allclose(y, theirs.transform(flat.astype(np.float64)), rtol=1e-5, atol=1e-5)


def test_in_place_and_half_precision_and_integers():
    x = table(200, dtype=np.float32)
    y = RobustScaler().fit_transform(x)
    mine = x.copy()
    assert RobustScaler(copy=False).fit_transform(mine) is mine
    np.testing.assert_array_equal(mine, y)
    into = np.empty_like(x)
    assert RobustScaler().fit(x).transform(x, out=into) is into
    np.testing.assert_array_equal(into, y)
    assert RobustScaler().fit_transform(x.clip(-100, 100).astype(np.float16)).dtype == np.float16
    numbers = np.arange(30, dtype=np.int32).reshape(10, 3)
    np.testing.assert_allclose(RobustScaler().fit_transform(numbers), Theirs().fit_transform(numbers))


def test_it_keeps_the_rules_of_scikit_learn():
    from sklearn.utils.estimator_checks import check_estimator

    for scaler in (RobustScaler(), RobustScaler(with_centering=False, unit_variance=True)):
        check_estimator(scaler, on_skip=None)


def test_a_fit_needs_no_memory_that_grows():
    setup = "from fastnorm.preprocessing import RobustScaler; s = RobustScaler(); x = filled(({}, 32), np.float32)"
    jobs = [("fit", setup.format("BIG"), "s.fit(x)"), ("parts", setup.format("BIG // 8"), "s.partial_fit(x)")]
    for name, grown in peak_growth(jobs, 1 << 20).items():
        assert grown < 16 << 20, f"{name}: {grown} bytes"
