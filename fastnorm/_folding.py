"""A batch norm that no longer learns, folded into the layer before it: computed in float64 and rounded once."""

from typing import Any, cast

import numpy as np

from . import _arguments, _ops


def fold_batch_norm(
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    bn_weight: Any = None,
    bn_bias: Any = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Fold a batch norm in evaluation into the linear or convolution layer before it.

    With ``scale = bn_weight / sqrt(running_var + eps)``, a layer with the weight and bias ::

        weight * scale
        (bias - running_mean) * scale + bn_bias

    computes what the layer followed by the batch norm computes.

    Parameters
    ----------
    weight : array_like
        Weight of the layer; its `channel_axis` has one entry for each of C output channels.
    bias : array_like or None
        Bias of the layer, of shape (C,); None for a layer without one.
    running_mean, running_var : array_like
        What the batch norm learned, of shape (C,).
    bn_weight, bn_bias : array_like, optional
        Scale and shift of the batch norm, of shape (C,); default: one and zero.
    eps : float, default 1e-5
        What the batch norm adds to the variance; not negative.
    channel_axis : int, default 0
        Axis of the output channels in `weight`: 0 in ``torch.nn.Linear`` and ``torch.nn.Conv2d``, 1 in a transposed
        convolution without groups and in the matrix of ``x @ weight``.

    Returns
    -------
    weight, bias : ndarray
        New arrays of the shape of `weight` and of shape (C,), both of the dtype of `weight`; float64 for integers.

    Raises
    ------
    ValueError
        For shapes that do not match, an axis that `weight` does not have and a negative or NaN `eps`.
    TypeError
        For dtypes that are not supported (complex, longdouble, object, masked arrays) and statistics that are None.

    References
    ----------
    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
    arXiv:1712.05877 (2017), equation 14.

    Examples
    --------
    >>> import numpy as np, fastnorm
    >>> x, weight, bias = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([1.0, -1.0])
    >>> mean, var = np.array([2.0, 1.0]), np.array([4.0, 0.25])
    >>> folded, shift = fastnorm.fold_batch_norm(weight, bias, mean, var, eps=0.0)
    >>> x @ folded.T + shift
    array([[5., 0.]])
    >>> fastnorm.batch_norm(x @ weight.T + bias, mean, var, eps=0.0)
    array([[5., 0.]])
    """
    result = _ops.fold_batch_norm(weight, bias, running_mean, running_var, bn_weight, bn_bias, eps, channel_axis)
    if result is None:
        weight = _arguments.array("weight", weight)
        if weight.ndim < 2:
            raise ValueError(f"weight has shape {weight.shape}; expected an axis of outputs and one of inputs at least")
        axis = _arguments.channel_axis(channel_axis, weight)
        channels = weight.shape[axis]
        running_mean = _per_channel("running_mean", running_mean, channels)
        running_var = _per_channel("running_var", running_var, channels)
        bias = None if bias is None else _per_channel("bias", bias, channels)
        bn_weight = None if bn_weight is None else _per_channel("bn_weight", bn_weight, channels)
        bn_bias = None if bn_bias is None else _per_channel("bn_bias", bn_bias, channels)
        eps = _arguments.real("eps", eps, least=0)
        result = _ops.fold_batch_norm(weight, bias, running_mean, running_var, bn_weight, bn_bias, eps, axis)
    return cast("tuple[np.ndarray, np.ndarray]", result)


def _per_channel(name: str, value: Any, channels: int) -> np.ndarray:
    """`value` in float64, one for each channel."""
    found = _arguments.array(name, value)
    if found.shape != (channels,):
        raise ValueError(f"{name} has shape {found.shape}; expected ({channels},), one value for each output channel")
    return found.astype(np.float64)
