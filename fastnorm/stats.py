"""Statistics of arrays in one pass over memory, and statistics that go on over a stream.

The algorithm is Welford's in blocked form: blocks are summed in double about a guess of their mean and merged
pairwise, so that neither large offsets nor long columns cost accuracy. Welford, "Note on a Method for Calculating
Corrected Sums of Squares and Products", Technometrics 4 (1962); Chan, Golub, LeVeque, "Algorithms for Computing the
Sample Variance", The American Statistician 37 (1983).
"""

from collections.abc import Mapping
from typing import Any, Self, cast

import numpy as np

from . import _arguments, _ops

__all__ = ["Moments", "mean", "mean_var", "minmax", "moments", "std", "var"]


# The rows of a state by name, in the order of kernels.h.
_STATE = ("count", "count_lo", "mean", "mean_lo", "var", "var_lo", "min", "max")
_COUNT, _COUNT_LO, _MIN, _MAX = map(_STATE.index, ("count", "count_lo", "min", "max"))


def mean_var(
    x: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, dtype: Any = None
) -> tuple[Any, Any]:
    r"""Mean and variance, from one read of memory.

    ``mean = sum(x) / n`` and ``var = sum((x - mean)**2) / (n - ddof)``, accumulated in double precision.

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
    dtype : {float32, float64}, optional
        dtype of the results. Default: float32 for float32 input, float64 for the rest.

    Returns
    -------
    mean, var : ndarray or scalar
        In the units of x, and in their square. NaN of no elements. NaN in x makes NaN of its own column only; of
        infinite data the mean is infinite and the variance NaN.

    Raises
    ------
    ValueError
        For an axis that x does not have or that is repeated.
    TypeError
        For dtypes that are not supported (complex, half precision, object, masked arrays).

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1e8 + 1, 5.0], [1e8 + 2, 5.0], [1e8 + 3, 5.0]])
    >>> mean, var = fastnorm.mean_var(x, axis=0, ddof=1)
    >>> mean.tolist(), var.tolist()
    ([100000002.0, 5.0], [1.0, 0.0])
    """
    return _reduce(x, axis, ddof, keepdims, dtype, True, True, False)


def mean(x: Any, axis: Any = None, *, keepdims: bool = False, dtype: Any = None) -> Any:
    """Arithmetic mean, accumulated in double precision whatever the dtype of x.

    Parameters
    ----------
    x, axis, keepdims, dtype
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
    """
    return _reduce(x, axis, 0, keepdims, dtype, True, False, False)[0]


def var(x: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, dtype: Any = None) -> Any:
    """Variance, from one read of memory.

    Parameters
    ----------
    x, axis, ddof, keepdims, dtype
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
    return _reduce(x, axis, ddof, keepdims, dtype, False, True, False)[1]


def std(x: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, dtype: Any = None) -> Any:
    """Standard deviation, from one read of memory. The root is taken before the result is rounded to its dtype.

    Parameters
    ----------
    x, axis, ddof, keepdims, dtype
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
    return _reduce(x, axis, ddof, keepdims, dtype, False, True, True)[1]


def _reduce(
    x: Any, axis: Any, ddof: Any, keepdims: bool, dtype: Any, want_mean: bool, want_spread: bool, root: bool
) -> tuple[Any, Any]:
    result = _ops.mean_var(x, axis, ddof, keepdims, dtype, want_mean, want_spread, root)
    if result is None:
        x = _arguments.array("x", x)
        axis = _arguments.axes("axis", axis, x.ndim)
        ddof = _arguments.real("ddof", ddof)
        dtype = _arguments.float_dtype("dtype", dtype)
        result = _ops.mean_var(x, axis, ddof, bool(keepdims), dtype, want_mean, want_spread, root)
    return cast("tuple[Any, Any]", result)


