"""Norms as functions: thin shape adapters over the kernels.

Each function first hands its arguments to the door, which answers the common call; only what the door does not know
goes through `_arguments` and back.
"""

from typing import Any

import numpy as np

from . import _arguments, _ops

__all__ = ["layer_norm", "layer_norm_backward", "rms_norm_backward", "standardize"]


def layer_norm(
    x: Any,
    normalized_shape: Any = None,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    axis: Any = None,
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Layer normalization over the last axes, or over any axes.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the mean and the biased variance of each group of
    normalized elements. Memory is read once and written once where a group fits a cache.

    Parameters
    ----------
    x : array_like
        Real array. float32 and float64 keep their dtype; integers and booleans give float64.
    normalized_shape : int or tuple of int, optional
        Shape of the trailing axes that are normalized together. Default: the shape of `weight`, else the last axis.
    weight, bias : array_like, optional
        Scale and shift, of the normalized shape. Converted to the dtype of the result.
    eps : float, default 1e-5
        Added to the variance; not negative.
    axis : int or tuple of int, optional
        Axes to normalize over, in place of trailing ones. `weight` and `bias` then have the shape of these axes, in the
        order in which x has them.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return the mean and the reciprocal standard deviation, as a backward pass needs them.

    Returns
    -------
    y : ndarray
        Same shape as x. A constant group gives exactly `bias`. NaN and infinity make NaN of their own group only.
    mean, rstd : ndarray or scalar
        With `return_stats`: the shape of x without the normalized axes; rstd is ``1 / sqrt(var + eps)``.

    Raises
    ------
    ValueError
        For shapes that do not match, a negative or NaN `eps`, and an `out` that cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, half precision, object, masked arrays).

    References
    ----------
    Ba, Kiros, Hinton, "Layer Normalization", arXiv:1607.06450 (2016), equations 3 and 4.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1, 2, 3, 4], [5, 5, 5, 5]], dtype=np.float32)
    >>> fastnorm.layer_norm(x, weight=np.full(4, 2.0), bias=np.ones(4)).round(3)
    array([[-1.683,  0.106,  1.894,  3.683],
           [ 1.   ,  1.   ,  1.   ,  1.   ]], dtype=float32)

    Over the channels of images, with no transposed copy:

    >>> images = np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2)
    >>> fastnorm.layer_norm(images, axis=1).shape
    (2, 3, 4, 2)
    """
    result = _ops.layer_norm(x, normalized_shape, weight, bias, eps, axis, out, return_stats)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    axes = _arguments.normalized_axes(x, normalized_shape, weight, axis)
    dtype = _arguments.result_dtype(x)
    shape = tuple(x.shape[a] for a in axes)
    weight = _arguments.parameter("weight", weight, shape, dtype)
    bias = _arguments.parameter("bias", bias, shape, dtype)
    eps = _arguments.real("eps", eps, least=0)
    into = _arguments.output(out, x, dtype, [("weight", weight), ("bias", bias)])
    result = _ops.layer_norm(x, None, weight, bias, eps, axes, into, return_stats, True)
    return _as_given(result, out, return_stats)


def standardize(
    x: Any,
    axis: Any = 0,
    *,
    ddof: float = 0,
    eps: float = 0.0,
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Z-scores: zero mean and unit variance along an axis.

    ``y = (x - mean) / sqrt(var + eps)``; where that root is 0, in a constant, y is 0.

    Parameters
    ----------
    x : array_like
        Real array. float32 and float64 keep their dtype; integers and booleans give float64.
    axis : int, tuple of int or None, default 0
        Axes over which mean and variance are taken; None for all.
    ddof : float, default 0
        The variance divides by ``n - ddof``.
    eps : float, default 0
        Added to the variance; not negative.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return the mean and the standard deviation (without `eps`).

    Returns
    -------
    y : ndarray
        Same shape as x. NaN and infinity make NaN of their own group only.
    mean, std : ndarray or scalar
        With `return_stats`: the shape of x without the reduced axes.

    Raises
    ------
    ValueError
        For an axis that x does not have, a negative or NaN `eps`, and an `out` that cannot be written or overlaps in
        part.
    TypeError
        For dtypes that are not supported (complex, half precision, object, masked arrays).

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> table = np.array([[1.0, 14.62], [2.0, 14.62], [3.0, 14.62]])
    >>> fastnorm.standardize(table).round(4)
    array([[-1.2247,  0.    ],
           [ 0.    ,  0.    ],
           [ 1.2247,  0.    ]])
    """
    result = _ops.standardize(x, axis, ddof, eps, out, return_stats)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    axes = _arguments.axes("axis", axis, x.ndim)
    ddof = _arguments.real("ddof", ddof)
    eps = _arguments.real("eps", eps, least=0)
    into = _arguments.output(out, x, _arguments.result_dtype(x), [])
    result = _ops.standardize(x, axes, ddof, eps, into, return_stats, True)
    return _as_given(result, out, return_stats)


def _as_given(result: Any, out: np.ndarray | None, return_stats: bool) -> Any:
    """The result, with `out` as the caller knows it (a subclass of ndarray, for example)."""
    if out is None:
        return result
    return (out, *result[1:]) if return_stats else out


def layer_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any = None,
    *,
    normalized_shape: Any = None,
    axis: Any = None,
    where: Any = None,
    out: np.ndarray | None = None,
) -> Any:
    result = _ops.layer_norm_backward(dy, x, mean, rstd, weight, normalized_shape, axis, where, out)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    axes = _arguments.normalized_axes(x, normalized_shape, weight, axis)
    mean = _arguments.statistic("mean", mean, x, axes)
    where = _arguments.mask("where", where, x.shape)
    dy, rstd, weight, into, dtype = _backward(dy, x, rstd, weight, axes, [("mean", mean), ("where", where)], out)
    result = _ops.layer_norm_backward(dy, x, mean, rstd, weight, None, axes, where, into, dtype)
    return result if out is None else (out, *result[1:])


def rms_norm_backward(
    dy: Any,
    x: Any,
    rstd: Any,
    weight: Any = None,
    *,
    normalized_shape: Any = None,
    axis: Any = None,
    out: np.ndarray | None = None,
) -> Any:
    result = _ops.rms_norm_backward(dy, x, rstd, weight, normalized_shape, axis, out)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    axes = _arguments.normalized_axes(x, normalized_shape, weight, axis)
    dy, rstd, weight, into, dtype = _backward(dy, x, rstd, weight, axes, [], out)
    result = _ops.rms_norm_backward(dy, x, rstd, weight, None, axes, into, dtype)
    return result if out is None else (out, *result[1:])


def _backward(dy: Any, x: np.ndarray, rstd: Any, weight: Any, axes: Any, read: Any, out: Any) -> Any:
    """dy, rstd, weight and out in canonical form, and the dtype of the gradients of the parameters."""
    dy = _arguments.gradient(dy, x)
    rstd = _arguments.statistic("rstd", rstd, x, axes)
    dtype = _arguments.result_dtype(x if weight is None else _arguments.array("weight", weight))
    shape = tuple(x.shape[a] for a in axes)
    weight = _arguments.parameter("weight", weight, shape, _arguments.compute_dtype(x))
    into = _arguments.output(out, x, _arguments.result_dtype(x), [("weight", weight), ("rstd", rstd), *read])
    _arguments.may_receive(into, "dy", dy)
    return dy, rstd, weight, into, dtype
