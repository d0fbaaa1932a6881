"""Norms over channels: batch norm, group norm, instance norm.

As in `functional`: the door first, `_arguments` for what the door does not know, and the door again.
"""

import math
from typing import Any

import numpy as np

from . import _arguments, _ops

_Running = list[tuple[str, np.ndarray | None]]  # mean and variance by the names that messages give them

__all__ = ["batch_norm", "group_norm", "instance_norm"]


def batch_norm(
    x: Any,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    activation: str | None = None,
    where: Any = None,
    nonfinite: str = "propagate",
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Batch normalization of each channel over samples and positions.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``. In training, mean and the variance with divisor n are those of
    the batch, by Welford's algorithm in blocked form, and the running statistics move towards them:
    ``running = (1 - momentum) * running + momentum * batch``, with the variance of divisor ``n - 1``. In evaluation the
    running statistics are applied, in one pass.

    Parameters
    ----------
    x : array_like
        Real array with an axis of C channels and another one at least: (N, C), (N, C, L), (N, C, H, W), or (N, C, D,
        H, W), or with the channels elsewhere. Floats keep their dtype (half precision is computed in float32); integers
        and booleans give float64.
    running_mean, running_var : ndarray, optional
        One number per channel, (C,), of a floating dtype. In training they are changed in place, after all else has
        succeeded; without them nothing is kept. In evaluation both are needed.
    weight, bias : array_like, optional
        Scale and shift of each channel, (C,).
    training : bool, default False
        Normalize by the statistics of the batch; otherwise by the running ones.
    momentum : float, default 0.1
        The share of the batch in the new running statistics.
    eps : float, default 1e-5
        Added to the variance; positive in training, not negative in evaluation.
    channel_axis : int, default 1
        The axis of the channels; -1 where they come last.
    activation : {None, "relu"}, default None
        Applied to the result in the same pass; NaN stays NaN.
    where : array_like of bool, optional
        Which elements count, broadcast to the shape of x: a padded batch is normalized as the unpadded one. The others
        are 0 in the result. Running statistics of a channel of which nothing counts stay as they are.
    nonfinite : {"propagate", "raise", "skip"}, default "propagate"
        What a batch with infinite or NaN statistics does in training: they enter the running statistics; or it is a
        ValueError, before anything is written (which costs a pass over x); or the batch is normalized and no running
        statistic changes.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return what `batch_norm_backward` needs.

    Returns
    -------
    y : ndarray
        Same shape as x, and in memory as x is. NaN and infinity make NaN of their own channel only, in evaluation of
        nothing else.
    mean, rstd : ndarray
        With `return_stats`: mean and reciprocal deviation that were applied, (C,); float32, float64 for float64
        results. NaN for an empty batch in training.

    Raises
    ------
    ValueError
        For shapes that do not match, an axis that x does not have, a negative or NaN `eps` (0 in training), one value
        per channel in training, statistics that are not finite where `nonfinite` is "raise", evaluation without running
        statistics, and an `out` that cannot be written or overlaps in part. Nothing is written then.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays), running statistics that cannot
        be changed in place, and a mask that is not of bools.

    References
    ----------
    Ioffe, Szegedy, "Batch Normalization", arXiv:1502.03167 (2015), algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> running_mean, running_var = np.zeros(2), np.ones(2)
    >>> fastnorm.batch_norm(x, running_mean, running_var, training=True).round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    >>> running_mean, running_var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    asked = (momentum, eps, channel_axis)
    if nonfinite == "propagate" and (activation is None or activation == "relu"):
        relu = activation is not None
        result = _ops.batch_norm(
            x, running_mean, running_var, weight, bias, training, *asked, relu, where, False, out, return_stats
        )
        if result is not None:
            return result
    x = _arguments.array("x", x)
    axis = _arguments.channel_axis(channel_axis, x)
    channels = x.shape[axis]
    weight, bias = _affine(x, channels, weight, bias)
    momentum = _arguments.real("momentum", momentum)
    eps = _arguments.real("eps", eps, least=0)
    _arguments.choice("activation", activation, (None, "relu"))
    _arguments.choice("nonfinite", nonfinite, ("propagate", "raise", "skip"))
    mask = _arguments.mask("where", where, x.shape)
    running = _running(running_mean, running_var, channels, needed=not training)
    others = [("weight", weight), ("bias", bias), ("where", mask), *running]
    into = _arguments.output(out, x, _arguments.result_dtype(x), others)
    if training and x.size:
        if eps == 0:
            raise ValueError("eps must be positive in training, got 0")
        _refuse_single_values(x, axis, mask)
    given = [None if value is None else _writable(value) for _, value in running]
    copied = any(copy is not value for copy, (_, value) in zip(given, running, strict=True))
    spoilt = ""
    if training and x.size and (nonfinite == "raise" or (nonfinite == "skip" and copied)):
        spoilt = _nonfinite(x, axis, mask, running)
        if spoilt and nonfinite == "raise":
            raise ValueError(f"x has {spoilt}, which nonfinite='raise' forbids")
    asked = (momentum, eps, axis)
    relu, skip = activation == "relu", nonfinite == "skip"
    result = _ops.batch_norm(
        x, given[0], given[1], weight, bias, training, *asked, relu, mask, skip, into, return_stats, True
    )
    _give_back(running, given, changed=bool(training) and not spoilt)
    return _arguments.as_given(result, out, return_stats)


