"""The scalers as one list, tables of every kind, and how two scalers or two tables are compared."""

import inspect
import json

import numpy as np
import pandas as pd
import polars as pl
import reference
import sklearn.preprocessing as theirs
from cases import uniform

ROWS, COLUMNS = 97, 5
SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
FUNCTIONS = ("scale", "minmax_scale", "maxabs_scale", "robust_scale", "normalize")
NORMS = ("l1", "l2", "max")
PARAMETERS = {
    "StandardScaler": (
        {},
        {"with_mean": False},
        {"with_std": False},
        {"with_mean": False, "with_std": False},
    ),
    "MinMaxScaler": ({}, {"feature_range": (-1, 1)}, {"feature_range": (0.25, 7.0), "clip": True}),
    "MaxAbsScaler": ({}, {"clip": True}),
    "RobustScaler": (
        {},
        {"quantile_range": (10.0, 95.0), "unit_variance": True},
        {"with_centering": False},
        {"with_scaling": False},
    ),
    "Normalizer": tuple({"norm": norm} for norm in NORMS),
}


def parameters(name):
    """Every set of parameters that the class of this name has in the scikit-learn that is installed."""
    known = inspect.signature(getattr(theirs, name)).parameters
    return [given for given in PARAMETERS[name] if set(given) <= set(known)]


def table(dtype=np.float64, rows=ROWS, columns=COLUMNS, seed=0):
    """Columns of different means and spreads, exact in every floating dtype; integers up to some hundreds."""
    x = np.floor(uniform((rows, columns), np.float64, seed) * 16) / 16
    factor, offset = np.resize([1.0, 4.0, 0.25, 16.0, 2.0], columns), np.resize([0.0, 5.0, 1.0, -24.0, 0.5], columns)
    x = x * factor + offset
    return np.asarray((x if np.dtype(dtype).kind == "f" else x * 16).astype(dtype))


def holed(x, where=((0, 1), (5, 1), (6, 2), (-1, 0))):
    """X with NaN in some places, and a last column of nothing else."""
    x = x.copy()
    for place in where:
        x[place] = np.nan
    x[:, -1] = np.nan
    return x


def tables():
    """(label, table) of every kind that scalers take. Asked for anew by who writes into them."""
    for dtype in (np.float64, np.float32, np.float16):
        x = table(dtype)
        yield f"{x.dtype}", x
        yield f"{x.dtype} Fortran", np.asfortranarray(x)
        yield f"{x.dtype} NaN", holed(x)
        constant = x.copy()
        constant[:, 1], constant[:, 2] = 2.5, 0
        yield f"{x.dtype} constants", constant
    x = table()
    yield "int64", table(np.int64)
    yield "int8", (table(np.int64) // 8).astype(np.int8)
    yield "bool", x > 0
    yield "list", x.tolist()
    yield "objects", x.astype(object)
    yield "one sample", x[:1]
    yield "one column", x[:, :1]
    yield "strided", np.repeat(x, 2, axis=1)[::-1, ::2]
    yield "pandas", pd.DataFrame(x, columns=list("abcde"), index=np.arange(ROWS) + 7)
    mixed = pd.DataFrame({"a": x[:, 0], "b": table(np.int64)[:, 1], "c": x[:, 2].astype(np.float32), "d": 1, "e": True})
    yield "pandas, mixed", mixed
    yield "pandas, NA", pd.DataFrame({k: pd.array([None, *x[1:, i]], dtype="Float64") for i, k in enumerate("abcde")})
    yield "polars", pl.DataFrame({k: x[:, i] for i, k in enumerate("abcde")})


def fitted(scaler):
    """What fitting left in the open: the names and values that scikit-learn documents."""
    return {name: value for name, value in vars(scaler).items() if name.endswith("_") and not name.startswith("_")}


def dense(x):
    """A table as a float64 array, with NaN for what is missing."""
    if isinstance(x, pd.DataFrame):
        return x.to_numpy(np.float64, na_value=np.nan)
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, np.float64)


def sizes(x):
    """The largest finite magnitude of each column."""
    x = np.abs(dense(x))
    return np.where(np.isfinite(x), x, 0).max(0)


def gain(scaler):
    """By how much a fitted scaler of scikit-learn's kind stretches each column."""
    scale = getattr(scaler, "scale_", None)
    if scale is None:
        return 1.0
    scale = np.asarray(scale, np.float64)
    return scale if type(scaler).__name__ == "MinMaxScaler" else 1 / scale


def shifted(scaler):
    """The largest constant that is added after scaling."""
    return max(map(abs, getattr(scaler, "feature_range", (0,))))


def assert_close(got, want, bound, label):
    """Check shape, dtype, places of NaN and, within the bound, values."""
    assert type(got) is type(want), label
    assert got.dtype == want.dtype, label
    assert got.shape == want.shape, label
    got, want = dense(got), dense(want)
    assert np.array_equal(np.isnan(got), np.isnan(want)), label
    with reference.silent():
        off = np.abs(got - want) > bound
    assert not off.any(), f"{label}: {got[off][:5]} and not {want[off][:5]}"


def assert_same_state(got, want, label):
    """Two scalers hold the same bytes."""
    got, want = fitted(got), fitted(want)
    assert got.keys() == want.keys(), label
    for name, value in want.items():
        assert same(got[name], value), f"{label}: {name} is {got[name]} and not {value}"


def same(got, want):
    """Byte for byte; None, and lists of Moments, included."""
    if isinstance(want, list):
        return [json.dumps(m.to_dict()) for m in got] == [json.dumps(m.to_dict()) for m in want]
    got, want = np.asarray(got), np.asarray(want)
    return got.dtype == want.dtype and got.shape == want.shape and got.tobytes() == want.tobytes()
