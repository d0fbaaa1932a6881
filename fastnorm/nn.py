"""Layers: the norms of `functional` with parameters, running statistics and gradients, as `torch.nn` has them.

Constructors, defaults, keys of `state_dict`, `repr` and what is counted or averaged in training are PyTorch's, so that
a model written for its layers runs on arrays, and checkpoints go both ways.

- `weight`, `bias`, `running_mean`, `running_var` and `num_batches_tracked` are arrays of the layer, None where it has
  none. `parameters()` and `state_dict()` give these arrays, not copies: an optimizer updates them in place, and
  `load_state_dict` copies into them.
- `backward(dy)` differentiates the latest forward pass, in the mode that it ran in, and puts the gradients of the
  parameters into `grads`. For that the layer keeps references, not copies, to its latest x and mask (and y, with an
  activation) until the next forward pass: do not change them before `backward`. Copies and pickles have neither these
  nor `grads`.
- Arguments that PyTorch does not have: `channel_axis`; for batch norm `activation`, `nonfinite` and the mask `where` of
  a forward pass; `where` for layer norm. `dtype` is that of the layer's arrays; y and dx have the dtype of x.
- Stricter than PyTorch: x must have as many channels as the constructor says, even where no array depends on it; a
  refused call or checkpoint changes nothing; a batch that is empty, masked out or skipped is not counted.
"""

from typing import Any

import numpy as np

from . import _arguments, functional
from ._layers import Layer, number

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "RMSNorm",
]

_Pass = tuple[Any, tuple[Any, ...], dict[str, Any]]  # y, and for the backward pass arrays and keyword arguments


class _RunningNorm(Layer):
    """What batch and instance norm share: most arguments, and how many dimensions x may have."""

    _shown = ("num_features", "eps", "momentum", "affine", "bias", "track_running_stats")
    _dims: tuple[int, ...]

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track: bool, axis: int, **kinds: Any
    ) -> None:
        self.num_features = _arguments.integer("num_features", num_features, least=0)
        self.eps = number("eps", eps, 0)
        self.momentum = None if momentum is None else number("momentum", momentum)
        self.affine, self.track_running_stats = affine, track
        self.channel_axis = _arguments.integer("channel_axis", axis)
        super().__init__(self.num_features, **kinds, weight=affine, running=track)


class _BatchNorm(_RunningNorm):
    _differentiate = staticmethod(functional.batch_norm_backward)
    _takes_mask = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
        channel_axis: int = 1,
        nonfinite: str = "propagate",
        activation: str | None = None,
    ) -> None:
        _arguments.choice("nonfinite", nonfinite, ("propagate", "raise", "skip"))
        _arguments.choice("activation", activation, (None, "relu"))
        self.nonfinite, self.activation = nonfinite, activation
        super().__init__(num_features, eps, momentum, affine, track_running_stats, channel_axis, bias=bias, dtype=dtype)

    def _normalize(self, x: np.ndarray, where: Any = None) -> _Pass:
        self._expect(x, self.num_features, self._dims)
        of_batch = self.training or self.running_mean is None  # the statistics that normalize
        count = self.num_batches_tracked if self.training and self.track_running_stats else None
        running = (None, None) if of_batch and count is None else (self.running_mean, self.running_var)
        momentum = self.momentum
        if momentum is None:  # the average of all batches
            momentum = 0.0 if count is None else 1 / (int(count) + 1)
        options = {"channel_axis": self.channel_axis, "activation": self.activation, "where": where}
        arguments = *running, self.weight, self.bias, of_batch, momentum, self.eps
        before = [array.tobytes() for array in running if array is not None]
        y, *statistics = functional.batch_norm(x, *arguments, nonfinite=self.nonfinite, return_stats=True, **options)
        moved = before != [array.tobytes() for array in running if array is not None]
        if count is not None and (moved or self._admits(x, where)):
            count += 1
        return y, (x, *statistics), options | {"training": of_batch, "y": None if self.activation is None else y}

    def _admits(self, x: np.ndarray, where: Any) -> bool:
        """Whether a batch that moved no running statistic agrees with them; else it was empty, masked or skipped."""
        if where is None and self.nonfinite != "skip":
            return x.size > 0
        mean, var = np.zeros(self.num_features, self.dtype), np.full(self.num_features, -1, self.dtype)
        options = {"channel_axis": self.channel_axis, "where": where, "nonfinite": self.nonfinite}
        functional.batch_norm(x, mean, var, training=True, momentum=1, eps=self.eps, **options)
        return bool((var != -1).any())  # the variances of a batch have replaced these


