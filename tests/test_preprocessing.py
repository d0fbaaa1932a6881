"""Replacing `sklearn.preprocessing` by `fastnorm.preprocessing` in an import line changes no result and no refusal."""

import copy
import doctest
import inspect
import pickle
import re
import sys

import numpy as np
import pandas as pd
import polars as pl
import preprocessing as given
import pytest
import reference
import sklearn
import sklearn.preprocessing as theirs
from cases import uniform
from joblib import parallel_config
from memory import run_fresh
from preprocessing import FUNCTIONS, NORMS, SCALERS, assert_close, dense, fitted, gain, holed, shifted, sizes, table
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.estimator_checks import check_estimator

import fastnorm
from fastnorm import preprocessing as ours

NAMES = (*SCALERS, "Normalizer")


def both(name, parameters):
    return getattr(ours, name)(**parameters), getattr(theirs, name)(**parameters)


def outcome(call, *args, **kwargs):
    """What a call returns, or the exception that it raises."""
    try:
        with reference.silent():
            return call(*args, **kwargs)
    except Exception as error:
        return error


def brief(result):
    return repr(result)[:200]


def assert_same_type(got, want, label):
    """Check the type of an exception; scikit-learn's InvalidParameterError is private, and both of these."""
    allowed = (ValueError, TypeError) if type(want).__name__ == "InvalidParameterError" else type(want)
    assert isinstance(got, allowed), f"{label}: {brief(got)} and not {brief(want)}"


def eps_of(x):
    return float(np.finfo(x.dtype).eps)


# ---- scikit-learn's own checks


@pytest.mark.parametrize("name", NAMES)
def test_scikit_learn_checks(name):
    # Those that parametrize_with_checks runs; its own ids are not unique, which a strict pytest refuses.
    for parameters in given.parameters(name):
        scaler = getattr(ours, name)(**parameters)
        results = check_estimator(scaler, on_skip=None, on_fail=None)
        if not get_tags(scaler).input_tags.sparse:  # scikit-learn 1.6 asks this of all but its own
            results = [r for r in results if r["check_name"] != "check_sample_weight_equivalence_on_sparse_data"]
        broken = [f"{r['check_name']}: {r['exception']!r}" for r in results if r["status"] not in ("passed", "skipped")]
        assert not broken, f"{name}({parameters}): " + "\n".join(broken)
        skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
        assert all(check.startswith("check_array_api") for check in skipped), skipped  # they ask for other arrays
        assert len(results) > 40


# ---- agreement


def assert_attributes(mine, other, x, label, weighted=False):
    """Every attribute that scikit-learn sets is there, with its type, dtype and shape, and its value.

    scikit-learn's statistics are rounded to their dtype, those of sparse arrays to that of the data; and float64 ones
    are off by at most n eps of the spread.
    """
    coarse = eps_of(x) if sparse.issparse(x) and x.dtype.kind == "f" else 0
    size = sizes(x)
    for name, want in fitted(other).items():
        where = f"{label}: {name}"
        got = getattr(mine, name)
        if want is None:
            assert got is None, where
        elif name in ("n_features_in_", "feature_names_in_"):
            np.testing.assert_array_equal(got, want, err_msg=where)
        elif name == "n_samples_seen_":
            # Documented as integer, unless it is a sum of weights; scikit-learn 1.9 makes it a float in any case.
            assert np.asarray(got).dtype.kind == ("f" if weighted else "i"), where
            assert np.shape(got) == np.shape(want), where
            rounded = given.ROWS * eps_of(np.asarray(want)) if np.asarray(want).dtype.kind == "f" else 0
            np.testing.assert_allclose(got, want, rtol=rounded, err_msg=where)
        else:
            if name == "center_":  # in double, as all statistics; scikit-learn rounds it to the dtype of the data
                assert got.dtype == np.float64, where
                got = got.astype(want.dtype)
            eps = max(eps_of(want), given.ROWS * 2.0**-52, coarse)
            differs = name == "scale_" and type(mine).__name__ == "RobustScaler"  # of two quantiles
            bound = {
                "var_": 4 * eps * (np.abs(want) + size**2 * 2.0**-52),
                "mean_": eps * size,
                "min_": 4 * eps * (size * gain(other) + shifted(other)),
            }.get(name, 4 * eps * (size if differs else np.abs(want)))
            assert_close(got, want, bound, where)


