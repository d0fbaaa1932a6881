"""The state of scalers as plain data and as scikit-learn's own estimators."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import sklearn.preprocessing

from fastnorm._quantiles import QuantileSketch
from fastnorm.stats import Moments


class SavedState:
    """What gives a scaler `to_dict`, `from_dict`, `to_sklearn` and `from_sklearn`."""

    _saved: tuple[str, ...] = ()  # fitted attributes beside those of every scaler
    _beyond: tuple[str, ...] = ()  # those of them that scikit-learn's estimator does not have
    get_params: Any

    def to_dict(self) -> dict[str, Any]:
        """Return parameters and state as plain lists and numbers, ready for JSON.

        Returns
        -------
        state : dict
            What `from_dict` takes. Nothing is lost to rounding.
        """
        names = ("n_features_in_", "feature_names_in_", "groups_", *self._saved)
        state = {name: _packed(getattr(self, name)) for name in names if name in vars(self)}
        params = {name: _packed(value) for name, value in self.get_params().items()}
        return {"class": type(self).__name__, "params": params, "fitted": state}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Make a scaler from what `to_dict` gave.

        Parameters
        ----------
        state : mapping
            As `to_dict` gives it.

        Returns
        -------
        scaler : object
            With the parameters and the state that were saved.

        Raises
        ------
        ValueError
            If it is the state of another class, or an entry is missing.
        """
        missing = [name for name in ("class", "params", "fitted") if name not in state]
        if missing:
            raise ValueError(f"state lacks {', '.join(missing)}; expected what to_dict gives")
        if state["class"] != cls.__name__:
            raise ValueError(f"state is that of a {state['class']}; expected a {cls.__name__}")
        scaler = cls(**{name: _unpacked(value) for name, value in state["params"].items()})
        learnt = {name: _unpacked(value) for name, value in state["fitted"].items()}
        if learnt:
            missing = [name for name in ("n_features_in_", *cls._saved) if name not in learnt]
            names = ("n_features_in_", "feature_names_in_", "groups_", *cls._saved)
            if unknown := [name for name in learnt if name not in names]:
                raise ValueError(f"state['fitted'] has {', '.join(unknown)}; expected what to_dict gives")
            if missing:
                raise ValueError(f"state['fitted'] lacks {', '.join(missing)}; expected what to_dict gives")
        scaler.__dict__.update(learnt)
        return scaler

    @classmethod
    def from_sklearn(cls, estimator: Any) -> Self:
        """Make a scaler from scikit-learn's of the same name.

        Parameters
        ----------
        estimator : object
            Fitted or not.

        Returns
        -------
        scaler : object
            With the same parameters, and scaling by the same numbers. `partial_fit` goes on from there.

        Raises
        ------
        TypeError
            If `estimator` is not scikit-learn's class of that name.
        """
        theirs = _of_sklearn(cls)
        if not isinstance(estimator, theirs):
            raise TypeError(f"estimator must be scikit-learn's {theirs.__name__}, got {type(estimator)}")
        scaler = cls(**estimator.get_params())
        if "n_features_in_" in vars(estimator):
            scaler.__dict__.update(copy.deepcopy(fitted(estimator)))
            scaler._adopt()
        return scaler

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator of the same name.

        Returns
        -------
        estimator : object
            With the same parameters, and scaling by the same numbers.

        Raises
        ------
        ValueError
            If this scaler has groups or parameters that scikit-learn's does not have.
        """
        if hasattr(self, "groups_"):
            raise ValueError(f"scikit-learn's {type(self).__name__} has no groups")
        kind = _of_sklearn(type(self))
        known, ours = inspect.signature(kind).parameters, inspect.signature(type(self)).parameters
        params = self.get_params()
        beyond = [name for name, value in params.items() if name not in known and value != ours[name].default]
        if beyond:
            raise ValueError(f"scikit-learn's {type(self).__name__} has no parameter {', '.join(beyond)}")
        estimator = kind(**{name: value for name, value in params.items() if name in known})
        theirs = {name: value for name, value in fitted(self).items() if name not in self._beyond}
        vars(estimator).update(copy.deepcopy(theirs))
        return estimator

    def _adopt(self) -> None:
        """Fill in what scikit-learn's estimator does not have."""


def _of_sklearn(kind: type) -> Any:
    """scikit-learn's class of the name of one of ours, or of the one that it is derived from."""
    ours = next(base for base in kind.__mro__ if base.__module__.startswith(__package__ or ""))
    return getattr(sklearn.preprocessing, ours.__name__)


def fitted(estimator: Any) -> dict[str, Any]:
    """What an estimator has learnt: attributes whose name ends in an underscore, and those kept with them."""
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and name[:2] != "__"}


def _packed(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
        return {
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "values": value.astype(np.int64).ravel().tolist(),
        }
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.dtype != object):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": value.ravel().tolist()}
    if isinstance(value, (list, tuple)):
        return {"type": type(value).__name__, "items": [_packed(item) for item in value]}
    if isinstance(value, np.ndarray):
        return {"dtype": "object", "shape": list(value.shape), "values": value.ravel().tolist()}
    return {"state": value.to_dict()} if hasattr(value, "to_dict") else value


def _unpacked(value: Any) -> Any:
    """What `_packed` was given."""
    if not isinstance(value, Mapping):
        return value
    if "state" in value:
        kind: Any = Moments if "order" in value["state"] else QuantileSketch
        return kind.from_dict(value["state"])
    if "items" in value:
        items = [_unpacked(item) for item in value["items"]]
        return tuple(items) if value["type"] == "tuple" else items
    return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])[()]
