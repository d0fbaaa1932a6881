"""What estimators take: the same as scikit-learn's, checked without a pass over plain arrays."""

from types import NoneType
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from scipy import sparse
from sklearn.utils import get_tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from fastnorm import _arguments, _ops

NAN, INFINITY = 1, 2  # the flags of `_ops`
_FLOATS = (np.float64, np.float32, np.float16)
_UNCHANGING = {bool, int, float, str, tuple, NoneType}
_REMEMBERED = 8
_valid: WeakKeyDictionary[type, tuple[dict[str, Any], ...]] = WeakKeyDictionary()  # parameters of each class


def check_parameters(estimator: Any) -> None:
    """Refuse parameters of a wrong type or value.

    scikit-learn takes longer to look at them than a small table takes to be fitted; so the very objects that were valid
    lately are not looked at again.
    """
    valid = _valid.get(type(estimator), ())
    if any(all(getattr(estimator, name) is value for name, value in params.items()) for params in valid):
        return
    estimator._validate_params()
    params = estimator.get_params(deep=False)
    if all(type(value) in _UNCHANGING for value in params.values()):
        _valid[type(estimator)] = (params, *valid[: _REMEMBERED - 1])


def check_input(
    estimator: Any, X: Any, *, reset: bool, accept_sparse: Any = False, names: bool = True, ndim: int | None = 2
) -> Any:
    """X as an array that kernels read, or as a sparse one; its values are still to be looked at.

    `reset` remembers the number of features and their names, else these are compared; without `names` only the number
    is. With `ndim` None, X may have any number of axes, and features are counted elsewhere.
    """
    plain = type(X) is np.ndarray and X.size and _is_native(X.dtype)
    if plain and ndim is None:
        return _arguments.true_bits(X)
    if plain and X.ndim == 2 and not (names and "feature_names_in_" in vars(estimator)):
        if reset:
            estimator.n_features_in_ = X.shape[1]
        else:
            check_features(estimator, X.shape[1])
        return _arguments.true_bits(X)
    # What kernels read stays what it is, which saves a copy of integers; all else becomes a float.
    dtype = None if isinstance(X, np.ndarray) and _is_native(X.dtype) else _FLOATS
    options = {"accept_sparse": accept_sparse, "dtype": dtype, "ensure_all_finite": False}
    if sparse.issparse(X):
        options["ensure_all_finite"] = "allow-nan" if get_tags(estimator).input_tags.allow_nan else True
    try:
        if ndim is None:
            found = check_array(X, estimator=estimator, input_name="X", ensure_2d=False, allow_nd=True, **options)
        elif names:
            found = validate_data(estimator, X, reset=reset, **options)
        else:
            found = check_array(X, estimator=estimator, input_name="X", **options)
            check_features(estimator, found.shape[1])
    except ValueError as error:
        if str(error).startswith("could not convert"):  # NumPy does not know what X is
            raise ValueError(f"X holds what is no number: {error}") from None
        raise
    return found if sparse.issparse(found) else _arguments.true_bits(np.asarray(found))


def check_features(estimator: Any, count: int) -> None:
    """Refuse another number of features than were seen, if any were."""
    seen = getattr(estimator, "n_features_in_", count)
    if count != seen:
        raise ValueError(
            f"X has {count} features, but {type(estimator).__name__} is expecting {seen} features as input."
        )


def check_fitted(estimator: Any) -> None:
    """Refuse an estimator that has seen nothing."""
    if "n_features_in_" not in vars(estimator):
        check_is_fitted(estimator, "n_features_in_")


def found_in(x: np.ndarray) -> int:
    """The flags of what is not finite in x."""
    return cast("int", _ops.find_nonfinite(x))


def refuse(flags: int, x: np.ndarray, *, nan: bool = False) -> None:
    """Refuse infinity, and NaN if that is asked for, that was found in x."""
    if nan and flags & NAN:
        raise ValueError("Input X contains NaN.")
    if flags & INFINITY:
        raise ValueError(f"Input X contains infinity or a value too large for {x.dtype!r}.")


def refuse_nonfinite(x: np.ndarray, *, nan: bool = False) -> None:
    """Likewise, where x has not been read yet."""
    refuse(found_in(x), x, nan=nan)


def into(x: np.ndarray, given: Any, copy: bool, out: Any) -> Any:
    """Where the result of x goes, which `given` became: `out`, x itself if that need not be copied, or None."""
    if out is None and not copy and isinstance(given, np.ndarray):
        fits = x.dtype == _arguments.result_dtype(x) and x.flags.writeable and not _arguments.overlaps_itself(x)
        out = x if fits else None
    return out


def _is_native(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biu" or _arguments.is_float(dtype)