def assert_agree(mine, other, x, label):
    """Transforms there and back agree.

    Each side rounds x, its shift, their difference and the quotient once or twice: 4 eps of the largest of them.
    """
    got, want = mine.transform(x), outcome(other.transform, x)
    eps = eps_of(want)
    size, stretch, shift = sizes(x), gain(other), shifted(other)
    assert_close(got, want, 4 * eps * (np.abs(dense(want)) + size * stretch + shift), label)
    if hasattr(other, "inverse_transform"):
        back = mine.inverse_transform(want), outcome(other.inverse_transform, want)
        assert_close(*back, 4 * eps * (size + (sizes(want) + shift) / stretch), f"{label}: inverse")


def rows_of(x, start, stop):
    return x.iloc[start:stop] if isinstance(x, pd.DataFrame) else x[start:stop]


@pytest.mark.parametrize("name", NAMES)
def test_results_and_attributes_are_those_of_scikit_learn(name):
    for parameters in given.parameters(name):
        for kind, x in given.tables():
            if name == "Normalizer" and ("NaN" in kind or "NA" in kind):
                continue
            label = f"{name}({parameters}) of {kind}"
            mine, other = both(name, parameters)
            with reference.silent():
                other.fit(x)
            with reference.strict():
                assert mine.fit(x) is mine
                assert_attributes(mine, other, x, label)
                assert_agree(mine, other, x, label)
                at_once = both(name, parameters)[0].fit_transform(x)
                assert given.same(at_once, mine.transform(x)), label
            if hasattr(other, "partial_fit"):
                mine, other = both(name, parameters)
                for start, stop in ((0, 30), (30, 31), (31, given.ROWS)):
                    chunk = rows_of(x, start, stop)
                    if len(chunk):
                        with reference.strict():
                            assert mine.partial_fit(chunk) is mine
                        with reference.silent():
                            other.partial_fit(chunk)
                assert_attributes(mine, other, x, f"{label} in parts")
                with reference.silent():
                    assert_agree(mine, other, x, f"{label} in parts")


def test_weights_are_those_of_scikit_learn():
    weights = np.maximum(np.floor(uniform(given.ROWS, np.float64, 3) * 16), 0) / 16  # exact in every dtype of tables
    assert (weights == 0).sum() > 20
    for parameters in given.parameters("StandardScaler"):
        if parameters.get("with_mean") is parameters.get("with_std") is False:
            continue  # scikit-learn then counts samples in the place of weights, against its documentation
        for kind, x in given.tables():
            if kind == "one sample":
                continue
            for what, w in (("zeros", weights), ("integers", np.arange(given.ROWS) % 3), ("list", [0.5] * given.ROWS)):
                label = f"{parameters} of {kind} with {what}"
                mine, other = both("StandardScaler", parameters)
                with reference.silent():
                    other.fit(x, sample_weight=w)
                    mine.fit(x, None, w)
                    assert_attributes(mine, other, x, label, weighted=True)
                    assert_agree(mine, other, x, label)
                    mine, other = both("StandardScaler", parameters)
                    for part in (slice(0, 40), slice(40, given.ROWS)):
                        chunk = rows_of(x, part.start, part.stop)
                        mine.partial_fit(chunk, sample_weight=w[part])
                        other.partial_fit(chunk, sample_weight=w[part])
                assert_attributes(mine, other, x, f"{label} in parts", weighted=True)
    x = table()
    assert given.same(
        ours.StandardScaler().fit(x, sample_weight=2.0).var_, ours.StandardScaler().fit(x, sample_weight=[2] * 97).var_
    )
    for wrong in (np.ones(3), np.ones((given.ROWS, 2)), np.full(given.ROWS, np.nan), np.full(given.ROWS, np.inf)):
        for scaler in both("StandardScaler", {}):
            with pytest.raises(ValueError, match=r"."):
                scaler.fit(x, sample_weight=wrong)


