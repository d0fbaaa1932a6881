"""Statistics of arrays in one pass over memory, and statistics that go on over a stream.

The algorithm is Welford's in blocked form: blocks are summed in double about a guess of their mean and merged
pairwise, so that neither large offsets nor long columns cost accuracy; third and fourth moments are merged alike. What
is masked, has no weight or is an omitted NaN is left out by selection and cannot contaminate a result. Welford, "Note
on a Method for Calculating Corrected Sums of Squares and Products", Technometrics 4 (1962); Chan, Golub, LeVeque,
"Algorithms for Computing the Sample Variance", The American Statistician 37 (1983); Pébay, "Formulas for Robust,
One-Pass Parallel Computation of Covariances and Arbitrary-Order Statistical Moments", SAND2008-6212 (2008).
"""

import math
from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np

from . import _arguments, _ops

__all__ = ["Moments", "mean", "mean_var", "minmax", "moments", "std", "var"]

# The rows of a state by name, in the order of kernels.h; m3 and m4 are means of powers about the mean.
_STATE = ("count", "count_lo", "mean", "mean_lo", "var", "var_lo", "min", "max", "m3", "m3_lo", "m4", "m4_lo")
_PROPAGATE, _OMIT = "propagate", "omit"
_COUNT, _MEAN, _VAR, _MIN, _MAX, _M3, _M4 = map(_STATE.index, ("count", "mean", "var", "min", "max", "m3", "m4"))


def mean_var(
    x: Any,
    axis: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    weights: Any = None,
    where: Any = None,
    nan_policy: str = "propagate",
    dtype: Any = None,
) -> tuple[Any, Any]:
    r"""Mean and variance, from one read of memory.

    ``mean = sum(w * x) / sum(w)`` and ``var = sum(w * (x - mean)**2) / (sum(w) - ddof)``, accumulated in double
    precision; ``w`` is 1 without weights.

    Parameters
    ----------
    x : array_like
        Real array of any layout.
    axis : int, tuple of int or None, default None
        Axes to reduce; None for all.
    ddof : float, default 0
        Delta degrees of freedom. Where none is left the variance is inf or NaN, as in NumPy.
    keepdims : bool, default False
        Keep reduced axes with length one.
    weights : array_like, optional
        How much each element counts: finite and not negative. Of the shape of x, or of as many axes with sizes that
        broadcast to it, or of the shape of the reduced axes (in ascending order). Integers mean repetition.
    where : array_like of bool, optional
        Which elements count. Broadcasts to the shape of x.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        What NaN does: it makes NaN of its results, it does not count, or it is an error.
    dtype : {float16, bfloat16, float32, float64}, optional
        dtype of the results. Default: that of x; float64 for integers.

    Returns
    -------
    mean, var : ndarray or scalar
        In the units of x, and in their square. NaN where nothing counts. NaN in x makes NaN of its own column only; of
        infinite data the mean is infinite and the variance NaN. What does not count, or has a weight of 0, changes
        nothing whatever it is.

    Raises
    ------
    ValueError
        For an axis that x does not have or that is repeated; for weights that are negative, not finite or of another
        shape; for a mask that does not broadcast to x; for NaN that counts where `nan_policy` is "raise".
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) and a mask that is not of bools.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1e8 + 1, 5.0], [1e8 + 2, 5.0], [1e8 + 3, 5.0]])
    >>> mean, var = fastnorm.mean_var(x, axis=0, ddof=1)
    >>> mean.tolist(), var.tolist()
    ([100000002.0, 5.0], [1.0, 0.0])

    Missing values, and rows that count twice:

    >>> x[0, 0] = np.nan
    >>> mean, var = fastnorm.mean_var(x, axis=0, nan_policy="omit", weights=[1, 1, 2])
    >>> mean.tolist()
    [100000002.66666667, 5.0]
    """
    return _reduce(x, axis, ddof, keepdims, dtype, True, True, False, where, weights, nan_policy)