def group_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Group normalization: of each sample, groups of neighbouring channels with all their positions.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with the mean and the variance (divisor n) of each group.

    Parameters
    ----------
    x : array_like
        Real array of N samples along its first axis, with an axis of C channels. Floats keep their dtype (half
        precision is computed in float32); integers and booleans give float64.
    num_groups : int
        G, which divides C.
    weight, bias : array_like, optional
        Scale and shift of each channel, (C,).
    eps : float, default 1e-5
        Added to the variance; not negative.
    channel_axis : int, default 1
        The axis of the channels; -1 where they come last.
    out : ndarray, optional
        Where the result goes: the shape of x and the dtype of the result; may be x itself.
    return_stats : bool, default False
        Also return what `group_norm_backward` needs.

    Returns
    -------
    y : ndarray
        Same shape as x, and in memory as x is. NaN and infinity make NaN of their own group only.
    mean, rstd : ndarray
        With `return_stats`: (N, G); float32, float64 for float64 results.

    Raises
    ------
    ValueError
        For shapes that do not match, a number of groups that does not divide C, an axis that x does not have, a
        negative or NaN `eps`, a single value in each group of a single sample, and an `out` that cannot be written or
        overlaps in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays).

    References
    ----------
    Wu, He, "Group Normalization", arXiv:1803.08494 (2018), equations 1, 2 and 7.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> fastnorm.group_norm(x, 2).round(3)
    array([[-1.,  1., -1.,  1.]])
    """
    result = _ops.group_norm(x, num_groups, weight, bias, eps, channel_axis, out, return_stats)
    if result is not None:
        return result
    x = _arguments.array("x", x)
    axis = _arguments.channel_axis(channel_axis, x, samples=True)
    groups = _arguments.groups(num_groups, x.shape[axis])
    weight, bias = _affine(x, x.shape[axis], weight, bias)
    eps = _arguments.real("eps", eps, least=0)
    into = _arguments.output(out, x, _arguments.result_dtype(x), [("weight", weight), ("bias", bias)])
    if x.size == groups:
        raise ValueError(f"x has shape {x.shape}; expected more than one value in {groups} groups of a single sample")
    result = _ops.group_norm(x, groups, weight, bias, eps, axis, into, return_stats, True)
    return _arguments.as_given(result, out, return_stats)


def instance_norm(
    x: Any,
    running_mean: np.ndarray | None = None,
    running_var: np.ndarray | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    out: np.ndarray | None = None,
    return_stats: bool = False,
) -> Any:
    r"""Instance normalization: of each sample, each channel over its positions.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with the mean and the variance (divisor n) of each channel of
    each sample. Running statistics, where given, move towards the averages of these over the samples (variances with
    divisor ``n - 1``), as in `batch_norm`; with ``use_input_stats=False`` they are applied instead.

    Parameters
    ----------
    x : array_like
        Real array of N samples along its first axis, with an axis of C channels. Floats keep their dtype (half
        precision is computed in float32); integers and booleans give float64.
    running_mean, running_var, weight, bias, momentum, eps, channel_axis, out
        As for `batch_norm`; `eps` may be 0.
    use_input_stats : bool, default True
        Normalize by the statistics of x; otherwise by the running ones.
    return_stats : bool, default False
        Also return what `instance_norm_backward` needs.

    Returns
    -------
    y : ndarray
        Same shape as x, and in memory as x is. NaN and infinity make NaN of their own channel and sample only.
    mean, rstd : ndarray
        With `return_stats`: (N, C), or (C,) with ``use_input_stats=False``; float32, float64 for float64 results.

    Raises
    ------
    ValueError
        For shapes that do not match, an axis that x does not have, a negative or NaN `eps`, one position per channel
        with ``use_input_stats=True``, no running statistics without it, and an `out` that cannot be written or overlaps
        in part.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays), and running statistics that
        cannot be changed in place.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance Normalization", arXiv:1607.08022 (2016), equation 4.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> fastnorm.instance_norm(np.array([[[1.0, 3.0], [10.0, 30.0]]])).round(3)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    if not use_input_stats:
        x = _arguments.array("x", x)
        axis = _arguments.channel_axis(channel_axis, x, samples=True)
        return batch_norm(
            x,
            running_mean,
            running_var,
            weight,
            bias,
            False,
            momentum,
            eps,
            channel_axis=axis,
            out=out,
            return_stats=return_stats,
        )
    result = _ops.instance_norm(
        x, running_mean, running_var, weight, bias, momentum, eps, channel_axis, out, return_stats
    )
    if result is not None:
        return result
    x = _arguments.array("x", x)
    axis = _arguments.channel_axis(channel_axis, x, samples=True)
    channels = x.shape[axis]
    weight, bias = _affine(x, channels, weight, bias)
    momentum = _arguments.real("momentum", momentum)
    eps = _arguments.real("eps", eps, least=0)
    running = _running(running_mean, running_var, channels, needed=False)
    into = _arguments.output(out, x, _arguments.result_dtype(x), [("weight", weight), ("bias", bias), *running])
    if x.size and x.size == x.shape[0] * channels:
        raise ValueError(f"x has shape {x.shape}; expected more than one position per channel")
    given = [None if value is None else _writable(value) for _, value in running]
    result = _ops.instance_norm(x, given[0], given[1], weight, bias, momentum, eps, axis, into, return_stats, True)
    _give_back(running, given, changed=True)
    return _arguments.as_given(result, out, return_stats)


