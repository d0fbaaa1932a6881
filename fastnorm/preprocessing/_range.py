"""Extrema: to a given range, and to a largest magnitude of 1."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import min_max_axis

from fastnorm import _arguments, stats

from . import _input
from ._base import Affine, FeatureScaler, Piece, along_axis

__all__ = ["MaxAbsScaler", "MinMaxScaler", "maxabs_scale", "minmax_scale"]


class ExtremaScaler(FeatureScaler):
    """Base of the scalers that keep extrema.

    These are attributes of shape (n_features,) or (n_groups, n_features), in the dtype of the data, and NaN where
    nothing was seen. `n_samples_seen_` is a number, or one for each group.
    """

    _extrema: tuple[str, ...]
    n_samples_seen_: Any

    def _learn(self, pieces: Iterator[Piece], count: int) -> None:
        if "groups_" not in vars(self):
            (piece,) = pieces
            self._join(..., *self._extrema_of(piece.x), count)
        else:
            for piece in pieces:
                self._join(piece.group, *self._extrema_of(piece.x), self._count(piece.x))
        self._settle()

    def _extrema_of(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The extrema of each feature, NaN where it has no values."""
        axes = self._samples(x)
        low, high = stats.minmax(x, axes)
        if _input.found_in(low) & _input.NAN:
            low, high = stats.minmax(x, axes, nan_policy="omit")
        _input.refuse(_input.found_in(low) | _input.found_in(high), x)
        dtype = _arguments.result_dtype(x)
        return low.astype(dtype, copy=False), high.astype(dtype, copy=False)

    def _absorb(self, other: Self, where: np.ndarray | None) -> None:
        self._join(... if where is None else where, *other._low_high(), other.n_samples_seen_)
        self._settle()

    def _spread_groups(self, where: np.ndarray, count: int) -> None:
        features = (count, self.n_features_in_)
        for name in self._extrema:
            before = getattr(self, name, np.empty((0, self.n_features_in_), np.float16))
            spread = np.full(features, np.nan, before.dtype)
            spread[where] = before
            setattr(self, name, spread)
        seen = np.zeros(count, np.int64)
        seen[where] = getattr(self, "n_samples_seen_", 0)
        self.n_samples_seen_ = seen

    def _put(self, name: str, at: Any, value: np.ndarray, choose: np.ufunc) -> None:
        """Extrema join those of an attribute; the old array stays what it was."""
        before = getattr(self, name, None)
        if before is None:
            setattr(self, name, value)
            return
        joined = before.astype(np.promote_types(before.dtype, value.dtype))
        joined[at] = choose(joined[at], value)
        setattr(self, name, joined)

    def _add(self, at: Any, count: Any) -> None:
        if "groups_" in vars(self):
            self.n_samples_seen_ = self.n_samples_seen_.copy()
            self.n_samples_seen_[at] += count
        else:
            self.n_samples_seen_ = getattr(self, "n_samples_seen_", 0) + count

    def _join(self, at: Any, low: np.ndarray, high: np.ndarray, count: Any) -> None:
        """Take in extrema of so many samples of the groups `at`."""
        raise NotImplementedError

    def _low_high(self) -> tuple[np.ndarray, np.ndarray]:
        """What `_join` took in, as far as it matters."""
        raise NotImplementedError

    def _settle(self) -> None:
        """What follows from the extrema."""
        raise NotImplementedError