def mean(
    x: Any,
    axis: Any = None,
    *,
    keepdims: bool = False,
    weights: Any = None,
    where: Any = None,
    nan_policy: str = "propagate",
    dtype: Any = None,
) -> Any:
    """Arithmetic mean, accumulated in double precision whatever the dtype of x.

    Parameters
    ----------
    x, axis, keepdims, weights, where, nan_policy, dtype
        As for `mean_var`.

    Returns
    -------
    mean : ndarray or scalar
        As from `mean_var`.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> fastnorm.mean(np.full(1_000_000, 0.1, dtype=np.float32))
    np.float32(0.1)
    >>> fastnorm.mean([1.0, 2.0, 6.0], where=[True, True, False])
    np.float64(1.5)
    """
    return _reduce(x, axis, 0, keepdims, dtype, True, False, False, where, weights, nan_policy)[0]


def var(
    x: Any,
    axis: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    weights: Any = None,
    where: Any = None,
    nan_policy: str = "propagate",
    dtype: Any = None,
) -> Any:
    """Variance, from one read of memory.

    Parameters
    ----------
    x, axis, ddof, keepdims, weights, where, nan_policy, dtype
        As for `mean_var`.

    Returns
    -------
    var : ndarray or scalar
        As from `mean_var`.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.var([1.0, 2.0, 3.0, 4.0])
    np.float64(1.25)
    """
    return _reduce(x, axis, ddof, keepdims, dtype, False, True, False, where, weights, nan_policy)[1]


def std(
    x: Any,
    axis: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    weights: Any = None,
    where: Any = None,
    nan_policy: str = "propagate",
    dtype: Any = None,
) -> Any:
    """Standard deviation, from one read of memory. The root is taken before the result is rounded to its dtype.

    Parameters
    ----------
    x, axis, ddof, keepdims, weights, where, nan_policy, dtype
        As for `mean_var`.

    Returns
    -------
    std : ndarray or scalar
        In the units of x.

    Examples
    --------
    >>> import fastnorm
    >>> fastnorm.std([[1.0, 10.0], [3.0, 30.0]], axis=0)
    array([ 1., 10.])
    """
    return _reduce(x, axis, ddof, keepdims, dtype, False, True, True, where, weights, nan_policy)[1]


def minmax(
    x: Any, axis: Any = None, *, keepdims: bool = False, where: Any = None, nan_policy: str = "propagate"
) -> tuple[Any, Any]:
    """Minimum and maximum, from one read of memory.

    Parameters
    ----------
    x : array_like
        Real array of any layout.
    axis : int, tuple of int or None, default None
        Axes to reduce; None for all.
    keepdims : bool, default False
        Keep reduced axes with length one.
    where : array_like of bool, optional
        Which elements count. Broadcasts to the shape of x.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        What NaN does: it makes both results NaN, it does not count, or it is an error.

    Returns
    -------
    min, max : ndarray or scalar
        In the dtype of x; -0 is below +0. NaN where all that counts is NaN and omitted.

    Raises
    ------
    ValueError
        If there is nothing to take the extrema of or `where` leaves nothing; for an axis that x does not have or that
        is repeated; for a mask that does not broadcast to x; for NaN that counts where `nan_policy` is "raise".
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) and a mask that is not of bools.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> low, high = fastnorm.minmax(np.array([[3, 1], [2, 8]], dtype=np.uint8), axis=0)
    >>> low, high
    (array([2, 1], dtype=uint8), array([3, 8], dtype=uint8))
    >>> fastnorm.minmax([1.0, np.nan, 3.0], nan_policy="omit")
    (np.float64(1.0), np.float64(3.0))
    """
    result = None
    if where is None and (nan_policy is _PROPAGATE or nan_policy is _OMIT):
        result = _ops.minmax(x, axis, keepdims, None, nan_policy is _OMIT)
    if result is None:
        x = _arguments.array("x", x)
        axis = _arguments.axes("axis", axis, x.ndim)
        where, _, omit = _what_counts("x", x, axis, where, None, nan_policy)
        if x.size == 0 and 0 not in _kept_shape(x, axis):
            raise ValueError(f"x has shape {x.shape}; expected at least one element to take the extrema of")
        if where is not None and not where.any(axis).all():
            raise ValueError("where leaves nothing for some result; expected at least one element for each")
        result = _ops.minmax(x, axis, bool(keepdims), where, omit)
    return cast("tuple[Any, Any]", result)