def sparse_tables():
    x = np.where(uniform((60, 4), np.float64, 5) > 0.25, table(rows=60, columns=4), 0)
    x[:, 2] = 0
    nan = x.copy()
    nan[::9, 0], nan[1, 2] = np.nan, np.nan
    full = table(rows=60, columns=4) + 0.03125  # no zeros, hence no room for implied ones
    for dtype in (np.float64, np.float32, np.int64):
        for make in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array, sparse.coo_array):
            yield f"{make.__name__} {np.dtype(dtype)}", make(x.astype(dtype))
    for make in (sparse.csr_matrix, sparse.csc_array):
        yield f"{make.__name__} NaN", make(nan)
        yield f"{make.__name__} full", make(full)
        stored = make(full)
        stored.data[::7] = 0
        yield f"{make.__name__} with stored zeros", stored
        yield f"{make.__name__} of nothing", make((60, 4))
        bad = make(full)
        bad.data[-1] = np.inf
        yield f"{make.__name__} infinite", bad


def assert_same_outcome(got, want, bound, label):
    """Check that both refuse, with one type, or both return matrices of one kind, or dense arrays, that agree."""
    if isinstance(want, Exception):
        assert_same_type(got, want, label)
    elif isinstance(want, tuple):
        assert isinstance(got, tuple), label
        for g, w in zip(got, want, strict=True):
            assert_same_outcome(g, w, bound, label)
    elif sparse.issparse(want):
        assert sparse.issparse(got), f"{label}: {brief(got)}"
        assert got.format == want.format, label
        assert_close(got, want, bound, label)
        for part in ("indices", "indptr"):
            np.testing.assert_array_equal(getattr(got, part), getattr(want, part), err_msg=label)
    else:
        assert not isinstance(got, Exception), f"{label}: {brief(got)}"
        assert_close(got, want, bound, label)


@pytest.mark.parametrize("name", NAMES)
def test_sparse_matrices_are_taken_and_refused_as_by_scikit_learn(name):
    taken = 0
    for parameters in given.parameters(name):
        for kind, x in sparse_tables():
            label = f"{name}({parameters}) of {kind}"
            mine, other = both(name, parameters)
            want, got = outcome(other.fit, x), outcome(mine.fit, x)
            if isinstance(want, Exception):
                assert_same_type(got, want, label)
                continue
            taken += 1
            assert got is mine, f"{label}: {brief(got)}"
            before = x.copy()
            with reference.silent():
                assert_attributes(mine, other, x, label)
                bound = 4 * 2.0 ** (-23 if x.dtype == np.float32 else -52) * (1 + sizes(x) * np.max(gain(other)))
                steps = ["transform", "inverse_transform"] if hasattr(other, "inverse_transform") else ["transform"]
                for step in steps:
                    want = outcome(getattr(other, step), x)
                    assert_same_outcome(outcome(getattr(mine, step), x), want, bound, f"{label}: {step}")
                    assert x.data.tobytes() == before.data.tobytes(), f"{label}: {step}"
                if hasattr(other, "partial_fit"):
                    for part in (x.tocsr()[:20], x.tocsr()[20:]):
                        mine.partial_fit(part)
                        other.partial_fit(part)
                    assert_attributes(mine, other, x, f"{label} in parts")
                # A dense table's statistics are the same, and either kind of transform follows either kind of fit.
                assert_agree(mine, other, x.toarray(), f"{label}: dense transform")
    assert taken > 10 or name == "MinMaxScaler"


def test_sparse_matrices_are_weighted_as_by_scikit_learn():
    weights = np.arange(60) % 4 / 2
    for kind, x in sparse_tables():
        for with_std in (True, False):
            mine, other = both("StandardScaler", {"with_mean": False, "with_std": with_std})
            want, got = (outcome(scaler.fit, x, sample_weight=weights) for scaler in (other, mine))
            assert isinstance(got, Exception) == isinstance(want, Exception), f"{kind}: {brief(got)}"
            if not isinstance(want, Exception):
                assert_attributes(mine, other, x, f"weighted {kind}", weighted=True)


def test_sparse_matrices_are_scaled_in_place_where_scikit_learn_does():
    x = sparse.csr_array(table())
    for name in ("StandardScaler", "MaxAbsScaler", "Normalizer"):
        parameters = {"copy": False, **({"with_mean": False} if name == "StandardScaler" else {})}
        for step in ("transform", "inverse_transform"):
            mine, other = (scaler.fit(x) for scaler in both(name, parameters))
            if not hasattr(other, step):
                continue
            data = x.copy(), x.copy()
            results = getattr(mine, step)(data[0]), getattr(other, step)(data[1])
            assert np.shares_memory(results[0].data, data[0].data)
            assert_same_outcome(*results, 4 * 2.0**-52 * 64, f"{name} {step}")