class BatchNorm1d(_BatchNorm):
    r"""Batch normalization of (N, C) or (N, C, L).

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, for each channel with the statistics of the batch in training,
    and with the running ones in evaluation. Training moves these by ``running += momentum * (batch - running)``, with
    the unbiased variance of the batch.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        The weight of the latest batch in the running statistics; None for the average of all batches.
    affine : bool, default True
        Whether there are a weight and a bias to train.
    track_running_stats : bool, default True
        Whether there are running statistics. Without, those of the batch are used in evaluation, too.
    bias : bool, default True
        Whether there is a bias with the weight.
    dtype : dtype, default float32
        Of parameters and running statistics: float16, bfloat16, float32 or float64.
    channel_axis : int, default 1
        The axis of channels in x, counted from either end: -1 for channels last.
    nonfinite : {"propagate", "raise", "skip"}, default "propagate"
        A training batch with NaN or infinity in its statistics makes NaN of the running ones, or is a ValueError, or is
        normalized and leaves the running statistics and `num_batches_tracked` as they are.
    activation : {None, "relu"}, default None
        Applied to y in the same pass.

    References
    ----------
    Ioffe, Szegedy, "Batch Normalization", arXiv:1502.03167 (2015), algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> layer = nn.BatchNorm1d(2)
    >>> y = layer(np.array([[1, 10], [3, 30]], dtype=np.float32))
    >>> y.round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> dx = layer.backward(np.ones((2, 2), np.float32))
    >>> layer.grads["bias"]
    array([2., 2.], dtype=float32)
    >>> layer.running_mean
    array([0.2, 2. ], dtype=float32)
    """

    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of (N, C, H, W), or of (N, H, W, C) with ``channel_axis=-1``.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, dtype, channel_axis, nonfinite, activation
        As for `BatchNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> layer = nn.BatchNorm2d(3, channel_axis=-1, activation="relu")
    >>> layer(np.zeros((2, 5, 5, 3), np.float32)).shape
    (2, 5, 5, 3)
    """

    _dims = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalization of (N, C, D, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, dtype, channel_axis, nonfinite, activation
        As for `BatchNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.BatchNorm3d(3).eval()(np.zeros((2, 3, 4, 5, 6), np.float32)).shape
    (2, 3, 4, 5, 6)
    """

    _dims = (5,)


class _InstanceNorm(_RunningNorm):
    _by_sample = True

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
        channel_axis: int = 1,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, channel_axis, bias=bias, dtype=dtype)

    def _normalize(self, x: np.ndarray) -> _Pass:
        single = x.ndim == self._dims[0]
        self._expect(x, self.num_features, self._dims, single=single)
        batch = x[np.newaxis] if single else x
        of_input = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        arguments = self.running_mean, self.running_var, self.weight, self.bias, of_input, momentum, self.eps
        options: dict[str, Any] = {"channel_axis": self.channel_axis}
        y, *statistics = functional.instance_norm(batch, *arguments, return_stats=True, **options)
        options |= {"use_input_stats": of_input, "single": single}
        return y[0] if single else y, (batch, *statistics), options

    @staticmethod
    def _differentiate(dy: np.ndarray, *arrays: Any, single: bool, **options: Any) -> Any:
        if not single:
            return functional.instance_norm_backward(dy, *arrays, **options)
        dx, *gradients = functional.instance_norm_backward(dy[np.newaxis], *arrays, **options)
        return dx[0], *gradients


class InstanceNorm1d(_InstanceNorm):
    r"""Instance normalization of (N, C, L), or of one sample (C, L).

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the statistics of each channel of each sample.

    Parameters
    ----------
    num_features : int
        C, the number of channels.
    eps : float, default 1e-5
        Added to the variance.
    momentum : float or None, default 0.1
        The weight of the latest batch in the running statistics; None leaves them alone, as in PyTorch.
    affine : bool, default False
        Whether there are a weight and a bias to train.
    track_running_stats : bool, default False
        Whether there are running statistics, averages over the samples, with which evaluation normalizes. As in
        PyTorch, `num_batches_tracked` stays 0.
    bias : bool, default True
        Whether there is a bias with the weight.
    dtype : dtype, default float32
        Of parameters and running statistics: float16, bfloat16, float32 or float64.
    channel_axis : int, default 1
        The axis of channels in (N, C, L), counted from either end: -1 for channels last. It is not the first.

    References
    ----------
    Ulyanov, Vedaldi, Lempitsky, "Instance Normalization", arXiv:1607.08022 (2016).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.InstanceNorm1d(2)(np.array([[1, 3], [30, 10]], dtype=np.float32)).round(3)
    array([[-1.,  1.],
           [ 1., -1.]], dtype=float32)
    """

    _dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Instance normalization of (N, C, H, W), or of one sample (C, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, dtype, channel_axis
        As for `InstanceNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.InstanceNorm2d(3, channel_axis=-1)(np.zeros((2, 5, 5, 3), np.float32)).shape
    (2, 5, 5, 3)
    """

    _dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Instance normalization of (N, C, D, H, W), or of one sample (C, D, H, W).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, bias, dtype, channel_axis
        As for `InstanceNorm1d`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.InstanceNorm3d(3)(np.zeros((3, 4, 5, 6), np.float32)).shape
    (3, 4, 5, 6)
    """

    _dims = (4, 5)


class GroupNorm(Layer):
    r"""Group normalization of (N, C, ...).

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the statistics of each group of neighbouring channels of
    each sample, and a weight and a bias for each channel.

    Parameters
    ----------
    num_groups : int
        Number of groups; it divides the number of channels.
    num_channels : int
        C, the number of channels.
    eps : float, default 1e-5
        Added to the variance.
    affine : bool, default True
        Whether there are a weight and a bias to train.
    bias : bool, default True
        Whether there is a bias with the weight.
    dtype : dtype, default float32
        Of the parameters: float16, bfloat16, float32 or float64.
    channel_axis : int, default 1
        The axis of channels in x, counted from either end: -1 for channels last. It is not the first.

    References
    ----------
    Wu, He, "Group Normalization", arXiv:1803.08494 (2018).

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.GroupNorm(2, 4)(np.array([[1, 3, 30, 10]], dtype=np.float32)).round(3)
    array([[-1.,  1.,  1., -1.]], dtype=float32)
    """

    _differentiate = staticmethod(functional.group_norm_backward)
    _by_sample = True
    _shown = ("num_groups", "num_channels", "eps", "affine", "bias")
    _positional = 2

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype: Any = np.float32,
        channel_axis: int = 1,
    ) -> None:
        self.num_groups = _arguments.integer("num_groups", num_groups, least=1)
        self.num_channels = _arguments.integer("num_channels", num_channels, least=0)
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})")
        self.eps = number("eps", eps, 0)
        self.affine = affine
        self.channel_axis = _arguments.integer("channel_axis", channel_axis)
        super().__init__(self.num_channels, dtype, weight=affine, bias=bias)

    def _normalize(self, x: np.ndarray) -> _Pass:
        self._expect(x, self.num_channels)
        arguments = self.num_groups, self.weight, self.bias, self.eps
        options: dict[str, Any] = {"channel_axis": self.channel_axis}
        y, *statistics = functional.group_norm(x, *arguments, return_stats=True, **options)
        return y, (x, *statistics, self.num_groups), options


class LayerNorm(Layer):
    r"""Layer normalization over the last axes.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias``, with the statistics of the elements of the trailing axes, and
    a weight and a bias for each of them.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Shape of the trailing axes that are normalized together.
    eps : float, default 1e-5
        Added to the variance.
    elementwise_affine : bool, default True
        Whether there are a weight and a bias to train.
    bias : bool, default True
        Whether there is a bias with the weight.
    dtype : dtype, default float32
        Of the parameters: float16, bfloat16, float32 or float64.

    References
    ----------
    Ba, Kiros, Hinton, "Layer Normalization", arXiv:1607.06450 (2016), equations 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> layer = nn.LayerNorm(2)
    >>> layer(np.array([[1, 3], [30, 10]], dtype=np.float32)).round(3)
    array([[-1.,  1.],
           [ 1., -1.]], dtype=float32)
    >>> layer
    LayerNorm((2,), eps=1e-05, elementwise_affine=True, bias=True)
    """

    _differentiate = staticmethod(functional.layer_norm_backward)
    _takes_mask = True
    _shown = ("normalized_shape", "eps", "elementwise_affine", "bias")

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        self.normalized_shape = _arguments.sizes("normalized_shape", normalized_shape)
        self.eps = number("eps", eps, 0)
        self.elementwise_affine = elementwise_affine
        super().__init__(self.normalized_shape, dtype, weight=elementwise_affine, bias=bias)

    def _normalize(self, x: np.ndarray, where: Any = None) -> _Pass:
        arguments = self.normalized_shape, self.weight, self.bias, self.eps
        y, *statistics = functional.layer_norm(x, *arguments, where=where, return_stats=True)
        return y, (x, *statistics), {"normalized_shape": self.normalized_shape, "where": where}


class RMSNorm(Layer):
    r"""Root mean square normalization over the last axes.

    ``y = x / sqrt(mean(x**2) + eps) * weight``, with the mean square of the elements of the trailing axes.

    Parameters
    ----------
    normalized_shape : int or tuple of int
        Shape of the trailing axes that are normalized together.
    eps : float or None, default None
        Added to the mean square; None for the machine epsilon of float32, of float64 for float64 x.
    elementwise_affine : bool, default True
        Whether there is a weight to train.
    dtype : dtype, default float32
        Of the weight: float16, bfloat16, float32 or float64.

    References
    ----------
    Zhang, Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467 (2019), equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.RMSNorm(4)(np.array([[3, -4, 0, 0]], dtype=np.float32)).round(3)
    array([[ 1.2, -1.6,  0. ,  0. ]], dtype=float32)
    """

    _differentiate = staticmethod(functional.rms_norm_backward)
    _shown = ("normalized_shape", "eps", "elementwise_affine")

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: Any = np.float32,
    ) -> None:
        self.normalized_shape = _arguments.sizes("normalized_shape", normalized_shape)
        self.eps = None if eps is None else number("eps", eps, 0)
        self.elementwise_affine = elementwise_affine
        super().__init__(self.normalized_shape, dtype, weight=elementwise_affine)

    def _normalize(self, x: np.ndarray) -> _Pass:
        y, rstd = functional.rms_norm(x, self.normalized_shape, self.weight, self.eps, return_stats=True)
        return y, (x, rstd), {"normalized_shape": self.normalized_shape}


class LocalResponseNorm(Layer):
    r"""Local response normalization of (N, C, ...) across neighbouring channels.

    ``y = x / (k + alpha * mean(x**2)) ** beta``, with the mean over a window of `size` channels, zeros beyond the ends.

    Parameters
    ----------
    size : int
        Number of channels in the window.
    alpha : float, default 1e-4
        Factor of the mean square.
    beta : float, default 0.75
        Exponent.
    k : float, default 1.0
        Added to the mean square.

    References
    ----------
    Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012),
    section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnorm import nn
    >>> nn.LocalResponseNorm(2, alpha=2.0, beta=0.5)(np.ones((1, 3, 1), np.float32)).ravel().round(3)
    array([0.707, 0.577, 0.577], dtype=float32)
    """

    _shown = ("size", "alpha", "beta", "k")

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size = _arguments.integer("size", size, least=1)
        self.alpha, self.beta, self.k = number("alpha", alpha), number("beta", beta), number("k", k)
        super().__init__()

    def _normalize(self, x: np.ndarray) -> _Pass:
        options = {name: getattr(self, name) for name in self._shown}
        return functional.local_response_norm(x, **options), (x,), options

    @staticmethod
    def _differentiate(dy: np.ndarray, x: np.ndarray, _: None, **options: Any) -> Any:
        return (functional.local_response_norm_backward(dy, x, **options),)
