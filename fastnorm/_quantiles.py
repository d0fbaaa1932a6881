"""Quantiles of a stream in little memory: a sketch that is deterministic and can be merged.

Published sketches draw random numbers, and so do the libraries that have them, so that the same data give other bits on
every run. Here nothing is drawn. A hierarchy of buffers holds items of weight 2**h on level h; a full buffer is sorted
and every second item moves up, from the first or from the second on, whichever balances what was done before. Munro and
Paterson, "Selection and Sorting with Limited Storage", Theoretical Computer Science 12 (1980); Manku, Rajagopalan and
Lindsay, "Approximate Medians and other Quantiles in One Pass and with Limited Memory", SIGMOD 1998; merging: Agarwal,
Cormode, Huang, Phillips, Wei and Yi, "Mergeable Summaries", PODS 2012.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from . import _arguments

__all__ = ["QuantileSketch"]


class QuantileSketch:
    r"""Quantiles of each feature of a stream, within a known rank error.

    While a feature has seen at most k values, its quantiles are exact. After n values, a value that is given for rank r
    has a rank within ``n * rank_error`` of r (between order statistics: of that of either neighbour), whatever the data
    and their order. The bound of a stream that was not merged is at most ``(log2(n / k) / 2 + 1.5) / k``: 0.54 % at 1e9
    values for the default k. Merging can double it at most. Memory is at most ``8 * k * (log2(n / k) + 3)`` bytes per
    feature.

    Parameters
    ----------
    k : int, default 2048
        Items that a buffer holds; even.

    Raises
    ------
    ValueError
        For a k that is odd or less than 2.
    """

    # Why the bound holds. Moving up every second of m sorted items of weight w changes the sum of the weights of the
    # items up to any value v: j items of weight w become ceil(j/2), or floor(j/2), of weight 2w, so the sum changes by
    # 0 or +w if the first is taken, by 0 or -w if the second is; m is even, so the whole stays what it is. With a[h]
    # and b[h] such steps on level h the estimate of a rank is off by between -sum b[h] 2**h and sum a[h] 2**h, which
    # is what `rank_error` says. A step on level h takes k items of weight 2**h, so there are at most n / (k 2**h), and
    # a[h] and b[h] are at most half of that, rounded up; the highest level L that takes steps has k 2**L <= n. Hence
    # a and b sum up to at most (L + 1) n / (2 k) + 2**L <= (L/2 + 3/2) n / k. Where sketches are merged, all the steps
    # that were rounded up may be of one kind, so that there are at most n / (k 2**h) of it.

    __slots__ = ("_columns", "_filled", "_k", "_rows")

    def __init__(self, k: int = 2048) -> None:
        self._k = _arguments.integer("k", k, least=2)
        if self._k % 2:
            raise ValueError(f"k must be even, got {k!r}")
        self._columns: list[_Column] | None = None
        self._rows: np.ndarray | None = None  # what has not been sorted into columns yet
        self._filled = 0

    def update(self, chunk: np.ndarray) -> Self:
        """Take in more samples; NaN does not count.

        Parameters
        ----------
        chunk : array of shape (n_samples, n_features)
            Real numbers. How a stream is cut into chunks makes no difference.

        Returns
        -------
        self : QuantileSketch
            This object.

        Raises
        ------
        ValueError
            For another number of dimensions or features.
        """
        if chunk.ndim != 2:
            raise ValueError(f"chunk has shape {chunk.shape}; expected (n_samples, n_features)")
        self._expect(chunk.shape[1], "chunk")
        rows, start = self._rows, 0
        while start < len(chunk):
            count = min(len(chunk) - start, self._k - self._filled)
            if rows is None or len(rows) < self._filled + count:  # short streams of many features should stay small
                more = np.empty((min(self._k, 2 * (self._filled + count)), chunk.shape[1]))
                more[: self._filled] = 0 if rows is None else rows[: self._filled]
                rows = self._rows = more
            with np.errstate(invalid="ignore"):  # signalling NaN
                rows[self._filled : self._filled + count] = chunk[start : start + count]
            self._filled += count
            start += count
            if self._filled == self._k:
                self._sorted()
        return self

    def merge(self, other: "QuantileSketch") -> Self:
        """Take in what another sketch has seen.

        Parameters
        ----------
        other : QuantileSketch
            Of the same k and as many features. Not changed.

        Returns
        -------
        self : QuantileSketch
            This object.

        Raises
        ------
        ValueError
            If `other` differs in k or in its features.
        """
        if other._k != self._k:
            raise ValueError(f"other has k={other._k}; expected k={self._k}")
        if other._columns is None:
            return self
        self._expect(len(other._columns), "other")
        merged = [column.copy() for column in self._sorted()]
        for column, more in zip(merged, other._sorted(), strict=True):
            column.merge(more, self._k)
        self._columns = merged
        return self

    def copy(self) -> "QuantileSketch":
        """Return an independent copy."""
        copy = type(self)(self._k)
        copy._columns = None if self._columns is None else [column.copy() for column in self._sorted()]
        return copy

    __copy__ = copy

    def __getstate__(self) -> Any:
        columns = None if self._columns is None else self._sorted()
        return None, {"_k": self._k, "_columns": columns, "_rows": None, "_filled": 0}

    @property
    def counts(self) -> np.ndarray:
        """How many values each feature has seen."""
        return np.array([column.count() for column in self._sorted()], dtype=np.int64)

    @property
    def rank_error(self) -> np.ndarray:
        """How far ranks may be off in each feature, as a part of its count: of what was seen, not an estimate."""
        return np.array([column.error() / max(1, column.count()) for column in self._sorted()])

    def quantile(self, q: Any) -> np.ndarray:
        """Quantiles of each feature, interpolated as by ``numpy.nanquantile``.

        Parameters
        ----------
        q : array_like of shape (n,)
            Probabilities.

        Returns
        -------
        values : ndarray of shape (n, n_features)
            NaN where nothing counts.
        """
        probabilities = np.asarray(q, np.float64)
        columns = self._sorted()
        values = np.empty((probabilities.size, len(columns)))
        for j, column in enumerate(columns):
            values[:, j] = column.quantile(probabilities)
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain lists and numbers, ready for JSON."""
        columns = None if self._columns is None else [column.to_dict() for column in self._sorted()]
        return {"k": self._k, "columns": columns}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "QuantileSketch":
        """Make a sketch from what `to_dict` gave.

        Raises
        ------
        ValueError
            If an entry is missing or what it holds cannot be.
        """
        if missing := [name for name in ("k", "columns") if name not in state]:
            raise ValueError(f"state lacks {', '.join(missing)}; expected what to_dict gives")
        sketch = cls(state["k"])
        if state["columns"] is not None:
            sketch._columns = [_Column.from_dict(column) for column in state["columns"]]
        return sketch

    def _expect(self, features: int, name: str) -> "list[_Column]":
        """The columns, which are as many as there are features."""
        if self._columns is None:
            self._columns = [_Column() for _ in range(features)]
        if len(self._columns) != features:
            raise ValueError(f"{name} has {features} features; expected {len(self._columns)}")
        return self._columns

    def _sorted(self) -> "list[_Column]":
        """The columns, once the rows that wait were handed to them.

        That makes no difference but to memory: threads may read at the same time, each of which does it on copies.
        """
        columns, rows, filled = self._columns or [], self._rows, self._filled
        if filled and rows is not None:
            columns = [column.copy() for column in columns]
            for column, values in zip(columns, np.ascontiguousarray(rows[:filled].T), strict=True):
                column.add(values[~np.isnan(values)] + 0.0, self._k)  # -0 + 0 is +0
            self._columns, self._filled = columns, 0
        return columns


