"""Scaling by median and quantile range, which outliers do not move."""

from collections.abc import Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
from scipy.special import ndtri
from sklearn.utils.metaestimators import available_if

from fastnorm import _ops
from fastnorm._quantiles import QuantileSketch

from . import _input
from ._base import Affine, FeatureScaler, Piece, UnchangedOnError, along_axis

__all__ = ["RobustScaler", "robust_scale"]

_BLOCK = 1 << 18  # elements of an unusual layout that are brought together
_MEDIAN = 0.5


def _can_go_on(scaler: Any) -> bool:
    """Whether there is something to add to. What `_sketch` raises becomes the cause of the AttributeError."""
    return "sketch_" not in vars(scaler) or scaler._sketch() is not None


class RobustScaler(FeatureScaler):
    """Scale features to a median of 0 and a quantile range of 1: ``(x - median) / (q_high - q_low)``.

    Takes the place of scikit-learn's estimator of the same name. `fit` finds exact quantiles in memory that does not
    grow with the data. `partial_fit` and `merge`, for data that come in parts, keep a sketch of each feature.

    Parameters
    ----------
    with_centering : bool, default True
        Subtract the median.
    with_scaling : bool, default True
        Divide by the quantile range.
    quantile_range : tuple (q_low, q_high), default (25.0, 75.0)
        Percentiles whose difference is the scale.
    copy : bool, default True
        False: `transform` overwrites arrays of floats.
    unit_variance : bool, default False
        Scale so that features that are normally distributed have a variance of 1.
    feature_axis : int, optional
        Along which axis of an array of any number of axes features lie. Default: the last of two.

    Attributes
    ----------
    center_ : ndarray of shape (n_features,), float64, or None
        Medians, in the units of the data.
    scale_ : ndarray of shape (n_features,), float64, or None
        Quantile ranges; 1 where that is 0.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if the data had any.
    sketch_ : object or None
        What `partial_fit` has seen, and in ``sketch_.rank_error`` how far the ranks of quantiles may be off in each
        feature, as a part of the number of its values: nothing up to 2048 values, about 0.0054 at 1e9 of them. None
        after `fit`.

    See Also
    --------
    robust_scale : The same as a function.

    Notes
    -----
    Quantiles are interpolated between order statistics in double precision, as by ``numpy.nanpercentile``. After
    `partial_fit` they are those of the sketch, and found anew by each call: give it some thousand samples at a time.
    Extrema and quantiles are exact, so that only features of which both quantiles are equal have a scale of 1. The
    sketch depends on the data and their order alone, not on how they are divided among calls. A scaler fitted by
    `fit` has none, so that neither `partial_fit` nor `merge` can add to it.

    Examples
    --------
    >>> from fastnorm.preprocessing import RobustScaler
    >>> scaler = RobustScaler().fit([[1.0], [2.0], [3.0], [4.0], [500.0]])
    >>> scaler.center_, scaler.scale_
    (array([3.]), array([2.]))
    >>> scaler.transform([[5.0]])
    array([[1.]])

    Work that was divided is merged:

    >>> halves = RobustScaler().partial_fit([[1.0], [2.0]]) + RobustScaler().partial_fit([[3.0], [4.0], [500.0]])
    >>> halves.center_
    array([3.])
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012  # scikit-learn's name for this
        "with_centering": ["boolean"],
        "with_scaling": ["boolean"],
        "quantile_range": [tuple],
        "copy": ["boolean"],
        "unit_variance": ["boolean"],
        "feature_axis": [Integral, None],
    }
    center_: Any
    scale_: Any
    sketch_: QuantileSketch | None
    _beyond = ("sketch_",)
    _saved = ("center_", "scale_", *_beyond)
    _sparse = "csc"
    _sparse_applied = ("csr", "csc")

    def __init__(
        self,
        *,
        with_centering: bool = True,
        with_scaling: bool = True,
        quantile_range: tuple[float, float] = (25.0, 75.0),
        copy: bool = True,
        unit_variance: bool = False,
        feature_axis: int | None = None,
    ) -> None:
        self.with_centering = with_centering
        self.with_scaling = with_scaling
        self.quantile_range = quantile_range
        self.copy = copy
        self.unit_variance = unit_variance
        self.feature_axis = feature_axis

    def fit(self, X: Any, y: Any = None) -> Self:  # type: ignore[override]  # there are no groups
        """Learn exact quantiles, and forget what was learnt before.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data; NaN does not count. With `feature_axis`, an array of any number of axes. Sparse arrays need
            ``with_centering=False``.
        y : None
            Ignored.

        Returns
        -------
        self : object
            This scaler.

        Raises
        ------
        ValueError
            For infinite values, a quantile range that does not ascend within 0 and 100, and input of a wrong shape. The
            scaler is then what it was.
        """
        del y
        self._take(X, True, None)
        return self

    @available_if(_can_go_on)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Learn from X what was not seen before; as often as there is more.

        Parameters
        ----------
        X, y
            As for `fit`.

        Returns
        -------
        self : object
            This scaler.

        Raises
        ------
        ValueError
            As from `fit`, and for another number of features.
        AttributeError
            After `fit`, which keeps no sketch to go on with: there is no such method then.
        """
        del y
        with UnchangedOnError(self):
            if "n_features_in_" not in vars(self):
                self.sketch_ = QuantileSketch()
            self._take(X, False, None)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:  # type: ignore[override]
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
        return self._fit_apply(X)

    def transform(self, X: Any, copy: bool | None = None, *, out: Any = None) -> Any:  # type: ignore[override]
        """Scale X.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data. float64, float32, float16 and bfloat16 keep their dtype, integers give float64; NaN stays NaN.
        copy : bool, optional
            False: an array of floats is overwritten, after one more read pass that looks for infinity. Default: the
            parameter `copy` of the scaler.
        out : ndarray, optional
            Where the result goes: the shape of X and the dtype of the result; may be X itself. It costs the read pass,
            too.

        Returns
        -------
        X_new : array of the shape of X
            The scaled data; what `set_output` asks for. Sparse arrays are only divided, which keeps their zeros.

        Raises
        ------
        ValueError
            For infinite values, another number of features, and an `out` that cannot be written. Neither X nor `out`
            has then changed.
        """
        _input.check_fitted(self)
        x = self._checked(X, reset=False, accept_sparse=self._sparse_applied)
        return self._apply(x, X, copy=copy, out=out)

    def inverse_transform(self, X: Any, copy: bool | None = None, *, out: Any = None) -> Any:  # type: ignore[override]
        """Undo `transform`.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Scaled data.
        copy, out
            As for `transform`.

        Returns
        -------
        X_original : array of the shape of X
            Data in their own units.

        Raises
        ------
        ValueError
            As from `transform`.
        """
        _input.check_fitted(self)
        x = self._checked(X, reset=False, accept_sparse=self._sparse_applied, names=False)
        return self._apply(x, X, copy=copy, out=out, inverse=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = not self.with_centering
        return tags

    def _checked(self, X: Any, *, reset: bool, accept_sparse: Any, names: bool = True) -> Any:
        low, high = self.quantile_range
        if not 0 <= low <= high <= 100:
            raise ValueError(f"Invalid quantile range: {self.quantile_range}")
        return super()._checked(X, reset=reset, accept_sparse=accept_sparse, names=names)

    def _learn(self, pieces: Iterator[Piece], count: int) -> None:
        del count
        (piece,) = pieces
        x, axis = piece.x, self._axis(piece.x)
        if "sketch_" not in vars(self):
            values, _, flags = _ops.quantiles(x, axis, self._probabilities())  # type: ignore[misc]  # never None
            _input.refuse(flags, x)
            self._settle(values, None)
        else:
            sketch = self._sketch().copy()
            _input.refuse_nonfinite(x)
            for rows in _tables(np.moveaxis(x, axis, -1)):
                sketch.update(rows)
            self._settle(sketch.quantile(self._probabilities()), sketch)

    def _learn_sparse(self, x: Any, sample_weight: np.ndarray | None) -> None:
        del sample_weight
        if self.with_centering:
            raise ValueError("Cannot center sparse matrices: pass `with_centering=False` instead.")
        probabilities = self._probabilities()
        if "sketch_" in vars(self):
            sketch, rows = self._sketch().copy(), x.tocsr()
            count = max(1, _BLOCK // x.shape[1])
            for start in range(0, x.shape[0], count):
                sketch.update(rows[start : start + count].toarray())
            self._settle(sketch.quantile(probabilities), sketch)
            return
        values = np.empty((probabilities.size, x.shape[1]))
        column = np.empty((x.shape[0], 1), x.dtype)
        for j in range(x.shape[1]):
            stored = x.data[x.indptr[j] : x.indptr[j + 1]]
            column[: stored.size, 0] = stored
            column[stored.size :] = 0
            values[:, j] = _ops.quantiles(column, 1, probabilities)[0][:, 0]  # type: ignore[index]
        self._settle(values, None)

    def _absorb(self, other: Self, where: np.ndarray | None) -> None:
        del where
        if "sketch_" not in vars(self) and other.sketch_ is None:  # nothing joins what `fit` found
            if {**self.get_params(), "copy": other.copy} != other.get_params():
                raise ValueError("other was fitted by fit with other parameters; expected one fitted by partial_fit")
            self.center_, self.scale_, self.sketch_ = other.center_, other.scale_, None
            return
        mine = self._sketch().copy() if "sketch_" in vars(self) else QuantileSketch()
        sketch = mine.merge(other._sketch())
        self._settle(sketch.quantile(self._probabilities()), sketch)

    def _adopt(self) -> None:
        self.sketch_ = None

    def _sketch(self) -> QuantileSketch:
        """What can be added to."""
        if self.sketch_ is None:
            raise ValueError("a scaler fitted by fit keeps no sketch to add to; expected one fitted by partial_fit")
        return self.sketch_

    def _probabilities(self) -> np.ndarray:
        """Those of the quantiles that are needed, ascending."""
        return np.sort(np.array([_MEDIAN, *(q / 100 for q in self.quantile_range)], np.float64))

    def _settle(self, values: np.ndarray, sketch: QuantileSketch | None) -> None:
        """Attributes from the quantiles. They are exact or those of values that are there: a range of 0 is one."""
        at = self._probabilities().tolist()
        low, high = (values[at.index(q / 100)] for q in self.quantile_range)
        self.sketch_ = sketch
        self.center_ = values[at.index(_MEDIAN)].copy() if self.with_centering else None
        self.scale_ = None
        if self.with_scaling:
            with np.errstate(all="ignore"):
                self.scale_ = np.where(high == low, 1.0, high - low)
                if self.unit_variance:
                    first, last = ndtri([q / 100 for q in self.quantile_range])
                    self.scale_ = self.scale_ / (last - first)

    def _affine(self, x: Any) -> Affine:
        del x
        if (self.with_centering and self.center_ is None) or (self.with_scaling and self.scale_ is None):
            raise ValueError("this RobustScaler was fitted without centering or scaling; expected another fit")
        return Affine(self.center_ if self.with_centering else None, None, self.scale_ if self.with_scaling else None)


def _tables(x: np.ndarray) -> Iterator[np.ndarray]:
    """All of x, whose features are last, as tables of samples; what cannot be viewed so is copied bit by bit."""
    if x.ndim == 2 or x.size <= _BLOCK:
        yield x.reshape(-1, x.shape[-1])
    elif len(x) == 1:
        yield from _tables(x[0])
    else:
        yield from _tables(x[: len(x) // 2])
        yield from _tables(x[len(x) // 2 :])


def robust_scale(
    X: Any,
    *,
    axis: int = 0,
    with_centering: bool = True,
    with_scaling: bool = True,
    quantile_range: tuple[float, float] = (25.0, 75.0),
    copy: bool = True,
    unit_variance: bool = False,
) -> Any:
    """Scale to a median of 0 and a quantile range of 1 along an axis, as `RobustScaler`.

    Parameters
    ----------
    X : array_like or sparse array of shape (n_samples, n_features), or array_like of shape (n_samples,)
        Data; NaN does not count and stays.
    axis : {0, 1}, default 0
        0: each feature by itself; 1: each sample.
    with_centering : bool, default True
        Subtract the median. Sparse arrays have to be scaled without.
    with_scaling : bool, default True
        Divide by the quantile range.
    quantile_range : tuple (q_low, q_high), default (25.0, 75.0)
        Percentiles whose difference is the scale.
    copy : bool, default True
        False: an array of floats is overwritten.
    unit_variance : bool, default False
        Scale so that data that are normally distributed have a variance of 1.

    Returns
    -------
    X_new : array of the shape of X
        The scaled data.

    Raises
    ------
    ValueError
        For infinite values, another axis, a quantile range that does not ascend within 0 and 100, and sparse arrays
        that cannot be scaled so.

    Examples
    --------
    >>> from fastnorm.preprocessing import robust_scale
    >>> robust_scale([[-2, 1, 2], [-1, 0, 1]])
    array([[-1.,  1.,  1.],
           [ 1., -1., -1.]])
    """
    scaler = RobustScaler(
        with_centering=with_centering,
        with_scaling=with_scaling,
        quantile_range=quantile_range,
        copy=copy,
        unit_variance=unit_variance,
    )
    return along_axis(scaler, X, axis)