class MinMaxScaler(ExtremaScaler):
    """Scale features to a given range: ``(x - min) / (max - min) * (high - low) + low``.

    Takes the place of scikit-learn's estimator of the same name. Of the data that were seen, minima become the lower
    end of the range exactly, and nothing lies above its upper end; for ranges whose length is a power of two, maxima
    become that exactly.

    Parameters
    ----------
    feature_range : tuple (low, high), default (0, 1)
        Where features go.
    copy : bool, default True
        False: `transform` overwrites arrays of floats.
    clip : bool, default False
        Cut off what other data have beyond the range.
    feature_axis : int, optional
        Along which axis of an array of any number of axes features lie. Default: the last of two.

    Attributes
    ----------
    data_min_, data_max_, data_range_ : ndarray of shape (n_features,)
        Extrema of each feature and their difference, in the units and the dtype of the data; of shape (n_groups,
        n_features) if fitted with groups, as all that follows.
    scale_, min_ : ndarray of shape (n_features,)
        The same map as ``x * scale_ + min_``. A constant feature has a range of 1 here.
    n_samples_seen_ : int
        Number of samples; one for each group if fitted with groups.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if the data had any.
    groups_ : ndarray of shape (n_groups,)
        Sorted labels, if fitted with groups.
    fitted_range_ : tuple (low, high)
        The range that was asked for by the last `fit` or `partial_fit`.

    See Also
    --------
    minmax_scale : The same as a function.
    fastnorm.min_max_scale : For arrays of any shape, without a state.

    Notes
    -----
    Extrema are exact, so a feature is constant where they are equal, however small the values.

    Examples
    --------
    >>> from fastnorm.preprocessing import MinMaxScaler
    >>> scaler = MinMaxScaler(feature_range=(-1, 1)).fit([[1.0, 10.0], [3.0, 50.0]])
    >>> scaler.transform([[2.0, 20.0], [5.0, 50.0]])
    array([[ 0. , -0.5],
           [ 3. ,  1. ]])
    >>> MinMaxScaler(clip=True).fit([[1.0], [3.0]]).transform([[7.0]])
    array([[1.]])
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012  # scikit-learn's name for this
        "feature_range": [tuple],
        "copy": ["boolean"],
        "clip": ["boolean"],
        "feature_axis": [Integral, None],
    }
    _extrema = ("data_min_", "data_max_")
    _beyond = ("fitted_range_",)
    _saved = (*_extrema, "data_range_", "scale_", "min_", "n_samples_seen_", *_beyond)

    def __init__(
        self,
        feature_range: tuple[float, float] = (0, 1),
        *,
        copy: bool = True,
        clip: bool = False,
        feature_axis: int | None = None,
    ) -> None:
        self.feature_range = feature_range
        self.copy = copy
        self.clip = clip
        self.feature_axis = feature_axis

    def _checked(self, X: Any, *, reset: bool, accept_sparse: Any, names: bool = True) -> Any:
        try:
            low, high = map(float, self.feature_range)
        except (TypeError, ValueError):
            raise ValueError(f"feature_range must be a tuple of two numbers, got {self.feature_range!r}") from None
        if not low < high:
            raise ValueError(
                f"Minimum of desired feature range must be smaller than maximum. Got {self.feature_range}."
            )
        if sparse.issparse(X):
            raise TypeError("MinMaxScaler does not support sparse input. Consider using MaxAbsScaler instead.")
        return super()._checked(X, reset=reset, accept_sparse=accept_sparse, names=names)

    def _join(self, at: Any, low: np.ndarray, high: np.ndarray, count: Any) -> None:
        self._put("data_min_", at, low, np.fmin)
        self._put("data_max_", at, high, np.fmax)
        self._add(at, count)

    def _low_high(self) -> tuple[np.ndarray, np.ndarray]:
        return self.data_min_, self.data_max_

    def _settle(self) -> None:
        low, high = self.feature_range
        dtype = self.data_min_.dtype
        least, most = self.data_min_.astype(np.float64), self.data_max_.astype(np.float64)
        with np.errstate(all="ignore"):
            length = most - least
            scale = (high - low) / np.where(length == 0, 1, length)
            self.data_range_, self.scale_ = length.astype(dtype), scale.astype(dtype)
            self.min_ = (low - least * scale).astype(dtype)
        self.fitted_range_ = self.feature_range

    def _adopt(self) -> None:
        self.fitted_range_ = self.feature_range

    def _affine(self, x: np.ndarray) -> Affine:
        ends = tuple(map(float, self.feature_range)) if self.clip else (-np.inf, np.inf)
        if "data_min_" not in vars(self):  # set by hand
            return Affine(None, None, 1 / np.asarray(self.scale_, np.float64), np.asarray(self.min_, np.float64), *ends)
        low, high = map(float, self.fitted_range_)
        shift = None if low == 0 else np.full(self.scale_.shape, low)
        least = self.data_min_.astype(np.float64, copy=False)
        return Affine(least, None, self._divisor(_arguments.compute_dtype(x).type, low, high), shift, *ends)

    def _divisor(self, dtype: Any, low: float, high: float) -> np.ndarray:
        """What maps the length of each feature to that of the range, and its maximum not above the upper end.

        Data of another dtype than was learnt from do not reach the ends where these are not of their dtype.
        """
        with np.errstate(all="ignore"):
            least, most = self.data_min_.astype(dtype, copy=False), self.data_max_.astype(dtype, copy=False)
            top = most - least
            length, reached = top.astype(np.float64), True
            if not self.data_min_.dtype == self.data_max_.dtype == dtype:
                reached = (least == self.data_min_) & (most == self.data_max_)
                length = np.where(reached, length, np.subtract(self.data_max_, self.data_min_, dtype=np.float64))
            length[length == 0] = 1
            divisor = (length / (high - low)).astype(dtype)
            for _ in range(2 if (low, high) != (0, 1) else 0):  # top / top is not above 1
                above = reached & (top / divisor + dtype(low) > dtype(high))
                if not above.any():
                    break
                divisor = np.where(above, np.nextafter(divisor, dtype(np.inf)), divisor)
        return np.asarray(divisor, np.float64)


class MaxAbsScaler(ExtremaScaler):
    """Scale features to a largest magnitude of 1: ``x / max(abs(x))``. Zeros stay zeros.

    Takes the place of scikit-learn's estimator of the same name.

    Parameters
    ----------
    copy : bool, default True
        False: `transform` overwrites arrays of floats.
    clip : bool, default False
        Cut off what other data have beyond -1 and 1.
    feature_axis : int, optional
        Along which axis of an array of any number of axes features lie. Default: the last of two.

    Attributes
    ----------
    max_abs_ : ndarray of shape (n_features,)
        Largest magnitude of each feature, in the units and the dtype of the data; of shape (n_groups, n_features) if
        fitted with groups, as the next one.
    scale_ : ndarray of shape (n_features,)
        The same; 1 for features that are all zeros.
    n_samples_seen_ : int
        Number of samples; one for each group if fitted with groups.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if the data had any.
    groups_ : ndarray of shape (n_groups,)
        Sorted labels, if fitted with groups.

    See Also
    --------
    maxabs_scale : The same as a function.

    Examples
    --------
    >>> from fastnorm.preprocessing import MaxAbsScaler
    >>> MaxAbsScaler().fit([[-4.0, 1.0], [2.0, 0.0]]).transform([[-4.0, 0.5]])
    array([[-1. ,  0.5]])
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012  # scikit-learn's name for this
        "copy": ["boolean"],
        "clip": ["boolean"],
        "feature_axis": [Integral, None],
    }
    _extrema = ("max_abs_",)
    _saved = (*_extrema, "scale_", "n_samples_seen_")
    _sparse = ("csr", "csc")
    _sparse_applied = ("csr", "csc")

    def __init__(self, *, copy: bool = True, clip: bool = False, feature_axis: int | None = None) -> None:
        self.copy = copy
        self.clip = clip
        self.feature_axis = feature_axis

    def _learn_sparse(self, x: Any, sample_weight: np.ndarray | None) -> None:
        del sample_weight
        low, high = min_max_axis(x, axis=0, ignore_nan=True)
        self._join(..., low, high, x.shape[0])
        self._settle()

    def _join(self, at: Any, low: np.ndarray, high: np.ndarray, count: Any) -> None:
        self._put("max_abs_", at, np.fmax(np.abs(low), np.abs(high)), np.fmax)
        self._add(at, count)

    def _low_high(self) -> tuple[np.ndarray, np.ndarray]:
        return self.max_abs_, self.max_abs_

    def _settle(self) -> None:
        self.scale_ = np.where(self.max_abs_ == 0, self.max_abs_.dtype.type(1), self.max_abs_)

    def _affine(self, x: np.ndarray) -> Affine:
        del x
        ends = (-1.0, 1.0) if self.clip else (-np.inf, np.inf)
        return Affine(None, None, self.scale_.astype(np.float64, copy=False), None, *ends)