# ---- functions


def function_calls(name):
    """Keywords for a function."""
    for axis in (0, 1):
        for more in {
            "scale": ({}, {"with_mean": False}, {"with_std": False}),
            "minmax_scale": ({}, {"feature_range": (-1, 3)}),
            "maxabs_scale": ({},),
            "robust_scale": ({}, {"quantile_range": (5.0, 60.0), "unit_variance": True}, {"with_centering": False}),
            "normalize": [{"norm": norm, "return_norm": flag} for norm in NORMS for flag in (False, True)],
        }[name]:
            yield {"axis": axis, **more}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_those_of_scikit_learn(name):
    # Rows mix columns of magnitudes up to 64, which spreads of 1/16 may stretch: 4 eps of 2^10 at most.
    mine, other = getattr(ours, name), getattr(theirs, name)
    for how in function_calls(name):
        inputs = [*given.tables(), *sparse_tables(), ("one dimension", table()[:, 1]), ("a list", [1.0, 2.0, 4.5])]
        for kind, x in inputs:
            if (kind == "one sample" and how["axis"] == 0) or kind == "one column":
                continue  # everything becomes 0: agreed on by the estimators
            label = f"{name}({how}) of {kind}"
            want = outcome(other, x, **how)
            before = copy.deepcopy(x)
            got = outcome(mine, x, **how)
            unchanged = pickle.dumps(x) == pickle.dumps(before)
            assert unchanged, f"{label} wrote into its input"
            first = want[0] if isinstance(want, tuple) else want
            bound = 0 if isinstance(want, Exception) else 4 * eps_of(first) * 2**10
            if isinstance(want, tuple):  # scikit-learn's norms of half precision overflow where they need not
                assert np.isfinite(got[1]).all(), label
                want = (want[0], np.where(np.isfinite(want[1]), want[1], got[1]))
            assert_same_outcome(got, want, bound, label)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_work_in_place_where_they_are_asked_to(name):
    function = getattr(ours, name)
    for dtype in (np.float32, np.float64):
        for order in "CF":
            for axis in (0, 1):
                x = np.array(table(dtype), order=order)
                want = function(x, axis=axis)
                assert not np.shares_memory(want, x)
                got = function(x, axis=axis, copy=False)
                assert np.shares_memory(got, x), f"{order} {axis}"
                assert np.array_equal(got, x)
                bound = 8 * np.finfo(dtype).eps * (1 + np.abs(want))  # another layout may add in another order
                assert_close(got, want, bound, f"{name} {order} {axis}")


# ---- memory


@pytest.mark.parametrize("name", NAMES)
def test_copy_false_writes_into_the_input_and_copy_true_does_not(name):
    for dtype in (np.float32, np.float64):
        x = table(dtype)
        padded = np.repeat(x, 2, axis=1)
        for kind, place in (("C", x.copy()), ("F", np.asfortranarray(x)), ("strided", padded[::-1, ::2])):
            values = place.copy(order="K")
            scaler = getattr(ours, name)().fit(place)
            steps = ["transform", "inverse_transform"] if name != "Normalizer" else ["transform"]
            for step in steps:
                kept = getattr(scaler, step)(place)
                assert not np.shares_memory(kept, place), f"{kind} {step}"
                assert np.array_equal(place, values), f"{kind} {step}"
                scaler.set_params(copy=False)
                got = getattr(scaler, step)(place)
                assert np.shares_memory(got, place), f"{kind} {step}"
                assert np.array_equal(got, place), f"{kind} {step}"
                assert got.tobytes() == kept.tobytes(), f"{kind} {step}"
                scaler.set_params(copy=True)
                place[...] = values
    if "copy" in inspect.signature(getattr(theirs, name).transform).parameters:
        x = table()
        scaler = getattr(ours, name)().fit(x)
        assert np.shares_memory(scaler.transform(x, copy=False), x)
        x = table()
        assert not np.shares_memory(scaler.set_params(copy=False).transform(x, True), x)


@pytest.mark.parametrize("name", NAMES)
def test_read_only_memory_and_files_are_enough(name, tmp_path):
    x = table(np.float32)
    scaler = getattr(ours, name)().fit(x)
    want = scaler.transform(x)
    path = tmp_path / "table"
    x.tofile(path)
    locked = x.copy()
    locked.flags.writeable = False
    mapped = np.memmap(path, np.float32, "r", shape=x.shape)
    for place in (locked, mapped):
        again = getattr(ours, name)().fit(place)
        assert again.transform(place).tobytes() == want.tobytes()
        assert getattr(ours, name)(copy=False).fit(place).transform(place).tobytes() == want.tobytes()
        assert place.tobytes() == x.tobytes()