class _Column:
    """The sketch of one feature."""

    __slots__ = ("levels", "lowered", "raised")

    def __init__(self) -> None:
        self.levels: list[np.ndarray] = [np.empty(0)]  # items of weight 2**h; those of level 0 in order of arrival
        self.raised: list[int] = [0]  # how often every second item from the first on moved up from a level
        self.lowered: list[int] = [0]  # from the second on

    def copy(self) -> "_Column":
        copy = _Column()  # arrays are never written to
        copy.levels, copy.raised, copy.lowered = [*self.levels], [*self.raised], [*self.lowered]
        return copy

    def count(self) -> int:
        return sum(level.size << h for h, level in enumerate(self.levels))

    def error(self) -> int:
        """How far a rank may be off."""
        return max(sum(steps << h for h, steps in enumerate(kind)) for kind in (self.raised, self.lowered))

    def add(self, values: np.ndarray, k: int) -> None:
        """Take in values, none of them NaN. Level 0 holds as many as k before something moves up."""
        items = np.concatenate([self.levels[0], values])
        while items.size > k:
            self._append(1, self._every_second(0, np.sort(items[:k])), k)
            items = items[k:]
        self.levels[0] = items

    def merge(self, other: "_Column", k: int) -> None:
        """Take in another column."""
        self._grow(len(other.levels))
        for h, level in enumerate(other.levels):
            self.levels[h] = np.concatenate([self.levels[h], level])
            self.raised[h] += other.raised[h]
            self.lowered[h] += other.lowered[h]
        h = 0
        while h < len(self.levels):
            if self.levels[h].size >= k + (h == 0):
                self._move_up(h, k, further=False)
            h += 1

    def _append(self, h: int, items: np.ndarray, k: int) -> None:
        """Items arrive on a level above 0, which holds fewer than k."""
        self._grow(h + 1)
        self.levels[h] = np.concatenate([self.levels[h], items])
        if self.levels[h].size >= k:
            self._move_up(h, k)

    def _move_up(self, h: int, k: int, *, further: bool = True) -> None:
        """All of a level, but for the largest item of an odd number."""
        items = np.sort(self.levels[h])
        even = items.size - items.size % 2
        self.levels[h] = items[even:]
        half = self._every_second(h, items[:even])
        if further:
            self._append(h + 1, half, k)
        else:
            self._grow(h + 2)
            self.levels[h + 1] = np.concatenate([self.levels[h + 1], half])

    def _every_second(self, h: int, items: np.ndarray) -> np.ndarray:
        lower = self.raised[h] > self.lowered[h]
        (self.lowered if lower else self.raised)[h] += 1
        return items[int(lower) :: 2].copy()

    def _grow(self, count: int) -> None:
        for _ in range(count - len(self.levels)):
            self.levels.append(np.empty(0))
            self.raised.append(0)
            self.lowered.append(0)

    def quantile(self, q: np.ndarray) -> np.ndarray:
        items = np.concatenate(self.levels)
        if items.size == 0:
            return np.full(q.shape, np.nan)
        weights = np.repeat([1 << h for h in range(len(self.levels))], [level.size for level in self.levels])
        order = np.argsort(items, kind="stable")
        up_to = np.cumsum(weights[order])
        place = (up_to[-1] - 1) * q
        previous = place.astype(np.int64)
        a, b = (
            items[order[np.searchsorted(up_to, rank, side="right")]]
            for rank in (previous, np.minimum(previous + 1, up_to[-1] - 1))
        )
        t = place - previous
        with np.errstate(all="ignore"):
            values: np.ndarray = np.where(t >= 0.5, b - (b - a) * (1 - t), a + (b - a) * t)
        return values

    def to_dict(self) -> dict[str, Any]:
        return {"levels": [level.tolist() for level in self.levels], "raised": self.raised, "lowered": self.lowered}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "_Column":
        if missing := [name for name in cls.__slots__ if name not in state]:
            raise ValueError(f"a column lacks {', '.join(missing)}; expected what to_dict gives")
        column = cls()
        try:
            column.levels = [np.asarray(level, np.float64) for level in state["levels"]]
            column.raised, column.lowered = (
                [_arguments.integer(name, steps, least=0) for steps in state[name]] for name in ("raised", "lowered")
            )
        except (TypeError, ValueError):
            raise ValueError("a column holds what is no number; expected what to_dict gives") from None
        if not 0 < len(column.levels) == len(column.raised) == len(column.lowered):
            raise ValueError(
                "a column has levels, raised and lowered of different lengths; expected what to_dict gives"
            )
        if any(level.ndim != 1 or np.isnan(level).any() for level in column.levels):
            raise ValueError("levels of a column are no lists of numbers other than NaN; expected what to_dict gives")
        return column
