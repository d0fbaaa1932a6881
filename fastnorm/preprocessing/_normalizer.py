"""Samples of unit norm."""

from typing import Any, Self, cast

import numpy as np
import sklearn.preprocessing
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metadata_routing import UNUSED

from fastnorm import _arguments, _ops

from . import _input
from ._base import UnchangedOnError

__all__ = ["Normalizer", "normalize"]

_ORDERS = {"l1": 1.0, "l2": 2.0, "max": np.inf}


class Normalizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Scale samples to unit norm: ``x / norm(x)``; samples of zeros stay zeros.

    Takes the place of scikit-learn's estimator of the same name. Norms beyond the range of the dtype are right, too,
    and samples are scaled however small they are.

    Parameters
    ----------
    norm : {"l1", "l2", "max"}, default "l2"
        Sum of magnitudes, Euclidean length, or largest magnitude.
    copy : bool, default True
        False: `transform` overwrites arrays of floats.

    Attributes
    ----------
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if the data had any.

    See Also
    --------
    normalize : The same as a function.
    fastnorm.normalize : For any p and any axes.

    Examples
    --------
    >>> from fastnorm.preprocessing import Normalizer
    >>> Normalizer().fit_transform([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """

    __metadata_request__transform = {"out": UNUSED}  # noqa: RUF012  # read by scikit-learn when it makes the class
    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012  # scikit-learn's name for this
        "norm": [StrOptions({"l1", "l2", "max"})],
        "copy": ["boolean"],
    }

    def __init__(self, norm: str = "l2", *, copy: bool = True) -> None:
        self.norm = norm
        self.copy = copy

    def fit(self, X: Any, y: Any = None) -> Self:
        """Look at the number of features: there is nothing to learn.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data.
        y : None
            Ignored.

        Returns
        -------
        self : object
            This estimator.

        Raises
        ------
        ValueError
            For NaN, infinite values and input of a wrong shape.
        """
        del y
        with UnchangedOnError(self):
            x = self._checked(X, True)
            if not sparse.issparse(x):
                _input.refuse_nonfinite(x, nan=True)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """`fit`, then `transform`; X is checked once.

        Parameters
        ----------
        X, y
            As for `fit`.

        Returns
        -------
        X_new : array of the shape of X
            As from `transform`.
        """
        del y
        with UnchangedOnError(self):
            return self._apply(self._checked(X, True), X, self.copy, None)

    def transform(self, X: Any, copy: bool | None = None, *, out: Any = None) -> Any:
        """Scale each sample of X.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data; floats keep their dtype, integers give float64.
        copy : bool, optional
            False: an array of floats is overwritten. Default: the parameter `copy`.
        out : ndarray, optional
            Where the result goes: the shape of X and the dtype of the result; may be X itself.

        Returns
        -------
        X_new : array of the shape of X
            The scaled samples; what `set_output` asks for.

        Raises
        ------
        ValueError
            For NaN, infinite values, another number of features, and an `out` that cannot be written. Neither X nor
            `out` has then changed.
        """
        return self._apply(self._checked(X, False), X, self.copy if copy is None else copy, out)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: Any, reset: bool) -> Any:
        if reset:
            _input.check_parameters(self)
        return _input.check_input(self, X, reset=reset, accept_sparse="csr")

    def _apply(self, x: Any, given: Any, copy: bool, out: Any) -> Any:
        if sparse.issparse(x):
            if out is not None:
                raise ValueError("out is not supported with sparse input; expected a dense array")
            return sklearn.preprocessing.normalize(x, self.norm, copy=copy and x is given)
        return _scaled(x, self.norm, 1, _input.into(x, given, copy, out))


def normalize(X: Any, norm: str = "l2", *, axis: int = 1, copy: bool = True, return_norm: bool = False) -> Any:
    """Scale samples or features to unit norm, as `Normalizer`.

    Parameters
    ----------
    X : array_like or sparse array of shape (n_samples, n_features)
        Data without NaN.
    norm : {"l1", "l2", "max"}, default "l2"
        Sum of magnitudes, Euclidean length, or largest magnitude.
    axis : {0, 1}, default 1
        1: each sample by itself; 0: each feature.
    copy : bool, default True
        False: an array of floats is overwritten.
    return_norm : bool, default False
        Return the norms, too.

    Returns
    -------
    X_new : array of the shape of X
        The scaled data.
    norms : ndarray of shape (n_samples,), or (n_features,) for axis 0
        Norms; 1 where they are 0.

    Raises
    ------
    ValueError
        For NaN, infinite values, another axis and another norm.
    NotImplementedError
        For norms of sparse arrays, but the largest magnitude.

    Examples
    --------
    >>> from fastnorm.preprocessing import normalize
    >>> normalize([[1.0, 3.0], [2.0, -2.0]], norm="l1")
    array([[ 0.25,  0.75],
           [ 0.5 , -0.5 ]])
    """
    estimator = Normalizer(norm, copy=copy)
    _input.check_parameters(estimator)
    _arguments.choice("axis", axis, (0, 1))
    _arguments.choice("return_norm", return_norm, (False, True))
    if sparse.issparse(X):
        return sklearn.preprocessing.normalize(X, norm, axis=axis, copy=copy, return_norm=return_norm)
    x = _input.check_input(estimator, X, reset=True)
    norms = None
    if return_norm:
        _input.refuse_nonfinite(x, nan=True)
        wide = x.astype(np.float64)
        power = np.frexp(np.abs(wide).max(axis, keepdims=True))[1]  # taken out, so that no square overflows or vanishes
        norms = np.ldexp(np.linalg.norm(np.ldexp(wide, -power), _ORDERS[norm], axis=axis), power.squeeze(axis))
        norms[norms == 0] = 1
        norms = norms.astype(_arguments.result_dtype(x))
    result = _scaled(x, norm, axis, _input.into(x, X, copy, None))
    return (result, norms) if return_norm else result


def _scaled(x: np.ndarray, norm: str, axis: int, out: np.ndarray | None) -> Any:
    """Divide x by its norms. Where it is overwritten, it is read beforehand; else its norms tell whether to look."""
    into = _arguments.output(out, x, _arguments.result_dtype(x))
    if into is not None:
        _input.refuse_nonfinite(x, nan=True)
    # No norm but 0 is below the least number of the type that it is computed in.
    least = 2.0**-1074 if _arguments.compute_dtype(x) == np.float64 else 2.0**-149
    result, unusual = cast("tuple[Any, int]", _ops.normalize_telling(x, _ORDERS[norm], axis, least, into))
    if unusual and into is None:
        _input.refuse_nonfinite(x, nan=True)
    return result if out is None else out
