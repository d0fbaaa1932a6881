"""Backward passes of the norms over channels: thin shape adapters, re-exported by `functional`."""

from typing import Any

import numpy as np

from . import _arguments, _ops


def batch_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any = None,
    *,
    training: bool = True,
    channel_axis: int = 1,
    activation: Any = None,
    y: Any = None,
    where: Any = None,
    out: np.ndarray | None = None,
) -> Any:
    r"""Gradients of a batch norm with respect to x, weight and bias.

    With ``xhat = (x - mean) * rstd``, averages and sums taken over each channel::

        dx = weight * rstd * (dy - average(dy) - xhat * average(dy * xhat))
        dweight = sum(dy * xhat)
        dbias = sum(dy)

    In evaluation the statistics do not depend on x, and ``dx = weight * rstd * dy``. Before a ReLU, dy counts only
    where y is positive (or NaN). What rounding left in the saved mean of a batch is found again from ``x - mean``, so
    dx is right at any offset. Sums go to float64 and are rounded once; they do not depend on the number of threads.

    Parameters
    ----------
    dy : array_like
        Gradient with respect to the result, of the shape of x. float16, bfloat16 and float32 go with each other, and
        float64 with itself and with integers.
    x : array_like
        What was normalized: samples, channels and any other axes, at least two in all.
    mean, rstd : array_like
        As `batch_norm` returns them with ``return_stats=True``: one number per channel.
    weight : array_like, optional
        The scale that was applied, one number per channel; default: one.
    training : bool, default True
        Whether mean and rstd are those of x; otherwise they were given.
    channel_axis : int, default 1
        The axis of x along which channels lie.
    activation : {"relu"}, optional
        What was applied to the result.
    y : array_like, optional
        The result, which `activation` asks for: the shape of x.
    where : array_like of bool, optional
        Which elements counted; broadcast to the shape of x. The others have a dx of 0 and add to no sum.
    out : ndarray, optional
        Where dx goes: the shape and result dtype of x; may be dy or x itself.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has. NaN and infinity make NaN of their own channel only, and
        in evaluation of their own element.
    dweight : ndarray or None
        Same shape and dtype as weight (float64 for integers); None without one.
    dbias : ndarray
        One number per channel; the dtype of dweight, or of dx without a weight.

    Raises
    ------
    ValueError
        For shapes that do not match, an axis that x does not have, an activation that is not known or has no y, and an
        `out` that cannot be written or overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) or do not go together, and a mask
        that is not of bools.

    References
    ----------
    Ioffe, Szegedy, "Batch Normalization", arXiv:1502.03167 (2015), section 3.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 8.0]])
    >>> mean, var = fastnorm.mean_var(x, 0)
    >>> dx, _, dbias = fastnorm.batch_norm_backward([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], x, mean, 1 / np.sqrt(var))
    >>> dx.round(3)
    array([[ 0.176, -0.   ],
           [-0.22 , -0.   ],
           [ 0.044,  0.   ]])
    >>> dbias
    array([1., 1.])
    """
    result = _ops.batch_norm_backward(dy, x, mean, rstd, weight, training, channel_axis, activation, y, where, out)
    if result is not None:
        return result
    x, dy, axis = _channels(x, dy, channel_axis)
    shape = (x.shape[axis],)
    mean, rstd, weight, dtype = _parameters(x, axis, shape, "one number per channel,", mean, rstd, weight)
    _arguments.choice("activation", activation, (None, "relu"))
    if activation is not None:
        if y is None:
            raise ValueError("y is None; expected the result, which activation='relu' asks for")
        y = _arguments.goes_with("y", y, x)
    where = _arguments.mask("where", where, x.shape)
    others = [("mean", mean), ("rstd", rstd), ("weight", weight), ("y", y), ("where", where)]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others, in_place=[("dy", dy)])
    result = _ops.batch_norm_backward(dy, x, mean, rstd, weight, training, axis, activation, y, where, into, dtype)
    return _arguments.as_given(result, out)