def minmax(x: Any, axis: Any = None, *, keepdims: bool = False) -> tuple[Any, Any]:
    """Minimum and maximum, from one read of memory.

    Parameters
    ----------
    x : array_like
        Real array of any layout.
    axis : int, tuple of int or None, default None
        Axes to reduce; None for all.
    keepdims : bool, default False
        Keep reduced axes with length one.

    Returns
    -------
    min, max : ndarray or scalar
        In the dtype of x. A NaN in x makes both NaN; -0 is below +0.

    Raises
    ------
    ValueError
        If there is nothing to take the extrema of, and for an axis that x does not have or that is repeated.
    TypeError
        For dtypes that are not supported (complex, half precision, object, masked arrays).

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> low, high = fastnorm.minmax(np.array([[3, 1], [2, 8]], dtype=np.uint8), axis=0)
    >>> low, high
    (array([2, 1], dtype=uint8), array([3, 8], dtype=uint8))
    """
    result = _ops.minmax(x, axis, keepdims)
    if result is None:
        x = _arguments.array("x", x)
        axis = _arguments.axes("axis", axis, x.ndim)
        reduced = x.shape if axis is None else [x.shape[a] for a in axis]
        if 0 in reduced:
            raise ValueError(f"x has shape {x.shape}; expected at least one element to take the extrema of")
        result = _ops.minmax(x, axis, bool(keepdims))
    return cast("tuple[Any, Any]", result)


def moments(x: Any, axis: Any = None, *, order: int = 2, minmax: bool = False) -> "Moments":
    """Moments of an array, to be merged, updated or read.

    Parameters
    ----------
    x : array_like
        Real array of any layout.
    axis : int, tuple of int or None, default None
        Axes to reduce; None for all.
    order : {2}, default 2
        The highest moment that is kept.
    minmax : bool, default False
        Keep the extrema, too.

    Returns
    -------
    moments : Moments
        Holding one set of statistics for each element of the axes that were kept.

    Raises
    ------
    ValueError
        For an axis that x does not have or that is repeated, and for an `order` other than 2.
    TypeError
        For dtypes that are not supported (complex, half precision, object, masked arrays).

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> m = fastnorm.moments(np.array([[1.0, 2.0], [3.0, 8.0]]), axis=0, minmax=True)
    >>> m.count, m.mean.tolist(), m.var().tolist(), m.max.tolist()
    (2, [2.0, 5.0], [1.0, 9.0], [3.0, 8.0])
    """
    return Moments(order, minmax).update(x, axis)