def moments(
    x: Any,
    axis: Any = None,
    *,
    order: int = 2,
    minmax: bool = False,
    weights: Any = None,
    where: Any = None,
    nan_policy: str = "propagate",
) -> "Moments":
    """Moments of an array, to be merged, updated or read.

    Parameters
    ----------
    x : array_like
        Real array of any layout.
    axis : int, tuple of int or None, default None
        Axes to reduce; None for all.
    order : {2, 3, 4}, default 2
        The highest moment that is kept: 3 for the skewness, 4 for the kurtosis, too.
    minmax : bool, default False
        Keep the extrema, too.
    weights, where, nan_policy
        As for `mean_var`.

    Returns
    -------
    moments : Moments
        Holding one set of statistics for each element of the axes that were kept.

    Raises
    ------
    ValueError
        As from `mean_var`, and for an `order` that is not 2, 3 or 4.
    TypeError
        As from `mean_var`.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> m = fastnorm.moments(np.array([[1.0, 2.0], [3.0, 8.0]]), axis=0, minmax=True)
    >>> m.count, m.mean.tolist(), m.var().tolist(), m.max.tolist()
    (2, [2.0, 5.0], [1.0, 9.0], [3.0, 8.0])
    >>> fastnorm.moments([0.0, 0.0, 0.0, 4.0], order=4).kurtosis().round(6)
    np.float64(-0.666667)
    """
    return Moments(order, minmax)._take("x", x, axis, weights, where, nan_policy)


