"""What scalers by feature have in common: a state that is learnt, merged and saved, and one way to apply it.

A scaler says which statistics it keeps (`_learn`, `_absorb`) and which numbers it scales by (`_affine`). The kernels
divide where scikit-learn divides, so that extrema map exactly, and report infinity while they work: an array is looked
at beforehand only where it is about to be overwritten.
"""

import copy as copies
from collections.abc import Iterator
from typing import Any, NamedTuple, Self, cast

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import _check_sample_weight

from fastnorm import _arguments, _ops

from . import _input
from ._state import SavedState, fitted

_BLOCK = 1 << 20  # elements that are brought together by group
_NAMES = ("n_features_in_", "feature_names_in_")


class Affine(NamedTuple):
    """The numbers of each feature: ``((x - center) - center_lo) / scale + shift``; None for what is not done."""

    center: np.ndarray | None = None
    center_lo: np.ndarray | None = None
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    least: float = -np.inf
    most: float = np.inf

    def of_group(self, group: int | None) -> "Affine":
        """Those of one group, or what there is without groups."""
        if group is None:
            return self
        center, center_lo, scale, shift = (None if value is None else value[group] for value in self[:4])
        return Affine(center, center_lo, scale, shift, self.least, self.most)


class FeatureScaler(SavedState, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the scalers by feature."""

    __metadata_request__transform = {"out": UNUSED}  # noqa: RUF012  # read by scikit-learn when it makes the class
    __metadata_request__inverse_transform = {"out": UNUSED}  # noqa: RUF012

    _sparse: Any = False  # formats of sparse input that are learnt from
    _sparse_applied: Any = False  # formats that are scaled as they are
    feature_axis: int | None
    copy: bool

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Learn from X, and forget what was learnt before.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data; NaN does not count. With `feature_axis`, an array of any number of axes.
        y : None
            Ignored.
        groups : array_like of shape (n_samples,), optional
            A label for each sample: every group has statistics of its own.

        Returns
        -------
        self : object
            This scaler.

        Raises
        ------
        ValueError
            For infinite values and input of a wrong shape. The scaler is then what it was.
        """
        del y
        self._take(X, True, groups)
        return self

    def partial_fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Learn from X what was not seen before; as often as there is more.

        Parameters
        ----------
        X, y, groups
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
        self._take(X, False, groups)
        return self

    def fit_transform(self, X: Any, y: Any = None, *, groups: Any = None) -> Any:
        """`fit`, then `transform`; X is checked once.

        Parameters
        ----------
        X, y, groups
            As for `fit`.

        Returns
        -------
        X_new : array of the shape of X
            As from `transform`.
        """
        del y
        return self._fit_apply(X, groups=groups)

    def transform(self, X: Any, copy: bool | None = None, *, groups: Any = None, out: Any = None) -> Any:
        """Scale X.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Data. float64, float32, float16 and bfloat16 keep their dtype, integers give float64; NaN stays NaN.
        copy : bool, optional
            False: an array of floats is overwritten, after one more read pass that looks for infinity. Default: the
            parameter `copy` of the scaler.
        groups : array_like of shape (n_samples,), optional
            The label of each sample, if the scaler was fitted with groups.
        out : ndarray, optional
            Where the result goes: the shape of X and the dtype of the result; may be X itself. It costs the read pass,
            too.

        Returns
        -------
        X_new : array of the shape of X
            The scaled data; what `set_output` asks for.

        Raises
        ------
        ValueError
            For infinite values, another number of features, labels that were not seen, and an `out` that cannot be
            written. Neither X nor `out` has then changed.
        """
        _input.check_fitted(self)
        x = self._checked(X, reset=False, accept_sparse=self._sparse_applied)
        return self._apply(x, X, copy=copy, groups=groups, out=out)

    def inverse_transform(self, X: Any, copy: bool | None = None, *, groups: Any = None, out: Any = None) -> Any:
        """Undo `transform`.

        Parameters
        ----------
        X : array_like or sparse array of shape (n_samples, n_features)
            Scaled data.
        copy, groups, out
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
        return self._apply(x, X, copy=copy, groups=groups, out=out, inverse=True)

    def merge(self, other: Self) -> Self:
        """Take in what another scaler has learnt, as if its data had been seen here.

        Parameters
        ----------
        other : scaler of the same class
            Fitted to the same features; not changed. One that is not fitted changes nothing.

        Returns
        -------
        self : object
            This scaler.

        Raises
        ------
        TypeError
            If `other` is of another class.
        ValueError
            If the features differ, or one was fitted with groups and the other was not.
        """
        if type(other) is not type(self):
            raise TypeError(f"other must be a {type(self).__name__}, got {type(other).__name__}")
        learnt = fitted(other)
        if not learnt:
            return self
        if not fitted(self):
            with UnchangedOnError(self):
                self.__dict__.update({name: learnt[name] for name in _NAMES if name in learnt})
                self._absorb(other, self._join_groups(other.groups_) if "groups_" in learnt else None)
            return self
        _input.check_features(self, other.n_features_in_)
        names, others = getattr(self, "feature_names_in_", None), getattr(other, "feature_names_in_", None)
        if names is not None and others is not None and list(names) != list(others):
            raise ValueError(f"other was fitted to the features {list(others)}; expected {list(names)}")
        if ("groups_" in vars(self)) != ("groups_" in vars(other)):
            raise ValueError("one scaler was fitted with groups and the other without; expected both or neither")
        with UnchangedOnError(self):
            where = self._join_groups(other.groups_) if "groups_" in vars(self) else None
            self._absorb(other, where)
        return self

    def __add__(self, other: Any) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return copies.deepcopy(self).merge(other)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = bool(self._sparse)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # ---- what a scaler is made of: see the subclasses

    def _learn(self, pieces: Iterator["Piece"], count: int) -> None:
        """Take in pieces of data; groups were joined already. `count`: how many samples these are."""
        raise NotImplementedError

    def _learn_sparse(self, x: Any, sample_weight: np.ndarray | None) -> None:
        raise NotImplementedError

    def _absorb(self, other: Self, where: np.ndarray | None) -> None:
        """Take in another state; `where` says which groups of this one those of the other are."""
        raise NotImplementedError

    def _spread_groups(self, where: np.ndarray, count: int) -> None:
        """There are `count` groups now; those that there were stand at `where`."""
        raise NotImplementedError

    def _affine(self, x: Any) -> Affine:
        """What x is scaled by; of shape (n_features,), or (n_groups, n_features)."""
        raise NotImplementedError

    # ---- what they share

    def _take(self, X: Any, reset: bool, groups: Any, sample_weight: Any = None) -> Any:
        """Learn from X and return it, checked. Whatever is refused leaves the scaler as it was."""
        with UnchangedOnError(self):
            _input.check_parameters(self)
            if reset:
                for name in fitted(self):
                    delattr(self, name)
            first = "n_features_in_" not in vars(self)
            x = self._checked(X, reset=first, accept_sparse=self._sparse)
            if not first and (groups is None) == ("groups_" in vars(self)):
                how = "with groups; expected" if groups is None else "without groups; expected no"
                raise ValueError(f"this {type(self).__name__} was fitted {how} groups")
            if sample_weight is not None:
                sample_weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
            if sparse.issparse(x):
                if groups is not None:
                    raise ValueError("groups are not supported with sparse input; expected a dense array")
                self._learn_sparse(x, sample_weight)
                return x
            if sample_weight is not None and self._axis(x) == 0:
                raise ValueError("feature_axis is the first one, along which sample_weight is; expected another")
            codes = None
            if groups is not None:
                labels, codes = np.unique(self._labels(groups, x), return_inverse=True)
                codes = self._join_groups(labels)[codes]
            self._learn(self._pieces(x, codes, sample_weight), self._count(x))
        return x

    def _checked(self, X: Any, *, reset: bool, accept_sparse: Any, names: bool = True) -> Any:
        """X as an array that kernels read, or a sparse one."""
        if self.feature_axis is None or (hasattr(X, "columns") and self.feature_axis in (1, -1)):
            return _input.check_input(self, X, reset=reset, accept_sparse=accept_sparse, names=names)
        x = _input.check_input(self, X, reset=reset, ndim=None)
        count = x.shape[self._axis(x)]
        if reset:
            self.n_features_in_ = count
        else:
            _input.check_features(self, count)
        return x

    def _axis(self, x: np.ndarray) -> int:
        """The axis of x along which features lie."""
        if self.feature_axis is None:
            return 1
        return _arguments.axes("feature_axis", self.feature_axis, x.ndim)[0]  # type: ignore[index]  # not None

    def _samples(self, x: np.ndarray) -> tuple[int, ...]:
        """The axes that statistics are taken over."""
        axis = self._axis(x)
        return tuple(a for a in range(x.ndim) if a != axis)

    def _count(self, x: np.ndarray) -> int:
        """How many samples there are: values of each feature, if none is NaN."""
        return int(x.size // x.shape[self._axis(x)])

    def _labels(self, groups: Any, x: np.ndarray) -> np.ndarray:
        labels = np.asarray(groups)
        if labels.dtype == object and len({type(label) for label in labels.flat}) == 1:
            labels = np.array(labels.tolist())  # as DataFrames have them
        if labels.shape != x.shape[:1]:
            raise ValueError(f"groups has shape {labels.shape}; expected one label per sample, {x.shape[:1]}")
        if self._axis(x) == 0:
            raise ValueError("feature_axis is the first one, along which groups are; expected another")
        kind = labels.dtype.kind
        if kind not in "biufUmM" or (kind in "fmM" and np.isnan(labels).any()):
            raise ValueError(f"groups has dtype {labels.dtype} or NaN in it; expected numbers, strings or dates")
        known = getattr(self, "groups_", labels).dtype
        alike = known.kind in "biu" and kind in "biu" and np.promote_types(known, labels.dtype).kind in "biu"
        if known.kind != kind and not alike:
            raise ValueError(f"groups has dtype {labels.dtype}; expected labels like those before, {known}")
        return labels

    def _join_groups(self, labels: np.ndarray) -> np.ndarray:
        """Make sure that there are groups of these labels, which are unique; return where they stand."""
        before = getattr(self, "groups_", labels[:0])
        self.groups_ = np.union1d(before, labels)
        self._spread_groups(np.searchsorted(self.groups_, before), self.groups_.size)
        return np.searchsorted(self.groups_, labels)

    def _find_groups(self, groups: Any, x: np.ndarray) -> np.ndarray | None:
        """Which group each sample belongs to; None without groups."""
        if "groups_" not in vars(self):
            if groups is not None:
                raise ValueError(f"this {type(self).__name__} was fitted without groups; expected groups=None")
            return None
        if groups is None:
            raise ValueError(f"this {type(self).__name__} was fitted with groups; expected the group of each sample")
        labels = self._labels(groups, x)
        codes = np.minimum(np.searchsorted(self.groups_, labels), self.groups_.size - 1)
        unknown = self.groups_[codes] != labels
        if unknown.any():
            raise ValueError(f"groups has the label {labels[unknown][0]!r}; expected those seen before")
        return codes

    @staticmethod
    def _pieces(x: np.ndarray, codes: np.ndarray | None, sample_weight: np.ndarray | None) -> Iterator["Piece"]:
        """All samples; with groups, those of one group of a block after the other."""
        if codes is None:
            yield Piece(None, None, x, sample_weight)
            return
        count = max(1, _BLOCK * x.shape[0] // max(1, x.size))
        for start in range(0, x.shape[0], count):
            block = codes[start : start + count]
            order = np.argsort(block, kind="stable")
            present, begins = np.unique(block[order], return_index=True)
            for group, mine in zip(present, np.split(order, begins[1:]), strict=True):
                rows = mine + start
                yield Piece(int(group), rows, x[rows], None if sample_weight is None else sample_weight[rows])

    def _fit_apply(self, X: Any, groups: Any = None, sample_weight: Any = None) -> Any:
        """Learn from X, and scale it."""
        x = self._take(X, True, groups, sample_weight)
        if sparse.issparse(x):
            x = self._checked(X, reset=False, accept_sparse=self._sparse_applied)
        return self._apply(x, X, groups=groups, finite=True)

    def _apply(
        self,
        x: Any,
        given: Any,
        *,
        copy: bool | None = None,
        groups: Any = None,
        out: Any = None,
        inverse: bool = False,
        finite: bool = False,
    ) -> Any:
        """Scale x, which `given` became when it was checked, or undo that. `finite`: it holds no infinity."""
        copy = self.copy if copy is None else copy
        if sparse.issparse(x):
            if groups is not None or out is not None or "groups_" in vars(self):
                raise ValueError("groups and out are not supported with sparse input; expected a dense array")
            return self._apply_sparse(x.copy() if copy and x is given else x, inverse)
        codes = self._find_groups(groups, x)
        dtype = _arguments.result_dtype(x)
        out = _input.into(x, given, copy, out)
        into = _arguments.output(out, x, dtype)
        if into is not None and not finite:
            _input.refuse_nonfinite(x)
        affine, axis = self._affine(x), self._axis(x)
        if inverse:
            affine = affine._replace(least=-np.inf, most=np.inf)
        if codes is None:
            result, flags = rescale(x, axis, affine, inverse, into)
            _input.refuse(flags, x)
            return result if out is None else out
        result = np.empty(x.shape, dtype) if into is None else into
        for piece in self._pieces(x, codes, None):
            scaled, flags = rescale(piece.x, axis, affine.of_group(piece.group), inverse, None)
            _input.refuse(flags, x)
            result[piece.rows] = scaled
        return result if out is None else out

    def _apply_sparse(self, x: Any, inverse: bool) -> Any:
        """Scale the stored values of x, in place."""
        affine = self._affine(x)
        if affine.scale is not None:
            scale = affine.scale.astype(x.dtype, copy=False)
            along = scale[x.indices] if x.format == "csr" else np.repeat(scale, np.diff(x.indptr))
            (np.multiply if inverse else np.divide)(x.data, along, out=x.data)
        if not inverse and affine.most < np.inf:
            np.clip(x.data, affine.least, affine.most, out=x.data)
        return x


class Piece(NamedTuple):
    """Samples that are learnt from, or scaled, at once."""

    group: int | None
    rows: np.ndarray | None
    x: np.ndarray
    sample_weight: np.ndarray | None


def along_axis(scaler: FeatureScaler, X: Any, axis: int) -> Any:
    """X scaled by a new scaler: its columns (axis 0) or its rows, which may be a single one of one dimension."""
    _arguments.choice("axis", axis, (0, 1))
    if sparse.issparse(X):
        table = X if X.format in ("csr", "csc") else X.tocsr()
        return scaler._fit_apply(table) if axis == 0 else scaler._fit_apply(table.T).T
    scaler.feature_axis = 1 - axis
    x = _input.check_input(scaler, X, reset=True, ndim=None)
    if x.ndim > 2:
        raise ValueError(f"X has {x.ndim} dimensions; expected one or two")
    if not isinstance(X, np.ndarray):
        scaler.copy = True  # x may be a view of what is to be left alone
    return scaler._fit_apply(x.reshape(-1, 1) if x.ndim == 1 else x).reshape(x.shape)


def rescale(x: np.ndarray, axis: int, affine: Affine, inverse: bool, out: np.ndarray | None) -> tuple[Any, int]:
    """Scale x by the numbers of each feature: the result, and the flags of what is not finite in x."""

    def ask(by: Affine) -> Any:
        numbers = by.center, by.center_lo, by.scale, by.shift, by.least, by.most
        return _ops.rescale(x, axis, *numbers, inverse, out, True)

    result = ask(affine)
    if result is None:  # attributes were set by hand
        shape = (x.shape[axis],)
        center, center_lo, scale, shift = (
            None if value is None else np.array(np.broadcast_to(value, shape), np.float64) for value in affine[:4]
        )
        result = ask(Affine(center, center_lo, scale, shift, affine.least, affine.most))
    return cast("tuple[Any, int]", result)


class UnchangedOnError:
    """A scaler that stays what it was unless all goes well."""

    def __init__(self, scaler: Any) -> None:
        self.scaler, self.before = scaler, dict(vars(scaler))

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, *details: object) -> None:
        if kind is not None:
            self.scaler.__dict__ = self.before  # at once: no interrupt comes between
