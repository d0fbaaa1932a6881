"""Norms as functions: thin shape adapters over the kernels.

Each function first hands its arguments to the door, which answers the common call; only what the door does not know
goes through `_arguments` and back.
"""

from typing import Any

import numpy as np

from . import _arguments, _ops
from ._channels import batch_norm, group_norm, instance_norm
from ._channels_backward import batch_norm_backward, group_norm_backward, instance_norm_backward
from ._folding import fold_batch_norm
from ._local import local_response_norm, local_response_norm_backward, normalize, normalize_backward

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "batch_norm",
    "batch_norm_backward",
    "fold_batch_norm",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "local_response_norm",
    "local_response_norm_backward",
    "min_max_scale",
    "normalize",
    "normalize_backward",
    "rms_norm",
    "rms_norm_backward",
    "standardize",
]


def layer_norm(
    x: Any,
    normalized_shape: Any = None,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    axis: Any = None,
    where: Any = None,
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Layer normalization over the last axes, or over any axes.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the mean and the biased variance of each group of
    normalized elements. Memory is read once and written once where a group fits a cache.

    Parameters
    ----------
    x : array_like
        Real array. Floats keep their dtype (half precision is computed in float32); integers and booleans give float64.
    normalized_shape : int or tuple of int, optional
        Shape of the trailing axes that are normalized together. Default: the shape of `weight`, else the last axis.
    weight, bias : array_like, optional
        Scale and shift, of the normalized shape and any real dtype; applied in float32, float64 for float64 x.
    eps : float, default 1e-5
        Added to the variance; not negative.
    axis : int or tuple of int, optional
        Axes to normalize over, in place of trailing ones. `weight` and `bias` then have the shape of these axes, in the
        order in which x has them.
    where : array_like of bool, optional
        Which elements count, broadcast to x: the others have no part in mean and variance, and y is 0 there.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return the mean and the reciprocal standard deviation, as a backward pass needs them.

    Returns
    -------
    y : ndarray
        Same shape as x. A constant group gives exactly `bias`. NaN and infinity make NaN of their own group only.
    mean, rstd : ndarray or scalar
        With `return_stats`: the shape of x without the normalized axes; rstd is ``1 / sqrt(var + eps)``. float32,
        float64 for float64 x. NaN where nothing counts.

    Raises
    ------
    ValueError
        For shapes that do not match, an axis that x does not have or that is repeated, a negative or NaN `eps`, and an
        `out` that cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) and a mask that is not of bools.

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
    result = _ops.layer_norm(x, None, normalized_shape, weight, bias, eps, axis, where, out, return_stats)
    if result is not None:
        return result
    x, axes, weight, bias = _normalized(x, normalized_shape, weight, bias, axis)
    eps = _arguments.real("eps", eps, least=0)
    where = _arguments.mask("where", where, x.shape)
    others = [("weight", weight), ("bias", bias), ("where", where)]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others)
    result = _ops.layer_norm(x, None, None, weight, bias, eps, axes, where, into, return_stats, True)
    return _arguments.as_given(result, out, return_stats)