class Moments:
    """Mean, variance, skewness, kurtosis (and extrema) of a stream of arrays, in constant memory.

    Statistics are kept in double precision and more; chunks may come in any number and be merged in any grouping.
    Where C-contiguous chunks reduced along their first axis are cut at multiples of `block_rows`, the result has the
    same bytes as that of the whole in one update.

    Parameters
    ----------
    order : {2, 3, 4}, default 2
        The highest moment that is kept: 3 for the skewness, 4 for the kurtosis, too.
    minmax : bool, default False
        Keep the extrema, too.

    Raises
    ------
    ValueError
        For an `order` that is not 2, 3 or 4.

    Notes
    -----
    States are merged by the pairwise formulas of Chan, Golub and LeVeque (1983) and, for third and fourth moments, of
    Pébay, SAND2008-6212 (2008). Fourth powers of deviations above about 1e77 and third powers of those above 1e102
    overflow: kurtosis or skewness are then infinite or NaN. They are NaN, too, of standard deviations below 1e-72 and
    1e-96, whose powers vanish.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> table = np.arange(12.0).reshape(6, 2)
    >>> stream = fastnorm.Moments()
    >>> for chunk in np.split(table, 3):
    ...     stream = stream.update(chunk)
    >>> stream
    Moments(order=2, minmax=False, count=6, shape=(2,))
    >>> stream.mean, stream.var()
    (array([5., 6.]), array([11.66666667, 11.66666667]))

    Work that was divided is merged:

    >>> parts = [fastnorm.moments(half, axis=0) for half in np.split(table, 2)]
    >>> (parts[0] + parts[1]).count
    6

    Once something was masked or weighted, each statistic has a count of its own:

    >>> fastnorm.Moments().update(table, where=table != 2).count
    array([5., 6.])
    """

    __slots__ = ("_masked", "_minmax", "_order", "_shape", "_state")

    def __init__(self, order: int = 2, minmax: bool = False) -> None:
        odd = type(order) is not int and (isinstance(order, (bool, np.bool)) or np.ndim(order))
        if odd or order not in (2, 3, 4):
            raise ValueError(f"order must be 2, 3 or 4, got {order!r}")
        self._order = int(order)
        self._minmax = bool(minmax)
        self._masked = False
        self._shape: tuple[int, ...] | None = None
        self._state: np.ndarray | None = None

    def update(
        self, chunk: Any, axis: Any = 0, *, weights: Any = None, where: Any = None, nan_policy: str = "propagate"
    ) -> Self:
        """Take in more data.

        Parameters
        ----------
        chunk : array_like
            Real array. What is left of its shape without `axis` must be the same for every chunk.
        axis : int, tuple of int or None, default 0
            Axes to reduce; None for all.
        weights, where, nan_policy
            What of this chunk counts, and how much: as for `mean_var`.

        Returns
        -------
        self : Moments
            This object.

        Raises
        ------
        ValueError
            For a chunk of another shape; for an axis that it does not have or that is repeated; for weights that are
            negative, not finite or of another shape; for a mask that does not broadcast to the chunk; for NaN that
            counts where `nan_policy` is "raise". The state is then what it was.
        TypeError
            For dtypes that are not supported (complex, longdouble, object, masked arrays) and a mask that is not of
            bools.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.Moments().update([1.0, 2.0]).update([6.0]).mean
        np.float64(3.0)
        >>> fastnorm.Moments().update([1.0, 2.0], weights=[3, 1]).mean
        np.float64(1.25)
        """
        return self._take("chunk", chunk, axis, weights, where, nan_policy)

    def _take(self, name: str, chunk: Any, axis: Any, weights: Any, where: Any, nan_policy: Any) -> Self:
        x = _arguments.array(name, chunk)
        axes = _arguments.axes("axis", axis, x.ndim)
        shape = _kept_shape(x, axes)
        if self._shape is not None and shape != self._shape:
            raise ValueError(f"{name} leaves shape {shape} without axis {axis}; expected {self._shape} as before")
        what_counts = _what_counts(name, x, axes, where, weights, nan_policy)
        masked = self._masked or any(value is not None and value is not False for value in what_counts)
        state = _empty_state(self._order, shape) if self._state is None else self._open(self._state, masked)
        _ops.update(state, x, axes, self._minmax, *what_counts)
        self._shape, self._state, self._masked = shape, state, masked  # no interrupt comes between
        return self

    def _open(self, state: np.ndarray, masked: bool) -> np.ndarray:
        """The state to be written to: a copy where `masked` will change, so that an interrupt finds both or neither."""
        return state if masked == self._masked else state.copy()

    def merge(self, other: "Moments") -> Self:
        """Take in what another object has seen. Merging an empty one changes nothing.

        Parameters
        ----------
        other : Moments
            Of the same order, `minmax` and shape. Not changed.

        Returns
        -------
        self : Moments
            This object.

        Raises
        ------
        ValueError
            If `other` differs in order, `minmax` or shape.
        TypeError
            If `other` is not a Moments.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.moments([1.0, 2.0]).merge(fastnorm.moments([6.0])).mean
        np.float64(3.0)
        """
        if not isinstance(other, Moments):
            raise TypeError(f"other must be a Moments, got {type(other).__name__}")
        if (other._order, other._minmax) != (self._order, self._minmax):
            raise ValueError(
                f"other has order={other._order}, minmax={other._minmax}; "
                f"expected order={self._order}, minmax={self._minmax}"
            )
        if other._state is None:
            return self
        if self._state is None:
            self._shape, self._state, self._masked = other._shape, other._state.copy(), other._masked
            return self
        if self._shape != other._shape:
            raise ValueError(f"other has shape {other._shape}; expected {self._shape}")
        masked = self._masked or other._masked
        state = self._open(self._state, masked)
        _ops.merge(state, other._state)
        self._state, self._masked = state, masked
        return self

    def __add__(self, other: "Moments") -> "Moments":
        if not isinstance(other, Moments):
            return NotImplemented
        return self.copy().merge(other)

    def copy(self) -> "Moments":
        """Return an independent copy.

        Returns
        -------
        copy : Moments
            With the same state.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.moments([1.0, 3.0]).copy().count
        2
        """
        copy = type(self)(self._order, self._minmax)
        copy._shape, copy._masked = self._shape, self._masked
        copy._state = None if self._state is None else self._state.copy()
        return copy

    __copy__ = copy

    @property
    def count(self) -> Any:
        """How many elements each statistic has seen: an int, exact beyond 2**53.

        Once an update had weights, a mask or omitted NaN: sums of weights, float64 of the shape that was kept.
        """
        if self._masked and self._state is not None:
            return (self._state[_COUNT] + self._state[_COUNT + 1]).reshape(self._kept)[()]
        if self._state is None or self._state.shape[1] == 0:
            return 0
        return int(self._state[_COUNT, 0]) + int(self._state[_COUNT + 1, 0])

    @property
    def mean(self) -> Any:
        """Arithmetic means, float64; NaN before any data."""
        return self._finish("mean")

    @property
    def min(self) -> Any:
        """Minima as float64; NaN where nothing counted. ValueError unless `minmax` was asked for and data was seen."""
        return self._extremum(_MIN)

    @property
    def max(self) -> Any:
        """Maxima as float64; NaN where nothing counted. ValueError unless `minmax` was asked for and data was seen."""
        return self._extremum(_MAX)

    def var(self, ddof: float = 0) -> Any:
        """Return the variances.

        Parameters
        ----------
        ddof : float, default 0
            Delta degrees of freedom. Where none is left the variance is inf or NaN.

        Returns
        -------
        var : ndarray or scalar
            float64, of the shape that was kept.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.moments([1.0, 3.0]).var(ddof=1)
        np.float64(2.0)
        """
        return self._finish("var", _arguments.real("ddof", ddof))

    def std(self, ddof: float = 0) -> Any:
        """Return the standard deviations.

        Parameters
        ----------
        ddof : float, default 0
            Delta degrees of freedom.

        Returns
        -------
        std : ndarray or scalar
            float64, of the shape that was kept.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.moments([1.0, 3.0]).std()
        np.float64(1.0)
        """
        return self._finish("std", _arguments.real("ddof", ddof))

    def skewness(self) -> Any:
        """Return the skewness, ``m3 / m2**1.5`` with ``mk`` the mean of ``(x - mean)**k`` (biased, SciPy's default).

        Returns
        -------
        skewness : ndarray or scalar
            float64, of the shape that was kept. NaN of constants and where nothing was seen.

        Raises
        ------
        ValueError
            For moments of order 2.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.moments([0.0, 0.0, 0.0, 4.0], order=3).skewness().round(6)
        np.float64(1.154701)
        """
        return self._finish("skewness", order=3)

    def kurtosis(self) -> Any:
        """Return the excess kurtosis, ``m4 / m2**2 - 3`` with ``mk`` as for `skewness` (biased, SciPy's default).

        Returns
        -------
        kurtosis : ndarray or scalar
            float64, of the shape that was kept. NaN of constants and where nothing was seen.

        Raises
        ------
        ValueError
            For moments of an order below 4.

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.moments([1.0, 2.0, 3.0, 4.0], order=4).kurtosis().round(6)
        np.float64(-1.36)
        """
        return self._finish("kurtosis", order=4)

    @property
    def block_rows(self) -> int:
        """Rows per block for C-contiguous chunks reduced along their first axis: cut there for the same bytes.

        Before any data: that of one column, which is a multiple of every other.
        """
        return _ops.block_rows(1 if self._state is None else self._state.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain lists and numbers, ready for JSON.

        Returns
        -------
        state : dict
            What `from_dict` takes. Nothing is lost to rounding.

        Examples
        --------
        >>> import fastnorm
        >>> state = fastnorm.moments([1.0, 3.0]).to_dict()
        >>> state["count"], state["mean"], state["var"]
        ([2.0], [2.0], [1.0])
        """
        planes = _planes(self._order, self._minmax)
        return {
            "order": self._order,
            "minmax": self._minmax,
            "masked": self._masked,
            "shape": None if self._shape is None else list(self._shape),
            **{_STATE[plane]: [] if self._state is None else self._state[plane].tolist() for plane in planes},
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Moments":
        """Make an object from what `to_dict` gave.

        Parameters
        ----------
        state : mapping
            As `to_dict` gives it.

        Returns
        -------
        moments : Moments
            With the state that was saved.

        Raises
        ------
        ValueError
            If an entry is missing, has the wrong length or holds what is no number.

        Examples
        --------
        >>> import fastnorm
        >>> saved = fastnorm.moments([1.0, 3.0]).to_dict()
        >>> fastnorm.Moments.from_dict(saved).mean
        np.float64(2.0)
        """
        missing = [name for name in ("order", "minmax", "shape") if name not in state]
        if not missing:
            result = cls(state["order"], state["minmax"])
            planes = _planes(result._order, result._minmax)
            missing = [_STATE[plane] for plane in planes if _STATE[plane] not in state]
        if missing:
            raise ValueError(f"state lacks {', '.join(missing)}; expected what to_dict gives")
        result._masked = bool(state.get("masked", False))
        if state["shape"] is None:
            return result
        shape = _arguments.sizes("state['shape']", state["shape"])
        rows = [_saved_row(f"state[{_STATE[plane]!r}]", state[_STATE[plane]], shape) for plane in planes]
        result._shape, result._state = shape, _empty_state(result._order, shape)
        result._state[planes] = rows
        return result

    @classmethod
    def _of(cls, count: Any, mean: Any, var: Any) -> "Moments":
        """What has seen such numbers of such means and variances: arrays of one shape."""
        result = cls()
        result._masked = True
        result._shape = np.shape(mean)
        result._state = _empty_state(2, result._shape)
        for plane, values in zip((_COUNT, _MEAN, _VAR), (count, mean, var), strict=True):
            result._state[plane] = np.where(np.equal(count, 0), 0, values).ravel()
        return result

    def _is_finite(self) -> bool:
        """Whether all means are: no infinity and no NaN was taken in."""
        return self._state is None or _ops.find_nonfinite(self._state[_MEAN]) == 0

    def _mean_lo(self) -> Any:
        """What the means lack, rounded as they are."""
        if self._state is None:
            return np.float64(0)
        high, low = self._state[_MEAN : _MEAN + 2].reshape(2, *self._kept)
        return (high - self.mean) + low

    def __repr__(self) -> str:
        return f"Moments(order={self._order}, minmax={self._minmax}, count={self.count}, shape={self._shape})"

    @property
    def _kept(self) -> tuple[int, ...]:
        """The shape of the statistics."""
        return () if self._shape is None else self._shape

    def _finish(self, what: str, ddof: float = 0, *, order: int = 2) -> Any:
        if self._order < order:
            raise ValueError(f"moments of order {self._order} were kept; expected Moments(order={order}) or more")
        if self._state is None:
            return np.float64("nan")
        result = np.empty(self._kept)
        _ops.finish(self._state, what, ddof, result)
        return result[()]

    def _extremum(self, plane: int) -> Any:
        if not self._minmax:
            raise ValueError("extrema were not kept; expected Moments(minmax=True)")
        if self._state is None or (not self._masked and self.count == 0):
            raise ValueError("no data yet; expected an update before min or max")
        return np.where(self._state[_COUNT] == 0, np.nan, self._state[plane]).reshape(self._kept)[()]


def _reduce(
    x: Any,
    axis: Any,
    ddof: Any,
    keepdims: bool,
    dtype: Any,
    want_mean: bool,
    want_spread: bool,
    root: bool,
    where: Any,
    weights: Any,
    nan_policy: Any,
) -> tuple[Any, Any]:
    result = None
    if nan_policy is _PROPAGATE or nan_policy is _OMIT:  # an interned string nearly always is
        omit = nan_policy is _OMIT
        result = _ops.mean_var(x, axis, ddof, keepdims, dtype, want_mean, want_spread, root, where, weights, omit)
    if result is None:
        x = _arguments.array("x", x)
        axis = _arguments.axes("axis", axis, x.ndim)
        ddof = _arguments.real("ddof", ddof)
        dtype = _arguments.float_dtype("dtype", dtype)
        what_counts = _what_counts("x", x, axis, where, weights, nan_policy)
        result = _ops.mean_var(x, axis, ddof, bool(keepdims), dtype, want_mean, want_spread, root, *what_counts, True)
    return cast("tuple[Any, Any]", result)


def _what_counts(
    name: str, x: np.ndarray, axis: tuple[int, ...] | None, where: Any, weights: Any, nan_policy: Any
) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    """A mask of the shape of x, weights that broadcast to it, and whether NaN is omitted.

    Raises where NaN is forbidden and counts.
    """
    if where is None and weights is None and nan_policy is _PROPAGATE:
        return None, None, False
    where = _arguments.mask("where", where, x.shape)
    weights = _arguments.weights(weights, x, axis)
    return where, weights, _arguments.omits_nan(nan_policy, name, x, where, weights)


def _kept_shape(x: np.ndarray, axis: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of x without the reduced axes."""
    return () if axis is None else tuple(n for a, n in enumerate(x.shape) if a not in axis)


def _planes(order: int, minmax: bool) -> list[int]:
    """The rows of a state that hold something."""
    return [*range(_MIN), *(range(_MIN, _M3) if minmax else ()), *range(_M3, _rows(order))]


def _rows(order: int) -> int:
    """How many rows the state of so many moments has."""
    return (_M3, _M4, len(_STATE))[order - 2]


def _saved_row(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A row of a state of that shape, as `to_dict` gives it."""
    try:
        row = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}; expected a list of numbers") from None
    if row.shape != (math.prod(shape),):
        raise ValueError(f"{name} has shape {row.shape}; expected {(math.prod(shape),)}, for the shape {shape}")
    return row


def _empty_state(order: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros((_rows(order), math.prod(shape)))