# ---- refusals


def with_infinity(dtype=np.float64, value=np.inf, place=(40, 2)):
    x = table(dtype)
    x[place] = value
    return x


def frame(columns="abcde", seed=0):
    return pd.DataFrame(table(seed=seed), columns=list(columns))


REFUSED = {
    "no samples": lambda new: new().fit(np.empty((0, 3))),
    "no features": lambda new: new().fit(np.empty((3, 0))),
    "one dimension": lambda new: new().fit(np.ones(3)),
    "three dimensions": lambda new: new().fit(np.ones((3, 2, 2))),
    "a number": lambda new: new().fit(3.0),
    "complex": lambda new: new().fit(table().astype(complex)),
    "words": lambda new: new().fit([["a", "b"], ["c", "d"]]),
    "objects": lambda new: new().fit(np.array([[1.0, {}], [2.0, 3.0]], object)),
    "infinity in fit": lambda new: new().fit(with_infinity()),
    "infinity in float32": lambda new: new().fit(with_infinity(np.float32, -np.inf)),
    "infinity in fit_transform": lambda new: new().fit_transform(with_infinity()),
    "infinity in transform": lambda new: new().fit(table()).transform(with_infinity()),
    "infinity in float16": lambda new: new().fit(with_infinity(np.float16)),
    "infinity in a list": lambda new: new().fit(with_infinity().tolist()),
    "infinity in a DataFrame": lambda new: new().fit(pd.DataFrame(with_infinity())),
    "infinity in Fortran order": lambda new: new().fit(np.asfortranarray(with_infinity())),
    "infinity after NaN": lambda new: new().fit(holed(with_infinity(), [(39, 2), (40, 1)])),
    "other features": lambda new: new().fit(table()).transform(table(columns=3)),
    "other names": lambda new: new().fit(frame()).transform(frame("abxde")),
    "other order of names": lambda new: new().fit(frame()).transform(frame("bacde")),
    "missing names": lambda new: new().fit(frame()).transform(frame().drop(columns="b")),
    "mixed names": lambda new: new().fit(pd.DataFrame({"a": [1.0], 0: [2.0]})),
    "one dimension in transform": lambda new: new().fit(table()).transform(np.ones(5)),
    "no samples in transform": lambda new: new().fit(table()).transform(np.empty((0, 5))),
    "copy that is no truth value": lambda new: new(copy="yes").fit(table()),
    "unknown parameter": lambda new: new(nothing=3),
}
REFUSED_BY_SOME = {  # those that have the method or the parameter; the others refuse it as scikit-learn's class does
    "unfitted transform": lambda new: new().transform(table()),
    "unfitted inverse": lambda new: new().inverse_transform(table()),
    "infinity in partial_fit": lambda new: new().partial_fit(table()).partial_fit(with_infinity()),
    "other features in partial_fit": lambda new: new().partial_fit(table()).partial_fit(table(columns=3)),
    "other names in partial_fit": lambda new: new().partial_fit(frame()).partial_fit(frame("abcdx")),
    "NaN": lambda new: new().fit(holed(table())),
    "a range upside down": lambda new: new(feature_range=(1, 0)).fit(table()),
    "an empty range": lambda new: new(feature_range=(1, 1)).fit(table()),
    "a list as range": lambda new: new(feature_range=[0, 1]).fit(table()),
    "quantiles upside down": lambda new: new(quantile_range=(75.0, 25.0)).fit(table()),
    "quantiles past the end": lambda new: new(quantile_range=(75.0, 125.0)).fit(table()),
    "an unknown norm": lambda new: new("l3").fit(table()),
    "a mean that is no truth value": lambda new: new(with_mean=3).fit(table()),
}
OTHER_WORDS = {"unknown parameter", "a number", "words", "objects"}  # NumPy's or Python's, or a repr of an input