def rms_norm(
    x: Any,
    normalized_shape: Any = None,
    weight: Any = None,
    eps: float | None = None,
    *,
    axis: Any = None,
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Root mean square normalization over the last axes, or over any axes.

    ``y = x / sqrt(mean(x**2) + eps) * weight``, with the mean square of each group of normalized elements.

    Parameters
    ----------
    x, normalized_shape, weight, axis, out
        As for `layer_norm`.
    eps : float, optional
        Added to the mean square; not negative. Default: the machine epsilon of float32, of float64 for float64 x.
    return_stats : bool, default False
        Also return the reciprocal root mean square, as a backward pass needs it.

    Returns
    -------
    y : ndarray
        Same shape and dtype as `layer_norm` gives. NaN and infinity make NaN of their own group only.
    rstd : ndarray or scalar
        With `return_stats`: ``1 / sqrt(mean(x**2) + eps)``, the shape of x without the normalized axes.

    Raises
    ------
    ValueError, TypeError
        As `layer_norm`.

    References
    ----------
    Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467 (2019), equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> fastnorm.rms_norm(np.array([[3.0, -4.0, 0.0, 0.0]]), eps=0.0)
    array([[ 1.2, -1.6,  0. ,  0. ]])
    """
    result = _ops.rms_norm(x, None, normalized_shape, weight, eps, axis, out, return_stats)
    if result is not None:
        return result
    x, axes, weight, _ = _normalized(x, normalized_shape, weight, None, axis)
    eps = None if eps is None else _arguments.real("eps", eps, least=0)
    into = _arguments.output(out, x, _arguments.result_dtype(x), [("weight", weight)])
    result = _ops.rms_norm(x, None, None, weight, eps, axes, into, return_stats, True)
    return _arguments.as_given(result, out, return_stats)


def add_layer_norm(
    x: Any,
    residual: Any,
    normalized_shape: Any = None,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    out: tuple[np.ndarray, np.ndarray] | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Layer normalization of a sum that is kept, as a residual connection needs it.

    ``s = x + residual`` and ``y = layer_norm(s, ...)``, in one pass over x, residual, s and y where a group fits a
    cache.

    Parameters
    ----------
    x : array_like
        As for `layer_norm`.
    residual : array_like
        What is added to x: of its shape, and of a dtype that gives the same dtype of results.
    normalized_shape, weight, bias, eps, return_stats
        As for `layer_norm`.
    out : tuple of two ndarrays, optional
        Where y and s go: the shape of x and the dtype of the result. Each may be x or residual itself.

    Returns
    -------
    y, s : ndarray
        The normalized sum, and the sum, in the dtype of the result. In half precision y is that of the rounded s.
    mean, rstd : ndarray or scalar
        With `return_stats`: the statistics of s, as from `layer_norm`.

    Raises
    ------
    ValueError, TypeError
        As `layer_norm`; also for a `residual` of another shape or dtype.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> y, s = fastnorm.add_layer_norm(np.array([[1.0, 2.0]]), np.array([[0.0, 1.0]]), eps=0.0)
    >>> y, s
    (array([[-1.,  1.]]), array([[1., 3.]]))
    """
    if residual is not None:
        result = _ops.layer_norm(x, residual, normalized_shape, weight, bias, eps, None, None, out, return_stats)
        if result is not None:
            return result
    x, axes, weight, bias = _normalized(x, normalized_shape, weight, bias, None)
    residual = _arguments.alike("residual", residual, x)
    eps = _arguments.real("eps", eps, least=0)
    others = [("weight", weight), ("bias", bias)]
    into = _arguments.outputs(out, x, _arguments.result_dtype(x), residual, others)
    result = _ops.layer_norm(x, residual, None, weight, bias, eps, axes, None, into, return_stats, True)
    return result if out is None else (*out, *result[2:])


def add_rms_norm(
    x: Any,
    residual: Any,
    normalized_shape: Any = None,
    weight: Any = None,
    eps: float | None = None,
    *,
    out: tuple[np.ndarray, np.ndarray] | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Root mean square normalization of a sum that is kept, as a residual connection needs it.

    ``s = x + residual`` and ``y = rms_norm(s, ...)``, in one pass over x, residual, s and y where a group fits a cache.

    Parameters
    ----------
    x, residual, out
        As for `add_layer_norm`.
    normalized_shape, weight, eps, return_stats
        As for `rms_norm`.

    Returns
    -------
    y, s : ndarray
        The normalized sum, and the sum, in the dtype of the result.
    rstd : ndarray or scalar
        With `return_stats`: the reciprocal root mean square of s.

    Raises
    ------
    ValueError, TypeError
        As `add_layer_norm`.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> y, s = fastnorm.add_rms_norm(np.array([[1.0, 2.0]]), np.array([[-1.0, 1.0]]), eps=0.0)
    >>> y.round(4), s
    (array([[0.    , 1.4142]]), array([[0., 3.]]))
    """
    if residual is not None:
        result = _ops.rms_norm(x, residual, normalized_shape, weight, eps, None, out, return_stats)
        if result is not None:
            return result
    x, axes, weight, _ = _normalized(x, normalized_shape, weight, None, None)
    residual = _arguments.alike("residual", residual, x)
    eps = None if eps is None else _arguments.real("eps", eps, least=0)
    into = _arguments.outputs(out, x, _arguments.result_dtype(x), residual, [("weight", weight)])
    result = _ops.rms_norm(x, residual, None, weight, eps, axes, into, return_stats, True)
    return result if out is None else (*out, *result[2:])


def standardize(
    x: Any,
    axis: Any = 0,
    *,
    ddof: float = 0,
    eps: float = 0.0,
    nan_policy: str = "propagate",
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Z-scores: zero mean and unit variance along an axis.

    ``y = (x - mean) / sqrt(var + eps)``; where that root is 0, in a constant, y is 0.

    Parameters
    ----------
    x : array_like
        Real array. Floats keep their dtype (half precision is computed in float32); integers and booleans give float64.
    axis : int, tuple of int or None, default 0
        Axes over which mean and variance are taken; None for all.
    ddof : float, default 0
        The variance divides by ``n - ddof``.
    eps : float, default 0
        Added to the variance; not negative.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        NaN makes NaN of its whole group, or is left out of the statistics and stays NaN in y, or is a ValueError (found
        in a pass of its own, before anything is written).
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return the mean and the standard deviation (without `eps`).

    Returns
    -------
    y : ndarray
        Same shape as x. NaN and infinity make NaN of their own group only.
    mean, std : ndarray or scalar
        With `return_stats`: the shape of x without the reduced axes; float32, float64 for float64 results.

    Raises
    ------
    ValueError
        For an axis that x does not have or that is repeated, a negative or NaN `eps`, NaN where `nan_policy` is
        "raise", and an `out` that cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays).

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> table = np.array([[1.0, 14.62], [2.0, 14.62], [3.0, 14.62]])
    >>> fastnorm.standardize(table).round(4)
    array([[-1.2247,  0.    ],
           [ 0.    ,  0.    ],
           [ 1.2247,  0.    ]])
    """
    if nan_policy == "propagate":
        result = _ops.standardize(x, axis, ddof, eps, False, out, return_stats)
        if result is not None:
            return result
    x = _arguments.array("x", x)
    axes = _arguments.axes("axis", axis, x.ndim)
    ddof = _arguments.real("ddof", ddof)
    eps = _arguments.real("eps", eps, least=0)
    into = _arguments.output(out, x, _arguments.result_dtype(x))
    omit = _arguments.omits_nan(nan_policy, "x", x)
    result = _ops.standardize(x, axes, ddof, eps, omit, into, return_stats, True)
    return _arguments.as_given(result, out, return_stats)


def min_max_scale(
    x: Any,
    axis: Any = 0,
    feature_range: tuple[float, float] = (0, 1),
    *,
    nan_policy: str = "propagate",
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Scale linearly so that the extrema along an axis become those of a given range.

    ``y = (x - min) / (max - min) * (high - low) + low``, with ``low, high = feature_range``; a constant becomes `low`.

    Parameters
    ----------
    x : array_like
        Real array. Floats keep their dtype (half precision is computed in float32); integers and booleans give float64.
    axis : int, tuple of int or None, default 0
        Axes over which the extrema are taken; None for all.
    feature_range : tuple of two floats, default (0, 1)
        What the least and the greatest element become. No result lies outside.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        As for `standardize`.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return the extrema.

    Returns
    -------
    y : ndarray
        Same shape as x. NaN and infinity make NaN of their own group only.
    min, max : ndarray or scalar
        With `return_stats`: the shape of x without the reduced axes, in the dtype of the result.

    Raises
    ------
    ValueError
        For a `feature_range` that does not ascend, an axis that x does not have or that is repeated, NaN where
        `nan_policy` is "raise", and an `out` that cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays).

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> fastnorm.min_max_scale(np.array([[1.0, 7.0], [2.0, 7.0], [5.0, 7.0]]), feature_range=(-1, 1))
    array([[-1. , -1. ],
           [-0.5, -1. ],
           [ 1. , -1. ]])
    """
    least, most = _arguments.ascending("feature_range", feature_range)
    if nan_policy == "propagate":
        result = _ops.min_max_scale(x, axis, least, most, False, out, return_stats)
        if result is not None:
            return result
    x = _arguments.array("x", x)
    axes = _arguments.axes("axis", axis, x.ndim)
    into = _arguments.output(out, x, _arguments.result_dtype(x))
    omit = _arguments.omits_nan(nan_policy, "x", x)
    result = _ops.min_max_scale(x, axes, least, most, omit, into, return_stats, True)
    return _arguments.as_given(result, out, return_stats)


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
    r"""Gradients of a layer norm with respect to x, weight and bias.

    With ``g = dy * weight`` and ``xhat = (x - mean) * rstd``, averages taken over each group of normalized elements and
    sums over the groups::

        dx = rstd * (g - average(g) - xhat * average(g * xhat))
        dweight = sum(dy * xhat)
        dbias = sum(dy)

    What rounding left in the saved mean is found again from ``x - mean``, so dx is right at any offset. Sums go to
    float64 and are rounded once; they do not depend on the number of threads.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the result, of the shape of x. float16, bfloat16 and float32 go with each other, and
        float64 with itself and with integers.
    x : array_like
        What was normalized.
    mean, rstd : array_like
        As `layer_norm` returns them with ``return_stats=True``: the shape of x without the normalized axes.
    weight : array_like, optional
        The scale that was applied, of the normalized shape; default: one.
    normalized_shape : int or tuple of int, optional
        Shape of the trailing axes that were normalized together. Default: the shape of `weight`, else the last axis.
    axis : int or tuple of int, optional
        The axes that were normalized, in place of trailing ones.
    where : array_like of bool, optional
        Which elements counted; broadcast to the shape of x. The others have a dx of 0 and add to no sum.
    out : ndarray, optional
        Where dx goes: the shape and result dtype of x; may be dy or x itself.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has. Exactly 0 where one element was normalized by itself. NaN
        and infinity make NaN of their own group only.
    dweight : ndarray or None
        Same shape and dtype as weight (float64 for integers); None without one.
    dbias : ndarray
        The normalized shape; the dtype of dweight, or of dx without a weight.

    Raises
    ------
    ValueError
        For shapes that do not match, an axis that x does not have or that is repeated, and an `out` that cannot be
        written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) or do not go together, and a mask
        that is not of bools.

    References
    ----------
    Ba, Kiros, Hinton, "Layer Normalization", arXiv:1607.06450 (2016), equations 3 and 4, differentiated.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1.0, 2.0, 4.0], [3.0, 3.0, 9.0]])
    >>> y, mean, rstd = fastnorm.layer_norm(x, return_stats=True)
    >>> dx, _, dbias = fastnorm.layer_norm_backward([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], x, mean, rstd)
    >>> dx.round(3)
    array([[ 0.229, -0.344,  0.115],
           [-0.   , -0.   ,  0.   ]])
    >>> dbias
    array([1., 0., 1.])
    """
    result = _ops.layer_norm_backward(dy, x, mean, rstd, weight, normalized_shape, axis, where, out)
    if result is not None:
        return result
    x, axes, scale, _ = _normalized(x, normalized_shape, weight, None, axis)
    dy = _arguments.goes_with("dy", dy, x)
    mean = _arguments.statistic("mean", mean, x, axes)
    rstd = _arguments.statistic("rstd", rstd, x, axes)
    where = _arguments.mask("where", where, x.shape)
    others = [("mean", mean), ("rstd", rstd), ("weight", scale), ("where", where)]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others, in_place=[("dy", dy)])
    dtype = _arguments.result_dtype(x if weight is None else np.asarray(weight))
    result = _ops.layer_norm_backward(dy, x, mean, rstd, scale, None, axes, where, into, dtype)
    return _arguments.as_given(result, out)


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
    r"""Gradients of an RMS norm with respect to x and weight.

    With ``g = dy * weight`` and ``xhat = x * rstd``, averages taken over each group of normalized elements and sums
    over the groups::

        dx = rstd * (g - xhat * average(g * xhat))
        dweight = sum(dy * xhat)

    Parameters
    ----------
    dy, x, weight, normalized_shape, axis, out
        As for `layer_norm_backward`.
    rstd : array_like
        As `rms_norm` returns it with ``return_stats=True``: the shape of x without the normalized axes.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has. NaN and infinity make NaN of their own group only.
    dweight : ndarray or None
        Same shape and dtype as weight (float64 for integers); None without one.

    Raises
    ------
    ValueError, TypeError
        As `layer_norm_backward`.

    References
    ----------
    Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467 (2019), equation 4, differentiated.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[3.0, 4.0]])
    >>> y, rstd = fastnorm.rms_norm(x, eps=0.0, return_stats=True)
    >>> dx, dweight = fastnorm.rms_norm_backward([[1.0, 0.0]], x, rstd, np.ones(2))
    >>> dx.round(4), dweight.round(4)
    (array([[ 0.181 , -0.1358]]), array([0.8485, 0.    ]))
    """
    result = _ops.rms_norm_backward(dy, x, rstd, weight, normalized_shape, axis, out)
    if result is not None:
        return result
    x, axes, scale, _ = _normalized(x, normalized_shape, weight, None, axis)
    dy = _arguments.goes_with("dy", dy, x)
    rstd = _arguments.statistic("rstd", rstd, x, axes)
    others = [("rstd", rstd), ("weight", scale)]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others, in_place=[("dy", dy)])
    dtype = _arguments.result_dtype(x if weight is None else np.asarray(weight))
    result = _ops.rms_norm_backward(dy, x, rstd, scale, None, axes, into, dtype)
    return _arguments.as_given(result, out)


def _normalized(x: Any, normalized_shape: Any, weight: Any, bias: Any, axis: Any) -> tuple[Any, Any, Any, Any]:
    """x, the axes to normalize, weight and bias in the form that the doors know."""
    x = _arguments.array("x", x)
    axes = _arguments.normalized_axes(x, normalized_shape, weight, axis)
    dtype = _arguments.compute_dtype(x)
    shape = tuple(x.shape[a] for a in axes)
    weight = _arguments.parameter("weight", weight, shape, dtype)
    return x, axes, weight, _arguments.parameter("bias", bias, shape, dtype)
