"""Zero mean and unit variance."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils._param_validation import Interval
from sklearn.utils.sparsefuncs import mean_variance_axis

from fastnorm.stats import Moments

from . import _input
from ._base import Affine, FeatureScaler, Piece, along_axis

__all__ = ["StandardScaler", "scale"]

_EPS = np.finfo(np.float64).eps


class StandardScaler(FeatureScaler):
    r"""Scale features to zero mean and unit variance: ``z = (x - mean) / std``.

    Takes the place of scikit-learn's estimator of the same name. Data are read once by `fit`, at any number of samples
    in double precision and more, and the residual of the rounded mean is kept, so that features with a large mean lose
    no digits.

    Parameters
    ----------
    copy : bool, default True
        False: `transform` overwrites arrays of floats.
    with_mean : bool, default True
        Subtract the mean.
    with_std : bool, default True
        Divide by the standard deviation.
    feature_axis : int, optional
        Along which axis of an array of any number of axes features lie. Default: the last of two.
    ddof : float, default 0
        Delta degrees of freedom of the variance.

    Attributes
    ----------
    mean_ : ndarray of shape (n_features,), float64, or None
        In the units of the data; (n_groups, n_features) if fitted with groups, as the next two.
    var_ : ndarray of shape (n_features,), float64, or None
        Variance, in their square.
    scale_ : ndarray of shape (n_features,), float64, or None
        Standard deviation; 1 for constant features.
    n_samples_seen_ : int, or ndarray of shape (n_features,)
        Number of values, or sum of the weights, of each feature if it is not the same for all; one, or one row, for
        each group if fitted with groups.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if the data had any.
    groups_ : ndarray of shape (n_groups,)
        Sorted labels, if fitted with groups.
    moments_ : list of Moments
        The statistics of each group, or of all data: one set per feature.

    See Also
    --------
    scale : The same as a function.
    fastnorm.standardize : For arrays of any shape, without a state.
    fastnorm.Moments : The statistics that this is built on.

    Notes
    -----
    The variance has a relative error bound, also where it is that of the last digits of a large mean. So a feature is
    constant where its variance is exactly 0, and no threshold is needed: 14.62 repeated becomes zeros, and values that
    differ by 1e-13 are scaled. Statistics that come from sparse arrays or from scikit-learn are not as accurate; there
    a variance below the rounding error of the sums counts as 0, as in scikit-learn. Standard deviations have to be
    above 1e-154 and below 1e154, where their squares are doubles.

    Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37 (1983).

    Examples
    --------
    >>> from fastnorm.preprocessing import StandardScaler
    >>> scaler = StandardScaler().fit([[0.0, 14.62], [2.0, 14.62]])
    >>> scaler.mean_, scaler.scale_
    (array([ 1.  , 14.62]), array([1., 1.]))
    >>> scaler.transform([[4.0, 14.62]])
    array([[3., 0.]])

    Work that was divided is merged:

    >>> halves = StandardScaler().fit([[0.0], [2.0]]) + StandardScaler().fit([[4.0]])
    >>> halves.mean_, int(halves.n_samples_seen_)
    (array([2.]), 3)
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012  # scikit-learn's name for this
        "copy": ["boolean"],
        "with_mean": ["boolean"],
        "with_std": ["boolean"],
        "feature_axis": [Integral, None],
        "ddof": [Interval(Real, 0, None, closed="left")],
    }
    mean_: Any
    var_: Any
    scale_: Any
    n_samples_seen_: Any
    residual_: Any
    _beyond = ("moments_", "rounded_", "residual_")
    _saved = ("mean_", "var_", "scale_", "n_samples_seen_", *_beyond)
    _sparse = ("csr", "csc")
    _sparse_applied = "csr"

    def __init__(
        self,
        *,
        copy: bool = True,
        with_mean: bool = True,
        with_std: bool = True,
        feature_axis: int | None = None,
        ddof: float = 0,
    ) -> None:
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std
        self.feature_axis = feature_axis
        self.ddof = ddof

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Learn means and variances, and forget what was learnt before.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data; NaN does not count. With `feature_axis`, an array of any number of axes.
        y : None
            Ignored.
        sample_weight : array_like of shape (n_samples,), optional
            How much each sample counts; not negative. Integers mean repetition.
        groups : array_like of shape (n_samples,), optional
            A label for each sample: every group has statistics of its own.

        Returns
        -------
        self : object
            This scaler.

        Raises
        ------
        ValueError
            For infinite values, negative weights and input of a wrong shape. The scaler is then what it was.
        """
        del y
        self._take(X, True, groups, sample_weight)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Learn from X what was not seen before; as often as there is more.

        Where chunks of C-contiguous data are cut at multiples of ``moments_[0].block_rows``, the result has the same
        bytes as that of one `fit`.

        Parameters
        ----------
        X, y, sample_weight, groups
            As for `fit`. New groups may come at any time.

        Returns
        -------
        self : object
            This scaler.

        Raises
        ------
        ValueError
            As from `fit`, and for another number of features.
        """
        del y
        self._take(X, False, groups, sample_weight)
        return self

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None) -> Any:
        """`fit`, then `transform`; X is checked once.

        Parameters
        ----------
        X, y, sample_weight, groups
            As for `fit`.

        Returns
        -------
        X_new : array of the shape of X
            As from `transform`.
        """
        del y
        return self._fit_apply(X, groups, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self.with_mean
        return tags

    def _learn(self, pieces: Iterator[Piece], count: int) -> None:
        del count
        moments, weighted = self._kept(), self._is_weighted()
        for piece in pieces:
            of = piece.group or 0
            moments[of] = self._updated(moments[of], piece.x, piece.sample_weight)
            weighted |= piece.sample_weight is not None
        self._settle(moments, weighted, getattr(self, "rounded_", False))

    def _updated(self, moments: Moments, x: np.ndarray, sample_weight: np.ndarray | None) -> Moments:
        """Moments that have taken in x, too."""
        axes, weights = self._samples(x), None
        if sample_weight is not None:
            weights = sample_weight.reshape(-1, *(1,) * (x.ndim - 1))
            if sample_weight.min() == 0:  # what does not count is not read, and infinity is refused all the same
                _input.refuse_nonfinite(x)
        updated = moments.copy().update(x, axes, weights=weights)
        if not updated._is_finite():
            _input.refuse_nonfinite(x)
            updated = moments.copy().update(x, axes, weights=weights, nan_policy="omit")
        return updated

    def _learn_sparse(self, x: Any, sample_weight: np.ndarray | None) -> None:
        if self.with_mean:
            raise ValueError("Cannot center sparse matrices: pass `with_mean=False` instead.")
        wide = x.astype(np.float64, copy=False)  # of float32, counts and means would be rounded to that
        mean, var, count = mean_variance_axis(wide, axis=0, weights=sample_weight, return_sum_weights=True)
        moments = self._kept()
        moments[0] = moments[0].copy().merge(Moments._of(count, mean, var))
        self._settle(moments, self._is_weighted() or sample_weight is not None, True)

    def _absorb(self, other: Self, where: np.ndarray | None) -> None:
        moments = self._kept()
        for at, theirs in zip([0] if where is None else where, other.moments_, strict=True):
            moments[at] = moments[at] + theirs
        rounded = getattr(self, "rounded_", False) or other.rounded_
        self._settle(moments, self._is_weighted() or other._is_weighted(), rounded)

    def _spread_groups(self, where: np.ndarray, count: int) -> None:
        moments = [Moments() for _ in range(count)]
        for at, old in zip(where, getattr(self, "moments_", []), strict=True):
            moments[at] = old
        self.moments_ = moments

    def _adopt(self) -> None:
        features = (self.n_features_in_,)
        mean, var = (np.zeros(features) if value is None else value for value in (self.mean_, self.var_))
        self.moments_ = [Moments._of(np.broadcast_to(self.n_samples_seen_, features), mean, var)]
        self.rounded_, self.residual_ = True, None

    def _kept(self) -> list[Moments]:
        """The statistics so far, to be replaced one by one."""
        return list(self.moments_) if "moments_" in vars(self) else [Moments()]

    def _is_weighted(self) -> bool:
        return np.asarray(getattr(self, "n_samples_seen_", 0)).dtype.kind == "f"

    def _settle(self, moments: list[Moments], weighted: bool, rounded: bool) -> None:
        """Attributes from the statistics; `rounded`: these do not have the error bound of our own."""
        self.moments_, self.rounded_ = moments, rounded
        self.mean_ = self.var_ = self.scale_ = self.residual_ = None
        counts = [m.count for m in moments]
        if "groups_" in vars(self):
            counts = [np.broadcast_to(count, self.n_features_in_) for count in counts]
        count = np.array(self._stacked(counts), None if weighted else np.int64, ndmin=1)
        each = count[..., 0]  # of each group, or of all
        alike = count.shape[-1] == 1 or (count == each[..., None]).all()
        self.n_samples_seen_ = each[()] if alike else count
        if self.with_mean or self.with_std:
            self.mean_ = self._stacked([m.mean for m in moments])
            self.residual_ = (self.mean_, self._stacked([m._mean_lo() for m in moments]))
        if self.with_std:
            var = self._stacked([m.var() for m in moments])
            self.var_ = var if self.ddof == 0 else self._stacked([m.var(self.ddof) for m in moments])
            bound = count * _EPS * var + (count * self.mean_ * _EPS) ** 2 if rounded else 0
            self.scale_ = self._stacked([m.std(self.ddof) for m in moments])
            self.scale_[var <= bound] = 1

    def _stacked(self, values: list[Any]) -> Any:
        """The values of each group under each other, or those of all."""
        return np.array(values) if "groups_" in vars(self) else values[0]

    def _affine(self, x: Any) -> Affine:
        del x
        center = self.mean_ if self.with_mean else None
        if self.with_std and self.scale_ is None:
            raise ValueError("this StandardScaler was fitted with with_std=False; expected another fit")
        residual = None
        if center is not None and self.residual_ is not None and self.residual_[0].tobytes() == center.tobytes():
            residual = self.residual_[1]
        return Affine(center, residual, self.scale_ if self.with_std else None)

    def _apply_sparse(self, x: Any, inverse: bool) -> Any:
        if self.with_mean:
            what = "uncenter" if inverse else "center"
            raise ValueError(f"Cannot {what} sparse matrices: pass `with_mean=False` instead.")
        return super()._apply_sparse(x, inverse)


def scale(X: Any, *, axis: int = 0, with_mean: bool = True, with_std: bool = True, copy: bool = True) -> Any:
    """Scale to zero mean and unit variance along an axis, as `StandardScaler`.

    Parameters
    ----------
    X : array_like or sparse array of shape (n_samples, n_features), or array_like of shape (n_samples,)
        Data; NaN does not count and stays.
    axis : {0, 1}, default 0
        0: each feature by itself; 1: each sample.
    with_mean : bool, default True
        Subtract the mean. Sparse arrays have to be scaled without.
    with_std : bool, default True
        Divide by the standard deviation.
    copy : bool, default True
        False: an array of floats is overwritten.

    Returns
    -------
    X_new : array of the shape of X
        The scaled data.

    Raises
    ------
    ValueError
        For infinite values, another axis, and sparse arrays that cannot be scaled so.

    Examples
    --------
    >>> from fastnorm.preprocessing import scale
    >>> scale([[-2.0, 1.0, 4.0], [1.0, 3.0, 5.0]], axis=1).round(4)
    array([[-1.2247,  0.    ,  1.2247],
           [-1.2247,  0.    ,  1.2247]])
    """
    if sparse.issparse(X) and axis != 0:
        raise ValueError("sparse arrays are scaled along axis 0 only")
    if axis == 1 and np.ndim(X) == 1:
        raise np.exceptions.AxisError(1, 1)
    result = along_axis(StandardScaler(copy=copy, with_mean=with_mean, with_std=with_std), X, axis)
    return result.tocsc() if sparse.issparse(result) else result