def group_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    num_groups: int,
    weight: Any = None,
    *,
    channel_axis: int = 1,
    out: np.ndarray | None = None,
) -> Any:
    r"""Gradients of a group norm with respect to x, weight and bias.

    With ``g = dy * weight`` and ``xhat = (x - mean) * rstd``, averages taken over each group of channels of a sample,
    sums over all that a channel has in the samples::

        dx = rstd * (g - average(g) - xhat * average(g * xhat))
        dweight = sum(dy * xhat)
        dbias = sum(dy)

    Parameters
    ----------
    dy, x, weight, out
        As for `batch_norm_backward`; samples lie along the first axis of x.
    mean, rstd : array_like
        As `group_norm` returns them with ``return_stats=True``: of shape (samples, groups).
    num_groups : int
        How many groups of neighbouring channels there are.
    channel_axis : int, default 1
        The axis of x along which channels lie; not the first.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has. NaN and infinity make NaN of their own group only.
    dweight : ndarray or None
        Same shape and dtype as weight (float64 for integers); None without one.
    dbias : ndarray
        One number per channel; the dtype of dweight, or of dx without a weight.

    Raises
    ------
    ValueError, TypeError
        As `batch_norm_backward`; and for a number of groups that does not divide that of channels.

    References
    ----------
    Wu, He, "Group Normalization", arXiv:1803.08494 (2018), equations 2 and 7, differentiated.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1.0, 2.0, 4.0, 8.0]])
    >>> mean, var = fastnorm.mean_var(x.reshape(1, 2, 2), 2)
    >>> dy = np.array([[1.0, 0.0, 0.0, 2.0]])
    >>> dx, dweight, dbias = fastnorm.group_norm_backward(dy, x, mean, 1 / np.sqrt(var + 0.75), 2, np.ones(4))
    >>> dx.round(3)
    array([[ 0.375, -0.375, -0.072,  0.072]])
    >>> dweight.round(3), dbias
    (array([-0.5  ,  0.   ,  0.   ,  1.835]), array([1., 0., 0., 2.]))
    """
    result = _ops.group_norm_backward(dy, x, mean, rstd, num_groups, weight, channel_axis, out)
    if result is not None:
        return result
    x, dy, axis = _channels(x, dy, channel_axis, samples=True)
    groups = _arguments.groups(num_groups, x.shape[axis])
    shape = (x.shape[0], groups)
    mean, rstd, weight, dtype = _parameters(x, axis, shape, "(samples, groups),", mean, rstd, weight)
    others = [("mean", mean), ("rstd", rstd), ("weight", weight)]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others, in_place=[("dy", dy)])
    result = _ops.group_norm_backward(dy, x, mean, rstd, groups, weight, axis, into, dtype)
    if result is None:
        result = _small_groups(dy, x, mean, rstd, weight, axis, into, dtype)
    return _arguments.as_given(result, out)


def instance_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    weight: Any = None,
    *,
    use_input_stats: bool = True,
    channel_axis: int = 1,
    out: np.ndarray | None = None,
) -> Any:
    r"""Gradients of an instance norm with respect to x, weight and bias.

    As for a batch norm, with averages over each channel of each sample and sums over all of a channel.

    Parameters
    ----------
    dy, x, weight, out
        As for `batch_norm_backward`; samples lie along the first axis of x.
    mean, rstd : array_like
        As `instance_norm` returns them with ``return_stats=True``: of shape (samples, channels), or with
        ``use_input_stats=False`` one number per channel.
    use_input_stats : bool, default True
        Whether mean and rstd are those of x; otherwise they were given, and ``dx = weight * rstd * dy``.
    channel_axis : int, default 1
        The axis of x along which channels lie; not the first.

    Returns
    -------
    dx : ndarray
        Same shape as x, and the dtype that the norm of x has. NaN and infinity make NaN of their own channel and sample
        only.
    dweight : ndarray or None
        Same shape and dtype as weight (float64 for integers); None without one.
    dbias : ndarray
        One number per channel; the dtype of dweight, or of dx without a weight.

    Raises
    ------
    ValueError, TypeError
        As `batch_norm_backward`.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance Normalization", arXiv:1607.08022 (2016), equation 4, differentiated.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[[1.0, 2.0, 6.0], [5.0, 5.0, 8.0]]])
    >>> mean, var = fastnorm.mean_var(x, 2)
    >>> dy = np.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    >>> dx, _, dbias = fastnorm.instance_norm_backward(dy, x, mean, 1 / np.sqrt(var + 1e-5))
    >>> dx.round(3)
    array([[[ 0.176, -0.22 ,  0.044],
            [-0.   , -0.   ,  0.   ]]])
    >>> dbias
    array([1., 1.])
    """
    result = _ops.instance_norm_backward(dy, x, mean, rstd, weight, use_input_stats, channel_axis, out)
    if result is not None:
        return result
    x, dy, axis = _channels(x, dy, channel_axis, samples=True)
    shape: tuple[int, ...]
    if use_input_stats:
        shape, what = (x.shape[0], x.shape[axis]), "(samples, channels),"
    else:
        shape, what = (x.shape[axis],), "one number per channel,"
    mean, rstd, weight, dtype = _parameters(x, axis, shape, what, mean, rstd, weight)
    others = [("mean", mean), ("rstd", rstd), ("weight", weight)]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others, in_place=[("dy", dy)])
    result = _ops.instance_norm_backward(dy, x, mean, rstd, weight, use_input_stats, axis, into, dtype)
    return _arguments.as_given(result, out)