class Moments:
    """Mean and variance (and extrema) of a stream of arrays, in constant memory.

    Statistics are kept in double precision and more; chunks may come in any number and be merged in any grouping.
    Where C-contiguous chunks reduced along their first axis are cut at multiples of `block_rows`, the result has the
    same bytes as that of the whole in one update.

    Parameters
    ----------
    order : {2}, default 2
        The highest moment that is kept.
    minmax : bool, default False
        Keep the extrema, too.

    Raises
    ------
    ValueError
        For an `order` other than 2.

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
    """

    __slots__ = ("_minmax", "_order", "_shape", "_state")

    def __init__(self, order: int = 2, minmax: bool = False) -> None:
        if order != 2 or isinstance(order, bool):
            raise ValueError(f"order must be 2, got {order!r}")
        self._order = 2
        self._minmax = bool(minmax)
        self._shape: tuple[int, ...] | None = None
        self._state: np.ndarray | None = None

    def update(self, chunk: Any, axis: Any = 0) -> Self:
        """Take in more data.

        Parameters
        ----------
        chunk : array_like
            Real array. What is left of its shape without `axis` must be the same for every chunk.
        axis : int, tuple of int or None, default 0
            Axes to reduce; None for all.

        Returns
        -------
        self : Moments
            This object.

        Raises
        ------
        ValueError
            For a chunk of another shape, and for an axis that it does not have or that is repeated.
        TypeError
            For dtypes that are not supported (complex, half precision, object, masked arrays).

        Examples
        --------
        >>> import fastnorm
        >>> fastnorm.Moments().update([1.0, 2.0]).update([6.0]).mean
        np.float64(3.0)
        """
        x = _arguments.array("chunk", chunk)
        axes = _arguments.axes("axis", axis, x.ndim)
        shape = () if axes is None else tuple(n for a, n in enumerate(x.shape) if a not in axes)
        if self._shape is not None and shape != self._shape:
            raise ValueError(f"chunk leaves shape {shape} without axis {axis}; expected {self._shape} as before")
        if self._state is None:
            self._shape = shape
            self._state = np.zeros((len(_STATE), int(np.prod(shape, dtype=np.int64))))
        _ops.update(self._state, x, axes, self._minmax)
        return self

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
            self._shape, self._state = other._shape, other._state.copy()
            return self
        if self._shape != other._shape:
            raise ValueError(f"other has shape {other._shape}; expected {self._shape}")
        _ops.merge(self._state, other._state)
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
        copy._shape = self._shape
        copy._state = None if self._state is None else self._state.copy()
        return copy

    __copy__ = copy

    @property
    def count(self) -> int:
        """How many elements each statistic has seen; exact beyond 2**53."""
        if self._state is None or self._state.shape[1] == 0:
            return 0
        return int(self._state[_COUNT, 0]) + int(self._state[_COUNT_LO, 0])

    @property
    def mean(self) -> Any:
        """Arithmetic means, float64; NaN before any data."""
        return self._finish(0, want_mean=True)

    @property
    def min(self) -> Any:
        """Minima as float64. ValueError unless `minmax` was asked for and data was seen."""
        return self._extremum(_MIN)

    @property
    def max(self) -> Any:
        """Maxima as float64. ValueError unless `minmax` was asked for and data was seen."""
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
        return self._finish(_arguments.real("ddof", ddof))

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
        return self._finish(_arguments.real("ddof", ddof), root=True)

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
        names = _STATE if self._minmax else _STATE[:_MIN]
        rows = [[] for _ in names] if self._state is None else self._state.tolist()
        return {
            "order": self._order,
            "minmax": self._minmax,
            "shape": None if self._shape is None else list(self._shape),
            **dict(zip(names, rows, strict=False)),
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
            If an entry is missing or has the wrong length.

        Examples
        --------
        >>> import fastnorm
        >>> saved = fastnorm.moments([1.0, 3.0]).to_dict()
        >>> fastnorm.Moments.from_dict(saved).mean
        np.float64(2.0)
        """
        missing = [name for name in ("order", "minmax", "shape", *_STATE[:_MIN]) if name not in state]
        if missing:
            raise ValueError(f"state lacks {', '.join(missing)}; expected what to_dict gives")
        result = cls(state["order"], state["minmax"])
        if state["shape"] is None:
            return result
        result._shape = _arguments.sizes("state['shape']", state["shape"])
        result._state = np.zeros((len(_STATE), int(np.prod(result._shape, dtype=np.int64))))
        for plane, name in enumerate(_STATE if result._minmax else _STATE[:_MIN]):
            row = np.asarray(state.get(name, ()), dtype=np.float64)
            if row.shape != result._state[plane].shape:
                raise ValueError(f"state[{name!r}] has shape {row.shape}; expected {result._state[plane].shape}")
            result._state[plane] = row
        return result

    def __repr__(self) -> str:
        return f"Moments(order={self._order}, minmax={self._minmax}, count={self.count}, shape={self._shape})"

    def _finish(self, ddof: float, *, want_mean: bool = False, root: bool = False) -> Any:
        if self._state is None or self._shape is None:
            return np.float64("nan")
        result = np.empty(self._shape)
        _ops.finish(self._state, ddof, want_mean, root, result)
        return result[()]

    def _extremum(self, plane: int) -> Any:
        if not self._minmax:
            raise ValueError("extrema were not kept; expected Moments(minmax=True)")
        if self._state is None or self.count == 0:
            raise ValueError("no data yet; expected an update before min or max")
        return self._state[plane].reshape(self._shape).copy()[()]