def _affine(x: np.ndarray, channels: int, weight: Any, bias: Any) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Weight and bias in the form that the doors know."""
    dtype = _arguments.compute_dtype(x)
    return (
        _arguments.per_channel("weight", weight, channels, dtype),
        _arguments.per_channel("bias", bias, channels, dtype),
    )


def _running(mean: Any, var: Any, channels: int, *, needed: bool) -> _Running:
    """Running statistics by name, found fit to be read and changed."""
    if (mean is None) != (var is None):
        raise ValueError("running_mean and running_var must be given together, got one of them")
    if mean is None:
        if needed:
            raise ValueError("running_mean and running_var are needed to normalize by them, got None")
        return [("running_mean", None), ("running_var", None)]
    mean = _arguments.running("running_mean", mean, channels, changed=not needed)
    var = _arguments.running("running_var", var, channels, changed=not needed)
    if _arguments.may_share(mean, var):
        raise ValueError("running_mean overlaps running_var; expected separate memory")
    return [("running_mean", mean), ("running_var", var)]


def _writable(value: np.ndarray) -> np.ndarray:
    """The array itself if the door can change it where it is, else a float64 copy."""
    plain = type(value) is np.ndarray and value.dtype in (np.float32, np.float64) and value.dtype.isnative
    if plain and value.flags.carray:
        return value
    return np.array(value, np.float64, subok=False)


def _give_back(running: _Running, given: list[np.ndarray | None], *, changed: bool) -> None:
    """Copies that were given to the door, and changed there, return to the caller's arrays."""
    for (_, value), copy in zip(running, given, strict=True):
        if changed and value is not None and copy is not None and copy is not value:
            with np.errstate(over="ignore"):
                value[...] = copy


def _counts(x: np.ndarray, axis: int, mask: np.ndarray | None) -> np.ndarray:
    """How many values of each channel count."""
    others = tuple(a for a in range(x.ndim) if a != axis)
    channels = x.shape[axis]
    if mask is None:
        return np.full(channels, x.size // channels)
    repeated = tuple(a for a in others if mask.strides[a] == 0)
    once = mask[tuple(slice(0, 1) if a in repeated else slice(None) for a in range(x.ndim))]
    counts: np.ndarray = once.sum(others, dtype=np.int64) * math.prod(x.shape[a] for a in repeated)
    return counts


def _refuse_single_values(x: np.ndarray, axis: int, mask: np.ndarray | None) -> None:
    """Refuse a batch that has a single value of a channel: it has no variance."""
    for channel in np.flatnonzero(_counts(x, axis, mask) == 1)[:1]:
        counted = "where leaves one value" if mask is not None else f"x has shape {x.shape}, one value"
        raise ValueError(f"{counted} of channel {channel}; expected more than one value per channel in training")


def _nonfinite(x: np.ndarray, axis: int, mask: np.ndarray | None, running: _Running) -> str:
    """Which statistic of the batch is not finite, or would not be as a running statistic; empty: none."""
    others = tuple(a for a in range(x.ndim) if a != axis)
    statistics = _ops.mean_var(x, others, 1, False, np.dtype(np.float64), True, True, False, mask)
    counted = _counts(x, axis, mask) > 0
    for (name, stored), found in zip(running, statistics, strict=True):
        with np.errstate(over="ignore"):
            as_stored = found if stored is None else found.astype(stored.dtype).astype(np.float64)
        for channel in np.flatnonzero(~np.isfinite(as_stored) & counted)[:1]:
            kind = name.removeprefix("running_")
            return f"a batch {kind} of {as_stored[channel]} in channel {channel}"
    return ""