@pytest.mark.parametrize("name", NAMES)
def test_refusals_are_those_of_scikit_learn_in_type_and_words(name):
    for label, call in {**REFUSED, **REFUSED_BY_SOME}.items():
        want, got = outcome(call, getattr(theirs, name)), outcome(call, getattr(ours, name))
        if not isinstance(want, Exception):
            assert label in REFUSED_BY_SOME, f"{label}: scikit-learn takes it"
            assert not isinstance(got, Exception), f"{label}: {brief(got)}"
        elif isinstance(want, AttributeError):
            continue  # no such method there; here there may be one
        else:
            assert_same_type(got, want, label)
            chance = type(want).__name__ == "InvalidParameterError"  # these words list sets, whose order changes
            if label not in OTHER_WORDS and not chance:
                assert str(got).splitlines()[0] == str(want).splitlines()[0], label  # then advice may follow
    if name != "Normalizer":
        assert isinstance(outcome(REFUSED_BY_SOME["unfitted transform"], getattr(ours, name)), NotFittedError)
        scaler = getattr(ours, name)().fit(table())
        for value in (np.inf, -np.inf):  # scikit-learn's words leave out the name of the argument here
            with pytest.raises(ValueError, match=r"contains infinity or a value too large for dtype\('float64'\)"):
                scaler.inverse_transform(with_infinity(value=value))
        with pytest.raises(ValueError, match=r"."):
            scaler.inverse_transform(table(columns=3))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_what_those_of_scikit_learn_refuse(name):
    calls = {
        "infinity": lambda f: f(with_infinity()),
        "infinity in float32, axis 1": lambda f: f(with_infinity(np.float32, -np.inf), axis=1),
        "nothing": lambda f: f(np.empty((0, 3))),
        "axis 2": lambda f: f(table(), axis=2),
        "complex": lambda f: f(table().astype(complex)),
        "words": lambda f: f([["a"]]),
        "copy that is no truth value": lambda f: f(table(), copy="yes"),
        "one dimension": lambda f: f(np.ones(3)),
    }
    for label, call in calls.items():
        want, got = outcome(call, getattr(theirs, name)), outcome(call, getattr(ours, name))
        assert_same_type(got, want, label)
        if "infinity" in label:
            assert re.search(r"contains infinity or a value too large for dtype\('float(32|64)'\)", str(got)), got


@pytest.mark.parametrize("name", NAMES)
def test_missing_feature_names_are_said_as_by_scikit_learn(name):
    for first, second in ((frame(), table()), (table(), frame())):
        words = []
        for scaler in both(name, {}):
            scaler.fit(first)
            with pytest.warns(UserWarning, match="feature names") as caught:
                scaler.transform(second)
            words.append([str(w.message) for w in caught])
        assert words[0] == words[1]


@pytest.mark.parametrize("name", NAMES)
def test_words_are_refused_as_values_of_x(name):
    for X in (np.array([["a"]]), [["a"]], np.array([["a"]], object)):
        with pytest.raises(ValueError, match=r"^X holds what is no number: could not convert string to float: .*a"):
            getattr(ours, name)().fit(X)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_that_change_are_refused_like_those_of_new_scalers(name):
    x, scaler = table(), getattr(ours, name)()
    for parameter, value in scaler.get_params().items():
        # The last of these equals a valid value and is of another type.
        for bad in ("no", [value], int(value) if isinstance(value, bool) else object()):
            scaler.fit(x).set_params(**{parameter: bad})
            for wrong in (scaler, type(scaler)(**{parameter: bad})):
                for method in (wrong.fit, wrong.fit_transform):
                    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {name} must be"):
                        method(x)
            scaler.set_params(**{parameter: value})


def test_parameters_of_a_subclass_are_checked_by_its_own_rules():
    class Centering(ours.StandardScaler):
        pass

    Centering._parameter_constraints = {**Centering._parameter_constraints, "with_std": [StrOptions({"yes"})]}
    ours.StandardScaler().fit(table())
    with pytest.raises(ValueError, match="The 'with_std' parameter of Centering must be"):
        Centering().fit(table())
    assert Centering(with_std="yes").fit(table()).mean_ is not None


# ---- interface


