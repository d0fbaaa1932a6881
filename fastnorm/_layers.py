"""What every layer has: parameters, buffers, mode, state and the frame of its two passes.

A layer of `nn` adds its arguments, how x is normalized and how dy is differentiated.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from . import _arguments

_FLOAT32 = np.dtype(np.float32)
_PARAMETERS = ("weight", "bias")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_BEYOND_TORCH = {"dtype": _FLOAT32, "channel_axis": 1, "nonfinite": "propagate", "activation": None}  # and defaults


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` met: keys that the layer has and the state has not, and the reverse."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Layer:
    """Arrays, mode, state and the frame of the two passes; a layer of `nn` adds its arguments and what it calls.

    `_normalize(x)`, with `where` if the layer takes a mask, returns y and, for the backward pass, arrays and keyword
    arguments: ``_differentiate(dy, *arrays, weight, **keywords)`` gives dx and the gradients of weight and bias.
    """

    _differentiate: Callable[..., Any]
    _takes_mask = False
    _by_sample = False  # whether statistics are of each sample, so that samples lie along the first axis
    _shown: tuple[str, ...]  # the arguments in the order of PyTorch's text; the first `_positional` without their names
    _positional = 1
    _saved: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # for the backward pass
    channel_axis: int

    def __init__(
        self,
        shape: int | tuple[int, ...] = (),
        dtype: Any = None,
        *,
        weight: bool = False,
        bias: bool = False,
        running: bool = False,
    ) -> None:
        kind = self.dtype = _arguments.float_dtype("dtype", dtype) or _FLOAT32
        self.training = True
        self.grads: dict[str, np.ndarray] = {}
        self.weight = np.empty(shape, kind) if weight else None
        self.bias = np.empty(shape, kind) if weight and bias else None
        self.running_mean = np.empty(shape, kind) if running else None
        self.running_var = np.empty(shape, kind) if running else None
        self.num_batches_tracked = np.empty((), np.int64) if running else None
        self.reset_parameters()

    def _normalize(self, x: np.ndarray) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        raise NotImplementedError

    def forward(self, x: Any, *, where: Any = None) -> Any:
        """Normalize x in the current mode; ``layer(x)`` is the same.

        Parameters
        ----------
        x : array_like
            Of the shape that the layer is for.
        where : array_like of bool, optional
            For batch norm and layer norm: which elements count, broadcast to x. The others have no part in the
            statistics, and y and dx are 0 there.

        Returns
        -------
        y : ndarray
            Same shape and dtype as x; float64 for integers.

        Raises
        ------
        ValueError, TypeError
            As the function of the same name, in the name of this layer. No statistic has changed then.
        """
        if where is not None and not self._takes_mask:
            raise TypeError(f"{self!r}: where is for batch norm and layer norm; expected no mask")
        mask = {} if where is None else {"where": where}
        try:
            y, arrays, keywords = self._normalize(_arguments.array("x", x), **mask)
        except (TypeError, ValueError) as error:
            raise self._in_own_name(error) from error
        self._saved = arrays, keywords
        return y

    def __call__(self, x: Any, *, where: Any = None) -> Any:
        return self.forward(x, where=where)

    def backward(self, dy: Any) -> Any:
        """Differentiate the latest forward pass, with the weight as it is now.

        After a pass in evaluation mode these are the gradients of evaluation: running statistics are constants.

        Parameters
        ----------
        dy : array_like
            Gradient of a loss with respect to y.

        Returns
        -------
        dx : ndarray
            Gradient with respect to x. `grads` is replaced by the gradients with respect to the parameters.

        Raises
        ------
        RuntimeError
            Before any forward pass.
        ValueError, TypeError
            For a `dy` of another shape than y, or that is not computed in the same type. `grads` is as it was.
        """
        if self._saved is None:
            raise RuntimeError(f"{self!r}: backward called before any forward pass")
        arrays, keywords = self._saved
        try:
            dx, *gradients = self._differentiate(_arguments.array("dy", dy), *arrays, self.weight, **keywords)
        except (TypeError, ValueError) as error:
            raise self._in_own_name(error) from error
        self.grads = {name: d for name, d in zip(_PARAMETERS, gradients, strict=False) if self._has(name)}
        return dx

    def train(self, mode: bool = True) -> Self:
        """Enter training mode, or evaluation mode with ``mode=False``; return the layer."""
        if not isinstance(mode, bool):
            raise ValueError(f"{type(self).__name__}: mode must be a bool, got {mode!r}")
        self.training = mode
        return self

    def eval(self) -> Self:
        """Enter evaluation mode; return the layer."""
        return self.train(False)

    def parameters(self) -> list[np.ndarray]:
        """List the arrays to train: weight and bias, as far as the layer has them."""
        return [array for _, array in self.named_parameters()]

    def named_parameters(self) -> list[tuple[str, np.ndarray]]:
        """List pairs of a parameter's name, which is its key in `grads`, and its array."""
        return [(name, getattr(self, name)) for name in _PARAMETERS if self._has(name)]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics by PyTorch's keys, in its order; the layer's own arrays, not copies."""
        return {name: getattr(self, name) for name in (*_PARAMETERS, *_BUFFERS) if self._has(name)}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy a state into the layer's arrays, converted to their dtype.

        Parameters
        ----------
        state : mapping of str to array_like
            As from `state_dict`, of this library or of PyTorch: arrays, or tensors in the memory of the CPU. It may
            lack "num_batches_tracked", which then stays as it is, unless it comes from PyTorch marked as a version
            that has the key.
        strict : bool, default True
            Whether missing and unexpected keys are refused. Shapes that do not match always are.

        Returns
        -------
        missing_keys, unexpected_keys : list of str
            A named tuple.

        Raises
        ------
        ValueError
            Naming keys and shapes; nothing has changed then.
        TypeError
            `state` is not a mapping.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"{type(self).__name__}: state must be a mapping of names to arrays, got {type(state)}")
        own = self.state_dict()
        missing = [key for key in own if key not in state]
        unexpected = [key for key in state if key not in own]
        version = getattr(state, "_metadata", {}).get("", {}).get("version")  # as PyTorch marks what it saves
        if "num_batches_tracked" in missing and (version is None or version < 2):
            missing.remove("num_batches_tracked")
        problems = [f"missing {key!r}" for key in missing if strict]
        problems += [f"unexpected {key!r}" for key in unexpected if strict]
        loaded = {}
        for key in [key for key in own if key in state]:
            try:
                loaded[key] = _converted(state[key], own[key])
            except (RuntimeError, TypeError, ValueError) as error:
                problems.append(f"{key} {error}")
        if problems:
            raise ValueError(f"{self!r} cannot load this state: {'; '.join(problems)}")
        for key, values in loaded.items():
            own[key][...] = values
        return IncompatibleKeys(missing, unexpected)

    def reset_parameters(self) -> None:
        """Return to the state of a new layer, in place: weight 1, bias 0 and fresh running statistics."""
        self.reset_running_stats()
        for array, value in ((self.weight, 1), (self.bias, 0)):
            if array is not None:
                array.fill(value)

    def reset_running_stats(self) -> None:
        """Return running statistics to those of a new layer, in place: mean 0, variance 1, no batch counted."""
        for array, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if array is not None:
                array.fill(value)

    def __repr__(self) -> str:
        shown = {name: self._has("bias") if name == "bias" else getattr(self, name) for name in self._shown}
        shown |= {name: v for name, default in _BEYOND_TORCH.items() if (v := getattr(self, name, default)) != default}
        texts = [repr(v) if isinstance(v, str) else str(v) for v in shown.values()]
        named = [f"{name}={text}" for name, text in zip(shown, texts, strict=True)]
        return f"{type(self).__name__}({', '.join(texts[: self._positional] + named[self._positional :])})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: v for name, v in self.__dict__.items() if name != "_saved"} | {"grads": {}}

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    def _in_own_name(self, error: Exception) -> Exception:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return kind(f"{self!r}: {error}")

    def _expect(self, x: np.ndarray, channels: int, dims: tuple[int, ...] = (), *, single: bool = False) -> None:
        """Refuse x of other dimensions, or with other channels. A `single` sample lacks the first axis."""
        if dims and x.ndim not in dims:
            expected = " or ".join(f"{n}D" for n in dims)
            raise ValueError(f"expected {expected} input, got {x.ndim}D input of shape {x.shape}")
        batch = x[np.newaxis] if single else x
        axis = _arguments.channel_axis(self.channel_axis, batch, samples=self._by_sample) - single
        if x.shape[axis] != channels:
            raise ValueError(f"expected {channels} channels along axis {axis} of x, got x of shape {x.shape}")


def number(name: str, value: Any, least: float | None = None) -> Any:
    """`value` as given, which is how PyTorch prints it, if it is a number not below `least`."""
    _arguments.real(name, value, least=least)
    return value


def _converted(value: Any, own: np.ndarray) -> np.ndarray:
    """A copy of `value` in the dtype of the layer's own array, if it has its shape."""
    if hasattr(value, "detach"):  # a tensor: NumPy takes none that requires a gradient, and no bfloat16
        value = value.detach()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    values = _arguments.array("of the state", value)
    if values.shape != own.shape and (own.ndim, values.shape) != (0, (1,)):  # PyTorch, too, takes a count of shape (1,)
        raise ValueError(f"has shape {values.shape}; expected {own.shape}")
    with np.errstate(all="ignore"):
        result = values.reshape(own.shape).astype(own.dtype)
    if own.dtype.kind == "i" and (result != values or result < 0):
        raise ValueError(f"is {values}; expected a count of batches")
    if not own.flags.writeable:
        raise ValueError("is a read-only array of this layer; expected a writeable one")
    return result