def minmax_scale(X: Any, feature_range: tuple[float, float] = (0, 1), *, axis: int = 0, copy: bool = True) -> Any:
    """Scale to a given range along an axis, as `MinMaxScaler`.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features) or (n_samples,)
        Data; NaN does not count and stays.
    feature_range : tuple (low, high), default (0, 1)
        Where the data go.
    axis : {0, 1}, default 0
        0: each feature by itself; 1: each sample.
    copy : bool, default True
        False: an array of floats is overwritten.

    Returns
    -------
    X_new : ndarray of the shape of X
        The scaled data.

    Raises
    ------
    ValueError
        For infinite values, another axis and a range that does not ascend.

    Examples
    --------
    >>> from fastnorm.preprocessing import minmax_scale
    >>> minmax_scale([1.0, 2.0, 5.0])
    array([0.  , 0.25, 1.  ])
    """
    return along_axis(MinMaxScaler(feature_range, copy=copy), X, axis)


def maxabs_scale(X: Any, *, axis: int = 0, copy: bool = True) -> Any:
    """Scale to a largest magnitude of 1 along an axis, as `MaxAbsScaler`.

    Parameters
    ----------
    X : array_like or sparse array of shape (n_samples, n_features), or array_like of shape (n_samples,)
        Data; NaN does not count and stays.
    axis : {0, 1}, default 0
        0: each feature by itself; 1: each sample.
    copy : bool, default True
        False: an array of floats is overwritten.

    Returns
    -------
    X_new : array of the shape of X
        The scaled data.

    Raises
    ------
    ValueError
        For infinite values and another axis.

    Examples
    --------
    >>> from fastnorm.preprocessing import maxabs_scale
    >>> maxabs_scale([[-2.0, 1.0], [0.0, 4.0]], axis=1)
    array([[-1. ,  0.5],
           [ 0. ,  1. ]])
    """
    return along_axis(MaxAbsScaler(copy=copy), X, axis)