def assert_accepts(mine, other, label):
    """Every argument that scikit-learn's callable takes, ours takes in the same place and with the same default."""
    mine, other = (inspect.signature(call).parameters for call in (mine, other))
    positional = [name for name, p in other.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(mine)[: len(positional)] == positional, label
    for name, parameter in other.items():
        assert mine[name].default == parameter.default, f"{label}: {name}"
        assert mine[name].kind == parameter.kind, f"{label}: {name}"
    for name in set(mine) - set(other):
        assert mine[name].default is not inspect.Parameter.empty, f"{label}: {name} must not be asked for"


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_those_of_scikit_learn_and_more(name):
    mine, other = getattr(ours, name), getattr(theirs, name)
    assert_accepts(mine, other, name)
    for method in ("fit", "partial_fit", "transform", "inverse_transform"):
        if hasattr(other, method):
            assert_accepts(getattr(mine, method), getattr(other, method), f"{name}.{method}")
    assert list(inspect.signature(mine.fit_transform).parameters)[:3] == ["self", "X", "y"]
    assert set(other().get_params()) <= set(mine().get_params())


def test_everything_that_is_replaced_is_there():
    for name in FUNCTIONS:
        assert_accepts(getattr(ours, name), getattr(theirs, name), name)
    assert set(ours.__all__) >= {*NAMES, *FUNCTIONS}
    assert set(ours.__all__) <= set(dir(ours))


@pytest.mark.parametrize("name", NAMES)
def test_feature_names_and_output_containers(name):
    x = frame()
    scaler = getattr(ours, name)().fit(x)
    plain = scaler.transform(x)
    assert isinstance(plain, np.ndarray)
    assert scaler.feature_names_in_.tolist() == scaler.get_feature_names_out().tolist() == list("abcde")
    assert getattr(ours, name)().fit(table()).get_feature_names_out().tolist() == [f"x{i}" for i in range(5)]
    with pytest.raises(ValueError, match="input_features"):
        scaler.get_feature_names_out(list("abxde"))
    scaler.set_output(transform="pandas")
    for got in (scaler.transform(x), clone(scaler).fit_transform(x)):
        assert isinstance(got, pd.DataFrame)
        assert got.columns.tolist() == list("abcde")
        assert got.index.equals(x.index)
        assert got.to_numpy().tobytes() == plain.tobytes()
    scaler.set_output(transform="polars")
    inputs = [x, pl.DataFrame({k: x[k].to_numpy() for k in x})]
    if not hasattr(getattr(theirs, name)().fit(inputs[1]), "feature_names_in_"):
        del inputs[1]  # an old scikit-learn does not see the names in a new polars, and warns
    for got in map(scaler.transform, inputs):
        assert isinstance(got, pl.DataFrame)
        assert got.columns == list("abcde")
        assert np.array_equal(got.to_numpy(), plain)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(getattr(ours, name)().fit_transform(table()), pd.DataFrame)


@pytest.mark.parametrize("name", NAMES)
def test_tags_are_those_of_scikit_learn(name):
    for parameters in given.parameters(name):
        mine, other = (get_tags(scaler) for scaler in both(name, parameters))
        assert mine.input_tags.allow_nan == other.input_tags.allow_nan
        assert mine.input_tags.sparse == other.input_tags.sparse
        assert mine.requires_fit == other.requires_fit
        assert mine.estimator_type == other.estimator_type
        assert {"float64", "float32"} <= set(mine.transformer_tags.preserves_dtype)


@pytest.mark.parametrize("name", NAMES)
def test_clones_and_pickles_are_the_same_scaler(name):
    x = holed(table()) if name != "Normalizer" else table()
    for parameters in given.parameters(name):
        scaler = getattr(ours, name)(**parameters)
        copied = clone(scaler)
        assert copied.get_params() == scaler.get_params()
        assert {k: scaler.get_params()[k] for k in parameters} == parameters
        assert repr(scaler) == repr(getattr(theirs, name)(**parameters))
        scaler.fit(x)
        assert not fitted(clone(scaler))
        want = scaler.transform(x)
        for back in (*(pickle.loads(pickle.dumps(scaler, p)) for p in (2, 5)), copy.deepcopy(scaler)):
            given.assert_same_state(back, scaler, name)
            assert given.same(back.transform(x), want)
            if hasattr(scaler, "partial_fit"):
                twice = copy.copy(scaler), copy.deepcopy(back)
                # Into what was pickled more can be fitted, bit for bit as into what was not.
                more = [one.partial_fit(x[:50]).transform(x) for one in (pickle.loads(pickle.dumps(twice[0])), back)]
                assert given.same(*more)
                assert given.same(scaler.transform(x), want)


# ---- inside of scikit-learn


def target():
    x = table()
    return x, x @ np.arange(1.0, 6.0) + uniform(given.ROWS, np.float64, 9)


def test_weights_and_groups_are_routed_through_pipelines():
    x, y = target()
    weight = np.arange(given.ROWS) % 3 / 2
    groups = np.array(["left", "right", "top"])[np.arange(given.ROWS) % 3]
    with sklearn.config_context(enable_metadata_routing=True):
        scaler = ours.StandardScaler().set_fit_request(sample_weight=True)
        ridge = Ridge().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler, ridge).fit(x, y, sample_weight=weight)
        given.assert_same_state(pipe[0], ours.StandardScaler().fit(x, sample_weight=weight), "routed weights")
    pipe = make_pipeline(ours.StandardScaler(), Ridge()).fit(x, y, standardscaler__sample_weight=weight)
    given.assert_same_state(pipe[0], ours.StandardScaler().fit(x, sample_weight=weight), "prefixed weights")
    for name in ("StandardScaler", "MinMaxScaler", "MaxAbsScaler"):
        with sklearn.config_context(enable_metadata_routing=True):
            scaler = getattr(ours, name)().set_fit_request(groups=True).set_transform_request(groups=True)
            pipe = make_pipeline(scaler, Ridge()).fit(x, y, groups=groups)
            alone = getattr(ours, name)().fit(x, groups=groups)
            given.assert_same_state(pipe[0], alone, "routed groups")
            want = Ridge().fit(alone.transform(x, groups=groups), y).predict(alone.transform(x, groups=groups))
            np.testing.assert_array_equal(pipe.predict(x, groups=groups), want)