def _channels(x: Any, dy: Any, channel_axis: Any, *, samples: bool = False) -> tuple[np.ndarray, np.ndarray, int]:
    """x, dy and the channel axis in the form that the doors know."""
    x = _arguments.array("x", x)
    axis = _arguments.channel_axis(channel_axis, x, samples=samples)
    return x, _arguments.goes_with("dy", dy, x), axis


def _parameters(
    x: np.ndarray, axis: int, shape: tuple[int, ...], what: str, mean: Any, rstd: Any, weight: Any
) -> tuple[Any, Any, Any, np.dtype]:
    """Saved statistics of a shape and weight in the form that the doors know; the dtype of the gradient of weight."""
    dtype = _arguments.compute_dtype(x)
    mean, rstd = (
        _arguments.parameter(name, _arguments.array(name, value), shape, dtype, what)
        for name, value in (("mean", mean), ("rstd", rstd))
    )
    gradient = _arguments.result_dtype(x if weight is None else _arguments.array("weight", weight))
    return mean, rstd, _arguments.per_channel("weight", weight, x.shape[axis], dtype), gradient


def _small_groups(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    rstd: np.ndarray,
    weight: np.ndarray | None,
    axis: int,
    out: np.ndarray | None,
    dtype: np.dtype,
) -> tuple[Any, Any, Any]:
    """Gradients of groups of few elements per channel: a layer norm for each of the groups."""
    dx = np.empty(x.shape, _arguments.result_dtype(x)) if out is None else out
    groups = mean.shape[1]
    size = x.shape[axis] // groups
    axes = tuple(range(1, x.ndim))
    shape = tuple(size if a == axis else x.shape[a] for a in axes)
    along = tuple(size if a == axis else 1 for a in axes)
    positions = x.size // max(1, x.shape[0] * x.shape[axis])
    dweight, dbias = np.zeros((2, x.shape[axis], positions))  # of every position, until all are summed
    with np.errstate(all="ignore"):
        for g in range(groups):
            channels = slice(g * size, (g + 1) * size)
            part = (slice(None),) * axis + (channels,)
            scale = None
            if weight is not None:
                scale = np.ascontiguousarray(np.broadcast_to(weight[channels].reshape(along), shape))
            statistics = np.ascontiguousarray(mean[:, g]), np.ascontiguousarray(rstd[:, g])
            result = _ops.layer_norm_backward(
                dy[part], x[part], *statistics, scale, None, axes, None, dx[part], np.dtype(np.float64)
            )
            if scale is not None:
                dweight[channels] = np.moveaxis(result[1], axis - 1, 0).reshape(size, -1)
            dbias[channels] = np.moveaxis(result[2], axis - 1, 0).reshape(size, -1)
    return dx, None if weight is None else _ops.sum_positions(dweight, dtype), _ops.sum_positions(dbias, dtype)