@pytest.mark.parametrize("name", NAMES)
def test_pipelines_columns_and_searches_score_as_with_scikit_learn(name):
    x, y = target()
    scores = []
    for scaler in both(name, {}):
        columns = ColumnTransformer([("some", scaler, [0, 1, 3])], remainder="passthrough")
        pipe = make_pipeline(columns, Ridge())
        search = GridSearchCV(pipe, {"ridge__alpha": [0.1, 1.0]}, cv=3, error_score="raise")
        scores.append(search.fit(x, y).cv_results_["mean_test_score"])
        named = ColumnTransformer([("some", clone(scaler), ["a", "c"])], verbose_feature_names_out=False)
        assert named.set_output(transform="pandas").fit_transform(frame()).columns.tolist() == ["a", "c"]
    # Features agree to some eps and the problem is well conditioned.
    np.testing.assert_allclose(*scores, rtol=1e-9)


def search_in_parallel(backend):
    # More than a megabyte: processes get it as a read-only file in memory.
    x = table(rows=30_000)
    y = x @ np.arange(1.0, 6.0)
    pipe = make_pipeline(ours.StandardScaler(), Ridge())
    grid = {"standardscaler": [ours.StandardScaler(), ours.MinMaxScaler(), ours.MaxAbsScaler()]}
    with parallel_config(backend=backend):
        got = GridSearchCV(pipe, grid, cv=2, n_jobs=2, error_score="raise").fit(x, y).cv_results_["mean_test_score"]
    want = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(x, y).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(got, want)


def test_searches_run_in_threads():
    search_in_parallel("threading")


@pytest.mark.slow
def test_searches_run_in_processes():
    search_in_parallel("loky")


# ---- imports

_WITHOUT_SKLEARN = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sklearn", "scipy", "joblib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
import fastnorm
try:
    import fastnorm.preprocessing
except ImportError as error:
    print(error)
print(fastnorm.mean([1.0, 3.0]))
"""


def test_without_scikit_learn_one_line_says_what_to_install():
    message, works = run_fresh(_WITHOUT_SKLEARN).splitlines()
    assert "pip install fastnorm[sklearn]" in message.replace("'", "").replace('"', "")
    assert works == "2.0"


def test_importing_fastnorm_imports_neither_scikit_learn_nor_scipy():
    code = "import sys, fastnorm; print(sorted({'sklearn', 'scipy', 'pandas', 'joblib'} & set(sys.modules)))"
    assert run_fresh(code) == "[]"
    assert fastnorm.preprocessing is ours


def test_examples_in_docstrings_give_what_they_show():
    modules = {sys.modules[value.__module__] for value in vars(ours).values() if hasattr(value, "__module__")}
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.attempted for result in results) >= 20
    assert not any(result.failed for result in results)
